# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What targets need of their own host: the data behind a LUN, and addresses to listen at."""

from __future__ import annotations

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
