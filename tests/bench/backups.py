# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup and its restoration beside restic and dd by hand, on the same data: python -m tests.bench.backups [MIB OF DATA]"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rig.collection import run_module

MIB = 1 << 20
SIZE = 4  # GiB of the volume, of which most is a hole


def main(data: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "volumes").mkdir()
        backend = {"driver": "file", "path": str(place / "volumes")}
        path = done("cinder_volume", backend=backend, name="db", size_gib=SIZE)["path"]
        with open(path, "r+b") as disk:
            for n in range(data):
                disk.seek(n * (SIZE * 1024 // data) * MIB)
                disk.write(os.urandom(MIB))
        ours = {"backend": backend, "repository": {"location": str(place / "ours"), "password": "x", "create": True}, "volume": "db"}
        by_hand = f"restic -q --no-cache -r {place}/hand"
        shell(f"{by_hand} init")
        print(f"{data} MiB of data in a volume of {SIZE} GiB, seconds")
        copied = timed("dd conv=sparse of the same", lambda: shell(f"dd if={path} of={place}/copy bs=1M conv=sparse status=none"))
        for what in ("first", "second, of which nothing has changed,"):
            hand = timed(f"{what} backup, restic --stdin by hand", lambda: shell(f"{by_hand} backup --stdin <{path}"))
            timed(f"{what} backup, cinder_backup", lambda what=what: done("cinder_backup", **ours, name=what[:5]), hand, copied)
        sparse = f"dd of={place}/back bs=1M conv=sparse iflag=fullblock status=none"
        hand = timed("restic dump and dd conv=sparse", lambda: shell(f"{by_hand} dump latest stdin | {sparse}"))
        timed("cinder_backup, state=restored", lambda: done("cinder_backup", **ours, name="first", state="restored", to="new"), hand, copied)


def done(module: str, **options: Any) -> dict[str, Any]:
    answer = run_module(module, options, timeout=1800)
    assert not answer.get("failed"), answer["msg"]
    return answer


def shell(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True, env={**os.environ, "RESTIC_PASSWORD": "x"}, stdout=subprocess.DEVNULL, timeout=1800)


def timed(what: str, act: Callable[[], Any], hand: float | None = None, copied: float | None = None) -> float:
    began = time.monotonic()
    act()
    took = time.monotonic() - began
    beside = f"   {took / hand:.2f} times by hand, {took / copied:.2f} times dd" if hand and copied else ""
    print(f"  {what:<66} {took:7.2f}{beside}", flush=True)
    return took


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
