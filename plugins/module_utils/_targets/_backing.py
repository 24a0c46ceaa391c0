# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The data behind a LUN: a regular file or a block device of this host."""

from __future__ import annotations

import os
import stat
import typing as t


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
