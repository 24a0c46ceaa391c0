# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Sparse files: where they hold data, and copies that stay sparse."""

from __future__ import annotations

import errno
import os
import typing as t

_CHUNK = 64 << 20
_NO_RANGES = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP)  # copy_file_range(2): kernel or file systems can't


def extents(handle: int) -> t.Iterator[t.Tuple[int, int]]:
    """Where a file really holds data, as (start, end); holes never held a byte (lseek(2))."""
    size, end = os.fstat(handle).st_size, 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole up to the end
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end


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
        return os.copy_file_range(origin, target, size, start, start) or _end(size)
    except OSError as error:
        if error.errno not in _NO_RANGES:
            raise
    return os.pwrite(target, os.pread(origin, min(size, 4 << 20), start), start) or _end(size)


def _end(size: int) -> int:
    """The file was cut while it was read: what is missing stays a hole."""
    return size
