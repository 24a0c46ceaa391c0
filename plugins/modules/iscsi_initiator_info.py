#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iscsi_initiator_info
short_description: Look at the iSCSI sessions of a host, their devices, and who uses them
version_added: 0.2.0
description:
  - Returns the targets of which this host has a node record or a session, whoever made it. Changes nothing.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
options:
  target_iqns:
    description:
      - Only the targets of exactly these names. All targets when it is left out.
      - A name that is not there is left out of RV(targets).
    type: list
    elements: str
requirements:
  - Root, to see node records and who uses the devices.
seealso:
  - module: stackless.block.iscsi_initiator
"""

EXAMPLES = r"""
- name: Which devices does this host have of the target, and who uses them?
  stackless.block.iscsi_initiator_info:
    target_iqns: ["iqn.2026-01.org.example:volume-1"]
  register: found
"""

RETURN = r"""
initiator:
  description: The name of this host as an initiator, V(null) without open-iscsi.
  returned: success
  type: str
  sample: iqn.1993-08.org.debian:01:compute-1
multipathd:
  description: Whether C(multipathd) runs.
  returned: success
  type: bool
  sample: true
targets:
  description: The targets, ordered by name.
  returned: success
  type: list
  elements: dict
  contains:
    target_iqn:
      description: The name of the target.
      type: str
      returned: success
      sample: iqn.2026-01.org.example:volume-1
    records:
      description: The node records, without passwords.
      type: list
      elements: dict
      returned: success
      sample: [{portal: "192.0.2.10:3260", iface: default, startup: manual, username: compute-1, mutual_username: null}]
    sessions:
      description: The sessions.
      type: list
      elements: dict
      returned: success
      sample: [{portal: "192.0.2.10:3260", iface: default, state: LOGGED_IN}]
    luns:
      description: The LUNs that are here as devices, each as M(stackless.block.iscsi_initiator) returns it. RV(ignore:holders) are those who use it.
      type: list
      elements: dict
      returned: success
      sample:
        - {lun: 1, device_path: /dev/disk/by-id/wwn-0x6001405a1c2e4b6d8f0a1b2c3d4e5f60, serial: volume-1, size_bytes: 1073741824,
           multipath: null, holders: ["domain web-1 (pid 4711)"]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_session import find_sessions
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={"target_iqns": {"type": "list", "elements": "str"}},
        supports_check_mode=True,
    )
    look(module, find_sessions)


if __name__ == "__main__":
    main()
