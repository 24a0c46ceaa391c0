# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench`: what the walk costs for 1, 10, 50 and 100 attachments, and the same work with one task run per volume.

    python -m tests.bench [--ceph] [--sizes 1,10,50,100] [--no-loop] [--write]

With --ceph (`make bench-ceph`) the volumes are in a Ceph cluster, and the yardstick is what an administrator types.
Prints a table; --write also puts it into docs/bench.md (docs/bench-ceph.md). Everything is measured in one run on one
machine: compare the rows with each other, not with another machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import time
from pathlib import Path
from typing import Any, Iterator

from tests.bench import by_hand
from tests.rig.ceph import Ceph
from tests.rig.collection import ROOT
from tests.rig.pools import RbdPool
from tests.rig.walk import CephWalk, Played, Walk

PAGE, CEPH_PAGE = ROOT / "docs" / "bench.md", ROOT / "docs" / "bench-ceph.md"
LOOP = Path(__file__).with_name("loop.yml")


@dataclasses.dataclass
class Row:
    """One measured play: what ran, for how many attachments, and what it took."""

    play: str
    count: int
    tasks: int
    modules: int
    wall: float
    cpu: float

    def cells(self) -> list[str]:
        each = 1000 * self.wall / self.count
        return [self.play, str(self.count), str(self.tasks), str(self.modules), f"{self.wall:.1f}", f"{self.cpu:.1f}", f"{each:.0f}"]


