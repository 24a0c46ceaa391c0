# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One virtual machine: a QEMU process, its cards and disks, and the socket it is steered by."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.rig.collection import ROOT
from tests.rig.guest import accelerator
from tests.rig.lab.cache import LabError
from tests.rig.stage import born, end

CMDLINE = (
    "console=ttyS0 panic=1 quiet loglevel=3 mitigations=off apparmor=0 audit=0 selinux=0 systemd.show_status=0 root=/dev/vda rw"
    " net.ifnames=0 random.trust_cpu=on tsc=reliable no_timer_check"
)
MORTAL = ["setpriv", "--pdeathsig", "KILL"]


@dataclasses.dataclass(frozen=True)
class Role:
    """What sets a machine apart. `addresses` are its own in the storage network, IPv4 and IPv6 in turn."""

    name: str
    number: int
    memory: int
    addresses: tuple[str, ...]

    @property
    def machine_id(self) -> str:
        return f"{self.number:032x}"


STORAGE = Role("storage-1", 1, 1024, ("10.77.0.11", "fd77::11", "10.77.0.12", "fd77::12"))
COMPUTES = (Role("compute-1", 2, 1280, ("10.77.0.21", "fd77::21")), Role("compute-2", 3, 1024, ("10.77.0.22", "fd77::22")))
ROLES = (STORAGE, *COMPUTES)


class Machine:
    """The QEMU process of one role. `sockets` has to be a short path: a socket's has at most 107 characters.

    `port`: where on 127.0.0.1 its ssh answers. `process`: process id and time of birth, once started.
    """

    def __init__(self, role: Role, image: Path, directory: Path, sockets: Path, port: int) -> None:
        self.role = role
        self.image = image
        self.directory = directory
        self.sockets = sockets
        self.port = port
        self.process: tuple[int, str] | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What QEMU itself has to say."""
        return self.directory / f"{self.role.name}.log"

    @property
    def console(self) -> Path:
        return self.directory / f"{self.role.name}.console"

    @property
    def qmp_socket(self) -> Path:
        return self.sockets / f"{self.role.name}.qmp"

    # ---- its life

    def start(self, disks: list[Path], state: Path | None = None, mortal: bool = True) -> None:
        """Starts it on these disks; with `state`, from the memory saved there, and on disks that forget what is written.

        A mortal one dies with the thread that starts it, so that nothing outlives a killed run.
        """
        for path in (self.qmp_socket, *self.sockets.glob(f"wire-{self.role.name}-*")):
            path.unlink(missing_ok=True)
        command = [*(MORTAL if mortal else []), *self.command(), *disk_options(disks, forgetful=state is not None)]
        if state:
            command += ["-incoming", f"exec:cat {shlex.quote(str(state))}"]
        with self.log.open("w") as log:
            # TMPDIR: where disks that forget keep what is written meanwhile
            self._child = subprocess.Popen(
                command, cwd="/", env={**os.environ, "TMPDIR": str(self.directory)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.process = (self._child.pid, born(self._child.pid))

    def wait_until_running(self, timeout: float = 60) -> None:
        """Until it runs: once its memory is loaded, it is as it was saved, standing."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError, ValueError):
                status = self.qmp("query-status")["status"]
                if status == "running":
                    return
                if status == "paused":
                    self.qmp("cont")
            self.check()
            if time.monotonic() > deadline:
                raise LabError(f"{self.role.name} does not run after {timeout:g} s:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def check(self) -> None:
        """LabError with QEMU's last words if it is not there any more."""
        if not self.process or born(self.process[0]) != self.process[1]:
            raise LabError(f"the machine {self.role.name} has ended:\n{self.log.read_text()[-2000:]}")

    def save(self, state: Path) -> None:
        """Writes its memory into a file and ends it; the disks are then as they were at that moment."""
        self.qmp("stop")
        self.qmp("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
        while (status := self.qmp("query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled"):
                raise LabError(f"the memory of {self.role.name} could not be saved:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        with contextlib.suppress(OSError, ValueError):  # it hangs up without goodbye
            self.qmp("quit")
        self.stop(grace=10)

    def stop(self, grace: float = 0) -> None:
        """Ends the process at once, or gives it some seconds to end by itself."""
        if self._child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(grace)
        if self.process:
            end(*self.process)
        if self._child:
            self._child.wait()
        self.process = self._child = None

    # ---- what it is told

    def qmp(self, execute: str, **arguments: Any) -> Any:
        """One command of QEMU's monitor; returns its answer. LabError when QEMU refuses it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.qmp_socket))
            with connection.makefile("rw") as lines:
                lines.readline()
                ask(lines, "qmp_capabilities", {})
                return ask(lines, execute, {name.replace("_", "-"): value for name, value in arguments.items()})

    # ---- what it is made of

    def command(self) -> list[str]:
        role = self.role
        kvm = accelerator(ROOT / ".cache" / "guest") == "kvm"
        addresses = ",".join(f"{address}/{64 if ':' in address else 24}" for address in role.addresses)
        words = f"{CMDLINE} systemd.machine_id={role.machine_id} lab.name={role.name} lab.addresses={addresses}"
        return [
            "qemu-system-x86_64", "-name", f"lab-{role.name}", "-machine", "q35", "-nodefaults", "-display", "none",
            *(["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]),
            "-smp", "2", "-m", str(role.memory), "-rtc", "base=utc,clock=host",
            "-kernel", str(self.image / "kernel"), "-initrd", str(self.image / "initramfs"), "-append", words,
            "-netdev", f"user,id=control,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", f"virtio-net-pci,id=control-card,netdev=control,mac=52:54:00:00:00:{role.number:02x},romfile=",
            *self.storage_network(),
            "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
            "-serial", f"file:{self.console}", "-qmp", f"unix:{self.qmp_socket},server=on,wait=off",
        ]  # fmt: skip

    def storage_network(self) -> list[str]:
        """A wire from each compute host to the storage host, in which a hub joins them.

        Datagrams over unix sockets: either end may start, restart or be away, and nothing listens on the machine's network.
        """
        card = f"virtio-net-pci,id=storage-card,netdev=storage,mac=52:54:00:77:00:{self.role.number:02x},romfile="
        if self.role is not STORAGE:
            return ["-netdev", self.wire("storage", STORAGE), "-device", card]
        options = ["-netdev", "hubport,id=storage,hubid=0", "-device", card]
        for peer in COMPUTES:
            options += ["-netdev", self.wire(f"wire-{peer.name}", peer), "-netdev", f"hubport,id=hub-{peer.name},hubid=0,netdev=wire-{peer.name}"]
        return options

    def wire(self, name: str, peer: Role) -> str:
        ours, theirs = (self.sockets / f"wire-{a}-{b}" for a, b in ((self.role.name, peer.name), (peer.name, self.role.name)))
        return f"dgram,id={name},local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"


def disk_options(disks: list[Path], forgetful: bool) -> list[str]:
    options = []
    for number, path in enumerate(disks):
        drive = f"file={path},format=qcow2,if=none,id=disk{number},cache=unsafe,discard=unmap,snapshot={'on' if forgetful else 'off'}"
        options += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number},serial={('root', 'data')[number]}"]
    return options


def ask(lines: Any, execute: str, arguments: dict[str, Any]) -> Any:
    lines.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "error" in answer:
            raise LabError(f"QEMU refuses {execute}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
