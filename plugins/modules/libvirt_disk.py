#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disk
short_description: Attach disks to libvirt domains, change, grow and detach them
version_added: 0.1.0
description:
  - Gives a domain a disk, in the running domain and in its persistent definition, and takes it back.
  - Both copies are compared with the wish; one that is missing or differs is repaired on its own.
  - A disk is found by its exact alias, serial or device. Another disk under the same name is never replaced.
  - What was attached is noted in the metadata of the domain; so a run that was killed is finished, or cleaned, by the next one.
  - Detaching waits until the guest has let go. When it does not, the module fails and says so.
  - The format of a disk is always raw and is never guessed.
  - An image of a Ceph cluster is looked at before QEMU opens or closes it, because QEMU would wait for the cluster without end, and nobody could
    talk to the guest meanwhile. One that somebody else has open or locked is not attached unless the disk is O(shareable).
author:
  - The stackless.block authors (@stackless)
requirements:
  - The Python library libvirt (package python3-libvirt) on the host.
  - For network sources, QEMU's driver of the protocol (package qemu-block-extra on Debian, qemu-block-iscsi or qemu-block-rbd elsewhere).
  - For Ceph, the Python libraries rados and rbd (packages python3-rados and python3-rbd) on the host.
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._libvirt
  - stackless.block._reconcile
