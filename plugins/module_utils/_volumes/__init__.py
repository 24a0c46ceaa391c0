# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Where volumes live: one interface, one back end per driver."""

from __future__ import annotations

import typing as t

from .._errors import Invalid
from .._model.volume import Volume

# Keep in sync with doc_fragments/_backend.py
BACKEND_OPTIONS: t.Dict[str, t.Any] = {
    "driver": {"type": "str", "choices": ["file"], "required": True},
    "path": {"type": "path"},
    "allocation": {"type": "str", "choices": ["sparse", "full"], "default": "sparse"},
}


class VolumeBackend:
    """The verbs a driver must have. Every verb may be repeated after a crash without harm."""

    lock_path: t.Optional[str] = None
    where = ""

    def observe(self) -> t.Dict[str, Volume]:
        """All volumes of the pool by name, from their records. Raises Unavailable."""
        raise NotImplementedError

    def missing(self, size_bytes: int) -> t.Optional[str]:
        """Why a volume that takes this much more can't be held here, or None."""
        raise NotImplementedError

    def locate(self, volume_id: str) -> str:
        """The path under which a volume's data stands, or will stand."""
        raise NotImplementedError

    def swap(self, before: t.Optional[Volume], after: t.Optional[Volume]) -> None:
        """Replaces a record by the next one, atomically; Conflict when it is not `before` any more."""
        raise NotImplementedError

    def allocate(self, volume: Volume) -> None:
        """Gives the volume its data of `size_bytes`, all zeros where there was none; also grows it."""
        raise NotImplementedError

    def wipe(self, volume: Volume) -> None:
        """Overwrites the data, so that nobody reads it from the medium afterwards."""
        raise NotImplementedError

    def remove(self, volume: Volume) -> None:
        """Removes the data; the record is not touched."""
        raise NotImplementedError


def open_backend(options: t.Dict[str, t.Any]) -> VolumeBackend:
    """The back end for a `backend` dict. Drivers are imported here, so that only the used one is needed."""
    if options["driver"] == "file":
        from .file import FileBackend

        return FileBackend(options.get("path"), options["allocation"])
    raise Invalid(f"there is no volume driver {options['driver']!r}")
