# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench-lab`: what exports, sessions and disks cost on real kernels, and what the same costs with the usual tools.

    python -m tests.bench.lab [--sizes 1,10,50,100] [--peers 10,50,100] [--write]

One storage host and one compute host in the lab; everything is measured in one run on one machine: compare the rows
with each other. A module is measured as a whole process on its host, reached over ssh, and so are the others, but for the
imports of os-brick, which its host process does once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Iterator

from tests.rig.collection import ROOT
from tests.rig.lab.lab import Lab

PAGE = ROOT / "docs" / "bench-lab.md"
HERE = Path(__file__).parent
BRICK = "os-brick==7.1.1"
PREFIX = "iqn.2026-01.org.example:bench-"
DOMAINS = ("web-1", "web-2", "web-3", "web-4")
PATIENCE = 3600
ENOUGH = 20  # times our own time: what takes longer is stopped
MULTIPATH = ("multipath-tools", "sg3-utils-udev")  # whose rules have udev start six programs for every disk
BESIDE = " (multipath-tools there)"
STAGES = {"disks": "connect: kernel has the disks", "links": "connect: udev has linked them"}
US = "stackless.block"
MOST_OF_BRICK = 50  # it takes minutes already, and more the more there are
EXPORT = ("export", "admit")


@dataclasses.dataclass
class Row:
    what: str
    who: str
    count: int
    seconds: float
    stopped: bool = False

    def cells(self) -> list[str]:
        more = "> " * self.stopped
        return [self.what, self.who, str(self.count), f"{more}{self.seconds:.1f}", f"{more}{1000 * self.seconds / self.count:.0f}"]