HEAD = ["play", "attachments", "tasks", "module runs", "wall s", "controller CPU s", "wall ms each"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("--sizes", default="1,10,50,100", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--no-loop", action="store_true", help="leave out the one-task-run-per-volume yardstick")
    parser.add_argument("--ceph", action="store_true", help="volumes in a Ceph cluster, beside `rbd` and `virsh` called once per volume")
    parser.add_argument("--write", action="store_true", help="write the page in docs")
    asked = parser.parse_args()
    rows: list[Row] = []
    with ground(asked.ceph) as walk:
        for number in range(1, max(asked.sizes) + 1):
            walk.libvirtd.paused_domain(f"web-{number}", machine="pc")
        walk.play("attach", volumes=[], attachments=[])  # warms the interpreter's and Ansible's caches
        for size in asked.sizes:
            measure(walk, size, rows, loop=not asked.no_loop and not asked.ceph)
        if asked.ceph:
            by_hand.make_secret(walk)
            for size in asked.sizes:
                measure_by_hand(walk, size, rows)
    table = markdown(rows)
    print("\n" + table + "\n" + growth(rows))
    if asked.write:
        (CEPH_PAGE if asked.ceph else PAGE).write_text((ceph_page if asked.ceph else page)(table, growth(rows)))


@contextlib.contextmanager
def ground(ceph: bool) -> Iterator[Walk]:
    if not ceph:
        with Walk() as walk:
            yield walk
    else:
        with Ceph(store="bluestore", size=8 << 30) as cluster, CephWalk(RbdPool(cluster, namespace="")) as walk:
            yield walk


def measure_by_hand(walk: CephWalk, size: int, rows: list[Row]) -> None:
    for label, act in (("attach", by_hand.attach), ("detach", by_hand.detach)):
        before, began = os.times(), time.monotonic()
        act(walk, size)
        rows.append(Row(f"{label} with rbd and virsh", size, 0, 0, time.monotonic() - began, cpu_since(before)))
        print("  ".join(rows[-1].cells()), flush=True)
    by_hand.clear(walk, size)


def measure(walk: Walk, size: int, rows: list[Row], loop: bool) -> None:
    names = [f"vol-{number}" for number in range(1, size + 1)]
    wish: dict[str, Any] = {
        "volumes": [{"name": name, "size_gib": 1} for name in names],
        "attachments": [{"volume": name, "instance": f"web-{n}", "bus": "scsi"} for n, name in enumerate(names, 1)],
    }
    plays = [("attach", "attach"), ("attach, second run", "attach"), ("attach, --check", "attach"), ("detach", "detach")]
    for label, playbook in plays:
        note(rows, label, size, lambda p=playbook, c=label.endswith("--check"): walk.play(p, check=c, **wish))
    if loop:
        note(rows, "attach with loop", size, lambda: walk.play(str(LOOP), **wish))
        must(walk.play("detach", **wish))
    must(walk.play("volume", volumes=wish["volumes"], volume_state="absent"))


def note(rows: list[Row], label: str, size: int, play: Any) -> None:
    before, began = os.times(), time.monotonic()
    played = must(play())
    wall, cpu = time.monotonic() - began, cpu_since(before)
    ran = [task for task in played.tasks if task["status"] != "skipped"]
    rows.append(Row(label, size, len(ran), sum(played.module_runs().values()), wall, cpu))
    print("  ".join(rows[-1].cells()), flush=True)


def cpu_since(before: os.times_result) -> float:
    """Seconds of processor of all that was run and has ended since."""
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def must(played: Played) -> Played:
    if played.status:
        raise SystemExit(played.output[-4000:])
    return played


def markdown(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def growth(rows: list[Row]) -> str:
    """The ratios that count: they hold on any machine."""
    said = []
    for label in dict.fromkeys(row.play for row in rows):
        mine = [row for row in rows if row.play == label]
        if len(mine) > 1:
            said.append(f"- {label}: {mine[-1].count} take {mine[-1].wall / mine[0].wall:.1f} times the wall time of {mine[0].count}.")
    for row in (r for r in rows if r.play == "attach with loop"):
        ours = next(r for r in rows if r.play == "attach" and r.count == row.count)
        said.append(f"- {row.count} attachments: the loop takes {row.wall / ours.wall:.1f} times as long as `stackless.block.attach`.")
    for row in (r for r in rows if r.play.endswith("with rbd and virsh")):
        ours = next(r for r in rows if r.play == row.play.split()[0] and r.count == row.count)
        said.append(f"- {row.count} attachments: {row.play} takes {row.wall / ours.wall:.2f} times as long as `stackless.block.{ours.play}`.")
    for label in dict.fromkeys(row.play for row in rows if len(rows) > 1 and row.count >= 10):
        mine = [row for row in rows if row.play == label and row.count >= 10]
        ratio = (mine[-1].wall / mine[-1].count) / (mine[0].wall / mine[0].count)
        said.append(f"- {label}: one of {mine[-1].count} costs {ratio:.2f} times what one of {mine[0].count} costs.")
    return "\n".join(said)


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release().split('-')[0]}"


def ceph_page(table: str, ratios: str) -> str:
    return f"""# What the walk costs with Ceph

Made by `make bench-ceph` (`.venv/bin/python -m tests.bench --ceph --write`) on a machine with {machine()}.
A real Ceph cluster of one monitor and one OSD (bluestore in a file), one compute host with a real libvirtd, all local; the
instances are paused QEMU guests of 16 MiB, one for each attachment, with the disks on their SCSI controller. "attach" makes the
volumes too. "with rbd and virsh" (tests/bench/by_hand.py) is `rbd create` and `virsh attach-device`, or `virsh detach-device`, once
per volume, with the secret made before: no look, no record, no second run, no way back. Controller CPU is the user and system
time of ansible-playbook, or of the shell, and all it starts; the daemons are not in it. Times are of one run and of one machine;
the ratios below are what to compare.

{table}

{ratios}
"""


def page(table: str, ratios: str) -> str:
    return f"""# What the walk costs

Made by `make bench` (`.venv/bin/python -m tests.bench --write`) on a machine with {machine()}.
One storage host with a real tgtd, one compute host with a real libvirtd, both local; the instances are paused
QEMU guests of 16 MiB, one for each attachment, with the disks on their SCSI controller. "attach" makes the volumes
too. "attach with loop" is tests/bench/loop.yml: the same modules, one task run per volume. Controller CPU is the
user and system time of ansible-playbook and all it starts, so the modules of both hosts are in it, the daemons are not.
Times are of one run and of one machine; the ratios below are what to compare.

{table}

{ratios}
"""


if __name__ == "__main__":
    main()
