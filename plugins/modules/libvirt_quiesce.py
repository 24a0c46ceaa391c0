#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_quiesce
short_description: Keep instances from writing for a moment
version_added: 0.2.0
description:
  - Freezes the file systems of running domains through their guest agents, or pauses the domains, and lets them write again, so that
    snapshots of their volumes taken meanwhile are of one moment.
  - What holds a domain is a process on its host that lets go by itself after O(at_most) seconds, whatever becomes of the controller.
    Whether it held until it was told to let go is returned as RV(results[].held).
  - Pausing alone leaves on the storage what the instance was told is written, as after a power failure. Freezing also has the guest
    write out what it holds back, and leaves its file systems clean.
author:
  - The stackless.block authors (@stackless)
requirements:
  - The Python library libvirt (package python3-libvirt) on the host.
  - For freezing, C(qemu-guest-agent) in the guest, and its channel in the domain.
extends_documentation_fragment:
  - stackless.block._attributes
  - stackless.block._libvirt
  - stackless.block._reconcile
options:
  name: &name
    description:
      - The name of the domain.
    type: str
  state: &state
    description:
      - Whether the domain shall be kept from writing. The default is V(quiesced).
      - A domain that does not run, or that somebody has paused, writes nothing and is left as it is.
    type: str
    choices: [quiesced, released]
  without_agent: &without_agent
    description:
      - What is done about a domain whose guest agent does not answer. The default is V(pause).
      - With V(pause) it is paused. With V(ignore) nothing is done. With V(refuse) the item fails.
    type: str
    choices: [pause, ignore, refuse]
  at_most: &at_most
    description:
      - After how many seconds the domain may write again, though nobody has said so. The default is 60.
    type: int
  domains:
    description:
      - Many domains in one task. Top-level options are the defaults of the items.
    type: list
    elements: dict
    suboptions:
      name: *name
      state: *state
      without_agent: *without_agent
      at_most: *at_most
seealso:
  - module: stackless.block.cinder_snapshot
"""

EXAMPLES = r"""
- name: Keep the instance from writing
  stackless.block.libvirt_quiesce:
    name: web-1
    at_most: 20

- name: Let it write again
  stackless.block.libvirt_quiesce:
    name: web-1
    state: released
"""

RETURN = r"""
results:
  description: One entry for each domain, in the order of the task.
  returned: always
  type: list
  elements: dict
  contains:
    name: &r_name
      description: The name of the domain.
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
      sample: "there is no domain web-11 at qemu:///system; define it, or choose one of: web-1, web-2"
    steps:
      description: What was done, or in check mode would be done, in order.
      type: list
      elements: str
      returned: always
      sample: [freeze the file systems of web-1 for at most 20 s]
    quiesced: &r_quiesced
      description: How the domain is kept from writing, V(frozen) or V(paused); null when it is not.
      type: str
      returned: success
      sample: frozen
    held: &r_held
      description: With O(state=released), whether the domain was kept from writing until now; null when it was not kept from it at all.
      type: bool
      returned: success
      sample: true
steps:
  description: The steps of all items, in order.
  returned: always
  type: list
  elements: str
  sample: [freeze the file systems of web-1 for at most 20 s]
name: *r_name
quiesced: *r_quiesced
held: *r_held
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_quiesce import Quiesced
from ansible_collections.stackless.block.plugins.module_utils._reconcile import list_spec, reconcile

OPTIONS = {
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["quiesced", "released"]},
    "without_agent": {"type": "str", "choices": ["pause", "ignore", "refuse"]},
    "at_most": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=list_spec("domains", OPTIONS, uri={"type": "str", "default": "qemu:///system"}),
        mutually_exclusive=[("name", "domains")],
        required_one_of=[("name", "domains")],
        supports_check_mode=True,
    )
    reconcile(module, Quiesced)


if __name__ == "__main__":
    main()
