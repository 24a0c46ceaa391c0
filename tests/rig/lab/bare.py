# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bare-metal guest (guest/guest.c tells what it understands): compiled here, asked where it runs."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from tests.rig.lab.cache import HERE, run
from tests.rig.lab.host import Host

FLAGS = (
    "-m32", "-march=i486", "-mno-sse", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-pic", "-fno-pie", "-no-pie", "-fno-stack-protector",
    "-fno-builtin", "-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static",
    "-Wl,--build-id=none", "-Wl,-n", "-Wl,-Ttext=0x101000", "-Wl,--section-start=.multiboot=0x100000",
)  # fmt: skip


def compile_guest(target: Path) -> None:
    """Makes the multiboot kernel; a C compiler is all it takes."""
    sources = [HERE / "guest" / name for name in ("start.S", "machine.c", "disk.c", "guest.c")]
    run("gcc", *FLAGS, *sources, "-o", target)


class BareGuest:
    """The guest of this name on a compute host."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def said(self) -> str:
        """All that it has said since it was started."""
        return self.host.run(f"cat /var/log/lab-{self.name}.console").replace("\r", "")

    def wait_for(self, pattern: str, timeout: float = 30, since: int = 0) -> re.Match[str]:
        """The first match of `pattern` (^ and $ are a line's) in what it said from position `since` on."""
        deadline = time.monotonic() + timeout
        while True:
            said = self.said()
            # a line that is still being written is none yet
            found = re.search(pattern, said[since : said.rfind("\n") + 1], re.MULTILINE)
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not say {pattern!r} within {timeout:g} s; its last words: {said[-500:]!r}")
            time.sleep(0.2)

    def run(self, command: str, timeout: float = 30) -> str:
        """Tells it one command and returns what it answered; AssertionError when it could not do it."""
        return self.host.run(f"python3 - {self.name} {timeout:g} {shlex.quote(command)}", timeout + 10, input=(HERE / "ask.py").read_text())
