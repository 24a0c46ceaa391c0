#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iscsi_initiator
short_description: Log in to iSCSI targets and have their LUNs as devices, or out again
version_added: 0.2.0
description:
  - Manages the node records, sessions, SCSI devices and multipath maps of open-iscsi, one LUN an item.
  - A device is never handed over before its serial, its WWID and its size were compared with what the item names. One that an
    earlier volume left in its place is removed when nobody uses it, and refused with the name of its holder when someone does.
  - Only the named portals are used, and only the one LUN is scanned for. Sessions that are there already are used.
  - On the way out a device that is in use is refused with the name of its holder. Then the map and the buffers are flushed, the
    devices deleted, and only when no other LUN needs the session it is ended and its node record removed.
  - CHAP passwords are never on a command line. Node records are written as files that only root can read.
  - All targets of a task are logged in to at once. Records and sessions of other targets are never touched.
  - What a failed item made in the same run is taken back. A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._reconcile
options:
  target_iqn: &target_iqn
    description:
      - The name of the target.
    type: str
  state: &state
    description:
      - Whether this host shall have the device. The default is V(present).
      - V(absent) without O(lun) and O(serial) takes away all devices of the target.
    type: str
    choices: [present, absent]
  lun: &lun
    description:
      - The number of the LUN. Needed for O(state=present).
    type: int
  portals: &portals
    description:
      - Where the target is reached. Needed for O(state=present).
      - With multipath there is a session with every portal; some that can't be reached make the result RV(ignore:degraded), and
        the next run that can reaches them. Without multipath the first that answers is used.
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
          - The TCP port. The default is V(3260).
        type: int
  serial: &serial
    description:
      - The serial number that the device must have (VPD page 0x80), usually the id of the volume.
    type: str
  wwid: &wwid
    description:
      - The WWID that the device must have, as C(naa.6001405…), the way M(stackless.block.iscsi_target) returns it.
      - Check mode can foretell RV(ignore:device_path) only with it.
    type: str
  size_bytes: &size_bytes
    description:
      - The size that the device must have. One that is smaller is looked at again, so that a grown LUN is taken over.
    type: int
  username: &username
    description:
      - The name for CHAP. Without it there is no CHAP.
    type: str
  password: &password
    description:
      - The password for CHAP. It must not hold blanks or line breaks.
    type: str
  mutual_username: &mutual_username
    description:
      - The name by which the target proves itself.
    type: str
  mutual_password: &mutual_password
    description:
      - The password by which the target proves itself.
    type: str
  if_in_use: &if_in_use
    description:
      - What O(state=absent) does with a device that someone holds. V(refuse), the default, fails and names the holder.
        V(keep) leaves the device, warns, and does not fail.
    type: str
    choices: [refuse, keep]
  discovery: &discovery
    description:
      - Whether the first portal that answers is asked for more portals of the target (SendTargets). The default is V(false).
    type: bool
  startup: &startup
    description:
      - What the host does with the node record when it boots. The default is V(manual). With V(automatic) it logs in by itself.
    type: str
    choices: [manual, automatic]
  multipath: &multipath
    description:
      - Whether the device is a map of dm-multipath. The default is whether C(multipathd) runs.
      - A device that is in use without a map stays without.
    type: bool
  iface: &iface
    description:
      - The interface of open-iscsi to log in through, which must be there (C(iscsiadm -m iface)). The default is V(default).
    type: str
  login_timeout: &login_timeout
    description:
      - How long, in seconds, one try to log in may take. There are two. The default is V(10).
    type: int
  replacement_timeout: &replacement_timeout
    description:
      - How long, in seconds, a lost session may take to come back before I/O fails, or with multipath goes to another path.
        With multipath something like V(5) is advised. The default is that of the host's C(iscsid.conf), usually V(120).
    type: int
  sessions:
    description:
      - Many LUNs in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      target_iqn: *target_iqn
      state: *state
      lun: *lun
      portals: *portals
      serial: *serial
      wwid: *wwid
      size_bytes: *size_bytes
      username: *username
      password: *password
      mutual_username: *mutual_username
      mutual_password: *mutual_password
      if_in_use: *if_in_use
      discovery: *discovery
      startup: *startup
      multipath: *multipath
      iface: *iface
      login_timeout: *login_timeout
      replacement_timeout: *replacement_timeout
requirements:
  - open-iscsi with a running C(iscsid) or its socket (package C(open-iscsi), or C(iscsi-initiator-utils)), and root.
  - For multipath, C(multipathd) (package C(multipath-tools), or C(device-mapper-multipath)).
notes:
  - Portal groups other than 1 are found with O(discovery=true).
seealso:
  - module: stackless.block.iscsi_initiator_info
  - module: stackless.block.iscsi_target
  - module: stackless.block.libvirt_disk
"""

EXAMPLES = r"""
- name: Log in to a target and have its LUN as a device
  stackless.block.iscsi_initiator:
    target_iqn: iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666
    lun: 1
    portals: [{ip: 192.0.2.10}]
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    username: compute-1
    password: "{{ chap_password }}"
  register: device

