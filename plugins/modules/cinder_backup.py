#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_backup
short_description: Take, restore and delete backups of volumes
version_added: 0.2.0
description:
  - Keeps what volumes hold in a repository apart from them, in a directory or in S3-compatible storage, and brings it back, without any OpenStack service.
  - Every backup stands for itself, and any of them may be deleted. It takes as little time and space as an incremental one all the same, because
    data that the repository has already, of whatever volume, is not stored again.
  - While a backup is taken, its volume is V(ignore:backing-up). It keeps its attachments. Statuses and their order are those of Cinder.
  - A run that was killed at any point is finished by the next one. A backup of another name, taken on the same host, gives it up.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._backend
  - stackless.block._repository
  - stackless.block._reconcile
notes:
  - With O(backend.driver=rbd), and of a thin volume with O(backend.driver=lvm), a backup is read from a snapshot that is removed afterwards, and the volume
    may be attached, detached and written to meanwhile.
  - With O(backend.driver=file), and of a thick volume, nobody gets the volume until its backup is taken, unless it is taken from a O(snapshot).
  - All of a volume is read each time; only holes are not. restic takes it at several hundred MiB a second and writes what is new.
  - Space that deleted backups took is freed once at the end of a task. Where another host is at the repository just then, that is left to the next deletion.
options:
  volume: &volume
    description:
      - The name of the volume. With O(state=restored) and O(state=absent) it may be gone by now.
    type: str
  name: &name
    description:
      - The name of the backup, unique among those of its volume. Needed but for O(state=pruned).
      - 1 to 127 letters, digits, C(.), C(_) or C(-), beginning with a letter or digit.
    type: str
  state: &state
    description:
      - V(present), the default, takes the backup unless it is there. One that is there is never changed.
      - V(absent) deletes it. Of a volume whose backup a killed run has left half taken, it takes back that as well.
      - V(restored) brings what it holds to the volume O(to).
      - V(pruned) deletes all backups of the volume but those that O(keep) says.
    type: str
    choices: [present, absent, restored, pruned]
  description: &description
    description:
      - A text for people, recorded with the backup.
    type: str
  snapshot: &snapshot
    description:
      - The name of a snapshot of the volume, to take the backup from what that holds. The volume may be in use meanwhile, with any driver, and the snapshot
        is not deleted. It is as old as the snapshot.
      - With a snapshot for which file systems were frozen, a backup of a volume in use is as good as one of a volume that nobody has.
    type: str
  force: &force
    description:
      - Takes the backup also while an instance holds the volume, with what the instance has written by then, as after a power failure.
        Not with O(backend.driver=file), nor of a thick volume, where that takes time.
    type: bool
  to: &to
    description:
      - With O(state=restored), the name of the volume that gets what the backup holds. The default is O(volume).
      - It is made, with type, description, metadata and size of that time, when it is not there. When it is and was made from this backup,
        nothing is done, whatever was written to it since.
    type: str
  overwrite: &overwrite
    description:
      - With O(state=restored), whether the data of a volume that is there is overwritten. It must be at least as large, and nobody may hold it.
      - Nothing is done when it was restored from this backup already and was not reserved for anybody since.
    type: bool
  keep: &keep
    description:
      - With O(state=pruned), what stays. A backup stays when one of the rules keeps it, as with C(restic forget). Times are UTC.
    type: dict
    suboptions:
      last:
        description: How many of the newest.
        type: int
      hourly:
        description: Of how many hours, among those that have one, the newest.
        type: int
      daily:
        description: Of how many days the newest.
        type: int
      weekly:
        description: Of how many weeks the newest.
        type: int
      monthly:
        description: Of how many months the newest.
        type: int
      yearly:
        description: Of how many years the newest.
        type: int
  backups:
    description:
      - Many backups in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      volume: *volume
      name: *name
      state: *state
      description: *description
      snapshot: *snapshot
      force: *force
      to: *to
      overwrite: *overwrite
      keep: *keep
seealso:
  - module: stackless.block.cinder_backup_info
  - module: stackless.block.cinder_volume
  - module: stackless.block.cinder_snapshot
"""

EXAMPLES = r"""
- name: Take a backup
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}", create: true}
    volume: db-data
    name: before-upgrade

- name: Take one of each volume, also while instances write to them
  stackless.block.cinder_backup:
    backend: {driver: rbd, pool: volumes}
    repository: "{{ repository }}"
    name: nightly-2026-01-31
    force: true
    backups:
      - {volume: db-data}
      - {volume: db-log}

- name: Take one of what a snapshot holds
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    volume: db-data
    name: as-of-monday
    snapshot: monday

- name: Keep those of a week, and one of each of two months
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    state: pruned
    keep: {daily: 7, monthly: 2}
    backups:
      - {volume: db-data}

- name: Make a volume of what it was
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    volume: db-data
    name: before-upgrade
    state: restored
    to: db-old

- name: Make the volume itself what it was
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    volume: db-data
    name: before-upgrade
    state: restored
    overwrite: true

