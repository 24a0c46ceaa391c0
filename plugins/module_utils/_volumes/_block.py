# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Block devices that hold volumes: overwriting them with zeros, and who has one open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
import typing as t

from .._errors import Failed, Refused
from .._hosts.sysfs import Sysfs

_BLKZEROOUT = 0x127F  # linux/fs.h; the kernel lets the device do it where that can, and drops its own pages
_CHUNK = 64 << 20  # one call can't be killed: short enough for a slow disk
_BACKSTORES = "/sys/kernel/config/target/core/*/*/udev_path"


def zero(path: str, start: int, end: int) -> None:
    """Makes all bytes from start to end zeros, on the medium. Nobody else may have the device open; Refused, Failed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            for offset in range(start, end, _CHUNK):
                fcntl.ioctl(handle, _BLKZEROOUT, struct.pack("QQ", offset, min(_CHUNK, end - offset)))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refused(f"{path} can't be overwritten: it is in use by {who_has(path)}; let go of it first") from error
        raise Failed(f"{path} can't be overwritten with zeros: {error.strerror}") from error


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