options:
  domain: &domain
    description:
      - The name of the domain. Needed for every disk.
      - With O(state=absent), a domain that is not there has no disk, which is reported as a warning.
    type: str
  state: &state
    description:
      - Whether the domain shall have the disk. The default is V(present).
    type: str
    choices: [present, absent]
  serial: &serial
    description:
      - The serial that the guest sees, usually the id of the volume. Needed for O(state=present).
      - 1 to 36 letters, digits, C(_) or C(-). On the bus V(virtio) the guest sees only the first 20 of them.
    type: str
  alias: &alias
    description:
      - The name of the disk in libvirt. The default is C(ua-) and O(serial).
      - Must begin with C(ua-).
    type: str
  device: &device
    description:
      - The device in libvirt, such as V(vdb) or V(sdb). The default is the next free one of the bus.
      - The guest may name it otherwise; it can rely on the serial.
    type: str
  bus: &bus
    description:
      - The bus. The default is that of O(device), or else V(virtio).
    type: str
    choices: [virtio, scsi]
  source: &source
    description:
      - Where the bytes are. Needed to attach a disk.
    type: dict
    suboptions:
      type:
        description:
          - A file, a block device of the host, or a network source that QEMU itself connects to.
        type: str
        choices: [file, block, network]
        required: true
      path:
        description:
          - For V(file) and V(block), the absolute path.
        type: path
      protocol:
        description:
          - For V(network), the protocol.
        type: str
        choices: [iscsi, rbd]
        default: iscsi
      target_iqn:
        description:
          - The name of the iSCSI target.
        type: str
      lun:
        description:
          - The number of the LUN.
        type: int
      portals:
        description:
          - The portals of the target. QEMU uses the first one.
        type: list
        elements: dict
        suboptions:
          ip:
            description: The address.
            type: str
            required: true
          port:
            description: The port.
            type: int
            default: 3260
      initiator:
        description:
          - The name with which QEMU logs in. libvirt derives one when it is left out.
        type: str
      image:
        description:
          - For V(rbd), pool/image or pool/namespace/image. Images in namespaces need a libvirt that knows of them.
        type: str
        version_added: 0.2.0
      monitors:
        description:
          - The monitors of the Ceph cluster.
        type: list
        elements: dict
        version_added: 0.2.0
        suboptions:
          ip:
            description: The address.
            type: str
            required: true
          port:
            description: The port.
            type: int
            default: 6789
      username:
        description:
          - The CHAP user, or the Ceph user without C(client.).
        type: str
      password:
        description:
          - The CHAP password, or the key of the Ceph user. It is kept in a secret of libvirt, which goes with the last disk that needs it.
          - For V(rbd) it may be left out when libvirt has O(source.secret_uuid) already.
        type: str
      secret_uuid:
        description:
          - The UUID of libvirt's secret with the key of the Ceph user. The default is made of user and monitors.
          - A secret that someone else made is used, and neither changed nor removed.
        type: str
        version_added: 0.2.0
      config:
        description:
          - A configuration of Ceph for QEMU.
          - The default is C(/etc/stackless-block/rbd.conf), which this module writes, and which bounds how long QEMU waits for a monitor.
            Where libvirt confines guests with AppArmor, which lets QEMU read only C(/etc/ceph/ceph.conf), there is no default.
        type: path
        version_added: 0.2.0
  cache: &cache
    description:
      - The cache mode of QEMU. A new disk gets V(none) by default.
    type: str
    choices: [none, writeback, writethrough, directsync, unsafe]
  io: &io
    description:
      - How QEMU does the I/O.
    type: str
    choices: [native, threads, io_uring]
  discard: &discard
    description:
      - Whether discards of the guest reach the source.
    type: str
    choices: [unmap, ignore]
  read_only: &read_only
    description:
      - Whether the guest may only read. The default of a new disk is V(false).
    type: bool
  shareable: &shareable
    description:
      - Whether other domains may have the same source. The default of a new disk is V(false).
      - A source that another domain has is refused unless both disks are shareable.
    type: bool
  iotune: &iotune
    description:
      - The I/O limits. When given, limits that are left out or V(0) are lifted.
    type: dict
    suboptions:
      total_bytes_sec:
        description: Bytes per second, reads and writes together.
        type: int
      read_bytes_sec:
        description: Bytes per second, reads only.
        type: int
      write_bytes_sec:
        description: Bytes per second, writes only.
        type: int
      total_iops_sec:
        description: Requests per second, reads and writes together.
        type: int
      read_iops_sec:
        description: Requests per second, reads only.
        type: int
      write_iops_sec:
        description: Requests per second, writes only.
        type: int
      total_bytes_sec_max:
        description: How far O(iotune.total_bytes_sec) may be passed in a burst.
        type: int
      read_bytes_sec_max:
        description: How far O(iotune.read_bytes_sec) may be passed in a burst.
        type: int
      write_bytes_sec_max:
        description: How far O(iotune.write_bytes_sec) may be passed in a burst.
        type: int
      total_iops_sec_max:
        description: How far O(iotune.total_iops_sec) may be passed in a burst.
        type: int
      read_iops_sec_max:
        description: How far O(iotune.read_iops_sec) may be passed in a burst.
        type: int
      write_iops_sec_max:
        description: How far O(iotune.write_iops_sec) may be passed in a burst.
        type: int
      size_iops_sec:
        description: How many bytes count as one request; needs a limit of requests.
        type: int
      total_bytes_sec_max_length:
        description: How many seconds a burst of O(iotune.total_bytes_sec_max) may last.
        type: int
      read_bytes_sec_max_length:
        description: How many seconds a burst of O(iotune.read_bytes_sec_max) may last.
        type: int
      write_bytes_sec_max_length:
        description: How many seconds a burst of O(iotune.write_bytes_sec_max) may last.
        type: int
      total_iops_sec_max_length:
        description: How many seconds a burst of O(iotune.total_iops_sec_max) may last.
        type: int
      read_iops_sec_max_length:
        description: How many seconds a burst of O(iotune.read_iops_sec_max) may last.
        type: int
      write_iops_sec_max_length:
        description: How many seconds a burst of O(iotune.write_iops_sec_max) may last.
        type: int
  size_bytes: &size_bytes
    description:
      - The size of the volume. A running guest with a smaller disk is told that it has grown.
      - A disk that is larger is refused, and so is one that turns out to have another size once it is attached.
    type: int
  volume: &volume
    description:
      - The name of the volume, noted in the metadata of the domain.
    type: str
  attachment_id: &attachment_id
    description:
      - The id of the attachment, noted in the metadata of the domain.
    type: str
  scope: &scope
    description:
      - Which copies of the disk this is about. The default is V(both).
      - With V(both), a domain that does not run has only its persistent definition, a transient domain only the running one.
    type: str
    choices: [both, live, config]
  disks:
    description:
      - Many disks in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      domain: *domain
      state: *state
      serial: *serial
      alias: *alias
      device: *device
      bus: *bus
      source: *source
      cache: *cache
      io: *io
      discard: *discard
      read_only: *read_only
      shareable: *shareable
      iotune: *iotune
      size_bytes: *size_bytes
      volume: *volume
      attachment_id: *attachment_id
      scope: *scope
