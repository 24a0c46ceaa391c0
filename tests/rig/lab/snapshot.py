# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines as they are when a test begins, each as two disks and the contents of its memory."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.rig.lab.bare import compile_guest
from tests.rig.lab.cache import CACHE, HERE, key, made, run
from tests.rig.lab.host import Host
from tests.rig.lab.image import image
from tests.rig.lab.machine import ROLES, STORAGE, Machine
from tests.rig.lab.ports import free_ports
from tests.rig.lab.ssh import write_ssh_config

PAUSED = {"compute-1": ("web-1", "web-2", "web-3", "web-4"), "compute-2": ("db-1", "db-2")}
RUNNING = {"compute-1": ("guest-1",), "compute-2": ()}


def snapshot() -> Path:
    """The directory of the snapshot `ready`; made when it is not there, which takes a minute or two."""
    base = image()
    parts = [HERE / name for name in ("snapshot.py", "prepare", "guest")]
    # memory fits only the very machine that it was saved from
    machines = [Machine(role, Path(), Path(), Path(), 0).command() for role in ROLES]
    version = key(base.name, run("qemu-system-x86_64", "--version"), machines, *parts)
    return made("ready", version, lambda place: build(place, base))


def build(place: Path, base: Path) -> None:
    (place / "image").symlink_to(Path("..", base.name))
    # the same for every build here, so that one cleans up after another that was killed
    sockets = Path("/tmp", f"lab-{key(str(CACHE))}")
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700)
    machines = [Machine(role, base, place, sockets, port) for role, port in zip(ROLES, free_ports(len(ROLES)))]
    config = write_ssh_config(place / "ssh_config", machines)
    try:
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(lambda machine: prepare(machine, Host(machine, config), place), machines))
    finally:
        for machine in machines:
            machine.stop()
        shutil.rmtree(sockets)


def prepare(machine: Machine, host: Host, place: Path) -> None:
    disks = disks_of(place, machine)
    # named from here, so that a checkout may be moved
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "image/disk.ext4", disks[0])
    run("qemu-img", "create", "-q", "-f", "qcow2", disks[1], "8G")
    machine.start(disks)
    machine.wait_until_running()
    host.wait_for_boot(timeout=600)
    if machine.role is STORAGE:
        host.run((HERE / "prepare/storage.sh").read_text(), timeout=600)
    else:
        prepare_compute(host)
    host.run("systemctl is-system-running --wait || systemctl --failed; sync; echo 3 > /proc/sys/vm/drop_caches", timeout=600)
    host.hang_up()
    machine.save(place / f"{host.name}.memory")


def prepare_compute(host: Host) -> None:
    host.run((HERE / "prepare/compute.sh").read_text(), timeout=600)
    with tempfile.TemporaryDirectory() as temporary:
        compile_guest(Path(temporary) / "guest.elf")
        host.run("mkdir -p /var/lib/lab; cat > /var/lib/lab/guest.elf", input=(Path(temporary) / "guest.elf").read_bytes())
    running = [word for name in RUNNING[host.name] for word in ("--running", name)]
    host.run(f"python3 - {' '.join([*running, *PAUSED[host.name]])}", timeout=600, input=(HERE / "prepare/domains.py").read_text())


def disks_of(place: Path, machine: Machine) -> list[Path]:
    return [place / f"{machine.role.name}.{disk}.qcow2" for disk in ("root", "data")]
