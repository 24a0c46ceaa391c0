#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_backup_info
short_description: Look at the backups of volumes, and verify them
version_added: 0.2.0
description:
  - Returns the backups in a repository. Changes nothing.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._repository
options:
  volumes:
    description:
      - Only the backups of volumes that had exactly these names. All backups when it is left out.
    type: list
    elements: str
  verify:
    description:
      - Whether each of these backups is read as for restoring it. Every piece of it is decrypted and compared with its checksum, which takes as long as to
        restore it. One that could not be restored is told, as a warning too.
    type: bool
    default: false
seealso:
  - module: stackless.block.cinder_backup
"""

EXAMPLES = r"""
- name: Which backups has db-data, and could they be restored?
  stackless.block.cinder_backup_info:
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    volumes: [db-data]
    verify: true
  register: found
"""

RETURN = r"""
backups:
  description: The backups, ordered by volume and time.
  returned: success
  type: list
  elements: dict
  contains:
    volume:
      description: The name that the volume had.
      type: str
      returned: success
      sample: db-data
    volume_id:
      description: The id of the volume.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    name:
      description: The name of the backup.
      type: str
      returned: success
      sample: before-upgrade
    id:
      description: The id that restic gave it.
      type: str
      returned: success
      sample: 2575af71045ee8fb920b9c3c240536d6d9bbd575b7cce87bae9f48522c911caf
    status:
      description: The status of the backup, in Cinder's words.
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
      sample: taken with db-log
    snapshot:
      description: The name of the snapshot that it was taken from, where one was given, or null.
      type: str
      returned: success
      sample: monday
    snapshot_id:
      description: The id of that snapshot, or null.
      type: str
      returned: success
      sample: 5a4b0000-4444-4444-8555-666677778888
    metadata:
      description: The volume's names and values for whoever needs them, of that time.
      type: dict
      returned: success
      sample: {}
    multiattach:
      description: Whether several instances could hold the volume at once.
      type: bool
      returned: success
      sample: false
    volume_type:
      description: The volume's type of that time, or null.
      type: str
      returned: success
      sample: ssd
    volume_description:
      description: The volume's text for people, of that time, or null.
      type: str
      returned: success
      sample: the database
    backup:
      description: The whole record.
      type: dict
      returned: success
      sample: {name: before-upgrade, volume: db-data}
    verified:
      description: Whether all of it was read and is what was kept.
      type: bool
      returned: with O(verify=true)
      sample: true
    flaw:
      description: Why it could not be restored, or null.
      type: str
      returned: with O(verify=true)
      sample: null
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._backups import REPOSITORY_OPTIONS
from ansible_collections.stackless.block.plugins.module_utils._manage_backup import find_backups
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "dict", "required": True, "options": REPOSITORY_OPTIONS},
            "volumes": {"type": "list", "elements": "str"},
            "verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    look(module, find_backups)


if __name__ == "__main__":
    main()
