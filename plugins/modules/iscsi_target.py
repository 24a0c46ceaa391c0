#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iscsi_target
short_description: Export volumes as iSCSI targets and let initiators in
version_added: 0.1.0
description:
  - Manages targets with their LUNs, portals and ACLs, both in the running daemon and in the form that comes back after a restart.
  - What is not listed is not touched, unless a purge is asked for. What was saved and is gone from the daemon is brought back.
  - A LUN, an ACL or a target is never taken away while an initiator that may use it is logged in. Nothing is forced.
  - CHAP passwords are never on a command line. Whether they still open the door of C(tgtd) is tried with the first half of a login.
  - A target that someone else made is managed from the moment its name is given here; its other LUNs and ACLs stay.
  - A run that was killed at any point is finished by the next one.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._target
  - stackless.block._reconcile
options:
  target_iqn: &target_iqn
    description:
      - The name of the target, in lower case.
    type: str
  state: &state
    description:
      - Whether the target shall be there. The default is V(present).
      - V(absent) removes exactly this target with its CHAP accounts, whoever made it. With O(helper=tgt) portals stay, as other
        targets use them too. With O(helper=lio) the backstores made for it go, so that their data is free; those of others stay.
    type: str
    choices: [present, absent]
  luns: &luns
    description:
      - The disks of the target.
    type: list
    elements: dict
    suboptions:
      lun:
        description:
          - The number, from 1 with O(helper=tgt), from 0 to 255 with O(helper=lio).
          - When it is left out, that of the LUN with this O(luns[].path), or without a path with this O(luns[].serial),
            and where there is none, the first number.
        type: int
      path:
        description:
          - The file or block device with the data. Needed to make a LUN. A LUN is as large as its data. When that has
            grown, a block device of O(helper=lio) grows under its users; any other LUN must not be in use then.
        type: path
      serial:
        description:
          - The serial number that initiators see, usually the id of the volume, from which the WWID follows too.
            The default is made of the target's name and the number.
        type: str
      read_only:
        description:
          - Whether writing is refused to all initiators. The default is V(false).
        type: bool
      bstype:
        description:
          - How the daemon reads and writes the data. The default is V(rdwr) with O(helper=tgt), which also has V(aio).
            With O(helper=lio) it is V(block) for a block device and V(fileio) for a file.
        type: str
      write_cache:
        description:
          - Whether the disk has a write cache, which an initiator has to flush. The default is V(true) with O(helper=tgt).
            With O(helper=lio) a block device has the cache that it has, and a file by default V(false).
          - C(tgtd) does not show this, so that a change by someone else is not noticed.
        type: bool
      discard:
        description:
          - For O(helper=lio), whether initiators may give back blocks. The default is V(true) where the data can do it. Changes in place.
        type: bool
      attributes:
        description:
          - For O(helper=lio), attributes of the backstore by their names in the kernel, like C(block_size) or C(emulate_caw).
            They are compared, and set in place. What is not named stays as it is.
        type: dict
  portals: &portals
    description:
      - The portals at which the target is reached. One that the daemon does not listen at is added at once. With
        O(helper=tgt) a portal serves all targets and is lost when C(tgtd) restarts, until the next run. With
        O(helper=lio) each target has its own.
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
  acls: &acls
    description:
      - The initiators that are let in, by name.
    type: list
    elements: dict
    suboptions:
      initiator:
        description:
          - The name of the initiator.
        type: str
        required: true
      state:
        description:
          - Whether the initiator is let in. The default is V(present).
        type: str
        choices: [present, absent]
      chap:
        description:
          - V(generate), the default, keeps the pair there is and makes a random one where there is none.
          - V(given) takes O(acls[].username) and O(acls[].password), and is implied by them.
          - V(none) lets the initiator in without a password. With O(helper=tgt), and with O(helper=lio) before Linux 6.0,
            that holds for all initiators of a target or for none.
        type: str
        choices: [generate, given, none]
      username:
        description:
          - The name that the initiator gives. With O(helper=tgt) no two targets may use the same.
        type: str
      password:
        description:
          - The password of the initiator, 12 to 128 characters.
        type: str
      mutual_username:
        description:
          - The name by which the target proves itself. With O(helper=tgt) all initiators of a target are shown the same.
        type: str
      mutual_password:
        description:
          - The password by which the target proves itself. It must differ from O(acls[].password).
        type: str
      read_only:
        description:
          - For O(helper=lio), whether writing is refused to this initiator alone. The default is V(false). Changes in place.
        type: bool
  attributes: &attributes
    description:
      - For O(helper=lio), attributes and parameters of the target's portal group by their names in the kernel, like
        C(default_cmdsn_depth) or C(MaxRecvDataSegmentLength). They are compared, and set in place. What is not named stays as it is.
    type: dict
  purge_luns: &purge_luns
    description:
      - Whether LUNs that are not in O(luns) are removed. The default is V(false).
    type: bool
  purge_portals: &purge_portals
    description:
      - Whether portals that are not in O(portals) are removed. The default is V(false). Refused with O(helper=tgt) where
        there are such portals, because each serves all targets.
    type: bool
  purge_acls: &purge_acls
    description:
      - Whether initiators that are not in O(acls) are denied, with doors for addresses and CHAP accounts of others.
        The default is V(false).
    type: bool
  targets:
    description:
      - Many targets in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      target_iqn: *target_iqn
      state: *state
      luns: *luns
      portals: *portals
      acls: *acls
      attributes: *attributes
      purge_luns: *purge_luns
      purge_portals: *purge_portals
      purge_acls: *purge_acls
