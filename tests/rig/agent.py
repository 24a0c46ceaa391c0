# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest of tests/rig/guest.py with the distribution's own guest agent in it, and a file system that it can freeze."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.rig.collection import ROOT
from tests.rig.guest import Guest, GuestError, cpio, load_order

CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
START = "for module in /agent/*; do insmod $module; done; qemu-ga -m virtio-serial -p $(ls /dev/vport*) -t /tmp >/tmp/said 2>&1 & echo $! >/tmp/qemu-ga.pid"


class AgentGuest(Guest):
    """A guest that answers libvirt after `start_agent`. Its image is made in `directory`."""

    def __init__(self, connection: Any, directory: Path, name: str) -> None:
        super().__init__(connection, _with_agent(ROOT / ".cache" / "guest", directory), directory, name)

    def xml(self, *sizes: int) -> str:
        return super().xml(*sizes).replace("</devices>", CHANNEL + "</devices>")

    def start_agent(self, timeout: float = 60) -> None:
        """Starts the agent and returns when libvirt has heard of it."""
        self.run(f"mkdir -p /tmp; {START}")
        self._wait_until_heard("connected", timeout)

    def stop_agent(self, timeout: float = 60) -> None:
        self.run("kill $(cat /tmp/qemu-ga.pid)")
        self._wait_until_heard("disconnected", timeout)

    def _wait_until_heard(self, state: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while f"state='{state}'" not in self.domain.XMLDesc():
            if time.monotonic() > deadline:
                raise GuestError(f"libvirt does not see that the agent of {self.name} is {state}: {self.run('cat /tmp/said')}")
            time.sleep(0.05)

    def mount(self, device: str) -> None:
        """Mounts the ext4 of a disk on /mnt."""
        self.run(f"mkdir -p /mnt; mount -t ext4 /dev/{device} /mnt")

    def count(self) -> None:
        """From now on it writes 1, 2, 3, ... to /mnt/n, one after the other."""
        self.run("(n=0; while :; do n=$((n+1)); echo $n >/mnt/n; sync; done) &")


def _with_agent(base: Path, directory: Path) -> Path:
    """The guest's image with a second archive behind the first, as the kernel takes them for one (Documentation/driver-api/early-userspace)."""
    image = directory / "agent-guest"
    image.mkdir()
    for name in ("kernel", "accelerator"):
        if (base / name).exists():
            shutil.copyfile(base / name, image / name)
    modules = next((ROOT / ".cache" / "kernel").glob("lib/modules/*"))
    files = {f"agent/{position:02}-{name}.ko": content for position, (name, content) in enumerate(load_order(modules, ("virtio_console", "ext4")))}
    files.update(_program("qemu-ga"))
    (image / "initrd").write_bytes((base / "initrd").read_bytes() + cpio(files))
    return image


def _program(name: str) -> dict[str, bytes]:
    """A program of this machine with the libraries that it needs."""
    path = shutil.which(name, path="/usr/sbin:/usr/bin")
    if path is None:
        raise GuestError(f"{name} is not installed; install the package qemu-guest-agent")
    said = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", said)
    return {f"bin/{name}": Path(path).read_bytes(), **{library[1:]: Path(library).read_bytes() for library in libraries}}
