# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What targets need of their own host: the data behind a LUN, and addresses to listen at."""

from __future__ import annotations

import errno
import os
import socket
import stat
import typing as t

from .._model.target import Portal


def size_of(path: str) -> t.Optional[int]:
    """The size in bytes, or None where there is no file or device that could be read."""
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            return found.st_size
        if not stat.S_ISBLK(found.st_mode):
            return None
        handle = os.open(path, os.O_RDONLY)
        try:
            return os.lseek(handle, 0, os.SEEK_END)
        finally:
            os.close(handle)
    except OSError:
        return None


class DeviceTraits(t.NamedTuple):
    """What a block device tells of itself."""

    discard: bool
    write_cache: bool


def device_traits(path: str) -> t.Optional[DeviceTraits]:
    """None for what is no block device. A partition has the queue of its disk."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    here = os.path.realpath(f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")
    queue = next((q for q in (os.path.join(here, "queue"), os.path.join(os.path.dirname(here), "queue")) if os.path.isdir(q)), "")
    return DeviceTraits(_text(queue, "discard_max_bytes") not in ("", "0"), _text(queue, "write_cache") == "write back")


def is_open(path: str) -> bool:
    """Whether a block device is mounted, or held by a program that shares it with nobody."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _text(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def why_not(portal: Portal) -> t.List[str]:
    """Why nobody can listen at this portal here, in the system's words, as a list that is empty where one can. Nothing stays bound."""
    family = socket.AF_INET6 if ":" in portal.ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((portal.ip, portal.port))
    except OSError as error:
        return [os.strerror(error.errno) if error.errno else str(error)]
    return []
