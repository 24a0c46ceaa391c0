#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_volume
short_description: Make, clone, extend, revert and delete volumes
version_added: 0.1.0
description:
  - Manages volumes on a storage host, without any OpenStack service.
  - The record of a volume lives beside its data. Statuses and their order are those of Cinder.
  - A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._backend
  - stackless.block._reconcile
notes:
  - With O(backend.driver=rbd) an image that somebody has open is not deleted. Who it is is told after O(timeout); a guest or a host that
    died lets go by itself within 30 seconds, and is waited for.
  - Volumes from images need the Python library C(oslo.utils), version 8 or newer, and the package C(qemu-utils) on the storage host, with
    O(backend.driver=rbd) also C(qemu-block-extra).
  - On a storage host with LVM, LVM must not look for volume groups inside the volumes. The module warns where it would;
    M(stackless.block.cinder_pool_info) says what to do about it.
options:
  name: &name
    description:
      - The name of the volume, unique in its backend.
      - 1 to 127 letters, digits, C(.), C(_) or C(-), beginning with a letter or digit.
    type: str
  state: &state
    description:
      - Whether the volume shall be there. The default is V(present).
      - A volume that is reserved or attached is not deleted.
    type: str
    choices: [present, absent]
  new_name: &new_name
    description:
      - Renames the volume, also while it is in use. Nothing is done when it has this name already.
      - Where the data stands is named after the volume's id and stays.
    type: str
    version_added: 0.2.0
  size_gib: &size_gib
    description:
      - The size in GiB. Needed to make a volume; a larger size extends one. A volume never shrinks.
    type: int
  allocation: &allocation
    description:
      - How a new volume takes its space. The default is that of O(backend.allocation), which says what the ways are.
      - A volume that is there keeps its way; another one is refused.
    type: str
    choices: [sparse, full, thin, thick]
    version_added: 0.2.0
  volume_type: &volume_type
    description:
      - A word for the kind of the volume, recorded with it.
    type: str
  description: &description
    description:
      - A text for people, recorded with the volume.
    type: str
  metadata: &metadata
    description:
      - Keys and values, recorded with the volume. When given, they replace all earlier ones.
    type: dict
  multiattach: &multiattach
    description:
      - Whether several instances may hold the volume at once. The default is V(false).
    type: bool
  source: &source
    description:
      - What a new volume is made from. It then begins with that data, and with that size unless O(size_gib) is larger.
      - With O(backend.driver=rbd) it is a clone that shares the data with its source, until more than O(backend.max_clone_depth) clones stand one
        behind the other. With O(backend.driver=lvm) a thin volume that is made from a thin one shares the data as well, and depends on nobody.
        Every other volume is a copy, and nobody gets its source until that is made.
      - Of a volume that is there already it is checked that it was made from this source, as long as that is there as well.
    type: dict
    version_added: 0.2.0
    suboptions:
      volume:
        description: The name of a volume in the same backend.
        type: str
      image:
        description:
          - An image - the absolute path of a file on the storage host, or where the storage host can download it with C(http://) or C(https://).
            What is beyond its end in the volume is zeros.
          - What is downloaded needs a O(size_gib), as its own size is known only when it is here. It is kept, see O(image_cache). Certificates
            are checked, and the proxies of the environment are used. A download that was cut goes on where it was.
          - A user and a password in the address, and what follows a question mark, are neither recorded nor returned. Of a volume that is there
            the rest of the address is compared.
          - It is inspected before anything reads it. One that builds upon or leads to other files, has features that nobody knows, is encrypted, or is
            not of the format that it is said to be, is refused.
        type: str
      format:
        description:
          - The format of the image, needed with O(source.image). It is never guessed.
        type: str
        choices: [raw, qcow2, vmdk, vdi, vhd, vhdx]
      checksum:
        description:
          - What the image must have, as an algorithm and its hexadecimal digest, such as C(sha256:) and 64 digits.
        type: str
      snapshot:
        description: The name of a snapshot of that volume. Without it, the volume as it is now.
        type: str
      force:
        description:
          - Makes it also from a volume that is held by an instance, with what the instance has written by then, as after a power failure.
            Not where that is a copy, which takes time.
        type: bool
        default: false
  revert_to: &revert_to
    description:
      - Makes the volume what it was at this snapshot of it. What was written since is lost; its size stays.
      - Nothing is done when it was reverted to this snapshot already and was not reserved for anybody since.
      - A volume that is reserved or attached is not reverted.
      - A thin logical volume is reverted at once, however large it is.
    type: str
    version_added: 0.2.0
  cascade: &cascade
    description:
      - With O(state=absent), whether the snapshots of the volume are deleted with it. A volume with snapshots is not deleted otherwise.
    type: bool
    version_added: 0.2.0
  clones: &clones
    description:
      - With O(state=absent), what is done about volumes that were cloned from this one and share data with it, as they do with O(backend.driver=rbd).
      - With V(refuse), which is the default, nothing is deleted.
      - With V(flatten) each of them gets its own copy first, which takes as long as that is to be written.
      - With V(trash) the data stays in Ceph's trash until the last of them is gone or has its own copy. It goes with the next volume that is deleted then.
    type: str
    choices: [refuse, flatten, trash]
    version_added: 0.2.0
  wipe: &wipe
    description:
      - Whether the data, and that of snapshots which go with it, is overwritten with zeros before it is removed. The default is V(true).
      - Thin volumes need no overwriting, as their pool zeroes every block before it gives it to another one. RBD images need none either.
    type: bool
  image_cache:
    description:
      - What is kept of images for further volumes. Images that were downloaded are kept on the storage host. One that is there and has the
        O(source.checksum), or is what the server still has, is not downloaded again.
    type: dict
    version_added: 0.2.0
    suboptions:
      path:
        description:
          - The absolute path of a directory. It is made when it is not there, and must be open to nobody but this task's user.
        type: path
        default: /var/cache/stackless-block/images
      size_gib:
        description:
          - How much may be kept, in GiB. Those that were not used for the longest time go first; the one that was downloaded last stays.
        type: int
        default: 20
      volumes:
        description:
          - Of how many images a volume is kept in the backend, as C(image_volume_cache_max_count) of Cinder. Further volumes of such an image are made
            from that volume, as clones where the storage can share data. The one that was not used for the longest time goes first.
          - A kept volume is named C(image-) and a number made of the image and its version. M(stackless.block.cinder_volume_info) shows it among
            RV(stackless.block.cinder_volume_info#module:images). Nobody gets it; it may be deleted with O(state=absent).
          - It is as large as the image needs or, where that was not known, as the first volume that was made from it. A volume that shall be smaller
            is made from the image itself.
        type: int
        default: 0
      volumes_gib:
        description:
          - How large all kept volumes together may be, in GiB. There is no limit by default.
        type: int
  volumes:
    description:
      - Many volumes in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      name: *name
      state: *state
      new_name: *new_name
      size_gib: *size_gib
      allocation: *allocation
      volume_type: *volume_type
      description: *description
      metadata: *metadata
      multiattach: *multiattach
      source: *source
      revert_to: *revert_to
      cascade: *cascade
      clones: *clones
      wipe: *wipe
seealso:
  - module: stackless.block.cinder_volume_info
  - module: stackless.block.cinder_snapshot
  - module: stackless.block.cinder_attachment
  - module: stackless.block.cinder_pool_info
"""

EXAMPLES = r"""
- name: Make a volume of 20 GiB
  stackless.block.cinder_volume:
    backend: {driver: file, path: /srv/volumes}
    name: db-data
    size_gib: 20

- name: Make many, all of one type
  stackless.block.cinder_volume:
    backend: "{{ backend }}"
    volume_type: ssd
    volumes:
      - {name: web-1, size_gib: 10}
      - {name: web-2, size_gib: 10, metadata: {owner: shop}}

- name: Make a volume in a pool of a Ceph cluster
  stackless.block.cinder_volume:
    backend: {driver: rbd, pool: volumes, user: cinder}
    name: db-data
    size_gib: 20

- name: Rename a volume
  stackless.block.cinder_volume:
    backend: "{{ backend }}"
    name: web-2
    new_name: web-old

- name: Make a volume that begins as a copy of another one
  stackless.block.cinder_volume:
    backend: {driver: rbd, pool: volumes}
    name: db-copy
    source: {volume: db-data}

- name: Make a volume from an image
  stackless.block.cinder_volume:
    backend: "{{ backend }}"
    name: web-3
    size_gib: 10
    source: {image: /srv/images/debian-12.qcow2, format: qcow2}

- name: Make a volume from an image that is downloaded first
  stackless.block.cinder_volume:
    backend: "{{ backend }}"
    name: web-4
    size_gib: 10
    source:
      image: https://images.example.com/debian-12.qcow2
      format: qcow2
      checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: Make many volumes as clones of one that is kept of the image
  stackless.block.cinder_volume:
    backend: {driver: rbd, pool: volumes}
    size_gib: 10
    source: {image: /srv/images/debian-12.qcow2, format: qcow2}
    image_cache: {volumes: 5}
    volumes:
      - {name: node-1}
      - {name: node-2}

- name: Delete a volume, and overwrite what was on it
  stackless.block.cinder_volume:
    backend: "{{ backend }}"
    name: db-data
    state: absent
"""

RETURN = r"""
results:
  description: One entry for each volume, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    name: &r_name
      description: The name of the volume.
      type: str
      returned: always
      sample: db-data
    changed: &r_changed
      description: Whether something was done, or in check mode would be done.
      type: bool
      returned: always
      sample: true
    failed: &r_failed
      description: Whether this item failed.
      type: bool
      returned: always
      sample: false
    msg: &r_msg
      description: What went wrong, where, and what to do.
      type: str
      returned: when the item failed
      sample: volume db-data has 20 GiB and can't shrink to 10 GiB; make a smaller one and copy the data
    steps: &r_steps
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample:
        - record volume db-data as creating
        - allocate 20 GiB for volume db-data
        - mark volume db-data available
    id: &r_id
      description: The id of the volume. In check mode a volume that is not there yet has a made-up one.
      type: str
      returned: when the volume is there
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    status: &r_status
      description: The status of the volume, in Cinder's words; V(deleted) when it is not there.
      type: str
      returned: success
      sample: available
    progress: &r_progress
      description: How far what another run does with the volume is, in percent; null when nothing goes on. See M(stackless.block.cinder_volume_info).
      type: float
      returned: when the volume is there
      sample: null
    size_gib: &r_size_gib
      description: The size in GiB.
      type: int
      returned: when the volume is there
      sample: 20
    size_bytes: &r_size_bytes
      description: The size in bytes.
      type: int
      returned: when the volume is there
      sample: 21474836480
    path: &r_path
      description: Where the data of the volume stands on the storage host.
      type: str
      returned: when the volume is there
      sample: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
    attachments: &r_attachments
      description: Who holds the volume.
      type: list
      elements: dict
      returned: when the volume is there
      sample: []
    snapshots: &r_snapshots
      description: The snapshots of the volume.
      type: list
      elements: dict
      returned: when the volume is there
      sample: []
    source_volid: &r_source_volid
      description: The id of the volume that it was made from, or from whose snapshot; null where it was not.
      type: str
      returned: when the volume is there
      sample: null
    snapshot_id: &r_snapshot_id
      description: The id of the snapshot that it was made from; null where it was not.
      type: str
      returned: when the volume is there
      sample: null
    source_image: &r_source_image
      description: The image that it was made from, without user, password and what follows a question mark; null where it was not.
      type: str
      returned: when the volume is there
      sample: null
    allocation: &r_allocation
      description: How the volume takes its space, V(sparse), V(full), V(thin) or V(thick).
      type: str
      returned: when the volume is there
      sample: sparse
    volume_type: &r_volume_type
      description: The type, or null.
      type: str
      returned: when the volume is there
      sample: ssd
    description: &r_description
      description: The text for people, or null.
      type: str
      returned: when the volume is there
      sample: the database
    metadata: &r_metadata
      description: Names and values for whoever needs them.
      type: dict
      returned: when the volume is there
      sample: {}
    multiattach: &r_multiattach
      description: Whether several instances may hold the volume at once.
      type: bool
      returned: when the volume is there
      sample: false
    backup: &r_backup
      description: The backup that is being taken of it, or null.
      type: dict
      returned: when the volume is there
      sample: null
    source_backup: &r_source_backup
      description: The id of the backup that it was made from; null where it was not.
      type: str
      returned: when the volume is there
      sample: null
    reverted_to: &r_reverted_to
      description: The id of the snapshot whose data it holds since it was reverted and until it is given to anybody, or null.
      type: str
      returned: when the volume is there
      sample: null
    restored_from: &r_restored_from
      description: The id of the backup whose data it holds since it was restored and until it is given to anybody, or null.
      type: str
      returned: when the volume is there
      sample: null
    uploading_to: &r_uploading_to
      description: The file that it is being written to, or null.
      type: str
      returned: when the volume is there
      sample: null
    kept_at: &r_kept_at
      description: When a volume was made from it last, in UTC and to the hour, where it is kept of an image for that; else null.
      type: str
      returned: when the volume is there
      sample: null
    record: &r_record
      description: The whole record, as later tasks of a play take it in O(assume).
      type: dict
      returned: success
      sample: {name: db-data, status: available}
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [record volume db-data as creating]
name: *r_name
id: *r_id
status: *r_status
progress: *r_progress
size_gib: *r_size_gib
size_bytes: *r_size_bytes
path: *r_path
attachments: *r_attachments
snapshots: *r_snapshots
source_volid: *r_source_volid
snapshot_id: *r_snapshot_id
source_image: *r_source_image
allocation: *r_allocation
volume_type: *r_volume_type
description: *r_description
metadata: *r_metadata
multiattach: *r_multiattach
backup: *r_backup
source_backup: *r_source_backup
reverted_to: *r_reverted_to
restored_from: *r_restored_from
uploading_to: *r_uploading_to
kept_at: *r_kept_at
record: *r_record
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_volume import IMAGE_CACHE, Volumes
from ansible_collections.stackless.block.plugins.module_utils._model.image import FORMATS
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS

OPTIONS = {
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "new_name": {"type": "str"},
    "size_gib": {"type": "int"},
    "allocation": {"type": "str", "choices": ["sparse", "full", "thin", "thick"]},
    "volume_type": {"type": "str"},
    "description": {"type": "str"},
    "metadata": {"type": "dict"},
    "multiattach": {"type": "bool"},
    "source": {
        "type": "dict",
        "options": {
            "volume": {"type": "str"},
            "image": {"type": "str"},
            "format": {"type": "str", "choices": list(FORMATS)},
            "checksum": {"type": "str"},
            "snapshot": {"type": "str"},
            "force": {"type": "bool", "default": False},
        },
    },
    "revert_to": {"type": "str"},
    "cascade": {"type": "bool"},
    "clones": {"type": "str", "choices": ["refuse", "flatten", "trash"]},
    "wipe": {"type": "bool"},
}
CACHE = {
    "type": "dict",
    "options": {
        "path": {"type": "path", "default": IMAGE_CACHE},
        "size_gib": {"type": "int", "default": 20},
        "volumes": {"type": "int", "default": 0},
        "volumes_gib": {"type": "int"},
    },
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("volumes", OPTIONS, backend={"type": "dict", "required": True, "options": BACKEND_OPTIONS}, image_cache=CACHE),
        mutually_exclusive=[("name", "volumes")],
        required_one_of=[("name", "volumes")],
        supports_check_mode=True,
    )
    reconcile(module, Volumes)


if __name__ == "__main__":
    main()