seealso:
  - module: stackless.block.iscsi_target_info
  - module: stackless.block.cinder_volume
"""

EXAMPLES = r"""
- name: Export a volume, and let one host in with a random CHAP pair
  stackless.block.iscsi_target:
    target_iqn: iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666
    portals: [{ip: 192.0.2.10}]
    luns:
      - path: /srv/volumes/volume-0b5e7a1c-2222-4222-8333-444455556666
        serial: 0b5e7a1c-2222-4222-8333-444455556666
    acls:
      - initiator: iqn.1993-08.org.debian:01:compute-1
    return_secrets: true
  register: exported
  no_log: true

- name: Deny that host
  stackless.block.iscsi_target:
    target_iqn: iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666
    acls:
      - {initiator: "iqn.1993-08.org.debian:01:compute-1", state: absent}

- name: Remove two targets
  stackless.block.iscsi_target:
    state: absent
    targets:
      - target_iqn: iqn.2026-01.org.example:volume-1
      - target_iqn: iqn.2026-01.org.example:volume-2
"""

RETURN = r"""
results:
  description: One entry for each target, in the order of the task.
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
      sample: target iqn.2026-01.org.example:volume-1 is in use by iqn.1993-08.org.debian:01:a (192.0.2.20); log out there first, then remove it
    steps: &r_steps
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: [save target iqn.2026-01.org.example:volume-1, create target iqn.2026-01.org.example:volume-1]
    portals: &r_portals
      description: Where the target is reached, those it was given, else all of the daemon.
      type: list
      elements: dict
      returned: success
      sample: [{ip: 192.0.2.10, port: 3260}]
    luns: &r_luns
      description: The disks of the target. RV(ignore:wwid) is the identity by which initiators know them.
      type: list
      elements: dict
      returned: success
      sample:
        - {lun: 1, path: /srv/volumes/volume-1, serial: volume-1, wwid: naa.6ab0000000000000000000000000000c, size_bytes: 1073741824,
           read_only: false, bstype: rdwr, write_cache: true, discard: null, attributes: []}
    acls: &r_acls
      description: The initiators that are let in, with the names of their CHAP accounts.
      type: list
      elements: dict
      returned: success
      sample:
        - {initiator: "iqn.1993-08.org.debian:01:a", username: hTBR3cOd7xVlQ2sZ5mKe, mutual_username: null, read_only: false}
    sessions: &r_sessions
      description: Who is logged in.
      type: list
      elements: dict
      returned: success
      sample: [{initiator: "iqn.1993-08.org.debian:01:a", ip: 192.0.2.20}]
    target: &r_target
      description: The whole state, live and saved, without secrets, as later tasks of a play take it in O(assume).
      type: dict
      returned: success
      sample: {intact: true, live: {iqn: "iqn.2026-01.org.example:volume-1"}}
credentials:
  description:
    - The CHAP secrets of all initiators of these targets. RV(ignore:password) is null where it is not known.
    - In check mode random secrets are only examples; the real run makes its own.
  returned: when O(return_secrets=true)
  type: list
  elements: dict
  sample:
    - {target_iqn: "iqn.2026-01.org.example:volume-1", initiator: "iqn.1993-08.org.debian:01:a", username: hTBR3cOd7xVlQ2sZ5mKe,
       password: VALUE, mutual_username: null, mutual_password: null}
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [save target iqn.2026-01.org.example:volume-1, create target iqn.2026-01.org.example:volume-1]
target_iqn: *r_target_iqn
portals: *r_portals
luns: *r_luns
acls: *r_acls
sessions: *r_sessions
target: *r_target
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_target import Targets
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile
from ansible_collections.stackless.block.plugins.module_utils._targets import TARGET_OPTIONS

LUN = {
    "lun": {"type": "int"},
    "path": {"type": "path"},
    "serial": {"type": "str"},
    "read_only": {"type": "bool"},
    "bstype": {"type": "str"},
    "write_cache": {"type": "bool"},
    "discard": {"type": "bool"},
    "attributes": {"type": "dict"},
}
PORTAL = {"ip": {"type": "str", "required": True}, "port": {"type": "int"}}
ACL = {
    "initiator": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "chap": {"type": "str", "choices": ["generate", "given", "none"]},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "mutual_username": {"type": "str"},
    "mutual_password": {"type": "str", "no_log": True},
    "read_only": {"type": "bool"},
}
OPTIONS = {
    "target_iqn": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "luns": {"type": "list", "elements": "dict", "options": LUN},
    "portals": {"type": "list", "elements": "dict", "options": PORTAL},
    "acls": {"type": "list", "elements": "dict", "options": ACL},
    "attributes": {"type": "dict"},
    "purge_luns": {"type": "bool"},
    "purge_portals": {"type": "bool"},
    "purge_acls": {"type": "bool"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("targets", OPTIONS, **TARGET_OPTIONS),
        mutually_exclusive=[("target_iqn", "targets")],
        required_one_of=[("target_iqn", "targets")],
        supports_check_mode=True,
    )
    reconcile(module, Targets)


if __name__ == "__main__":
    main()
