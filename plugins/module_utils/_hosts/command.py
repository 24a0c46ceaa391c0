# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Tools of the host, run without a shell and never for ever."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import typing as t

from .._errors import Failed, Unavailable

_TURN = 0.2  # seconds between two turns of what is done meanwhile


class Said(t.NamedTuple):
    status: int
    text: str  # what it printed on both of its outputs, or on that for errors where the other one goes elsewhere


def run(
    words: t.Sequence[str],
    timeout: float,
    before: t.Optional[t.Callable[[], None]] = None,
    meanwhile: t.Optional[t.Callable[[], None]] = None,
    **more: t.Any,
) -> Said:
    """Runs a tool; `before` is done in its process first, `meanwhile` again and again while it runs. `more` as for Popen.

    Raises Unavailable when it is not there, Failed when it does not end.
    """
    env = environment(more.pop("env", {}))
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE if "stdout" in more else subprocess.STDOUT}
    try:
        with subprocess.Popen(list(words), env=env, preexec_fn=before, **{**streams, **more}) as process:
            text = _ended(process, timeout, meanwhile).decode("utf-8", "replace")
        return Said(process.returncode, text)
    except FileNotFoundError as error:
        raise Unavailable(f"{words[0]} is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{words[0]} has not ended after {timeout:g} s") from error
    except subprocess.SubprocessError as error:
        raise Unavailable(f"{words[0]} can't be run with a view of its own of the file system; run the task as root, outside of containers") from error


def environment(own: t.Mapping[str, str]) -> t.Dict[str, str]:
    """The environment of a tool: ours, with what it is given of its own."""
    return {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin", **own}


def die_together() -> None:
    """Has the kernel end this process with the one that started it: nobody must be left who writes (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes], timeout: float, meanwhile: t.Optional[t.Callable[[], None]]) -> bytes:
    """What a process prints until its end, which is made here when it takes too long or `meanwhile` fails."""
    deadline = time.monotonic() + timeout
    try:
        while True:
            left = deadline - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return b"".join(filter(None, process.communicate(timeout=min(left, _TURN) if meanwhile else left)))
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(process.args, timeout)
            if meanwhile:
                meanwhile()
    except BaseException:
        process.kill()
        raise
