# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Block devices that hold volumes: overwriting and copying them, and who has one open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import mmap
import os
import struct
import typing as t

from .._errors import Failed, Refused
from .._hosts.sysfs import Sysfs

_BLKZEROOUT = 0x127F  # linux/fs.h; the kernel lets the device do it where that can, and drops its own pages
_BLKDISCARD = 0x1277
_CHUNK = 64 << 20  # one call can't be killed: short enough for a slow disk
_PIECE = 4 << 20
_BACKSTORES = "/sys/kernel/config/target/core/*/*/udev_path"


@contextlib.contextmanager
def alone(path: str) -> t.Iterator[int]:
    """The device, open for this run and no other one, past the page cache; flushed at the end. Refused when somebody has it, Failed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_DIRECT)
        try:
            yield handle
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refused(f"{path} can't be overwritten: it is in use by {who_has(path)}; let go of it first") from error
        raise Failed(f"{path} can't be overwritten: {error.strerror}") from error


def zero(handle: int, start: int, end: int) -> None:
    """Makes all bytes from start to end zeros, on the medium. Raises OSError."""
    for offset in range(start, end, _CHUNK):
        fcntl.ioctl(handle, _BLKZEROOUT, struct.pack("QQ", offset, min(_CHUNK, end - offset)))


def empty(handle: int, size: int) -> None:
    """Makes a thin device all zeros that take no space, but for blocks that it can't give back. Raises OSError."""
    with contextlib.suppress(OSError):  # a pool may ignore discards, and what is no whole block stays
        fcntl.ioctl(handle, _BLKDISCARD, struct.pack("QQ", 0, size))
    with mmap.mmap(-1, _PIECE) as room:
        for start in range(0, size, _PIECE):
            count = os.preadv(handle, [room], start)
            if room[:count] != bytes(count):
                zero(handle, start, start + count)


def copy(source: str, handle: int, size: int, changed_only: bool) -> None:
    """Copies the first `size` bytes of another device; with `changed_only` nothing is written that is there already, so that thin devices stay thin.

    Raises OSError.
    """
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _PIECE) as fresh, mmap.mmap(-1, _PIECE) as stale:
            for start in range(0, size, _PIECE):
                count = min(_PIECE, size - start)
                _whole(os.preadv(origin, [memoryview(fresh)[:count]], start), count)
                if changed_only and os.preadv(handle, [memoryview(stale)[:count]], start) == count and fresh[:count] == stale[:count]:
                    continue
                _whole(os.pwritev(handle, [memoryview(fresh)[:count]], start), count)
    finally:
        os.close(origin)


def _whole(done: int, count: int) -> None:
    if done != count:
        raise OSError(errno.EIO, f"{done} instead of {count} bytes went through")


def who_has(path: str) -> str:
    """Who has a block device open, as a person would say it."""
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        return f"somebody ({path}: {error.strerror})"
    name = os.path.basename(os.path.realpath(path))
    found = [*_exports(number), *map(str, Sysfs().holders(name)[name])]
    return ", ".join(found[:3]) or "somebody that can't be told (lsof may know)"


def _exports(number: int) -> t.Iterator[str]:
    """Backstores of the kernel's target, by the path they were made with."""
    for entry in sorted(glob.glob(_BACKSTORES)):
        with contextlib.suppress(OSError), open(entry, encoding="utf-8", errors="replace") as handle:
            udev_path = handle.read().strip()
            if udev_path and os.stat(udev_path).st_rdev == number:
                yield f"the target's backstore {entry.split('/')[-2]}"
