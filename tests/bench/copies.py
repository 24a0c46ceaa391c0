# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench-copies`: clones of thick volumes, images of them and volumes from images, beside `dd` and `qemu-img` of the same data.

    python -m tests.bench.copies [--rounds 3] [--write]

On the storage host of the lab, whose disks and processors are emulated. Records and logical volumes cost what they cost, whatever the
size; how fast is copied is told by what a second GiB costs more than one, for both, in turns in one run: their ratio is what counts.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from typing import Any

from tests.bench.images import best
from tests.rig.collection import ROOT
from tests.rig.lab.lab import Lab
from tests.rig.lab.volume_group import LvmPool, install_inspector

PAGE = ROOT / "docs" / "bench-copies.md"
HEAD = "| what | module, 1 GiB | module, 2 GiB | by hand, 1 GiB | by hand, 2 GiB | ratio of the second GiB |\n| --- | --- | --- | --- | --- | --- |"
TEXT = """# How fast thick volumes are copied

`make bench-copies` copies thick volumes in the lab of [lab.md](lab.md), beside `dd` past the page cache and `qemu-img convert` to a logical volume
made by hand: seconds for data that can't be compressed; the best of {rounds}, in turns, on an emulated machine, Linux {kernel}, {cores} processors.

{table}

Records and logical volumes cost what they cost, whatever the size; a second GiB costs what copying it costs. A thin volume is there at once.
"""
DEVICE, IMAGES = "/dev/volumes/theirs", "/root/images"
REMOVE = "lvremove -qq -y volumes/theirs"
CONVERT = "qemu-img convert -t writeback -f raw -O raw"


class Copies:
    """A thick volume with data, and acts on it: the module's, and those of somebody with a shell."""

    def __init__(self, lab: Lab, gib: int) -> None:
        self.host, self.pool, self.gib = lab.storage, LvmPool(lab.storage, "thick"), gib
        self.pool.backend["thin_pool"] = None
        self.path = self.module("cinder_volume", name="db", size_gib=gib)["path"]
        self.shell(f"mkdir -p {IMAGES}; head -c {gib}G /dev/urandom | dd of={self.path} bs=4M iflag=fullblock oflag=direct status=none")

    def module(self, module: str, **options: Any) -> dict[str, Any]:
        answer = self.host.module(module, {"backend": self.pool.backend, **options}, timeout=900)
        assert not answer.get("failed"), answer["msg"]
        return answer

    def shell(self, script: str) -> None:
        self.host.run(script, timeout=900)

    def times(self, rounds: int) -> Iterator[tuple[str, float, float]]:
        """What it was, with the seconds of ours and of theirs; wiping what is removed again is no part of it."""
        make = f"lvcreate -qq -y -W y -L {self.gib}G -n theirs volumes"
        copy = f"dd if={self.path} of={DEVICE} bs=4M iflag=direct oflag=direct conv=fsync status=none"
        clone = {"name": "copy", "source": {"volume": "db"}}
        yield "clone of a volume", *self.both(rounds, "cinder_volume", clone, f"{make}; {copy}", REMOVE)
        image = {"path": f"{IMAGES}/db.raw", "volume": "db", "format": "raw", "get_checksum": False}
        yield "raw of a volume", *self.both(rounds, "cinder_image", image, f"{CONVERT} {self.path} {IMAGES}/theirs", f"rm {IMAGES}/theirs")
        self.module("cinder_image", **image)
        disk = {"name": "disk", "source": {"image": image["path"], "format": "raw"}}
        yield "volume from raw", *self.both(rounds, "cinder_volume", disk, f"{make}; {CONVERT} -n {image['path']} {DEVICE}", REMOVE)

    def both(self, rounds: int, module: str, wish: dict[str, Any], theirs: str, clean: str) -> tuple[float, float]:
        gone = {**wish, "state": "absent"} if module == "cinder_image" else {"name": wish["name"], "state": "absent", "wipe": False}
        by_hand = (lambda: self.shell(theirs), lambda: self.shell(clean))
        mine, _idle, other = best(rounds, lambda: self.module(module, **wish), lambda: self.module(module, **gone), *by_hand)
        return mine, other


def measured(lab: Lab, rounds: int) -> Iterator[str]:
    install_inspector(lab.storage)
    lab.storage.run("lvremove -qq -y -f volumes/thin")
    found = []
    for gib in (1, 2):
        found.append(list(Copies(lab, gib).times(rounds)))
        lab.storage.run(f"rm -r {IMAGES}")
        LvmPool(lab.storage).clear()
    for (what, mine, other), (_what, mine_of_two, other_of_two) in zip(*found):
        ratio = (mine_of_two - mine) / (other_of_two - other)
        yield f"| {what} | {mine:.2f} | {mine_of_two:.2f} | {other:.2f} | {other_of_two:.2f} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.copies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the page in docs")
    asked = parser.parse_args()
    lab, rows = Lab(os.environ.get("LAB_NAME", "bench")), [HEAD]
    lab.start()
    try:
        for row in measured(lab, asked.rounds):
            print(row, flush=True)
            rows.append(row)
    finally:
        lab.stop()
    if asked.write:
        kernel = platform.release().partition("-")[0]
        PAGE.write_text(TEXT.format(rounds=asked.rounds, kernel=kernel, cores=os.cpu_count(), table="\n".join(rows)))


if __name__ == "__main__":
    main()
