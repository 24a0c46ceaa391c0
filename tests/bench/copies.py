# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench-copies`: snapshots and clones of thick volumes, images of them and volumes from images, beside `dd` and `qemu-img` of the same data.

    python -m tests.bench.copies [--mib 2048] [--rounds 4] [--write]

On the storage host of the lab, whose disks and processors are emulated: what counts is the ratio of the best, in turns in one run. The
module is a child of a process that has imported it; what a run takes that finds nothing to do is told besides, and taken off for the ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from tests.bench.images import HEAD, beside
from tests.rig.collection import ROOT
from tests.rig.lab.lab import Lab
from tests.rig.lab.volume_group import LvmPool, install_inspector

PAGE = ROOT / "docs" / "bench-copies.md"
TEXT = """# What copies of thick volumes cost

`make bench-copies` copies thick volumes in the lab of [lab.md](lab.md), beside `dd` past the page cache and `qemu-img convert`: {mib} MiB of data,
which can't be compressed; the best of {rounds}, in turns, on an emulated machine, Linux {kernel}, {cores} processors.

{table}

The ratio is without what a run takes that finds nothing to do. A thin volume is there at once, whatever it holds.
"""
DEVICE, MAKE = "/dev/volumes/theirs", "lvcreate -qq -y -W y -L {}m -n theirs volumes"
DIRECT = "bs=4M iflag=direct oflag=direct conv=fsync status=none"


class Copies:
    """A thick volume with data, and acts on it: the module's, and those of somebody with a shell."""

    def __init__(self, lab: Lab, mib: int) -> None:
        self.host, self.mib = lab.storage, mib
        install_inspector(self.host)
        self.host.run("lvremove -qq -y -f volumes/thin")
        self.pool = LvmPool(self.host, "thick")
        self.pool.backend["thin_pool"] = None
        self.path = self.module("cinder_volume", name="db", size_gib=mib >> 10)["path"]
        self.host.run(f"head -c {mib}M /dev/urandom | dd of={self.path} bs=4M iflag=fullblock oflag=direct status=none", timeout=600)

    def module(self, module: str, **options: Any) -> dict[str, Any]:
        answer = self.host.module(module, {"backend": self.pool.backend, **options}, timeout=900)
        assert not answer.get("failed"), answer["msg"]
        return answer

    def shell(self, script: str) -> None:
        self.host.run(script, timeout=900)

    def rows(self, rounds: int) -> Any:
        """A snapshot is written to a new device, as a clone is; wiping what is removed is no part of either."""
        make = MAKE.format(self.mib)
        gone = {"state": "absent", "wipe": False}
        clone = {"name": "copy", "source": {"volume": "db"}}
        yield self.row("clone of a volume", rounds, ("cinder_volume", clone), ("cinder_volume", {"name": "copy", **gone}),
                       f"{make}; dd if={self.path} of={DEVICE} {DIRECT}", "lvremove -qq -y volumes/theirs")  # fmt: skip
        image = {"path": "/root/images/db.raw", "volume": "db", "format": "raw", "get_checksum": False}
        self.shell("mkdir -p /root/images")
        convert = "qemu-img convert -t writeback"
        yield self.row("raw of a volume", rounds, ("cinder_image", image), ("cinder_image", {**image, "state": "absent"}),
                       f"{convert} -f raw -O raw {self.path} /root/images/theirs", "rm /root/images/theirs")  # fmt: skip
        self.module("cinder_image", **image)
        disk = {"name": "disk", "source": {"image": image["path"], "format": "raw"}}
        yield self.row("volume from raw", rounds, ("cinder_volume", disk), ("cinder_volume", {"name": "disk", **gone}),
                       f"{make}; {convert} -n -f raw -O raw {image['path']} {DEVICE}", "lvremove -qq -y volumes/theirs")  # fmt: skip

    def row(self, what: str, rounds: int, ours: tuple[str, Any], clear: tuple[str, Any], theirs: str, clean: str) -> str:
        by_hand = (lambda: self.shell(theirs), lambda: self.shell(clean))
        return beside(what, rounds, lambda: self.module(ours[0], **ours[1]), lambda: self.module(clear[0], **clear[1]), *by_hand)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.copies")
    parser.add_argument("--mib", type=int, default=2048, help="data in the volume")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="write the page in docs")
    asked = parser.parse_args()
    lab, rows = Lab(os.environ.get("LAB_NAME", "bench")), [HEAD]
    lab.start()
    try:
        for row in Copies(lab, asked.mib).rows(asked.rounds):
            print(row, flush=True)
            rows.append(row)
    finally:
        lab.stop()
    if asked.write:
        kernel = platform.release().partition("-")[0]
        PAGE.write_text(TEXT.format(mib=asked.mib, rounds=asked.rounds, kernel=kernel, cores=os.cpu_count(), table="\n".join(rows)))


if __name__ == "__main__":
    main()
