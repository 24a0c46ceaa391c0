# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Files of ours that others read: nothing in them is secret."""

from __future__ import annotations

import contextlib
import glob
import os

from .._errors import Unavailable


def holds(path: str, text: str) -> bool:
    """Whether a file is there and says exactly this."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return file.read() == text
    return False


def publish(path: str, text: str, otherwise: str = "") -> None:
    """Writes a file in one change, readable for everybody. `otherwise` is what a person could do where we may not."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(f"{path}.new", "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise Unavailable(f"{path} can't be written: {error.strerror}; run the task as root{otherwise}") from error


def part_of(path: str) -> str:
    """Where this process writes what shall be a whole file at a path: beside it, so that rename(2) can put it there."""
    return f"{_parts(path)}{os.getpid()}"


def _parts(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part-")


def remove_parts(path: str, all: bool = False) -> None:
    """Removes what processes have left that are no more, or all. Raises OSError."""
    for part in glob.glob(glob.escape(_parts(path)) + "*"):
        if all or not os.path.exists(f"/proc/{part.rpartition('-')[2]}"):
            unlink(part)


def unlink(path: str) -> None:
    """Removes a file, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def sync_directory(path: str) -> None:
    """Has the names in a directory outlive a power failure. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
