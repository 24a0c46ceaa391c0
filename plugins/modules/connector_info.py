#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: connector_info
short_description: Look at what a compute host is to a storage
version_added: 0.1.0
description:
  - Returns the connector of a compute host, which a storage needs to admit it, in the form that Cinder takes.
  - Returns the domains of the host too, so that a play can find out where an instance lives. Changes nothing.
author:
  - The stackless.block authors (@stackless)
requirements:
  - The Python library libvirt (package python3-libvirt) on the host, unless O(libvirt=false).
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._libvirt
options:
  my_ip:
    description:
      - The address of this host for the storage. The default is the one that this host uses towards O(storage_ip).
    type: str
  storage_ip:
    description:
      - The address of the storage, to find out which of its own addresses this host uses there.
      - The default is to look at the default route.
    type: str
  host:
    description:
      - The name of this host in records. The default is its host name.
    type: str
  initiator:
    description:
      - The iSCSI name of this host.
      - The default is the one in C(/etc/iscsi/initiatorname.iscsi), or else one made of O(host), always the same.
    type: str
  libvirt:
    description:
      - Whether to look at the domains.
    type: bool
    default: true
seealso:
  - module: stackless.block.libvirt_disk
"""

EXAMPLES = r"""
- name: What is this host to the storage, and which domains has it?
  stackless.block.connector_info:
    storage_ip: 192.0.2.10
  register: found
"""

RETURN = r"""
connector:
  description: The connector.
  returned: success
  type: dict
  contains:
    platform:
      description: The machine type.
      type: str
      returned: success
      sample: x86_64
    os_type:
      description: The operating system.
      type: str
      returned: success
      sample: linux
    ip:
      description: The address of this host for the storage.
      type: str
      returned: success
      sample: 192.0.2.21
    host:
      description: The name of this host.
      type: str
      returned: success
      sample: compute-1
    initiator:
      description: The iSCSI name of this host.
      type: str
      returned: success
      sample: iqn.2026-01.org.stackless:compute-1
    multipath:
      description: Whether multipathd runs.
      type: bool
      returned: success
      sample: false
    do_local_attach:
      description: Whether the storage may hand out volumes of this very host without a network.
      type: bool
      returned: success
      sample: false
domains:
  description: The domains of this host, ordered by name; none with O(libvirt=false).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the domain.
      type: str
      returned: success
      sample: web-1
    uuid:
      description: The UUID of the domain.
      type: str
      returned: success
      sample: 5b2f0b1e-2222-4222-8333-444455556666
    active:
      description: Whether it runs.
      type: bool
      returned: success
      sample: true
    persistent:
      description: Whether it has a persistent definition.
      type: bool
      returned: success
      sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._hosts.connector import find_connector
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look


def main() -> None:
    text = {"type": "str"}
    module = AnsibleModule(
        argument_spec={
            "my_ip": text,
            "storage_ip": text,
            "host": text,
            "initiator": text,
            "libvirt": {"type": "bool", "default": True},
            "uri": {"type": "str", "default": "qemu:///system"},
        },
        supports_check_mode=True,
    )
    look(module, find_connector)


if __name__ == "__main__":
    main()