seealso:
  - module: stackless.block.libvirt_disk_info
  - module: stackless.block.connector_info
"""

EXAMPLES = r"""
- name: Give web-1 a file as a disk
  stackless.block.libvirt_disk:
    domain: web-1
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    source: {type: file, path: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666}

- name: Give two domains a LUN each, and limit what they may do
  stackless.block.libvirt_disk:
    cache: none
    iotune: {total_iops_sec: 500}
    disks:
      - domain: web-1
        serial: 0b5e7a1c-2222-4222-8333-444455556666
        source: &source
          type: network
          target_iqn: iqn.2026-01.org.example:volume-1
          lun: 1
          portals: [{ip: 192.0.2.10}]
          initiator: iqn.2026-01.org.example:compute-1
          username: compute-1
          password: "{{ chap_password }}"
      - domain: web-2
        bus: scsi
        serial: 3d1f0b9e-2222-4222-8333-444455556666
        source: {type: block, path: /dev/vg/data}

- name: Give web-3 an image of a Ceph cluster
  stackless.block.libvirt_disk:
    domain: web-3
    bus: scsi
    discard: unmap
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    source:
      type: network
      protocol: rbd
      image: volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
      monitors: [{ip: 192.0.2.10}, {ip: 192.0.2.11}, {ip: 192.0.2.12}]
      username: cinder
      password: "{{ cephx_key }}"

- name: The volume has been extended, tell the guest
  stackless.block.libvirt_disk:
    domain: web-1
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    size_bytes: 21474836480

- name: Take the disk back, and wait two minutes for the guest
  stackless.block.libvirt_disk:
    domain: web-1
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    state: absent
    timeout: 120
