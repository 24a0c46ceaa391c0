# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports of this machine that nobody uses."""

from __future__ import annotations

import random
import socket


def free_ports(number: int) -> list[int]:
    """Ports on 127.0.0.1, below those that the kernel gives to outgoing connections: what is started again finds its own free."""
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == number:
            return found
    raise OSError("no free port between 20000 and 32000 on 127.0.0.1")
