# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Where backups are kept: one interface, whatever keeps them."""

from __future__ import annotations

import typing as t

from .._model.backup import Backup, Key
from .._volumes import Readable

# Keep in sync with doc_fragments/_repository.py
REPOSITORY_OPTIONS: t.Dict[str, t.Any] = {
    "location": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "region": {"type": "str"},
    "ca_file": {"type": "path"},
    "compression": {"type": "str", "choices": ["auto", "off", "max"], "default": "auto"},
    "cache": {"type": "path"},
    "create": {"type": "bool", "default": False},
}


class BackupStore:
    """The verbs of what keeps backups. Every one may be repeated after a crash, and any number of hosts may use a store at once."""

    where = ""
    missing: t.Optional[str] = None  # why nothing can be kept here, as the last look found it
    warnings: t.Tuple[str, ...] = ()  # what the last look found wrong
    known: t.Dict[Key, Backup] = {}  # what the last look found, with what this run has changed since
    unclean = False  # something was deleted that `clean` frees

    def look(self) -> t.Dict[Key, Backup]:
        """All backups, the oldest first; none where there is no store yet. Writes nothing. Raises Unavailable, Refused or Failed."""
        raise NotImplementedError

    def keep(self, backup: Backup, data: Readable) -> Backup:
        """Keeps data as a backup, wholly or not at all, and returns it as what `forget` takes. Raises Busy, Unavailable or Failed."""
        raise NotImplementedError

    def give(self, backup: Backup) -> t.Iterator[t.Tuple[int, bytes]]:
        """The data of a backup in order, as (where, bytes), all else being zeros; Failed, at the latest at the end, when it is not what was kept."""
        raise NotImplementedError

    def forget(self, backups: t.Sequence[Backup]) -> None:
        """Deletes backups; what they took is free after `clean`. Raises Busy or Failed."""
        raise NotImplementedError

    def clean(self) -> None:
        """Frees what no backup needs any more. Raises Busy or Failed."""
        raise NotImplementedError


def open_store(options: t.Dict[str, t.Any]) -> BackupStore:
    """The store for a `repository` dict."""
    from .restic import Restic

    return Restic(options)
