#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_volume_info
short_description: Look at volumes and who holds them
version_added: 0.1.0
description:
  - Returns the volumes of a backend with their attachments. Changes nothing.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._backend
options:
  names:
    description:
      - Only the volumes of exactly these names. All volumes when it is left out.
      - A name that is not there is left out of RV(volumes).
    type: list
    elements: str
seealso:
  - module: stackless.block.cinder_volume
"""

EXAMPLES = r"""
- name: Who holds db-data?
  stackless.block.cinder_volume_info:
    backend: {driver: file, path: /srv/volumes}
    names: [db-data]
  register: found
"""

RETURN = r"""
volumes:
  description: The volumes, ordered by name.
  returned: success
  type: list
  elements: dict
  contains: &volume
    name:
      description: The name of the volume.
      type: str
      returned: success
      sample: db-data
    id:
      description: The id of the volume.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    status:
      description: The status of the volume, in Cinder's words.
      type: str
      returned: success
      sample: in-use
    progress:
      description:
        - How far what goes on with the volume is, in percent, while it or a snapshot of it is C(downloading) or C(uploading) on this host; null otherwise.
        - First it counts the download of an image, then what is written.
      type: float
      returned: success
      sample: null
    size_gib:
      description: The size in GiB.
      type: int
      returned: success
      sample: 20
    path:
      description: Where the data of the volume stands on the storage host.
      type: str
      returned: success
      sample: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
    attachments:
      description: Who holds the volume, and how far that is.
      type: list
      elements: dict
      returned: success
      sample:
        - {instance: web-1, host: compute-1, status: attached, device: vdb}
    snapshots:
      description: The snapshots of the volume.
      type: list
      elements: dict
      returned: success
      sample:
        - {name: before-upgrade, status: available, created_at: '2026-01-31T23:00:00Z'}
    size_bytes:
      description: The size in bytes.
      type: int
      returned: success
      sample: 21474836480
    source_volid:
      description: The id of the volume that it was made from, or from whose snapshot; null where it was not.
      type: str
      returned: success
      sample: null
    snapshot_id:
      description: The id of the snapshot that it was made from; null where it was not.
      type: str
      returned: success
      sample: null
    source_image:
      description: The image that it was made from, without user, password and what follows a question mark; null where it was not.
      type: str
      returned: success
      sample: null
    allocation:
      description: How the volume takes its space, V(sparse), V(full), V(thin) or V(thick).
      type: str
      returned: success
      sample: sparse
    volume_type:
      description: The type, or null.
      type: str
      returned: success
      sample: ssd
    description:
      description: The text for people, or null.
      type: str
      returned: success
      sample: the database
    metadata:
      description: Names and values for whoever needs them.
      type: dict
      returned: success
      sample: {}
    multiattach:
      description: Whether several instances may hold the volume at once.
      type: bool
      returned: success
      sample: false
    backup:
      description: The backup that is being taken of it, or null.
      type: dict
      returned: success
      sample: null
    source_backup:
      description: The id of the backup that it was made from; null where it was not.
      type: str
      returned: success
      sample: null
    reverted_to:
      description: The id of the snapshot whose data it holds since it was reverted and until it is given to anybody, or null.
      type: str
      returned: success
      sample: null
    restored_from:
      description: The id of the backup whose data it holds since it was restored and until it is given to anybody, or null.
      type: str
      returned: success
      sample: null
    uploading_to:
      description: The file that it is being written to, or null.
      type: str
      returned: success
      sample: null
    kept_at:
      description: When a volume was made from it last, in UTC and to the hour, where it is kept of an image for that; else null.
      type: str
      returned: success
      sample: null
    record:
      description: The whole record.
      type: dict
      returned: success
      sample: {name: db-data, status: in-use}
images:
  description:
    - Volumes that are kept of images, so that others are made from them, ordered by name. See O(stackless.block.cinder_volume#module:image_cache.volumes).
  returned: success
  type: list
  elements: dict
  contains: *volume
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_volume import find_volumes
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "dict", "required": True, "options": BACKEND_OPTIONS},
            "names": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    look(module, find_volumes)


if __name__ == "__main__":
    main()
