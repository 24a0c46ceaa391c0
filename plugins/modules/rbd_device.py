#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rbd_device
short_description: Have images of a Ceph cluster as devices of the kernel
version_added: 0.2.0
description:
  - Maps RBD images through the kernel's own driver (krbd), and unmaps them, one image an item.
  - An image is known by its cluster, its pool, its namespace and its name, each compared as a whole, and a device is not handed
    over before these, the image's id and its size were compared. A device of the image that is there already is used.
  - The cluster is asked first, with a limit in time and by a connection of the module's own. An image that somebody else has
    open or locked is not mapped; who it is stands in the message.
  - On the way out a device that is in use is refused with the name of its holder. Otherwise its buffers are flushed and it is
    unmapped, never by force.
  - The key goes to the kernel through a keyring of the one thread that maps. It is never on a command line or in a file, and
    what the kernel shows of the device only names it.
  - What a failed item made in the same run is taken back. A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._reconcile
options:
  image: &image
    description:
      - The image, as C(pool/image) or C(pool/namespace/image).
    type: str
  state: &state
    description:
      - Whether this host shall have the device. The default is V(present).
    type: str
    choices: [present, absent]
  monitors: &monitors
    description:
      - Monitors of the cluster. Needed for O(state=present).
    type: list
    elements: dict
    suboptions:
      ip:
        description:
          - The IPv4 or IPv6 address, without brackets.
        type: str
        required: true
      port:
        description:
          - The TCP port. The default is V(6789). On V(3300) Ceph's second protocol is spoken, which Linux knows from 5.11 on.
        type: int
  username: &username
    description:
      - The Ceph user, without C(client.). Needed for O(state=present).
    type: str
  password: &password
    description:
      - The key of that user, as C(ceph auth get-key) prints it. Needed for O(state=present).
    type: str
  cluster_fsid: &cluster_fsid
    description:
      - The fsid of the cluster. With O(state=present) another one behind the O(monitors) is refused.
        With O(state=absent) it is needed where images of this name are mapped from several clusters.
    type: str
  size_bytes: &size_bytes
    description:
      - The size that the image must have. A device that does not show it yet is looked at again, so that a grown image is taken over.
    type: int
  mode: &mode
    description:
      - Whether the device can be written to. The default is V(rw).
    type: str
    choices: [rw, ro]
  exclusive: &exclusive
    description:
      - Whether this host keeps the image's lock until the device is unmapped, so that nobody else can write to it, whatever he does.
        That also keeps the cluster from growing the image and from taking snapshots of it meanwhile.
        With V(false) the lock goes to whoever asks for it.
      - The default is V(true), unless the image is O(shared) or O(mode=ro). A device in use stays as it is until it is let go.
    type: bool
  shared: &shared
    description:
      - Whether others may have the image open as well, such as the other hosts of a volume with multiattach. The default is V(false).
    type: bool
  if_in_use: &if_in_use
    description:
      - What O(state=absent) does with a device that someone holds. V(refuse), the default, fails and names the holder.
        V(keep) leaves the device, warns, and does not fail.
    type: str
    choices: [refuse, keep]
  devices:
    description:
      - Many images in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      image: *image
      state: *state
      monitors: *monitors
      username: *username
      password: *password
      cluster_fsid: *cluster_fsid
      size_bytes: *size_bytes
      mode: *mode
      exclusive: *exclusive
      shared: *shared
      if_in_use: *if_in_use
requirements:
  - Linux 5.3 or newer with the driver C(rbd), C(libkeyutils.so.1) (package C(libkeyutils1), or C(keyutils-libs)), udev, and root.
  - For O(state=present), the Python libraries C(rados) and C(rbd) (packages C(python3-rados) and C(python3-rbd)).
notes:
  - The tool C(rbd), and with it the package C(ceph-common), is not needed, nor is anything in C(/etc/ceph).
seealso:
  - module: stackless.block.cinder_attachment
  - module: stackless.block.libvirt_disk
"""

EXAMPLES = r"""
- name: Have an image as a device
  stackless.block.rbd_device:
    image: volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
    monitors: [{ip: 192.0.2.10}]
    username: cinder
    password: "{{ cephx_key }}"
  register: device

- name: Have two for reading, one of them in a namespace
  stackless.block.rbd_device:
    monitors: [{ip: 192.0.2.10}]
    username: cinder
    password: "{{ cephx_key }}"
    mode: ro
    devices:
      - {image: volumes/templates}
      - {image: volumes/shop/templates}

- name: Let go of them, unless they are in use
  stackless.block.rbd_device:
    state: absent
    devices:
      - {image: volumes/volume-0b5e7a1c-2222-4222-8333-444455556666}
      - {image: volumes/templates}
      - {image: volumes/shop/templates}
"""

RETURN = r"""
results:
  description: One entry for each image, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    image: &r_image
      description: The image.
      type: str
      returned: always
      sample: volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
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
      sample: image volumes/db (rbd0) is in use by domain web-1 (pid 4711); let it go there first, then unmap it
    steps: &r_steps
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: [map image volumes/db]
    device_path: &r_device_path
      description: The link by which the device is given to others, the same after every boot. V(null) when the device is gone.
      type: str
      returned: success
      sample: /dev/stackless-block/rbd/5c000000-0000-4000-8000-000000000001/volumes/db
    device: &r_device
      description: What the kernel calls the device now. V(null) when it is gone, or in check mode not there yet.
      type: str
      returned: success
      sample: /dev/rbd0
    cluster_fsid: &r_cluster_fsid
      description: The fsid of the cluster, as far as it is known.
      type: str
      returned: success
      sample: 5c000000-0000-4000-8000-000000000001
    image_id: &r_image_id
      description: The id that the cluster has given the image.
      type: str
      returned: success
      sample: 5e1a6b8b4567
    size_bytes: &r_size_bytes
      description: The size of the device.
      type: int
      returned: success
      sample: 1073741824
    mode: &r_mode
      description: Whether the device can be written to.
      type: str
      returned: success
      sample: rw
    exclusive: &r_exclusive
      description: Whether this host keeps the image's lock.
      type: bool
      returned: success
      sample: true
    client: &r_client
      description: Ceph's name for the kernel as a user of this image, as C(rbd status) shows it. V(null) when it is not known yet.
      type: str
      returned: success
      sample: client.4711
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [map image volumes/db]
image: *r_image
device_path: *r_device_path
device: *r_device
cluster_fsid: *r_cluster_fsid
image_id: *r_image_id
size_bytes: *r_size_bytes
mode: *r_mode
exclusive: *r_exclusive
client: *r_client
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_mapping import Mappings
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile

MONITOR = {"ip": {"type": "str", "required": True}, "port": {"type": "int"}}
OPTIONS = {
    "image": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "monitors": {"type": "list", "elements": "dict", "options": MONITOR},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "cluster_fsid": {"type": "str"},
    "size_bytes": {"type": "int"},
    "mode": {"type": "str", "choices": ["rw", "ro"]},
    "exclusive": {"type": "bool"},
    "shared": {"type": "bool"},
    "if_in_use": {"type": "str", "choices": ["refuse", "keep"]},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("devices", OPTIONS),
        mutually_exclusive=[("image", "devices")],
        required_one_of=[("image", "devices")],
        supports_check_mode=True,
    )
    reconcile(module, Mappings)


if __name__ == "__main__":
    main()
