#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_attachment
short_description: Reserve volumes for instances, and give them back
version_added: 0.1.0
description:
  - Moves the attachment of a volume to an instance along its life, as Cinder's attachments API does.
  - Every action is one compare-and-swap of the volume's record. Of several runs that reserve one volume
    at the same moment one wins; the others are told who holds it.
  - The record is the journal of the walk. It is written before anything is exported, and names the
    compute host, the instance and, where a walk had to stop, the step and the reason.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._backend
  - stackless.block._reconcile
options:
  volume: &volume
    description:
      - The name of the volume.
    type: str
  instance: &instance
    description:
      - The name of the instance, which is the libvirt domain that gets the volume.
    type: str
  action: &action
    description:
      - V(reserve) claims the volume for the instance. The same instance on the same host may repeat it.
      - V(initialize) records that the compute side begins to connect.
      - V(complete) records that the instance has the volume.
      - V(begin_detaching) records that the volume is on its way back.
      - V(roll_detaching) takes that back, when the instance keeps the volume after all.
      - V(give_up) is asked before a walk that failed is taken back. Refused when another run has completed it meanwhile.
      - V(fence) takes the volume from a compute host that is lost. With O(backend.driver=rbd), every client that has its image open is put on the
        blocklist of the cluster, so that nothing of it comes after what the next one writes; then the host counts as clean. Other drivers refuse.
        The guest, should it still run, gets errors.
      - V(terminate) records that the compute host is proven clean. Only then may the export be torn down.
      - V(release) gives the volume back. Refused while the compute side may still hold it.
    type: str
    choices: [reserve, initialize, complete, begin_detaching, roll_detaching, give_up, fence, terminate, release]
  host: &host
    description:
      - The compute host of the instance. Needed to reserve.
    type: str
  mode: &mode
    description:
      - Whether the instance may write. The default is V(rw).
    type: str
    choices: [rw, ro]
  transport: &transport
    description:
      - How the bytes travel, recorded when the volume is reserved. With V(host) the kernel of the compute host logs in,
        with V(qemu) QEMU itself does, V(local) is for an instance on the storage host, V(rbd) makes QEMU a client of the Ceph cluster,
        and V(krbd) the kernel of the compute host. The default is V(qemu).
      - One that is reserved already keeps its transport; another one is refused.
    type: str
    choices: [host, qemu, local, rbd, krbd]
  iqn_prefix: &iqn_prefix
    description:
      - What the name of the export begins with, asked for when the volume is reserved. A colon, C(volume-) and the id of the volume follow.
      - The name is kept in the record, so that the way back finds the export whatever the prefix is then. All who share a volume share its export.
    type: str
    version_added: 0.2.0
  initiator: &initiator
    description:
      - The name with which the compute host logs in.
    type: str
  ip: &ip
    description:
      - The address of the compute host in the storage network.
    type: str
  device: &device
    description:
      - The device of the instance, known at the end of the walk.
    type: str
  step: &step
    description:
      - The step at which a walk had to stop, for the record.
    type: str
  reason: &reason
    description:
      - Why a walk had to stop, for the record.
    type: str
  attachments:
    description:
      - Many attachments in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      volume: *volume
      instance: *instance
      action: *action
      host: *host
      mode: *mode
      transport: *transport
      iqn_prefix: *iqn_prefix
      initiator: *initiator
      ip: *ip
      device: *device
      step: *step
      reason: *reason
  return_secrets:
    description:
      - Whether to return RV(credentials). Set C(no_log) on a task that does.
    type: bool
    default: false
    version_added: 0.2.0
seealso:
  - module: stackless.block.cinder_volume
  - module: stackless.block.cinder_volume_info
"""

EXAMPLES = r"""
- name: Reserve a volume for web-1, which runs on compute-1
  stackless.block.cinder_attachment:
    backend: {driver: file, path: /srv/volumes}
    volume: db-data
    instance: web-1
    host: compute-1
    action: reserve

- name: Record that the instances have their volumes
  stackless.block.cinder_attachment:
    backend: "{{ backend }}"
    action: complete
    attachments:
      - {volume: db-data, instance: web-1, device: vdb}
      - {volume: db-log, instance: web-1, device: vdc}
