# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Block devices that hold volumes: reading, overwriting and copying them, and who has one open."""

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
from . import Readable

_BLKZEROOUT = 0x127F  # linux/fs.h; the kernel lets the device do it where that can, and drops its own pages
_BLKDISCARD = 0x1277
_CHUNK = 64 << 20  # one call can't be killed: short enough for a slow disk
_PIECE, _SECTOR = 4 << 20, 512
_GRAIN = 4096  # bytes; where reads and writes past the page cache begin and end, whatever the disk
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
            data = _read(handle, room, start, min(_PIECE, size - start))
            if data != bytes(len(data)):
                zero(handle, start, start + len(data))


def copy(source: str, handle: int, size: int, changed_only: bool) -> None:
    """Copies the first `size` bytes of another device; with `changed_only` nothing is written that is there already, so that thin devices stay thin.

    Raises OSError.
    """
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _PIECE) as room:
            for start in range(0, size, _PIECE):
                count = min(_PIECE, size - start)
                _fill(origin, room, start, count)
                if not (changed_only and _holds(handle, start, room[:count])):
                    _flush(handle, room, start, count)
    finally:
        os.close(origin)


def write(handle: int, size: int, pieces: t.Iterator[t.Tuple[int, bytes]], emptied: bool) -> None:
    """Makes a device of so many bytes these pieces (where, bytes), as VolumeBackend.write has them; all else zeros, which it is already with `emptied`.

    Raises OSError.
    """
    done = 0
    with mmap.mmap(-1, _PIECE) as room:
        for start, piece in pieces:
            if not emptied:
                zero(handle, done, start)
            for at in range(0, len(piece), _PIECE):
                part = piece[at : at + _PIECE]
                room[: _up(len(part))] = part.ljust(_up(len(part)), b"\0")
                _flush(handle, room, start + at, _up(len(part)))
            done = start + _up(len(piece))
    if not emptied:
        zero(handle, done, size)


@contextlib.contextmanager
def reading(path: str) -> t.Iterator[Readable]:
    """The device, open for reading past the page cache, which a target does not keep up to date. Raises Failed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        raise Failed(f"{path} can't be read: {error.strerror}; bring it back, and run again") from error
    try:
        yield _OpenDevice(handle, path)
    finally:
        os.close(handle)


class _OpenDevice(Readable):
    def __init__(self, handle: int, path: str) -> None:
        self.handle, self.path = handle, path
        self.size_bytes = os.lseek(handle, 0, os.SEEK_END)

    def extents(self) -> t.Iterator[t.Tuple[int, int]]:
        """All of it: only LVM knows where a thin one holds nothing, and reading that costs little."""
        yield 0, self.size_bytes

    def read(self, start: int, size: int) -> bytes:
        begin = start // _GRAIN * _GRAIN
        count = min(_up(start + size), self.size_bytes) - begin
        try:
            with mmap.mmap(-1, count) as room:
                return _read(self.handle, room, begin, count)[start - begin : start - begin + size]
        except OSError as error:
            raise Failed(f"{self.path} can't be read at byte {start}: {error.strerror}; see whether its disks are well") from error


def _up(count: int) -> int:
    """To whole grains."""
    return -(-count // _GRAIN) * _GRAIN


def _fill(handle: int, room: mmap.mmap, start: int, count: int) -> None:
    """Reads into `room`, whose place in memory suits the device."""
    with memoryview(room)[:count] as piece:
        _whole(os.preadv(handle, [piece], start), count)


def _read(handle: int, room: mmap.mmap, start: int, count: int) -> bytes:
    _fill(handle, room, start, count)
    return room[:count]


def _holds(handle: int, start: int, data: bytes) -> bool:
    with mmap.mmap(-1, len(data)) as room:
        return _read(handle, room, start, len(data)) == data


def _flush(handle: int, room: mmap.mmap, start: int, count: int) -> None:
    """Writes what is in `room`; zeros by the device itself, where it can."""
    if not any(room[:_SECTOR]) and room[:count] == bytes(count):
        return zero(handle, start, start + count)
    with memoryview(room)[:count] as piece:
        return _whole(os.pwritev(handle, [piece], start), count)


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
