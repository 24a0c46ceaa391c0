# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's stage: a storage host (tgtd, a directory), a compute host (libvirtd, one guest), and Ansible set up for both."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.rig.collection import ROOT, collections_path
from tests.rig.guest import Guest
from tests.rig.libvirtd import Libvirtd
from tests.rig.tgtd import Tgtd

IMAGE = ROOT / ".cache" / "guest"
LOG = ROOT / ".cache" / "demo.log"
KEPT = ROOT / ".cache" / "demo-kept.json"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class DemoError(Exception):
    """The story can't go on; the message is for the person who watches."""


class Stage:
    """Everything the demo starts; `close` ends it, in the opposite order, whatever has happened."""

    def __init__(self) -> None:
        self.opened = contextlib.ExitStack()
        # short, because sockets live below it: their paths have at most 107 characters
        self.directory = Path(tempfile.mkdtemp(prefix="stackless-demo-", dir="/tmp"))
        self.opened.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.volumes = self.directory / "volumes"
        self.exports = self.directory / "tgt"
        for folder in (self.volumes, self.exports):
            folder.mkdir(mode=0o700)
        self.tgtd: Tgtd
        self.libvirtd: Libvirtd
        self.guest: Guest
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text("")

    def open_hosts(self) -> None:
        self.tgtd = Tgtd()
        self.opened.callback(self.tgtd.stop)
        self.tgtd.start()
        self.libvirtd = Libvirtd()
        self.opened.callback(self.libvirtd.stop)
        self.libvirtd.start()

    def open_guest(self, name: str) -> float:
        """Boots the guest; returns after how many seconds it answered."""
        self.guest = Guest(self.libvirtd.connection, IMAGE, self.directory, name)
        self.opened.callback(self._end_guest)
        return self.guest.start()

    def _end_guest(self) -> None:
        with LOG.open("a") as log:
            log.write(f"\n---- console of {self.guest.name}\n{self.guest.said()}")
        self.guest.stop()

    def close(self) -> None:
        self.opened.close()

    # ---- Ansible

    def write_inventory(self) -> None:
        storage = {
            "backend": {"driver": "file", "path": str(self.volumes)},
            "iscsi_target_helper": "tgt",
            "iscsi_portals": [{"ip": ip, "port": port} for ip, port in self.tgtd.portals],
            "iscsi_tgt": {"control_port": self.tgtd.control_port, "ipc_socket": str(self.tgtd.ipc_socket), "config_dir": str(self.exports)},
        }
        compute = {"libvirt_uri": self.libvirtd.uri, "connector_host": "compute-1", "connector_ip": "127.0.0.1"}
        here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        hosts = {
            "all": {"vars": here},
            "storage": {"hosts": {"storage-1": storage}},
            "compute": {"hosts": {"compute-1": compute}},
        }
        # JSON is YAML, and needs no library
        self.write("hosts.yml", json.dumps(hosts, indent=2))
        self.write("ansible.cfg", f"[defaults]\ninventory = {self.directory}/hosts.yml\ncollections_path = {collections_path()}\nlocalhost_warning = false\n")

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def command(self, playbook: str) -> str:
        """The command line of a playbook as a person types it in the checkout."""
        tool = Path(sys.executable).with_name("ansible-playbook").relative_to(ROOT)
        return f"ANSIBLE_CONFIG={self.directory}/ansible.cfg {tool} stackless.block.{playbook} -e @{self.directory}/wish.yml"

    def play(self, playbook: str) -> dict[str, int]:
        """Runs that command and returns how many tasks changed something, by host."""
        command = self.command(playbook)
        # TERM=dumb and no colours: the recap is read
        done = subprocess.run(
            ["env", *command.split()], cwd=ROOT, env={**os.environ, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        with LOG.open("a") as log:
            log.write(f"\n---- {command}\n{done.stdout}")
        if done.returncode:
            raise DemoError(f"the playbook {playbook} ended with {done.returncode}:\n{last_words(done.stdout)}")
        return {host: int(changed) for host, _ok, changed, _unreachable, _failed in RECAP.findall(done.stdout)}

    # ---- the one volume

    def record(self) -> dict[str, Any]:
        """The volume's record, as the storage keeps it beside the data."""
        found = list(self.volumes.glob("volume-*.json"))
        if len(found) != 1:
            raise DemoError(f"{self.volumes} holds {len(found)} volume records instead of one")
        return {"path": found[0].with_suffix(""), **json.loads(found[0].read_text())}

    # ---- kept running

    def keep(self) -> None:
        """Lets everything run on, and notes what to end later."""
        self.opened.pop_all()
        pids = [self.tgtd.pid, self.libvirtd.pid, *processes_with(self.guest.domain.UUIDString())]
        directories = [str(self.directory), str(self.tgtd.directory), str(self.libvirtd.directory)]
        KEPT.write_text(json.dumps({"processes": [(pid, born(pid)) for pid in pids], "directories": directories}))


def stop_kept() -> int:
    """Ends what `keep` noted; returns how many processes that were."""
    if not KEPT.exists():
        return 0
    kept = json.loads(KEPT.read_text())
    # the guest first: it still has the disk of the storage open
    ended = [pid for pid, since in reversed(kept["processes"]) if end(pid, since)]
    for directory in kept["directories"]:
        shutil.rmtree(directory, ignore_errors=True)
    KEPT.unlink()
    return len(ended)


def end(pid: int, since: str) -> bool:
    """Ends one process, if it is still the one that was noted: process ids are used again."""
    if born(pid) != since:
        return False
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + 5
        while born(pid) == since and time.monotonic() < deadline:
            time.sleep(0.05)
    return True


def born(pid: int) -> str:
    """When a process began, in the kernel's clock ticks; empty when there is none, or only its remains."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state == "Z" else rest[18]


def processes_with(word: str) -> list[int]:
    """The processes that have this word, unique to this run, on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_text(errors="replace") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def last_words(output: str) -> str:
    """What a failed playbook had to say: its errors, or else its end."""
    errors = [line for line in output.splitlines() if re.match(r"\s*(fatal|failed|ERROR|\[ERROR\])", line)]
    return "\n".join(line[:600] for line in (errors or output.splitlines()[-15:]))
