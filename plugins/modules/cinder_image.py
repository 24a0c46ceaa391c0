#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_image
short_description: Make images of volumes
version_added: 0.2.0
description:
  - Writes volumes, or snapshots of them, to files on a storage host, as images that any hypervisor takes.
  - M(stackless.block.cinder_volume) makes volumes from images.
  - Meanwhile the volume, or the snapshot, is C(uploading), as in Cinder, and given to nobody. M(stackless.block.cinder_volume_info) shows how far it is.
  - The file appears when it is whole. Beside it stands a note of what it is, a file of the same name with C(.json).
  - A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._backend
  - stackless.block._reconcile
requirements:
  - The package C(qemu-utils) on the storage host, with O(backend.driver=rbd) also C(qemu-block-extra).
notes:
options:
  path: &path
    description:
      - The absolute path of the image on the storage host. Its directory must exist, and must not be that of the volumes.
      - Only the user of this task may read the file.
    type: path
  state: &state
    description:
      - Whether the image shall be there. The default is V(present).
      - An image that is there is never made anew. To have one of what the volume is now, remove it first.
      - With V(absent) also what a killed run has left of it goes, and the volume that was being written to it becomes available again.
      - A file without our note is neither removed nor overwritten.
    type: str
    choices: [present, absent]
  volume: &volume
    description:
      - The name of the volume. Needed to make an image.
    type: str
  snapshot: &snapshot
    description:
      - The name of a snapshot of that volume. Without it, the volume as it is now.
    type: str
  format: &format
    description:
      - The format of the image. Needed to make one.
      - V(raw) images are sparse, where the volume is.
    type: str
    choices: [raw, qcow2]
  compress: &compress
    description:
      - Whether the image is compressed, with O(format=qcow2). The default is V(false). It takes processor time.
    type: bool
  force: &force
    description:
      - Makes an image also of a volume that is held by an instance, from a snapshot that is taken for it and removed afterwards, with what the
        instance has written by then, as after a power failure. Not with O(backend.driver=file), whose copies take time.
    type: bool
  get_checksum: &get_checksum
    description:
      - Whether the checksum of the image is told, for which it is read once more. The default is V(true).
    type: bool
  images:
    description:
      - Many images in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      path: *path
      state: *state
      volume: *volume
      snapshot: *snapshot
      format: *format
      compress: *compress
      force: *force
      get_checksum: *get_checksum
seealso:
  - module: stackless.block.cinder_volume
  - module: stackless.block.cinder_snapshot
"""

EXAMPLES = r"""
- name: Make a compressed image of a volume
  stackless.block.cinder_image:
    backend: "{{ backend }}"
    path: /srv/images/db-data.qcow2
    volume: db-data
    format: qcow2
    compress: true

- name: Make an image of a volume while an instance writes to it
  stackless.block.cinder_image:
    backend: {driver: rbd, pool: volumes}
    path: /srv/images/db-log.raw
    volume: db-log
    format: raw
    force: true

- name: Remove an image
  stackless.block.cinder_image:
    backend: "{{ backend }}"
    path: /srv/images/db-data.qcow2
    state: absent
"""

RETURN = r"""
results:
  description: One entry for each image, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    path: &r_path
      description: The path of the image.
      type: str
      returned: always
      sample: /srv/images/db-data.qcow2
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
      sample: /srv/images/db-data.qcow2 is there and is no image that was made here
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample:
        - mark volume db-data uploading
        - write volume db-data to image /srv/images/db-data.qcow2
        - leave volume db-data as it was
    status: &r_status
      description: V(available), or V(deleted) when it is not there.
      type: str
      returned: success
      sample: available
    volume: &r_volume
      description: The name that the volume had.
      type: str
      returned: when the image is there
      sample: db-data
    volume_id: &r_volume_id
      description: The id of the volume.
      type: str
      returned: when the image is there
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    snapshot: &r_snapshot
      description: The name that the snapshot had; null where it was made of a volume.
      type: str
      returned: when the image is there
      sample: null
    snapshot_id: &r_snapshot_id
      description: The id of the snapshot; null where it was made of a volume.
      type: str
      returned: when the image is there
      sample: null
    format: &r_format
      description: The format of the image.
      type: str
      returned: when the image is there
      sample: qcow2
    compress: &r_compress
      description: Whether it is compressed.
      type: bool
      returned: when the image is there
      sample: true
    virtual_bytes: &r_virtual_bytes
      description: The size that a guest sees, in bytes.
      type: int
      returned: when the image is there
      sample: 21474836480
    size_bytes: &r_size_bytes
      description: The length of the file in bytes; null in check mode, when it is not there yet.
      type: int
      returned: when the image is there
      sample: 1073741824
    checksum: &r_checksum
      description: The checksum of the file, as O(stackless.block.cinder_volume#module:source.checksum) takes it; null with O(get_checksum=false),
        and in check mode when it is not there yet.
      type: str
      returned: when the image is there
      sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    created_at: &r_created_at
      description: When it was begun, in UTC.
      type: str
      returned: when the image is there
      sample: '2026-01-31T23:00:00Z'
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [write volume db-data to image /srv/images/db-data.qcow2]
path: *r_path
status: *r_status
volume: *r_volume
volume_id: *r_volume_id
snapshot: *r_snapshot
snapshot_id: *r_snapshot_id
format: *r_format
compress: *r_compress
virtual_bytes: *r_virtual_bytes
size_bytes: *r_size_bytes
checksum: *r_checksum
created_at: *r_created_at
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_image import Images
from ansible_collections.stackless.block.plugins.module_utils._model.image import EXPORTS
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS

OPTIONS = {
    "path": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "volume": {"type": "str"},
    "snapshot": {"type": "str"},
    "format": {"type": "str", "choices": list(EXPORTS)},
    "compress": {"type": "bool"},
    "force": {"type": "bool"},
    "get_checksum": {"type": "bool"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("images", OPTIONS, backend={"type": "dict", "required": True, "options": BACKEND_OPTIONS}),
        mutually_exclusive=[("path", "images")],
        required_one_of=[("path", "images")],
        supports_check_mode=True,
    )
    reconcile(module, Images)


if __name__ == "__main__":
    main()
