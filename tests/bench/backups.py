# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench-backups`: a backup and its restoration, beside restic by hand on the same data.

    python -m tests.bench.backups [--mib 400] [--write]

Each is done once by both, one after the other, in one run on one machine: what counts is the ratio. restic by hand reads all of the volume
and writes all of it back through dd. --write also writes docs/bench-backups.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.rig.collection import ROOT, run_module

MIB = 1 << 20
SIZE = 4  # GiB of the volume, of which most is a hole
PAGE = ROOT / "docs" / "bench-backups.md"
HEAD = "| what | module s | restic by hand s | ratio |\n| --- | --- | --- | --- |"
TEXT = """# What backups cost

`make bench-backups` takes backups of a volume with the driver `file` and restores one, beside `restic backup --stdin` and `restic dump`
with `dd conv=sparse`: {mib} MiB of data, which can't be compressed, in a volume of {size} GiB; {machine}.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.backups")
    parser.add_argument("--mib", type=int, default=400, help="data in the volume")
    parser.add_argument("--write", action="store_true", help="write the page in docs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        rows = [HEAD]
        for what, ours, theirs in measured(Path(folder), asked.mib):
            rows.append(f"| {what} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")
            print(rows[-1], flush=True)
    if asked.write:
        machine = f"Linux {platform.release().partition('-')[0]}, {os.cpu_count()} processors"
        PAGE.write_text(TEXT.format(mib=asked.mib, size=SIZE, machine=machine, table="\n".join(rows)))


def measured(place: Path, mib: int) -> Iterator[tuple[str, float, float]]:
    """What is done, and how many seconds cinder_backup and restic by hand take for it."""
    (place / "volumes").mkdir()
    backend = {"driver": "file", "path": str(place / "volumes")}
    path = done("cinder_volume", backend=backend, name="db", size_gib=SIZE)["path"]
    fill(path, mib)
    ours = {"backend": backend, "repository": {"location": str(place / "ours"), "password": "x", "create": True}, "volume": "db"}
    by_hand = f"restic -q --no-cache -r {place}/hand"
    shell(f"{by_hand} init")
    for name, what in (("first", "the first backup"), ("second", "the second, nothing has changed")):
        theirs = seconds(lambda: shell(f"{by_hand} backup --stdin <{path}"))
        yield what, seconds(lambda name=name: done("cinder_backup", **ours, name=name)), theirs
    theirs = seconds(lambda: shell(f"{by_hand} dump latest stdin | dd of={place}/back bs=1M conv=sparse iflag=fullblock status=none"))
    yield "restored to a new volume", seconds(lambda: done("cinder_backup", **ours, name="first", state="restored", to="new")), theirs


def fill(path: str, mib: int) -> None:
    """So many pieces of 1 MiB, spread over all of the volume."""
    with open(path, "r+b") as disk:
        for number in range(mib):
            disk.seek(number * (SIZE * 1024 // mib) * MIB)
            disk.write(os.urandom(MIB))


def done(module: str, **options: Any) -> dict[str, Any]:
    answer = run_module(module, options, timeout=1800, alone=True)
    assert not answer.get("failed"), answer["msg"]
    return answer


def shell(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True, env={**os.environ, "RESTIC_PASSWORD": "x"}, stdout=subprocess.DEVNULL, timeout=1800)


def seconds(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
