# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as a whole: three machines out of the snapshot, what can be done to them and their wires, and Ansible for them.

What is needed to find a lab again stands in .cache/lab/labs/<name>/state.json: processes, ports, and who started it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from tests.rig.lab.bare import BareGuest
from tests.rig.lab.cache import CACHE, LabError, forget, locked
from tests.rig.lab.host import Host
from tests.rig.lab.inventory import inventory
from tests.rig.lab.machine import COMPUTES, ROLES, Machine
from tests.rig.lab.ports import free_ports
from tests.rig.lab.snapshot import RUNNING, disks_of, snapshot
from tests.rig.lab.ssh import write_ssh_config
from tests.rig.stage import born, end
from tests.rig.walk import Played, Plays

LABS = CACHE / "labs"


class Lab(Plays):
    """One lab of this checkout, told from others by its name; `start` or `find` comes first.

    `storage`, `compute` and `compute2` are its hosts, `hosts` all of them, `guest` the guest that answers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = LABS / name
        self.hosts: list[Host] = []

    @property
    def storage(self) -> Host:
        return self.hosts[0]

    @property
    def compute(self) -> Host:
        return self.hosts[1]

    @property
    def compute2(self) -> Host:
        return self.hosts[2]

    @property
    def guest(self) -> BareGuest:
        """The guest that runs on the first compute host, and answers."""
        return BareGuest(self.compute, RUNNING[self.compute.name][0])

    @property
    def inventory(self) -> Path:
        return self.directory / "hosts.yml"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    # ---- its life

    def start(self, keep: bool = False) -> None:
        """Starts it from the snapshot. Unless it is to be kept, it belongs to the thread that calls this, and ends with it at the latest."""
        self._refuse_to_take_over()  # at once: it may take a while until others have started theirs
        with locked("labs"):
            end_orphans()
            self._refuse_to_take_over()
            self.stop()
            ready = snapshot()
            self.directory.mkdir(parents=True)
            self._write_state({
                "owner": None if keep else [os.getpid(), born(os.getpid())],
                "ready": str(ready), "sockets": tempfile.mkdtemp(prefix="lab-", dir="/tmp"), "ports": free_ports(len(ROLES)), "processes": {},
            })  # fmt: skip
            forget_unused()
        self._open()
        write_ssh_config(self.ssh_config, [host.machine for host in self.hosts])
        # JSON is YAML, and needs no library
        self.inventory.write_text(json.dumps(inventory(self.ssh_config), indent=2) + "\n")
        self.reset()

    def find(self) -> Lab:
        """Takes up a lab that another process has started. LabError when there is none."""
        self._open()
        for host in self.hosts:
            host.machine.check()
        return self

    def reset(self) -> None:
        """Back to the snapshot, whatever has happened since."""
        state = self._state()
        ready, mortal = Path(state["ready"]), (state["owner"] or [0])[0] == os.getpid()
        for host in self.hosts:
            host.machine.stop()
        try:
            for host in self.hosts:
                host.machine.start(disks_of(ready, host.machine), ready / f"{host.name}.memory", mortal)
        finally:
            processes = {host.name: host.machine.process for host in self.hosts if host.machine.process}
            self._write_state({**state, "processes": processes})
        self._on_all(wake)

    def stop(self) -> None:
        """Ends everything of it; nothing to do when there is nothing."""
        state = self._state()
        for host in self.hosts:
            host.machine.stop()
        for process in state.get("processes", {}).values():
            end(*process)
        if state:
            shutil.rmtree(state["sockets"], ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _refuse_to_take_over(self) -> None:
        owner = self._state().get("owner")
        if owner and born(owner[0]) == owner[1] and owner[0] != os.getpid():
            raise LabError(f"the lab {self.name} is in use by process {owner[0]}; set LAB_NAME to another name to have one of your own")

    def _open(self) -> None:
        state = self._state()
        if not state:
            raise LabError(f"there is no lab {self.name}; start it with `make lab`")
        sockets, image = Path(state["sockets"]), (Path(state["ready"]) / "image").resolve()
        machines = [Machine(role, image, self.directory, sockets, port) for role, port in zip(ROLES, state["ports"])]
        for machine in machines:
            found = state["processes"].get(machine.role.name)
            machine.process = tuple(found) if found else None
        self.hosts = [Host(machine, self.ssh_config) for machine in machines]

    def _state(self) -> dict[str, Any]:
        path = self.directory / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _write_state(self, state: dict[str, Any]) -> None:
        new = self.directory / "state.new"
        new.write_text(json.dumps(state))
        new.replace(self.directory / "state.json")

    def _on_all(self, act: Callable[[Host], None]) -> None:
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(act, self.hosts))

    # ---- its wires

    def cut(self, host: Host, address: str = "") -> None:
        """Cuts a host off the storage network, unseen by either end: frames just do not arrive. With `address`, only this one is taken from the host."""
        if address:
            host.run(f"ip address delete {prefixed(address)} dev $({CARD})")
        else:
            self._set_links(host, up=False)

    def heal(self, host: Host, address: str = "") -> None:
        """The opposite of `cut`."""
        if address:
            host.run(f"ip address replace {prefixed(address)} dev $({CARD}) {'nodad' if ':' in address else ''}")
        else:
            self._set_links(host, up=True)

    def _set_links(self, host: Host, up: bool) -> None:
        names = [host.name] if host is not self.storage else [role.name for role in COMPUTES]
        for name in names:
            self.storage.machine.qmp("set_link", name=f"wire-{name}", up=up)

    # ---- Ansible

    def play(self, playbook: str, *arguments: str, check: bool = False, env: dict[str, str] | None = None, **variables: Any) -> Played:
        more = {"ANSIBLE_REMOTE_TMP": "/root/.ansible/tmp", **(env or {})}
        return super().play(playbook, *arguments, check=check, env=more, **variables)


# the card with this beginning of an address is the one in the storage network
CARD = "basename $(dirname $(grep -l ^52:54:00:77 /sys/class/net/*/address))"


def prefixed(address: str) -> str:
    return f"{address}/{64 if ':' in address else 24}"


def wake(host: Host) -> None:
    """Until the host runs and answers, in the present."""
    host.machine.wait_until_running()
    host.hang_up()
    host.wait_for_boot(timeout=60)
    host.set_clock()


def labs() -> list[Lab]:
    return [Lab(path.parent.name) for path in sorted(LABS.glob("*/state.json"))]


def end_orphans() -> None:
    """Takes away what is left of labs whose owners are gone without having ended them."""
    for lab in labs():
        owner = lab._state().get("owner")
        if owner and born(owner[0]) != owner[1]:
            lab.stop()


def forget_unused() -> None:
    """Takes away snapshots and images that no lab stands on."""
    used = {Path(lab._state()["ready"]) for lab in labs()}
    forget("ready", {path.name for path in used})
    images = {(path / "image").resolve() for path in used}
    forget("image", {path.name for path in images})
