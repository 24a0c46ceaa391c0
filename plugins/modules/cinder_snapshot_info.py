#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_snapshot_info
short_description: Look at the snapshots of volumes
version_added: 0.2.0
description:
  - Returns the snapshots of a backend's volumes. Changes nothing.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._backend
options:
  volumes:
    description:
      - Only the snapshots of the volumes of exactly these names. All snapshots when it is left out.
      - A name that is not there is left out of RV(snapshots).
    type: list
    elements: str
seealso:
  - module: stackless.block.cinder_snapshot
"""

EXAMPLES = r"""
- name: Which snapshots has db-data?
  stackless.block.cinder_snapshot_info:
    backend: {driver: rbd, pool: volumes}
    volumes: [db-data]
  register: found
"""

RETURN = r"""
snapshots:
  description: The snapshots, ordered by volume and time.
  returned: success
  type: list
  elements: dict
  contains:
    volume:
      description: The name of the volume.
      type: str
      returned: success
      sample: db-data
    volume_id:
      description: The id of the volume.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    name:
      description: The name of the snapshot.
      type: str
      returned: success
      sample: before-upgrade
    id:
      description: The id of the snapshot.
      type: str
      returned: success
      sample: 5a4b0000-4444-4444-8555-666677778888
    status:
      description: The status of the snapshot, in Cinder's words.
      type: str
      returned: success
      sample: available
    size_gib:
      description: The size that the volume had, in GiB.
      type: int
      returned: success
      sample: 20
    size_bytes:
      description: The size that the volume had, in bytes.
      type: int
      returned: success
      sample: 21474836480
    created_at:
      description: When it was taken, in UTC.
      type: str
      returned: success
      sample: '2026-01-31T23:00:00Z'
    description:
      description: The text for people, or null.
      type: str
      returned: success
      sample: taken with db-data
    metadata:
      description: Keys and values.
      type: dict
      returned: success
      sample: {}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import find_snapshots
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "dict", "required": True, "options": BACKEND_OPTIONS},
            "volumes": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    look(module, find_snapshots)


if __name__ == "__main__":
    main()
