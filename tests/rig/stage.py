# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stage for the walk: a storage host (tgtd and a directory, or a Ceph cluster), a compute host (libvirtd, one guest), and Ansible set up for both.

    python -m tests.rig.stage up LINK [ceph]    makes one, with LINK pointing to its directory, and leaves it running
    python -m tests.rig.stage down LINK         ends that one; nothing to do when there is none
"""

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

from tests.rig.ceph import Ceph
from tests.rig.collection import ROOT, collections_path
from tests.rig.guest import Guest
from tests.rig.libvirtd import Libvirtd
from tests.rig.pools import RbdPool
from tests.rig.tgtd import Tgtd

IMAGE = ROOT / ".cache" / "guest"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class StageError(Exception):
    """Something on the stage is not as it has to be; the message is for a person."""


class Stage:
    """The private daemons, the guest and the inventory; `close` ends them, in the opposite order, whatever has happened.

    The storage host has a tgtd and volumes in files. `log` gets what playbooks and the guest have said.
    """

    def __init__(self, log: Path) -> None:
        self.opened = contextlib.ExitStack()
        # short, because sockets live below it: their paths have at most 107 characters
        self.directory = Path(tempfile.mkdtemp(prefix="stackless-", dir="/tmp"))
        self.opened.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.volumes = self.directory / "volumes"
        self.volumes.mkdir(mode=0o700)
        self.libvirtd: Libvirtd
        self.guest: Guest
        self.log = log
        log.parent.mkdir(exist_ok=True)
        log.write_text("")

    def open_hosts(self) -> None:
        self.open_storage()
        self.libvirtd = Libvirtd()
        self.opened.callback(self.libvirtd.stop)
        self.libvirtd.start()

    def open_guest(self, name: str) -> float:
        """Boots the guest; returns after how many seconds it answered."""
        self.guest = Guest(self.libvirtd.connection, IMAGE, self.directory, name)
        self.opened.callback(self._end_guest)
        return self.guest.start()

    def _end_guest(self) -> None:
        with self.log.open("a") as log:
            log.write(f"\n---- console of {self.guest.name}\n{self.guest.said()}")
        self.guest.stop()

    def close(self) -> None:
        self.opened.close()

    # ---- Ansible

    def write_inventory(self) -> None:
        compute = {"libvirt_uri": self.libvirtd.uri, "connector_host": "compute-1", "connector_ip": "127.0.0.1", "volume_transport": "qemu"}
        here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        hosts = {
            "all": {"vars": here},
            "storage": {"hosts": {"storage-1": self.storage_variables()}},
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
        tool = os.path.relpath(Path(sys.executable).with_name("ansible-playbook"), ROOT)
        return f"ANSIBLE_CONFIG={self.directory}/ansible.cfg {tool} stackless.block.{playbook} -e @{self.directory}/wish.yml"

    def play(self, playbook: str) -> dict[str, int]:
        """Runs that command and returns how many tasks changed something, by host."""
        command = self.command(playbook)
        # TERM=dumb and no colours: the recap is read
        done = subprocess.run(
            ["env", *command.split()], cwd=ROOT, env={**os.environ, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        with self.log.open("a") as log:
            log.write(f"\n---- {command}\n{done.stdout}")
        if done.returncode:
            raise StageError(f"the playbook {playbook} ended with {done.returncode}:\n{last_words(done.stdout)}")
        return {host: int(changed) for host, _ok, changed, _unreachable, _failed in RECAP.findall(done.stdout)}

    # ---- the storage, and the one volume on it

    def open_storage(self) -> None:
        self.tgtd = Tgtd()
        self.opened.callback(self.tgtd.stop)
        self.tgtd.start()

    def storage_variables(self) -> dict[str, Any]:
        """The variables of the storage host; `traces` are the directories where a walk leaves something."""
        return {
            "backend": {"driver": "file", "path": str(self.volumes)},
            "iscsi_target_helper": "tgt",
            "iscsi_portals": self.tgtd.portal_options,
            "iscsi_tgt": self.tgtd.options,
            "traces": [str(self.volumes), str(self.tgtd.config_dir)],
        }

    def storage_processes(self) -> list[tuple[int, Path]]:
        """The storage host's daemons, each with the directory that goes with it."""
        return [(self.tgtd.pid, self.tgtd.directory)]

    def introduced(self) -> str:
        """The storage host in its own words."""
        ip, port = self.tgtd.portals[0]
        return f"tgtd, process {self.tgtd.pid}, portal {ip}:{port}\nvolumes are files in {self.volumes}"

    def record(self) -> dict[str, Any]:
        """The volume's record, as the storage keeps it with the data."""
        return json.loads(self._one(sorted(self.volumes.glob("volume-*.json"))).read_text())

    def bytes_of(self, volume_id: str, size: int) -> bytes:
        """What the volume begins with."""
        with (self.volumes / f"volume-{volume_id}").open("rb") as data:
            return data.read(size)

    def exports(self) -> list[str]:
        return sorted(path.name for path in self.tgtd.config_dir.iterdir())

    def look_at_record(self) -> str:
        """The command with which a person sees the record."""
        return f"cat {self._one(sorted(self.volumes.glob('volume-*.json')))}"

    def _one(self, found: list[Any]) -> Any:
        if len(found) != 1:
            raise StageError(f"the storage holds {len(found)} volumes instead of one")
        return found[0]

    # ---- kept running

    def keep(self, link: Path) -> None:
        """Lets everything run on; `link` points to the stage's directory, and beside it stands what to end later."""
        self.opened.pop_all()
        daemons = [*self.storage_processes(), (self.libvirtd.pid, self.libvirtd.directory)]
        pids = [*(pid for pid, _directory in daemons), *processes_with(self.guest.domain.UUIDString())]
        directories = [str(self.directory), *(str(directory) for _pid, directory in daemons)]
        link.with_suffix(".json").write_text(json.dumps({"processes": [(pid, born(pid)) for pid in pids], "directories": directories}))
        link.unlink(missing_ok=True)
        link.symlink_to(self.directory)