- name: Take the growth of the volume over
  stackless.block.iscsi_initiator:
    target_iqn: iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666
    lun: 1
    portals: [{ip: 192.0.2.10}]
    serial: 0b5e7a1c-2222-4222-8333-444455556666
    username: compute-1
    password: "{{ chap_password }}"
    size_bytes: "{{ 2 * 1024 ** 3 }}"

- name: Log out, unless the device is in use
  stackless.block.iscsi_initiator:
    target_iqn: iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666
    state: absent
"""

RETURN = r"""
results:
  description: One entry for each LUN, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    target_iqn: &r_target_iqn
      description: The name of the target.
      type: str
      returned: always
      sample: iqn.2026-01.org.example:volume-1
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
      sample: LUN 1 of iqn.2026-01.org.example:volume-1 is in use by domain web-1 (pid 4711); let it go there first, then log out
    steps: &r_steps
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: ["write the node record of iqn.2026-01.org.example:volume-1 at 192.0.2.10:3260"]
    lun: &r_lun
      description: The number of the LUN.
      type: int
      returned: success
      sample: 1
    device_path: &r_device_path
      description:
        - The link by which the device is given to others; it is the same after every boot. V(null) when the device is gone, or in
          check mode when nobody can know it yet.
      type: str
      returned: success
      sample: /dev/disk/by-id/wwn-0x6001405a1c2e4b6d8f0a1b2c3d4e5f60
    by_path: &r_by_path
      description: The links to the paths of the device by where they lead.
      type: list
      elements: str
      returned: success
      sample: ["/dev/disk/by-path/ip-192.0.2.10:3260-iscsi-iqn.2026-01.org.example:volume-1-lun-1"]
    by_id: &r_by_id
      description: All links to the device by what it is.
      type: list
      elements: str
      returned: success
      sample: [/dev/disk/by-id/scsi-36001405a1c2e4b6d8f0a1b2c3d4e5f60, /dev/disk/by-id/wwn-0x6001405a1c2e4b6d8f0a1b2c3d4e5f60]
    wwid: &r_wwid
      description: The WWID of the device.
      type: str
      returned: success
      sample: naa.6001405a1c2e4b6d8f0a1b2c3d4e5f60
    serial: &r_serial
      description: The serial number of the device.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    size_bytes: &r_size_bytes
      description: The size of the device.
      type: int
      returned: success
      sample: 1073741824
    multipath: &r_multipath
      description: The name of the multipath map, V(null) without one.
      type: str
      returned: success
      sample: mpatha
    paths: &r_paths
      description: The SCSI devices through which the LUN is reached.
      type: list
      elements: dict
      returned: success
      sample: [{portal: "192.0.2.10:3260", device: sdb, hctl: "2:0:0:1", state: running}]
    sessions: &r_sessions
      description: The sessions with the target.
      type: list
      elements: dict
      returned: success
      sample: [{portal: "192.0.2.10:3260", iface: default, state: LOGGED_IN}]
    degraded: &r_degraded
      description: Whether not all named portals are reached, with multipath.
      type: bool
      returned: success
      sample: false
    initiator: &r_initiator
      description: The name of this host as an initiator.
      type: str
      returned: success
      sample: iqn.1993-08.org.debian:01:compute-1
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: ["write the node record of iqn.2026-01.org.example:volume-1 at 192.0.2.10:3260"]
target_iqn: *r_target_iqn
lun: *r_lun
device_path: *r_device_path
by_path: *r_by_path
by_id: *r_by_id
wwid: *r_wwid
serial: *r_serial
size_bytes: *r_size_bytes
multipath: *r_multipath
paths: *r_paths
sessions: *r_sessions
degraded: *r_degraded
initiator: *r_initiator
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_session import Sessions
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile

PORTAL = {"ip": {"type": "str", "required": True}, "port": {"type": "int"}}
OPTIONS = {
    "target_iqn": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "lun": {"type": "int"},
    "portals": {"type": "list", "elements": "dict", "options": PORTAL},
    "serial": {"type": "str"},
    "wwid": {"type": "str"},
    "size_bytes": {"type": "int"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "mutual_username": {"type": "str"},
    "mutual_password": {"type": "str", "no_log": True},
    "if_in_use": {"type": "str", "choices": ["refuse", "keep"]},
    "discovery": {"type": "bool"},
    "startup": {"type": "str", "choices": ["manual", "automatic"]},
    "multipath": {"type": "bool"},
    "iface": {"type": "str"},
    "login_timeout": {"type": "int"},
    "replacement_timeout": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("sessions", OPTIONS),
        mutually_exclusive=[("target_iqn", "sessions")],
        required_one_of=[("target_iqn", "sessions")],
        supports_check_mode=True,
    )
    reconcile(module, Sessions)


if __name__ == "__main__":
    main()
