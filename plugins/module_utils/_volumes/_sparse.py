# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Sparse files: where they hold data, reading them, and copies that stay sparse."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import typing as t

from .._errors import Failed
from . import Readable

_CHUNK = 64 << 20
_PIECE = 4 << 20
# copy_file_range(2): kernel, file systems or whoever confines us don't let it
_NO_RANGES = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY, errno.ENOTTY)
_FIEMAP = 0xC020660B  # linux/fs.h, linux/fiemap.h
_SYNC, _LAST, _UNWRITTEN, _SHARED, _MOST = 0x1, 0x1, 0x800, 0x2000, 256


def extents(handle: int) -> t.Iterator[t.Tuple[int, int]]:
    """Where a file really holds data, as (start, end); holes never held a byte (lseek(2))."""
    size, end = os.fstat(handle).st_size, 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return
            raise
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end


class SparseFile(Readable):
    """A file that is open."""

    def __init__(self, handle: int, path: str) -> None:
        self.handle, self.path = handle, path
        self.size_bytes = os.fstat(handle).st_size

    def extents(self) -> t.Iterator[t.Tuple[int, int]]:
        try:
            yield from extents(self.handle)
        except OSError as error:
            raise Failed(f"{self.path} can't be searched for data: {error.strerror}; see whether its file system is well") from error

    def read(self, start: int, size: int) -> bytes:
        try:
            data = os.pread(self.handle, size, start)
        except OSError as error:
            raise Failed(f"{self.path} can't be read at byte {start}: {error.strerror}; see whether its file system is well") from error
        if len(data) != size:
            raise Failed(f"{self.path} was cut at byte {start + len(data)} while it was read; run again when nobody is at it")
        return data


def unshared(handle: int) -> t.Iterator[t.Tuple[int, int]]:
    """Where a file holds data that no other file shares, as (start, end): overwriting shared blocks would only take new ones.

    Source: Documentation/filesystems/fiemap.rst. A file system that can't tell shares nothing.
    """
    size, start = os.fstat(handle).st_size, 0
    while start < size:
        request = bytearray(struct.pack("=QQIIII", start, size - start, _SYNC, 0, _MOST, 0) + bytes(56 * _MOST))
        try:
            fcntl.ioctl(handle, _FIEMAP, request)
        except OSError:
            yield from (one for one in extents(handle) if one[1] > start)
            return
        count = struct.unpack_from("=I", request, 20)[0]
        for number in range(count):
            logical, _physical, length, _a, _b, flags = struct.unpack_from("=QQQQQI", request, 32 + 56 * number)
            start = logical + length
            if not flags & (_SHARED | _UNWRITTEN):
                yield logical, min(start, size)
        if not count or flags & _LAST:
            return


def write(path: str, size: int, pieces: t.Iterator[t.Tuple[int, bytes]]) -> None:
    """Makes `path`, which is there and empty, a file of so many bytes with these pieces (where, bytes), and holes elsewhere. Raises OSError."""
    with open(path, "r+b", buffering=0) as handle:
        for start, piece in pieces:
            view, end = memoryview(piece), start + len(piece)
            while start < end:
                start += os.pwrite(handle.fileno(), view[start - end :], start)
        handle.truncate(size)
        os.fsync(handle.fileno())


def copy(source: str, path: str) -> None:
    """Makes `path`, 0600, what `source` is, holes included; file systems that can share blocks do. Raises OSError."""
    origin = os.open(source, os.O_RDONLY)
    try:
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            for start, end in extents(origin):
                _copy_extent(origin, target, start, end)
            os.ftruncate(target, os.fstat(origin).st_size)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(origin)


def _copy_extent(origin: int, target: int, start: int, end: int) -> None:
    while start < end:
        start += _copied(origin, target, start, min(_CHUNK, end - start))


def _copied(origin: int, target: int, start: int, size: int) -> int:
    """Copies some bytes, and tells how many."""
    try:
        copied = os.copy_file_range(origin, target, size, start, start)
        if copied:
            return copied
    except OSError as error:
        if error.errno not in _NO_RANGES:
            raise
    data = os.pread(origin, min(size, _PIECE), start)
    if not data:
        raise OSError(errno.EIO, "the file was cut while it was read")
    return os.pwrite(target, data, start)
