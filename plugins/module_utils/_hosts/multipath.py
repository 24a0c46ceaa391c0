# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""dm-multipath: which WWIDs it shall make maps of, and what is done to a map. What maps there are, the kernel tells (sysfs.py).

Seen on multipath-tools 0.9.4. A WWID in the file of known ones gets a map with its first path already, whatever
find_multipaths says; the file is kept by multipath -a and -w.
"""

from __future__ import annotations

import typing as t

from .._errors import Busy, Failed
from .._model.session import Map, map_wwid
from .command import run

_KNOWN = "/etc/multipath/wwids"
_TIMEOUT = 60
_IN_USE = "in use"
_TRIES = 3  # a map that was just let go may still be open, by udev's look at it


class Multipath:
    def claimed(self) -> t.FrozenSet[str]:
        """The WWIDs, as multipath-tools write them, that get a map with their first path."""
        try:
            with open(_KNOWN, encoding="utf-8") as handle:
                return parse_wwids(handle.read())
        except OSError:
            return frozenset()

    def claim(self, wwid: str) -> None:
        self._run("make a multipath map of its own", "multipath", "-a", map_wwid(wwid))

    def unclaim(self, wwid: str) -> None:
        self._run("forget the WWID", "multipath", "-w", map_wwid(wwid))

    def add_path(self, device: str) -> None:
        """multipathd says no where it has the path already, which is as good."""
        run(["multipathd", "add", "path", device], _TIMEOUT)

    def drop(self, there: Map, dead: bool) -> None:
        """`dead`: no path is left that could take what is queued, so that it fails instead of being waited for."""
        if dead:
            run(["multipathd", "disablequeueing", "map", str(there.name)], _TIMEOUT)
        self._run(f"remove the multipath map {there.name}", "multipath", "-f", str(there.name), tries=_TRIES)

    def resize(self, there: Map) -> None:
        self._run(f"resize the multipath map {there.name}", "multipathd", "resize", "map", str(there.name), tries=_TRIES)

    def _run(self, what: str, *words: str, tries: int = 1) -> None:
        for _attempt in range(tries):
            said = run(words, _TIMEOUT)
            if said.status == 0 and "fail" not in said.text:
                return
        # who has a map open, and is no holder that was found, is udev at its look, or multipathd: they let go
        kind = Busy if _IN_USE in said.text else Failed
        raise kind(f"to {what} failed: {words[0]} says {' '.join(said.text.split()) or said.status}")


def parse_wwids(text: str) -> t.FrozenSet[str]:
    """Lines like /36001405…/, and comments."""
    return frozenset(line.strip().strip("/") for line in text.splitlines() if line.startswith("/"))
