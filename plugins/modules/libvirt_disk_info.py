#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disk_info
short_description: Look at the disks of libvirt domains
version_added: 0.1.0
description:
  - Returns the disks of domains as stackless.block.libvirt_disk does, and which of them are its own. Changes nothing.
author:
  - The stackless.block authors (@stackless)
requirements:
  - The Python library libvirt (package python3-libvirt) on the host.
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._libvirt
options:
  domains:
    description:
      - Only the domains of exactly these names. All domains when it is left out.
      - A name that is not there is an error.
    type: list
    elements: str
seealso:
  - module: stackless.block.libvirt_disk
"""

EXAMPLES = r"""
- name: Which disks does web-1 have?
  stackless.block.libvirt_disk_info:
    domains: [web-1]
  register: found
"""

RETURN = r"""
disks:
  description: The disks, ordered by domain and device.
  returned: success
  type: list
  elements: dict
  contains:
    domain:
      description: The name of the domain.
      type: str
      returned: success
      sample: web-1
    serial:
      description: The serial of the disk.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8333-444455556666
    guest_serial:
      description: What the guest can read of the serial.
      type: str
      returned: success
      sample: 0b5e7a1c-2222-4222-8
    alias:
      description: The name of the disk in libvirt.
      type: str
      returned: success
      sample: ua-0b5e7a1c-2222-4222-8333-444455556666
    device:
      description: The device in libvirt.
      type: str
      returned: success
      sample: vdb
    bus:
      description: The bus.
      type: str
      returned: success
      sample: virtio
    live:
      description: Whether the running domain has the disk.
      type: bool
      returned: success
      sample: true
    persistent:
      description: Whether the persistent definition of the domain has the disk.
      type: bool
      returned: success
      sample: true
    scope:
      description: Which copies are there, V(both), V(live) or V(config); none when the disk is not there.
      type: str
      returned: success
      sample: both
    source:
      description: Where the bytes are, without any password.
      type: dict
      returned: success
      sample: {type: file, path: /srv/volumes/db-data, portals: []}
    size_bytes:
      description: The size that the running guest sees.
      type: int
      returned: success
      sample: 21474836480
    cache:
      description: The cache mode.
      type: str
      returned: success
      sample: none
    io:
      description: How QEMU does the I/O.
      type: str
      returned: success
      sample: native
    discard:
      description: Whether discards reach the source.
      type: str
      returned: success
      sample: unmap
    read_only:
      description: Whether the guest may only read.
      type: bool
      returned: success
      sample: false
    shareable:
      description: Whether other domains may have the same source.
      type: bool
      returned: success
      sample: false
    iotune:
      description: The I/O limits that are set.
      type: dict
      returned: success
      sample: {total_iops_sec: 500}
    volume:
      description: The name of the volume, as noted.
      type: str
      returned: success
      sample: db-data
    attachment_id:
      description: The id of the attachment, as noted.
      type: str
      returned: success
      sample: 7c9e6679-7425-40de-944b-e07fc1f90ae7
    ours:
      description: Whether this collection has attached the disk.
      type: bool
      returned: success
      sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_disk import find_disks
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "uri": {"type": "str", "default": "qemu:///system"},
            "domains": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    look(module, find_disks)


if __name__ == "__main__":
    main()
