# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""LIO's saved configuration, the JSON file of rtslib and targetcli: read whole, changed in the targets of one task only.

rtslib's own save writes all that runs, so that what a restore left out is lost for good, takes ever longer the more
there is, and copies over the file in place. Here only what a task changed is replaced, and the file changes at once or not.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import Failed, Unavailable
from ._lio_tree import Shape, StoreName

_IDENTITY = ("tag", "index", "node_wwn", "ip_address", "port", "name")


class Saveconfig:
    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def _unfinished(self) -> str:
        """Where the file is written before it takes its place."""
        return f"{self.path}.stackless-block"

    @property
    def intact(self) -> bool:
        """False after a run that was killed while it wrote; what it left has secrets inside."""
        return not os.path.lexists(self._unfinished) and (not os.path.exists(self.path) or os.stat(self.path).st_mode & 0o077 == 0)

    def read(self) -> Shape:
        try:
            with open(self.path, encoding="utf-8") as handle:
                found = json.load(handle)
            return {"fabric_modules": [], "storage_objects": [], "targets": [], **found}
        except FileNotFoundError:
            return {"fabric_modules": [], "storage_objects": [], "targets": []}
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(f"LIO's saved configuration {self.path} can't be read: {error}; repair it, or put back a backup from beside it") from error

    def write(self, config: Shape) -> None:
        """In the form of rtslib, readable by root only, and on disk when this returns."""
        directory = os.path.dirname(self.path)
        try:
            os.makedirs(directory, exist_ok=True)
            with open(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as handle:
                os.fchmod(handle.fileno(), 0o600)
                handle.write(json.dumps(config, sort_keys=True, indent=2) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(self._unfinished, self.path)
            _sync(directory)
        except OSError as error:
            raise Failed(f"LIO's configuration can't be saved at {self.path}: {error.strerror}; make room and make {directory} writable for root") from error


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def saved_targets(config: Shape) -> t.Dict[str, Shape]:
    return {target["wwn"]: target for target in config["targets"] if target.get("fabric") == "iscsi" and "wwn" in target}


def saved_stores(config: Shape) -> t.Dict[StoreName, Shape]:
    return {(store["plugin"], store["name"]): store for store in config["storage_objects"] if "plugin" in store and "name" in store}


def merged(config: Shape, targets: t.Dict[str, t.Optional[Shape]], stores: t.Dict[StoreName, t.Optional[Shape]]) -> Shape:
    """The configuration with these targets and backstores as given, None for gone, and all else as it was, in its order."""
    fabric = {("iscsi", iqn): shape for iqn, shape in targets.items()}
    return {
        **config,
        "storage_objects": _replaced(config["storage_objects"], stores, ("plugin", "name")),
        "targets": _replaced(config["targets"], fabric, ("fabric", "wwn")),
    }


def _replaced(shapes: t.List[Shape], changes: t.Dict[t.Tuple[str, str], t.Optional[Shape]], names: t.Tuple[str, str]) -> t.List[Shape]:
    keys = [(shape.get(names[0]), shape.get(names[1])) for shape in shapes]
    changed = [changes.get(key, shape) for key, shape in zip(keys, shapes)]
    added = [shape for key, shape in changes.items() if key not in keys]
    return [shape for shape in changed + added if shape is not None]


def covers(saved: t.Any, live: t.Any) -> bool:
    """Whether a saved shape says all that the live one does; it may say more, as another release of rtslib writes it."""
    if isinstance(live, dict):
        return isinstance(saved, dict) and all(key in saved and covers(saved[key], value) for key, value in live.items())
    if isinstance(live, list):
        pairs = zip(sorted(saved, key=_identity), sorted(live, key=_identity)) if isinstance(saved, list) else ()
        return isinstance(saved, list) and len(saved) == len(live) and all(covers(*pair) for pair in pairs)
    return saved == live


def _identity(shape: t.Any) -> str:
    """By what a part of a list is told from the others; the order of the lists is chance."""
    return repr([shape.get(key) for key in _IDENTITY]) if isinstance(shape, dict) else repr(shape)
