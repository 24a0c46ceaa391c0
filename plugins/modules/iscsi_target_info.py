#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iscsi_target_info
short_description: Look at iSCSI targets, their doors and who is logged in
version_added: 0.1.0
description:
  - Returns the targets of a host, whoever made them. Changes nothing.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._target
options:
  target_iqns:
    description:
      - Only the targets of exactly these names. All targets when it is left out.
      - A name that is not there is left out of RV(targets).
    type: list
    elements: str
seealso:
  - module: stackless.block.iscsi_target
"""

EXAMPLES = r"""
- name: Who is logged in?
  stackless.block.iscsi_target_info:
    target_iqns: ["iqn.2026-01.org.example:volume-1"]
  register: found
"""

RETURN = r"""
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
    portals:
      description: Where the target is reached, those it was given, else all of the daemon.
      type: list
      elements: dict
      returned: success
      sample: [{ip: 192.0.2.10, port: 3260}]
    luns:
      description: The disks of the target.
      type: list
      elements: dict
      returned: success
      sample: [{lun: 1, path: /srv/volumes/volume-1, serial: volume-1, size_bytes: 1073741824}]
    acls:
      description: The initiators that are let in, with the names of their CHAP accounts.
      type: list
      elements: dict
      returned: success
      sample: [{initiator: "iqn.1993-08.org.debian:01:a", username: hTBR3cOd7xVlQ2sZ5mKe, mutual_username: null, read_only: false}]
    sessions:
      description: Who is logged in.
      type: list
      elements: dict
      returned: success
      sample: [{initiator: "iqn.1993-08.org.debian:01:a", ip: 192.0.2.20}]
    incomplete:
      description:
        - What is saved and does not run, as after a restore that could not find a volume. M(stackless.block.iscsi_target) brings it back.
      type: list
      elements: str
      returned: success
      sample: [LUN 0 (/dev/volumes/volume-1)]
    target:
      description: The whole state, live and saved, without secrets. RV(ignore:live) is null for a saved target that the daemon does not have.
      type: dict
      returned: success
      sample: {intact: true, live: {iqn: "iqn.2026-01.org.example:volume-1"}}
credentials:
  description: The CHAP secrets of all initiators of these targets. RV(ignore:password) is null where someone else made it.
  returned: when O(return_secrets=true)
  type: list
  elements: dict
  sample:
    - {target_iqn: "iqn.2026-01.org.example:volume-1", initiator: "iqn.1993-08.org.debian:01:a", username: hTBR3cOd7xVlQ2sZ5mKe,
       password: VALUE, mutual_username: null, mutual_password: null}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_target import find_targets
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look
from ansible_collections.stackless.block.plugins.module_utils._targets import TARGET_OPTIONS


def main() -> None:
    module = AnsibleModule(
        argument_spec={**TARGET_OPTIONS, "target_iqns": {"type": "list", "elements": "str"}},
        supports_check_mode=True,
    )
    look(module, find_targets)


if __name__ == "__main__":
    main()
