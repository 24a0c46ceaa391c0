# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of the lab: what a person would write for these hosts, and how Ansible reaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

from tests.rig.lab.machine import COMPUTES, STORAGE


def inventory(ssh_config: Path) -> dict[str, Any]:
    reached = {
        "ansible_connection": "ssh",
        # its own settings of shared connections replace Ansible's
        "ansible_ssh_args": f"-F {ssh_config}",
        "ansible_pipelining": True,
        "ansible_timeout": 25,  # an emulated machine beside other work takes its time to say hello
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_remote_tmp": "/root/.ansible/tmp",
    }
    return {
        "all": {"vars": reached},
        "storage": {"hosts": {STORAGE.name: storage(STORAGE.addresses)}},
        "compute": {"hosts": {role.name: {"storage_ip": role.addresses[0]} for role in COMPUTES}},
    }


def storage(addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "backend": {"driver": "lvm", "pool": "volumes", "thin_pool": "thin"},
        "iscsi_target_helper": "lio",
        "iscsi_portals": [{"ip": address, "port": 3260} for address in addresses if ":" not in address],
    }
