# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""How far something is that takes long: a file below /run for each volume, which qemu-img itself writes to, and anybody on the host reads.

It says what `qemu-img -p` says, of which the last counts: "    (40.10/100%)" and a carriage return.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

_PATH = "/run/stackless-block-progress-{}"
_SAID = re.compile(rb"\(([0-9.]+)/100%\)")
_LAST = 256  # bytes from the end, in which there is at least one


@contextlib.contextmanager
def shown(volume_id: str) -> t.Iterator[t.Optional[int]]:
    """Yields where to write how far it is, for as long as it goes on; None where this user may not."""
    path = _PATH.format(volume_id)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644) if volume_id else None
    except OSError:
        handle = None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)
            with contextlib.suppress(OSError):
                os.unlink(path)


def say(handle: t.Optional[int], done: int, whole: t.Optional[int]) -> None:
    """Says how many of all bytes are done; who does it does not fail for that."""
    if handle is not None and whole:
        with contextlib.suppress(OSError):
            os.pwrite(handle, b"    (%.2f/100%%)\r" % (100.0 * done / whole), 0)


def percent(volume_id: str) -> t.Optional[float]:
    """How far what goes on with a volume is on this host, in percent; None where nobody says it."""
    try:
        with open(_PATH.format(volume_id), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _LAST))
            said = _SAID.findall(file.read())
    except OSError:
        return None
    return float(said[-1]) if said else None