"""

RETURN = r"""
results:
  description: One entry for each disk, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    domain: &r_domain
      description: The name of the domain.
      type: str
      returned: always
      sample: web-1
    serial: &r_serial
      description: The serial of the disk.
      type: str
      returned: when the task named it, or the disk is there
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    guest_serial: &r_guest_serial
      description: What the guest can read of the serial.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8
    alias: &r_alias
      description: The name of the disk in libvirt.
      type: str
      returned: when the task named it, or the disk is there
      sample: ua-0b5e7a1c-2222-4222-8333-444455556666
    device: &r_device
      description: The device in libvirt.
      type: str
      returned: when the task named it, or the disk is there
      sample: vdb
    bus: &r_bus
      description: The bus.
      type: str
      returned: success
      sample: virtio
    live: &r_live
      description: Whether the running domain has the disk.
      type: bool
      returned: success
      sample: true
    persistent: &r_persistent
      description: Whether the persistent definition of the domain has the disk.
      type: bool
      returned: success
      sample: true
    scope: &r_scope
      description: Which copies are there, V(both), V(live) or V(config); none when the disk is not there.
      type: str
      returned: success
      sample: both
    source: &r_source
      description: Where the bytes are, without any password.
      type: dict
      returned: when the disk is there
      sample: {type: file, path: /srv/volumes/db-data, portals: []}
    size_bytes: &r_size_bytes
      description: The size that the running guest sees.
      type: int
      returned: when the domain runs; in check mode when the task names it
      sample: 21474836480
    cache: &r_cache
      description: The cache mode.
      type: str
      returned: success
      sample: none
    io: &r_io
      description: How QEMU does the I/O.
      type: str
      returned: success
      sample: native
    discard: &r_discard
      description: Whether discards reach the source.
      type: str
      returned: success
      sample: unmap
    read_only: &r_read_only
      description: Whether the guest may only read.
      type: bool
      returned: success
      sample: false
    shareable: &r_shareable
      description: Whether other domains may have the same source.
      type: bool
      returned: success
      sample: false
    iotune: &r_iotune
      description: The I/O limits that are set.
      type: dict
      returned: success
      sample: {total_iops_sec: 500}
    volume: &r_volume
      description: The name of the volume, as noted.
      type: str
      returned: success
      sample: db-data
    attachment_id: &r_attachment_id
      description: The id of the attachment, as noted.
      type: str
      returned: success
      sample: 7c9e6679-7425-40de-944b-e07fc1f90ae7
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
      sample: device vdb of domain web-1 is taken by vdb (/srv/a); name another device, or leave device out for the next free one
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: [attach ua-0b5e7a1c-2222-4222-8333-444455556666 as vdb to the running and persistent domain web-1]
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [attach ua-0b5e7a1c-2222-4222-8333-444455556666 as vdb to the running and persistent domain web-1]
domain: *r_domain
serial: *r_serial
guest_serial: *r_guest_serial
alias: *r_alias
device: *r_device
bus: *r_bus
live: *r_live
persistent: *r_persistent
scope: *r_scope
source: *r_source
size_bytes: *r_size_bytes
cache: *r_cache
io: *r_io
discard: *r_discard
read_only: *r_read_only
shareable: *r_shareable
iotune: *r_iotune
volume: *r_volume
attachment_id: *r_attachment_id
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_disk import Disks
from ansible_collections.stackless.block.plugins.module_utils._model.disk import CACHES, DISCARDS, IOS, IOTUNE_KEYS
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile

PORTAL = {"ip": {"type": "str", "required": True}, "port": {"type": "int", "default": 3260}}
MONITOR = {"ip": {"type": "str", "required": True}, "port": {"type": "int", "default": 6789}}
SOURCE = {
    "type": {"type": "str", "choices": ["file", "block", "network"], "required": True},
    "path": {"type": "path"},
    "protocol": {"type": "str", "choices": ["iscsi", "rbd"], "default": "iscsi"},
    "target_iqn": {"type": "str"},
    "lun": {"type": "int"},
    "portals": {"type": "list", "elements": "dict", "options": PORTAL},
    "initiator": {"type": "str"},
    "image": {"type": "str"},
    "monitors": {"type": "list", "elements": "dict", "options": MONITOR},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "secret_uuid": {"type": "str", "no_log": False},
    "config": {"type": "path"},
}
OPTIONS = {
    "domain": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "serial": {"type": "str"},
    "alias": {"type": "str"},
    "device": {"type": "str"},
    "bus": {"type": "str", "choices": ["virtio", "scsi"]},
    "source": {"type": "dict", "options": SOURCE},
    "cache": {"type": "str", "choices": list(CACHES)},
    "io": {"type": "str", "choices": list(IOS)},
    "discard": {"type": "str", "choices": list(DISCARDS)},
    "read_only": {"type": "bool"},
    "shareable": {"type": "bool"},
    "iotune": {"type": "dict", "options": {key: {"type": "int"} for key in IOTUNE_KEYS}},
    "size_bytes": {"type": "int"},
    "volume": {"type": "str"},
    "attachment_id": {"type": "str"},
    "scope": {"type": "str", "choices": ["both", "live", "config"]},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("disks", OPTIONS, uri={"type": "str", "default": "qemu:///system"}),
        supports_check_mode=True,
    )
    reconcile(module, Disks)


if __name__ == "__main__":
    main()