class Bench:
    """The volumes of one size in a fresh lab, and what is done with them. Without rows nothing is noted."""

    def __init__(self, lab: Lab, size: int, rows: list[Row] | None, prefix: str = "v", where: str = "") -> None:
        self.lab, self.size, self.rows, self.where = lab, size, rows, where
        self.names = [f"{prefix}{number:03d}" for number in range(size)]
        self.backend = {"driver": "lvm", "pool": "volumes", "thin_pool": "thin", "max_over_subscription_ratio": 100}
        self.portals = [{"ip": lab.storage.address}]
        self.initiator = lab.compute.run("sed -n s/InitiatorName=//p /etc/iscsi/initiatorname.iscsi").strip()
        self.volumes: list[dict[str, Any]] = []

    def note(self, what: str, who: str, seconds: float, stopped: bool = False) -> None:
        if self.rows is not None:
            self.rows.append(Row(what + self.where, who, self.size, seconds, stopped))
            print("  ".join(self.rows[-1].cells()), flush=True)

    def timed(self, what: str, host: Any, module: str, **options: Any) -> dict[str, Any]:
        began = time.monotonic()
        answer = host.module(module, options, timeout=PATIENCE)
        seconds = time.monotonic() - began
        if answer.get("failed"):
            raise SystemExit(f"{what} of {self.size}: {answer['msg'][:2000]}")
        self.note(what, US, seconds)
        return answer

    @contextlib.contextmanager
    def watched(self, who: str, marks: dict[str, float]) -> Iterator[None]:
        """Notes when the kernel and udev were ready with what is connected meanwhile, from the mark `began` on, or from now."""
        compute = self.lab.compute
        watch = f"timeout {PATIENCE} python3 /root/watch.py {self.size} </dev/null >/run/watch 2>&1 & until grep -q began /run/watch; do sleep 0.1; done"
        compute.run(f"rm -f /run/watch; touch /run/watch; {watch}")
        yield
        seen = compute.run("until grep -q links /run/watch; do sleep 0.2; done; cat /run/watch")
        marks = {**dict(map(json.loads, seen.splitlines())), **marks}
        for stage, what in STAGES.items():
            self.note(what, who, marks[stage] - marks["began"])

    def run(self) -> None:
        storage = self.lab.storage
        wished = [{"name": name, "size_gib": 1} for name in self.names]
        self.volumes = self.timed("create", storage, "cinder_volume", backend=self.backend, volumes=wished)["results"]
        self.timed("export", storage, "iscsi_target", helper="lio", targets=self.targets())
        exported = self.timed("admit", storage, "iscsi_target", helper="lio", targets=self.doors(), return_secrets=True)
        self.sessions(exported)

    def targets(self) -> list[dict[str, Any]]:
        return [{"target_iqn": PREFIX + v["name"], "luns": [{"path": v["path"], "serial": v["id"]}], "portals": self.portals} for v in self.volumes]

    def doors(self) -> list[dict[str, Any]]:
        return [{"target_iqn": PREFIX + v["name"], "acls": [{"initiator": self.initiator}]} for v in self.volumes]

    def sessions(self, exported: dict[str, Any]) -> None:
        compute, wishes = self.lab.compute, self.logins(exported)
        with self.watched(US, {}):
            devices = self.timed("connect", compute, "iscsi_initiator", timeout=600, sessions=wishes)["results"]
        disks = [
            {"domain": DOMAINS[n % len(DOMAINS)], "serial": v["id"], "bus": "scsi", "source": {"type": "block", "path": d["device_path"]}}
            for n, (v, d) in enumerate(zip(self.volumes, devices))
        ]
        self.timed("attach", compute, "libvirt_disk", timeout=600, disks=disks)
        gone = [{"domain": disk["domain"], "serial": disk["serial"], "state": "absent"} for disk in disks]
        self.timed("detach", compute, "libvirt_disk", timeout=600, disks=gone)
        out = [{"target_iqn": wish["target_iqn"], "serial": wish["serial"], "state": "absent"} for wish in wishes]
        self.timed("disconnect", compute, "iscsi_initiator", timeout=600, sessions=out)

    def logins(self, exported: dict[str, Any]) -> list[dict[str, Any]]:
        pairs = {c["target_iqn"]: {key: c[key] for key in ("username", "password")} for c in exported["credentials"]}
        seen = {r["target_iqn"]: r["luns"][0] for r in exported["results"]}
        self.wishes = [
            {"target_iqn": iqn, "portals": self.portals, **{key: lun[key] for key in ("lun", "wwid", "serial", "size_bytes")}, **pairs[iqn]}
            for iqn, lun in seen.items()
        ]
        return self.wishes

    def withdraw(self) -> None:
        self.timed("withdraw", self.lab.storage, "iscsi_target", helper="lio", targets=[{"target_iqn": PREFIX + n, "state": "absent"} for n in self.names])

    # ---- the others

    def brick(self) -> None:
        wanted = [
            {
                "target_discovered": False, "target_portal": f"{self.lab.storage.address}:3260", "target_iqn": w["target_iqn"], "target_lun": w["lun"],
                "volume_id": w["serial"], "auth_method": "CHAP", "auth_username": w["username"], "auth_password": w["password"], "access_mode": "rw",
            }
            for w in self.wishes
        ]  # fmt: skip
        marks: dict[str, float] = {}
        with self.watched("os-brick", marks):
            told = self.lab.compute.run("PYTHONPATH=/root/brick python3 /root/brick.py 2>/dev/null", timeout=PATIENCE, input=json.dumps(wanted))
            marks.update(json.loads(told.strip().splitlines()[-1]))
            self.note("connect", "os-brick", marks["connected"] - marks["began"])
        self.note("disconnect", "os-brick", marks["disconnected"] - marks["parted"])

    def per_call(self) -> None:
        call = "python3 /root/rtstool.py"
        self.script("a process per call", [
            f"{call} create {v['path']} {PREFIX}{v['name']} user{n} password{n:08d} {self.lab.storage.address}; {call} save; "
            f"{call} add-initiator {PREFIX}{v['name']} user{n} password{n:08d} {self.initiator}; {call} save"
            for n, v in enumerate(self.volumes)
        ])  # fmt: skip

    def targetcli(self) -> None:
        self.script("targetcli", [f"targetcli <<'EOF' >/dev/null\n{self.typed(n, v)}\nEOF" for n, v in enumerate(self.volumes)])

    def script(self, who: str, lines: list[str]) -> None:
        """Exports and admits in somebody else's way, and clears it all away."""
        limit = ENOUGH * seconds(self.rows or [], self.size, US, *EXPORT)
        began = time.monotonic()
        ended = self.lab.storage.run(f"timeout {limit:.0f} bash -s && echo all || test $? = 124", timeout=PATIENCE, input="set -e\n" + "\n".join(lines))
        self.note("export and admit", who, time.monotonic() - began, stopped="all" not in ended)
        self.lab.storage.run("python3 /root/rtstool.py clear", timeout=PATIENCE)

    def typed(self, number: int, volume: dict[str, Any]) -> str:
        iqn = PREFIX + volume["name"]
        door = f"/iscsi/{iqn}/tpg1/acls/{self.initiator}"
        return "\n".join([
            f"/backstores/block create {volume['name']} {volume['path']}",
            f"/iscsi create {iqn}",
            f"/iscsi/{iqn}/tpg1 set attribute authentication=1",
            f"/iscsi/{iqn}/tpg1/luns create /backstores/block/{volume['name']} 0",
            f"/iscsi/{iqn}/tpg1/acls create {self.initiator}",
            f"{door} set auth userid=user{number} password=password{number:08d}",
            "exit",
        ])  # fmt: skip


def prepare(lab: Lab, brick: bytes) -> None:
    lab.storage.run("cat >/root/rtstool.py", input=(HERE / "peers" / "rtstool.py").read_text())
    lab.compute.run("cat >/root/brick.py", input=(HERE / "peers" / "brick.py").read_text())
    lab.compute.run("mkdir -p /root/brick /run/brick; tar -xf - -C /root/brick", input=brick, timeout=300)


