# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration with which ssh, and Ansible through it, reach the machines by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

from tests.rig.lab.machine import Machine

COMMON = """\
Host *
    HostName 127.0.0.1
    User root
    IdentityFile "{image}/key"
    IdentitiesOnly yes
    PreferredAuthentications publickey
    HostKeyAlias lab
    UserKnownHostsFile "{image}/known_hosts"
    StrictHostKeyChecking yes
    LogLevel ERROR
    ConnectTimeout 20
    ServerAliveInterval 15
    ServerAliveCountMax 4
    ControlMaster auto
    ControlPersist 600
    ControlPath {sockets}/ssh-%n
"""


def write_ssh_config(path: Path, machines: Iterable[Machine]) -> Path:
    """Writes it for these machines, whose connections are shared through their directory of sockets."""
    machines = list(machines)
    hosts = [f"Host {machine.role.name}\n    Port {machine.port}\n" for machine in machines]
    path.write_text("".join(hosts) + COMMON.format(image=machines[0].image, sockets=machines[0].sockets))
    return path
