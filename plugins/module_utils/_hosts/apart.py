# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Does what may hang in the kernel for good, such as writing to a device whose cluster is silent, in a process of its own.

Such a process can't always be ended, so nothing here waits for it longer than it has to, and it keeps nothing open that
others wait for: neither the task's output nor its locks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import typing as t

_GRACE = 1.0  # seconds to end in, once it is told to
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def apart(seconds: float, act: t.Callable[..., t.Any], *args: t.Any) -> None:
    """Does `act(*args)`; raises the OSError that it ends with, TimeoutError when it takes longer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_apart(writing, act, args)
    os.close(writing)
    try:
        if not _has_ended(reading, seconds):
            os.kill(child, signal.SIGKILL)
            if _has_ended(reading, _GRACE):
                os.waitpid(child, 0)
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    finally:
        os.close(reading)
    status = os.waitpid(child, 0)[1]
    if status:
        number = os.WEXITSTATUS(status) or errno.EIO
        raise OSError(number, os.strerror(number))


def _has_ended(reading: int, seconds: float) -> bool:
    """Whether the other end of the pipe was closed, which its process does only by ending."""
    return bool(select.select([reading], [], [], seconds)[0])


def _be_apart(writing: int, act: t.Callable[..., t.Any], args: t.Tuple[t.Any, ...]) -> t.NoReturn:
    """The life of the other process; its status is the number of the error."""
    status = errno.EIO
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        let_go_of_all_but(writing)
        act(*args)
        status = 0
    except OSError as error:
        status = error.errno or errno.EIO
    finally:
        os._exit(status)


def let_go_of_all_but(*kept: int) -> None:
    """Closes what this process was born with, so that nobody waits for it who waits for the task's output or its locks."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(int(name))
