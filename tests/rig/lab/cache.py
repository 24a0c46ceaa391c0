# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab keeps in .cache/lab: things that are made once per version of what they are made of."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

from tests.rig.collection import ROOT

CACHE = ROOT / ".cache" / "lab"
HERE = Path(__file__).parent
# the tools of a file system's maker are not on everyone's path
TOOLS = ["/usr/sbin", "/sbin"]


class LabError(Exception):
    """Something about the lab is not as it has to be; the message is for a person."""


def key(*parts: Any) -> str:
    """A short name for this version of things: words as they are, files and directories by their content."""
    total = hashlib.sha256()
    for part in parts:
        files = sorted(part.rglob("*")) if isinstance(part, Path) and part.is_dir() else [part]
        for file in files:
            if not isinstance(file, Path):
                total.update(repr(file).encode())
            elif file.is_file() and "__pycache__" not in file.parts:
                total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def made(kind: str, version: str, make: Callable[[Path], None]) -> Path:
    """The directory <kind>-<version>, made by `make` if it is not there.

    One process makes it, all others that want it wait. `forget` takes old versions away.
    """
    place = CACHE / f"{kind}-{version}"
    with locked(kind):
        if not place.exists():
            new = CACHE / f"{kind}.new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            make(new)
            new.rename(place)
        return place


def forget(kind: str, keep: set[str]) -> None:
    """Takes away all versions of a kind except those named."""
    with locked(kind):
        for place in CACHE.glob(f"{kind}-*"):
            if place.name not in keep:
                shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: Any, **options: Any) -> str:
    """Runs a command and returns what it printed; its words are in the error when it fails."""
    env = {**os.environ, "PATH": ":".join([os.environ["PATH"], *TOOLS]), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        words = " ".join(str(word) for word in command)[:200]
        raise LabError(f"`{words}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
