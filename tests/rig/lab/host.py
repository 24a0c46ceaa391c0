# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of the lab as a test sees it: a host that runs shell scripts and the collection's modules."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any, Iterable, Iterator

from tests.rig.lab.cache import LabError
from tests.rig.lab.machine import Machine
from tests.rig.lab.payload import PLACE, payload
from tests.rig.served import Served


class Host:
    """`name`, its `address` in the storage network, and all of its `addresses` there: IPv4 in these, IPv6 in `addresses6`."""

    def __init__(self, machine: Machine, ssh_config: Path) -> None:
        self.machine = machine
        self.name = machine.role.name
        self.addresses = [address for address in machine.role.addresses if ":" not in address]
        self.addresses6 = [address for address in machine.role.addresses if ":" in address]
        self.address = self.addresses[0]
        self._ssh = ["ssh", "-F", str(ssh_config)]
        self._served = Served([*self._ssh, self.name])
        self._brought: set[str] = set()  # versions of the checkout that are there

    # ---- what it runs

    def run(self, script: str, timeout: float = 60, check: bool = True, input: str | bytes | None = None) -> str:
        """Runs a script of bash as root, with `input` as its stdin, and returns its stdout.

        With `check` it ends at the first command that fails, and a failure is an AssertionError that holds all it printed;
        without, it runs to its end, whatever fails.
        """
        flags = "--norc -euo pipefail" if check else "--norc -uo pipefail"
        command = f"timeout -k 5 {timeout:g} bash {flags} -c {shlex.quote(script)}"
        status, out, err = self.ssh(command, timeout + 15, input)
        if check and status:
            raise AssertionError(f"{self.name} ended with {status}{' (time is over)' if status in (124, 137) else ''}: {script}\n{out}\n{err}")
        return out

    def ssh(self, command: str, timeout: float, input: str | bytes | None = None) -> tuple[int, str, str]:
        """Exit status (255: no connection), stdout and stderr of one remote command."""
        data = input.encode() if isinstance(input, str) else input
        try:
            done = subprocess.run([*self._ssh, self.name, command], input=data or b"", capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as late:
            return 255, (late.stdout or b"").decode(errors="replace"), f"no answer from {self.name} within {timeout:g} s"
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def module(self, name: str, options: dict[str, Any], check: bool = False, timeout: float = 120, diff: bool = True) -> dict[str, Any]:
        """Runs one module of the checkout and returns the JSON that it printed."""
        place, arguments = self.checkout(), {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
        out = self._served.run(f"cd {place} && PYTHONPATH=. exec python3", name, arguments, timeout + 15)
        if out is None:  # two at once
            run = f"cd {place} && PYTHONPATH=. timeout -k 5 {timeout:g} python3 -m ansible_collections.stackless.block.plugins.modules.{name}"
            _status, out, err = self.ssh(run, timeout + 15, json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
            out = out or err
        try:
            return json.loads(out)
        except ValueError as error:
            raise AssertionError(f"{name} on {self.name} printed no JSON:\n{out}") from error

    def checkout(self) -> str:
        """The directory with the checkout's plugins on this host, which is brought there when it is not."""
        version, archive = payload()
        if version not in self._brought:
            # onto the disk, or a reset leaves empty files of it
            bring = f"mkdir -p {PLACE}/new; tar -xzf - -C {PLACE}/new; sync -f {PLACE}/new; mv {PLACE}/new {PLACE}/{version}; sync {PLACE}"
            if self.ssh(f"test -d {PLACE}/{version}", 30)[0]:
                self.run(bring, input=archive)
            self._brought.add(version)
        return f"{PLACE}/{version}"

    @contextlib.contextmanager
    def lend(self, address: str, ports: Iterable[int]) -> Iterator[None]:
        """Lets it reach what answers at this address, of 127.0.0.0/8, on the machine that the lab runs on, as if that were its own."""
        doors = [word for port in ports for word in ("-R", f"{address}:{port}:{address}:{port}")]
        alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"]
        command = [*self._ssh, *alone, *doors, self.name, "echo lent; exec tail -f /dev/null"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said = process.stdout.readline()
            assert said == "lent\n", f"{self.name} does not take {address} over: {said}"
            yield
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    # ---- its life

    def reboot(self, hard: bool = False, timeout: float = 240) -> None:
        """Shuts down and boots, or with `hard` boots as after a loss of power, and returns when ssh answers."""
        before = self.boot_id()
        self._served.stop()
        if hard:
            self.machine.qmp("system_reset")
        else:
            self.ssh("systemctl reboot", 30)
        self.wait_for_boot(before, timeout)

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id", timeout=40)

    def wait_for_boot(self, before: str = "", timeout: float = 240) -> None:
        """Until ssh answers, after another boot than `before`."""
        deadline = time.monotonic() + timeout
        while True:
            status, out, _err = self.ssh("cat /proc/sys/kernel/random/boot_id", 10)
            if status == 0 and out != before:
                return
            self.machine.check()
            if time.monotonic() > deadline:
                console = self.machine.console.read_text(errors="replace")
                raise LabError(f"{self.name} did not answer within {timeout:g} s; its console says:\n{console[-2000:]}")
            if status == 0:
                time.sleep(0.2)
            else:
                self.hang_up()

    def hang_up(self) -> None:
        """Ends the connection that commands share; the next command makes a new one. What the host has may be another disk's by then."""
        self._served.stop()
        self._brought.clear()
        subprocess.run([*self._ssh, "-O", "exit", self.name], capture_output=True, check=False)
        time.sleep(0.2)

    def freeze(self) -> None:
        """Stops its processors: an unreachable host that loses nothing. `thaw` lets it go on."""
        self.machine.qmp("stop")

    def thaw(self) -> None:
        self.machine.qmp("cont")
        self.set_clock()

    def set_clock(self) -> None:
        self.run(f"date -s @{time.time():.2f} >/dev/null", timeout=30)
