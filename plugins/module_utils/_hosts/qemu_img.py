# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""qemu-img, which is told every format and guesses none, and ends with the module that started it."""

from __future__ import annotations

import shutil
import typing as t

from .._errors import Failed, Unavailable
from . import progress
from .command import die_together, run

_HOURS = 24 * 3600.0  # a bound, not a guess


def convert(what: str, source_format: str, words: t.Sequence[str], volume_id: str = "", pass_fds: t.Sequence[int] = (), **environment: str) -> None:
    """Has it write an image or a volume to another place. Under `volume_id` others see how far it is. Raises Unavailable or Failed."""
    if shutil.which("qemu-img") is None:
        raise Unavailable("qemu-img is not installed on this host; install the package qemu-utils")
    with progress.shown(volume_id) as seen:
        more: t.Dict[str, t.Any] = {} if seen is None else {"stdout": seen}
        command = ["qemu-img", "convert", *(["-p"] if more else []), "-t", "writeback", "-f", source_format, *words]
        said = run(command, _HOURS, before=die_together, pass_fds=tuple(pass_fds), env=environment, **more)
    if said.status:
        raise Failed(f"{what} can't be written: qemu-img says: {' '.join(said.text.split())}; mend that and run again")
