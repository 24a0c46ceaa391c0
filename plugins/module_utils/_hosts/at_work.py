# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Who is at a volume for long: a file below /run, which the kernel locks for as long as the process lives."""

from __future__ import annotations

import contextlib
import os
import socket
import typing as t

from .._reconcile import try_lock, wait_until
from . import Workplace

_RUN = "/run"


class ThisHost(Workplace):
    """Without a name for a user who can't show here that he is at work."""

    def __init__(self) -> None:
        self.name = socket.gethostname() if os.access(_RUN, os.W_OK) else ""

    def at_work(self, volume_id: str) -> t.ContextManager[None]:
        return _shown(_path(volume_id)) if self.name else super().at_work(volume_id)

    def anybody(self, volume_id: str) -> bool:
        try:
            handle = os.open(_path(volume_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not try_lock(handle)
        finally:
            os.close(handle)


def _path(volume_id: str) -> str:
    return f"{_RUN}/stackless-block-at-{volume_id}"


@contextlib.contextmanager
def _shown(path: str) -> t.Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        wait_until(lambda: try_lock(handle), 1)  # somebody may be looking just now
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(handle)
