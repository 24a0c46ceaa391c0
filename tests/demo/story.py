# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the demo tells its story: numbered chapters with their times, and who says what."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Iterator

BOLD, DIM, GREEN, RED, CYAN, PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[36m", "\033[0m"
MARGIN = 4
SPEAKER = 14


class Story:
    """Prints to the terminal; colour only where there is one and nobody asked for none."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.began = time.monotonic()
        self.chapters = 0

    def title(self, text: str) -> None:
        print(f"\n{self._in(BOLD, text)}", flush=True)

    @contextlib.contextmanager
    def chapter(self, text: str) -> Iterator[None]:
        """A numbered heading; when its lines are told, how long they took."""
        self.chapters += 1
        began = time.monotonic()
        print(f"\n{self._in(BOLD, f'{self.chapters:>2}  {text}')}", flush=True)
        yield
        self._line("", self._in(DIM, f"{time.monotonic() - began:.1f} s"))

    def says(self, speaker: str, text: str) -> None:
        """One line, or several, of a speaker: a host, or the guest."""
        for position, line in enumerate(text.splitlines()):
            self._line(speaker if position == 0 else "", line)

    def types(self, command: str) -> None:
        """A command that is run, as it can be typed again."""
        print(f"{'':{MARGIN}}{self._in(CYAN, f'$ {command}')}", flush=True)

    def proves(self, text: str) -> None:
        self._line("", self._in(GREEN, f"✓ {text}"))

    def fails(self, text: str) -> None:
        print(f"\n{self._in(RED, text)}", file=sys.stderr, flush=True)

    def ends(self, text: str) -> None:
        print(f"\n{self._in(BOLD, text)}  {self._in(DIM, f'{time.monotonic() - self.began:.0f} s in all')}\n", flush=True)

    def _line(self, speaker: str, text: str) -> None:
        print(f"{'':{MARGIN}}{self._in(DIM, f'{speaker:<{SPEAKER}}')}{text}", flush=True)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self.coloured else text