class CephStage(Stage):
    """The storage host reaches a Ceph cluster, and has volumes in a pool of it."""

    def open_storage(self) -> None:
        self.ceph = Ceph(store="bluestore")
        self.opened.callback(self.ceph.stop)
        self.ceph.start()
        self.pool = RbdPool(self.ceph, namespace="")

    def storage_variables(self) -> dict[str, Any]:
        return {"backend": self.pool.backend, "traces": []}

    def storage_processes(self) -> list[tuple[int, Path]]:
        return [(pid, self.ceph.directory) for pid in self.ceph.pids]

    def introduced(self) -> str:
        pids = " and ".join(map(str, self.ceph.pids))
        return f"a Ceph cluster of one monitor, {self.ceph.ip}, and one OSD, processes {pids}\nvolumes are images in its pool {self.ceph.pool}"

    def record(self) -> dict[str, Any]:
        return json.loads(self._one(self.pool.records()))

    def bytes_of(self, volume_id: str, size: int) -> bytes:
        with self.pool.image(f"volume-{volume_id}", read_only=True) as image:
            return image.read(0, size)

    def exports(self) -> list[str]:
        return []

    def look_at_record(self) -> str:
        return f"rbd -c {self.ceph.conf} --id cinder image-meta list {self.ceph.pool}/volume-{self.record()['id']}"


def end_kept(link: Path) -> int:
    """Ends what `keep` left running; returns how many processes that were."""
    noted = link.with_suffix(".json")
    if not noted.exists():
        return 0
    kept = json.loads(noted.read_text())
    # the guest first: it still has the disk of the storage open
    ended = [pid for pid, since in reversed(kept["processes"]) if end(pid, since)]
    for directory in kept["directories"]:
        shutil.rmtree(directory, ignore_errors=True)
    link.unlink(missing_ok=True)
    noted.unlink()
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


def main(act: str, place: str, kind: str = "tgt") -> None:
    link = Path(place)
    end_kept(link)
    if act == "down":
        return
    stage = (CephStage if kind == "ceph" else Stage)(link.with_suffix(".log"))
    try:
        stage.open_hosts()
        stage.open_guest("web-1")
        stage.write_inventory()
        stage.keep(link)
    finally:
        stage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
