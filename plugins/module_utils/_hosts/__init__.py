# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The hosts that run domains: what a planner may ask of one."""

from __future__ import annotations

import typing as t

from .._model.data import Secret
from .._model.disk import Disk, Iotune, Record

Scopes = t.Sequence[str]  # of "live" and "config"


class DiskHost:
    """The verbs of a host with domains. Every verb may be repeated after a crash without harm."""

    where = ""

    def write_record(self, domain: str, record: Record, scopes: Scopes) -> None:
        """Notes a disk in the domain's metadata, in place of an earlier note of the same alias."""
        raise NotImplementedError

    def drop_record(self, domain: str, alias: str, scopes: Scopes) -> None:
        """Takes the note of an alias out of the metadata."""
        raise NotImplementedError

    def set_chap(self, target_iqn: str, password: Secret) -> None:
        """Makes the secret for a target, or gives it another value."""
        raise NotImplementedError

    def drop_chap(self, target_iqn: str) -> None:
        """Removes the secret for a target."""
        raise NotImplementedError

    def attach(self, domain: str, disk: Disk, scopes: Scopes) -> None:
        """Gives the domain a disk, in all scopes at once or not at all."""
        raise NotImplementedError

    def update(self, domain: str, disk: Disk) -> None:
        """Brings the persistent copy of a disk to these attributes; takes effect when the domain starts."""
        raise NotImplementedError

    def limit(self, domain: str, device: str, iotune: Iotune) -> None:
        """Gives the live copy these limits and no others."""
        raise NotImplementedError

    def resize(self, domain: str, device: str, size_bytes: int) -> None:
        """Tells the running guest that its disk has grown."""
        raise NotImplementedError

    def detach(self, domain: str, name: str) -> None:
        """Removes the persistent copy of the disk with this Disk.key."""
        raise NotImplementedError

    def unplug(self, domain: str, name: str) -> None:
        """Asks the running guest to let go of the disk with this Disk.key; whether it does shows later."""
        raise NotImplementedError