"""

RETURN = r"""
results:
  description: One entry for each attachment, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    volume: &r_volume
      description: The name of the volume.
      type: str
      returned: always
      sample: db-data
    instance: &r_instance
      description: The name of the instance.
      type: str
      returned: always
      sample: web-1
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
        volume db-data can't be reserved for web-2: it is held by web-1 on compute-1 (attached); detach it there first
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: [reserve volume db-data for web-1]
    attachment_id: &r_attachment_id
      description: The id of the attachment; null when there is none.
      type: str
      returned: success
      sample: 1c0ffee1-3333-4333-8444-555566667777
    status: &r_status
      description: The status of the attachment; null when there is none.
      type: str
      returned: success
      sample: reserved
    volume_id: &r_volume_id
      description: The id of the volume, which is the serial the instance will see.
      type: str
      returned: when the volume is there
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    volume_status: &r_volume_status
      description: The status of the volume, which follows from all of its attachments.
      type: str
      returned: when the volume is there
      sample: reserved
    size_bytes: &r_size_bytes
      description: The size of the volume in bytes.
      type: int
      returned: when the volume is there
      sample: 21474836480
    path: &r_path
      description: Where the data of the volume stands on the storage host.
      type: str
      returned: when the volume is there
      sample: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
    connection_info: &r_connection_info
      description: How a host that has the storage at hand reaches the data, in Cinder's form. With O(backend.driver=rbd), pool/image, monitors, fsid and user.
      type: dict
      returned: when the volume is there
      sample: {driver_volume_type: local, data: {device_path: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666}}
    host: &r_host
      description: The compute host of the instance.
      type: str
      returned: when there is an attachment
      sample: compute-1
    transport: &r_transport
      description: How the bytes travel.
      type: str
      returned: when there is an attachment
      sample: host
    target_iqn: &r_target_iqn
      description: The name of the export; null when the record does not say it.
      type: str
      returned: when there is an attachment
      sample: iqn.2026-01.org.stackless:volume-0b5e7a1c-2222-4222-8333-444455556666
    others: &r_others
      description: How many other attachments may still hold the exported volume; with 0 left the export may go.
      type: int
      returned: when there is an attachment
      sample: 0
    others_on_host: &r_others_on_host
      description: How many of them are on the same host; with 0 left the host's ACL may go.
      type: int
      returned: when there is an attachment
      sample: 0
    others_staying: &r_others_staying
      description: How many of those on the same host are not on their way back; with 0 left the host's session, or its device, may go.
      type: int
      returned: when there is an attachment
      sample: 0
    action: &r_action
      description: What was asked for.
      type: str
      returned: always
      sample: reserve
    mode: &r_mode
      description: Whether the instance may write, V(rw) or V(ro).
      type: str
      returned: when there is an attachment
      sample: rw
    multiattach: &r_multiattach
      description: Whether several instances may hold the volume at once.
      type: bool
      returned: when the volume is there
      sample: false
    initiator: &r_initiator
      description: The name with which the compute host logs in, or null.
      type: str
      returned: when there is an attachment
      sample: iqn.1993-08.org.debian:01:compute-1
    ip: &r_ip
      description: The address of the compute host in the storage network, or null.
      type: str
      returned: when there is an attachment
      sample: 192.0.2.21
    device: &r_device
      description: The device that the instance sees, null before the walk's end.
      type: str
      returned: when there is an attachment
      sample: vdb
    step: &r_step
      description: Where a walk had to stop, or null.
      type: str
      returned: when there is an attachment
      sample: null
    reason: &r_reason
      description: Why it had to stop, or null.
      type: str
      returned: when there is an attachment
      sample: null
    record: &r_record
      description: The whole record of the volume, as later tasks of a play take it in O(assume).
      type: dict
      returned: success
      sample: {name: db-data, status: reserved}
credentials:
  description:
    - What compute hosts need to be let in. With O(backend.driver=rbd), the key of the Ceph user and the UUID of libvirt's secret for it, as
      RV(connection_info) names it, unless this host may not read the key; with other drivers nothing.
  returned: when O(return_secrets=true)
  type: list
  elements: dict
  sample: [{secret_uuid: 5c000000-0000-4000-8000-000000000001, username: cinder, password: "********"}]
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [reserve volume db-data for web-1]
volume: *r_volume
instance: *r_instance
action: *r_action
attachment_id: *r_attachment_id
status: *r_status
volume_id: *r_volume_id
volume_status: *r_volume_status
size_bytes: *r_size_bytes
path: *r_path
connection_info: *r_connection_info
host: *r_host
transport: *r_transport
target_iqn: *r_target_iqn
others: *r_others
others_on_host: *r_others_on_host
others_staying: *r_others_staying
mode: *r_mode
multiattach: *r_multiattach
initiator: *r_initiator
ip: *r_ip
device: *r_device
step: *r_step
reason: *r_reason
record: *r_record
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Attachments
from ansible_collections.stackless.block.plugins.module_utils._plan_attachment import ACTIONS
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS

OPTIONS = {
    "volume": {"type": "str"},
    "instance": {"type": "str"},
    "action": {"type": "str", "choices": list(ACTIONS)},
    "host": {"type": "str"},
    "mode": {"type": "str", "choices": ["rw", "ro"]},
    "transport": {"type": "str", "choices": ["host", "qemu", "local", "rbd", "krbd"]},
    "iqn_prefix": {"type": "str"},
    "initiator": {"type": "str"},
    "ip": {"type": "str"},
    "device": {"type": "str"},
    "step": {"type": "str"},
    "reason": {"type": "str"},
}

COMMON = {
    "backend": {"type": "dict", "required": True, "options": BACKEND_OPTIONS},
    "return_secrets": {"type": "bool", "default": False, "no_log": False},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("attachments", OPTIONS, **COMMON),
        mutually_exclusive=[("volume", "attachments")],
        required_one_of=[("volume", "attachments")],
        supports_check_mode=True,
    )
    reconcile(module, Attachments)


if __name__ == "__main__":
    main()