def brick_archive() -> bytes:
    """os-brick and all that it needs, for the Python of the hosts."""
    place = ROOT / ".cache" / "bench" / BRICK
    if not place.exists():
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-compile", "--target", f"{place}.new", BRICK, "eventlet", "yappi"]
        subprocess.run(command, check=True)
        Path(f"{place}.new").rename(place)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(place, arcname=".")
    return packed.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.lab")
    sizes = {"type": lambda text: [int(size) for size in text.split(",") if size]}
    parser.add_argument("--sizes", default="1,10,50,100", **sizes)
    parser.add_argument("--peers", default="10,50,100", help="the sizes at which the others are measured too", **sizes)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args()
    rows: list[Row] = []
    lab = Lab(os.environ.get("LAB_NAME", "bench"))
    brick = brick_archive() if asked.peers else b""
    lab.start()
    try:
        for size in asked.sizes:
            measure(lab, size, rows, brick if size in asked.peers else b"")
        for size in [size for size in asked.sizes if size in asked.peers and size <= MOST_OF_BRICK]:
            measure_beside_multipath(lab, size, rows, brick)
    finally:
        lab.stop()
    print("\n" + page(rows))
    if asked.write:
        PAGE.write_text(page(rows))


def measure(lab: Lab, size: int, rows: list[Row], brick: bytes) -> None:
    lab.reset()
    lab.compute.run(f"dpkg -r --force-depends {' '.join(MULTIPATH)} >/dev/null 2>&1; udevadm control --reload", timeout=300)
    bench = warmed(lab, size, rows)
    bench.run()
    if brick:
        prepare(lab, brick)
        if size <= MOST_OF_BRICK:
            bench.brick()
    bench.withdraw()
    if brick:
        bench.targetcli()
        bench.per_call()


def measure_beside_multipath(lab: Lab, size: int, rows: list[Row], brick: bytes) -> None:
    lab.reset()
    bench = warmed(lab, size, rows, BESIDE)
    bench.run()
    prepare(lab, brick)
    bench.brick()


def warmed(lab: Lab, size: int, rows: list[Row], where: str = "") -> Bench:
    """Who comes first must not pay for what a host does once: start iscsid, load modules."""
    lab.compute.run("cat >/root/watch.py", input=(HERE / "watch.py").read_text())
    first = Bench(lab, 1, None, "w")
    first.run()
    first.withdraw()
    return Bench(lab, size, rows, where=where)


def seconds(rows: list[Row], count: int, who: str, *what: str) -> float:
    return sum(row.seconds for row in rows if (row.who, row.count) == (who, count) and row.what in what)


def ratios(rows: list[Row]) -> list[str]:
    """What counts: it holds on any machine."""
    said = []
    for row in rows:
        if row.who != US:
            ours = seconds(rows, row.count, US, *(EXPORT if row.what == "export and admit" else (row.what,)))
            more = "more than " * row.stopped
            said.append(f"- {row.what}, {row.count} volumes: {row.who} takes {more}{row.seconds / ours:.1f} times as long as {US}.")
    flat = sorted({row.count for row in rows if row.count >= 10})
    for what in dict.fromkeys(row.what for row in rows if row.who == US and not row.what.endswith(BESIDE)) if len(flat) > 1 else ():
        each = [seconds(rows, count, US, what) / count for count in (flat[0], flat[-1])]
        said.append(f"- {what}: one of {flat[-1]} costs {each[1] / each[0]:.2f} times what one of {flat[0]} costs.")
    return said


def page(rows: list[Row]) -> str:
    head = ["act", "by", "volumes", "seconds", "ms each"]
    table = "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *(row.cells() for row in rows)])
    return f"""# What the kernel's path costs

Made by `make bench-lab` on a machine with {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}: the lab of [lab.md](lab.md),
one storage host and one compute host as virtual machines. The volumes are thin LVs of 1 GiB, one target each, CHAP for
each, one portal. "a process per call" makes what Cinder's LIO driver makes with cinder-rtstool: create, save,
add-initiator, save, a process each. "targetcli" is one session of it per volume. What takes {ENOUGH} times as long as ours is
stopped there. os-brick ({BRICK.partition('==')[2]}) connects one volume after the other, as Nova makes it do; its imports are not counted, ours
are. Before each size both hosts have done all of it once. All rows are of one run; the ratios below are what to compare.

"connect" is until os-brick, or the module, hands the devices over: os-brick when the kernel has them, the module when udev has
made their links too and serial, WWID and size were compared. The rows beside it tell when the kernel had them all, and when
they all had their links, for both alike. Nobody uses multipath here, and the compute host has no multipath-tools; the last
rows are of one that has: the rules that come with it, and with its sg3-utils-udev, have udev start six programs for every
disk, and on two emulated processors the links come later.

{table}

{chr(10).join(ratios(rows))}
"""


if __name__ == "__main__":
    main()
