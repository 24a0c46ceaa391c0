# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench-images`: volumes from images, images and clones of volumes, beside `qemu-img convert` and `sha256sum` of the same data.

    python -m tests.bench.images [--mib 3072] [--rounds 8] [--write]

Both take turns in one run on one machine, in memory (/dev/shm), as a disk's whims are larger than what is measured here: what counts is
the ratio of the best, as everything else on the machine can only add to them. The module's time has all of it, the start of Python
included; what a run takes that finds nothing to do is told besides, and taken off for the ratio. --write also writes docs/bench-images.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rig.collection import ROOT, run_module
from tests.rig.images import MIB

PAGE = ROOT / "docs" / "bench-images.md"
HEAD = "| what | module s | nothing to do s | by hand s | ratio |\n| --- | --- | --- | --- | --- |"
TEXT = """# What images cost

`make bench-images` makes volumes from images, images of volumes and clones with the driver `file`, beside `qemu-img convert` (for checksums
with `sha256sum` after it) of the same data: {mib} MiB of data, which can't be compressed, in a disk of twice that size; in memory
(/dev/shm), the best of {rounds}, in turns, {machine}.

{table}

The module's time is that of the whole run. The ratio is without what a run takes that finds nothing to do: the start of Python and a look.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.images")
    parser.add_argument("--mib", type=int, default=3072, help="data in the image")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="write the page in docs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        rows = [HEAD]
        for row in measured(Path(folder), asked.mib, asked.rounds):
            print(row, flush=True)
            rows.append(row)
    if asked.write:
        machine = f"Linux {platform.release().partition('-')[0]}, {os.cpu_count()} processors"
        PAGE.write_text(TEXT.format(mib=asked.mib, rounds=asked.rounds, machine=machine, table="\n".join(rows)))


def measured(folder: Path, mib: int, rounds: int) -> Any:
    disk, volumes = folder / "disk.raw", folder / "volumes"
    volumes.mkdir()
    with disk.open("wb") as file:
        file.truncate(2 * mib * MIB)
        for at in range(mib):
            file.seek(2 * at * MIB)
            file.write(os.urandom(MIB))
    convert("raw", "qcow2", disk, folder / "disk.qcow2")
    backend = {"driver": "file", "path": str(volumes)}
    for format in ("raw", "qcow2"):
        image = folder / f"disk.{format}"
        options = {"backend": backend, "name": "db", "source": {"image": str(image), "format": format}}
        clear = {"backend": backend, "name": "db", "state": "absent", "wipe": False}
        yield beside(
            f"volume from {format}", rounds, lambda: module("cinder_volume", options), lambda: module("cinder_volume", clear),
            lambda: convert(format, "raw", image, folder / "out"), (folder / "out").unlink,
        )  # fmt: skip
    module("cinder_volume", {**options, "name": "db"})
    source = [path for path in volumes.iterdir() if path.suffix != ".json"][0]
    for format, checksum in (("raw", False), ("qcow2", False), ("qcow2", True)):
        out = {"backend": backend, "path": str(folder / "out.image"), "volume": "db", "format": format, "get_checksum": checksum}
        yield beside(
            f"{format} of volume{', with checksum' if checksum else ''}", rounds, lambda: module("cinder_image", out),
            lambda: module("cinder_image", {**out, "state": "absent"}),
            lambda: convert("raw", format, source, folder / "out", checksum), (folder / "out").unlink,
        )  # fmt: skip
    copy = {"backend": backend, "name": "copy", "source": {"volume": "db"}}
    yield beside(
        "clone of a volume", rounds, lambda: module("cinder_volume", copy), lambda: module("cinder_volume", {**clear, "name": "copy"}),
        lambda: convert("raw", "raw", source, folder / "out"), (folder / "out").unlink,
    )  # fmt: skip


def beside(what: str, rounds: int, *acts: Callable[[], Any]) -> str:
    mine, idle, other = best(rounds, *acts)
    return f"| {what} | {mine:.2f} | {idle:.2f} | {other:.2f} | {(mine - idle) / other:.2f} |"


def best(
    rounds: int, ours: Callable[[], Any], clear: Callable[[], Any], theirs: Callable[[], Any], clean: Callable[[], Any]
) -> tuple[float, float, float]:
    """Seconds of our act, of one that finds nothing to do, and of theirs."""
    times: tuple[list[float], ...] = ([], [], [])
    ours_and_idle = ((times[0], ours, lambda: None), (times[1], ours, clear))
    by_hand = ((times[2], theirs, clean),)
    for number in range(rounds):  # who frees memory makes the next one faster, or slower
        for taken, act, after in (*ours_and_idle, *by_hand) if number % 2 else (*by_hand, *ours_and_idle):
            began = time.monotonic()
            act()
            taken.append(time.monotonic() - began)
            after()
    mine, idle, other = map(min, times)
    return mine, idle, other


def module(name: str, options: dict[str, Any]) -> None:
    answer = run_module(name, options, timeout=600, alone=True)
    assert not answer.get("failed"), answer["msg"]


def convert(source_format: str, format: str, source: Path, target: Path, checksum: bool = False) -> None:
    run("qemu-img", "convert", "-t", "writeback", "-f", source_format, "-O", format, str(source), str(target))
    if checksum:
        run("sha256sum", str(target))


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
