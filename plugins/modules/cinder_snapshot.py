#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_snapshot
short_description: Take and delete snapshots of volumes
version_added: 0.2.0
description:
  - Manages snapshots of volumes on a storage host, without any OpenStack service.
  - A snapshot is recorded with its volume. Statuses and their order are those of Cinder.
  - M(stackless.block.cinder_volume) makes volumes from snapshots, and reverts volumes to them.
  - A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._backend
  - stackless.block._reconcile
notes:
  - With O(backend.driver=rbd), snapshots that others have taken of an image are left alone, and keep its volume from being deleted.
  - With O(backend.driver=file) a snapshot is a sparse copy, beside its volume. Nobody gets the volume until that is made.
  - With O(backend.driver=lvm) a snapshot of a thin volume is a thin one, which is there at once and takes what is written to the volume from then on.
    The module warns where the thin pool has less room than that may come to be. A snapshot of a thick volume is a copy of the same size, which takes
    time, because LVM's own ones slow every write down, keep the volume from growing, and are lost when they are full. Nobody gets the volume meanwhile.
  - With O(backend.driver=lvm) records are part of LVM's own metadata, some 700 bytes for a snapshot with its logical volume. What LVM sets aside
    for that by default has room for about 700; where none is left, nothing more is taken.
options:
  volume: &volume
    description:
      - The name of the volume.
    type: str
  name: &name
    description:
      - The name of the snapshot, unique among those of its volume.
      - 1 to 127 letters, digits, C(.), C(_) or C(-), beginning with a letter or digit.
    type: str
  state: &state
    description:
      - Whether the snapshot shall be there. The default is V(present).
      - A snapshot that is there is never taken anew.
    type: str
    choices: [present, absent]
  description: &description
    description:
      - A text for people, recorded with the snapshot.
    type: str
  metadata: &metadata
    description:
      - Keys and values, recorded with the snapshot. When given, they replace all earlier ones.
    type: dict
  force: &force
    description:
      - Takes the snapshot also while an instance holds the volume, with what the instance has written by then, as after a power failure.
        Not where the snapshot is a copy, which takes time.
    type: bool
  clones: &clones
    description:
      - With O(state=absent), what is done about volumes that were made from the snapshot and share data with it, as they do with O(backend.driver=rbd).
      - With V(refuse), which is the default, nothing is deleted.
      - With V(flatten) each of them gets its own copy first, which takes as long as that is to be written.
      - With V(trash) the data is kept out of sight until the last of them is gone or has its own copy. Until then the volume can't be deleted
        without saying what is done about them.
    type: str
    choices: [refuse, flatten, trash]
  snapshots:
    description:
      - Many snapshots in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      volume: *volume
      name: *name
      state: *state
      description: *description
      metadata: *metadata
      force: *force
      clones: *clones
seealso:
  - module: stackless.block.cinder_snapshot_info
  - module: stackless.block.cinder_volume
"""

EXAMPLES = r"""
- name: Take a snapshot
  stackless.block.cinder_snapshot:
    backend: {driver: rbd, pool: volumes}
    volume: db-data
    name: before-upgrade

- name: Take one of each volume, also while instances write to them
  stackless.block.cinder_snapshot:
    backend: {driver: rbd, pool: volumes}
    name: nightly
    force: true
    snapshots:
      - {volume: db-data}
      - {volume: db-log, description: taken with db-data}

- name: Make a larger volume from a snapshot
  stackless.block.cinder_volume:
    backend: {driver: rbd, pool: volumes}
    name: db-test
    size_gib: 30
    source: {volume: db-data, snapshot: before-upgrade}

- name: Make the volume what it was
  stackless.block.cinder_volume:
    backend: {driver: rbd, pool: volumes}
    name: db-data
    revert_to: before-upgrade

- name: Delete a snapshot, whatever was made from it
  stackless.block.cinder_snapshot:
    backend: {driver: rbd, pool: volumes}
    volume: db-data
    name: before-upgrade
    clones: trash
    state: absent
"""

RETURN = r"""
results:
  description: One entry for each snapshot, in the order of the task.
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
      description: The name of the snapshot.
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
        snapshot before-upgrade of volume db-data can't be deleted: clones share its data: db-test; delete them first, give them a copy with
        clones=flatten, or keep the data for them with clones=trash
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample:
        - record snapshot before-upgrade of volume db-data as creating
        - take snapshot before-upgrade of volume db-data
        - mark snapshot before-upgrade of volume db-data available
    id: &r_id
      description: The id of the snapshot. In check mode a snapshot that is not there yet has a made-up one.
      type: str
      returned: when the snapshot is there
      sample: 5a4b0000-4444-4444-8555-666677778888
    volume_id: &r_volume_id
      description: The id of the volume.
      type: str
      returned: when the snapshot is there
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    status: &r_status
      description: The status of the snapshot, in Cinder's words; V(deleted) when it is not there.
      type: str
      returned: success
      sample: available
    size_gib: &r_size_gib
      description: The size that the volume had, in GiB.
      type: int
      returned: when the snapshot is there
      sample: 20
    size_bytes: &r_size_bytes
      description: The size that the volume had, in bytes.
      type: int
      returned: when the snapshot is there
      sample: 21474836480
    created_at: &r_created_at
      description: When it was taken, in UTC.
      type: str
      returned: when the snapshot is there
      sample: '2026-01-31T23:00:00Z'
    description: &r_description
      description: The text for people, or null.
      type: str
      returned: when the snapshot is there
      sample: taken with db-data
    metadata: &r_metadata
      description: Keys and values.
      type: dict
      returned: when the snapshot is there
      sample: {}
    record: &r_record
      description: The whole record of the volume, as later tasks of a play take it in O(assume).
      type: dict
      returned: success
      sample: {name: db-data, status: available}
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [take snapshot before-upgrade of volume db-data]
volume: *r_volume
name: *r_name
id: *r_id
volume_id: *r_volume_id
status: *r_status
size_gib: *r_size_gib
size_bytes: *r_size_bytes
created_at: *r_created_at
description: *r_description
metadata: *r_metadata
record: *r_record
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS

OPTIONS = {
    "volume": {"type": "str"},
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "description": {"type": "str"},
    "metadata": {"type": "dict"},
    "force": {"type": "bool"},
    "clones": {"type": "str", "choices": ["refuse", "flatten", "trash"]},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("snapshots", OPTIONS, backend={"type": "dict", "required": True, "options": BACKEND_OPTIONS}),
        required_one_of=[("volume", "snapshots")],
        supports_check_mode=True,
    )
    reconcile(module, Snapshots)


if __name__ == "__main__":
    main()