- name: Delete a backup
  stackless.block.cinder_backup:
    backend: "{{ backend }}"
    repository: {location: /srv/backups, password: "{{ backup_password }}"}
    volume: db-data
    name: before-upgrade
    state: absent
"""

RETURN = r"""
results:
  description: One entry for each backup, in the order of the task. With O(state=restored) it also has what M(stackless.block.cinder_volume) returns.
  returned: always
  type: list
  elements: dict
  contains:
    volume: &r_volume
      description: The name of the volume.
      type: str
      returned: always
      sample: db-data
    name: &r_name
      description: The name of the backup.
      type: str
      returned: always
      sample: before-upgrade
    changed:
      description: Whether something was done, or in check mode would be done.
      type: bool
      returned: always
      sample: true
    failed:
      description: Whether this item failed.
      type: bool
      returned: always
      sample: false
    msg:
      description: What went wrong, where, and what to do.
      type: str
      returned: when the item failed
      sample: >-
        volume db-data can't be restored from backup before-upgrade of volume db-data: it is there and holds something else; name another one with to, or
        have its data overwritten with overwrite=true
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample:
        - mark volume db-data backing-up
        - write backup before-upgrade of volume db-data to /srv/backups
        - mark volume db-data as it was before
    id: &r_id
      description: The id that restic gave the backup, null in check mode when it is not there yet; with O(state=restored) the id of the volume.
      type: str
      returned: when it is there
      sample: 2575af71045ee8fb920b9c3c240536d6d9bbd575b7cce87bae9f48522c911caf
    volume_id: &r_volume_id
      description: The id of the volume.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    status: &r_status
      description: The status of the backup, or with O(state=restored) of the volume, in Cinder's words; V(deleted) when it is not there.
      type: str
      returned: success, but with O(state=pruned)
      sample: available
    size_gib: &r_size_gib
      description: The size that the volume had, in GiB.
      type: int
      returned: when it is there
      sample: 20
    size_bytes: &r_size_bytes
      description: The size that the volume had, in bytes.
      type: int
      returned: when it is there
      sample: 21474836480
    created_at: &r_created_at
      description: When it was taken, in UTC.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: '2026-01-31T23:00:00Z'
    description: &r_description
      description: The text for people, or null.
      type: str
      returned: when it is there
      sample: taken with db-log
    snapshot: &r_snapshot
      description: The name of the snapshot that it was taken from, where one was given, or null.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: monday
    snapshot_id: &r_snapshot_id
      description: The id of that snapshot, or null.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: 5a4b0000-4444-4444-8555-666677778888
    metadata: &r_metadata
      description: The volume's names and values for whoever needs them, of that time.
      type: dict
      returned: when the backup is there, but with O(state=restored)
      sample: {}
    multiattach: &r_multiattach
      description: Whether several instances could hold the volume at once.
      type: bool
      returned: when the backup is there, but with O(state=restored)
      sample: false
    volume_type: &r_volume_type
      description: The volume's type of that time, or null.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: ssd
    volume_description: &r_volume_description
      description: The volume's text for people, of that time, or null.
      type: str
      returned: when the backup is there, but with O(state=restored)
      sample: the database
    names: &r_names
      description: The names of the backups that stay, the oldest first.
      type: list
      elements: str
      returned: with O(state=pruned)
      sample: [nightly-2026-01-30, nightly-2026-01-31]
    backup: &r_backup
      description: The whole record, as later tasks of a play take it in O(assume).
      type: dict
      returned: success, with O(state=present) and O(state=absent)
      sample: {name: before-upgrade, volume: db-data}
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [write backup before-upgrade of volume db-data to /srv/backups]
volume: *r_volume
name: *r_name
names: *r_names
id: *r_id
volume_id: *r_volume_id
status: *r_status
size_gib: *r_size_gib
size_bytes: *r_size_bytes
created_at: *r_created_at
description: *r_description
snapshot: *r_snapshot
snapshot_id: *r_snapshot_id
metadata: *r_metadata
multiattach: *r_multiattach
volume_type: *r_volume_type
volume_description: *r_volume_description
backup: *r_backup
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._backups import REPOSITORY_OPTIONS
from ansible_collections.stackless.block.plugins.module_utils._manage_backup import Backups
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS

OPTIONS = {
    "volume": {"type": "str"},
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent", "restored", "pruned"]},
    "description": {"type": "str"},
    "snapshot": {"type": "str"},
    "force": {"type": "bool"},
    "to": {"type": "str"},
    "overwrite": {"type": "bool"},
    "keep": {"type": "dict", "options": {rule: {"type": "int"} for rule in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}},
}
PLACES = {
    "backend": {"type": "dict", "required": True, "options": BACKEND_OPTIONS},
    "repository": {"type": "dict", "required": True, "options": REPOSITORY_OPTIONS},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("backups", OPTIONS, **PLACES),
        required_one_of=[("volume", "backups")],
        supports_check_mode=True,
    )
    reconcile(module, Backups)


if __name__ == "__main__":
    main()
