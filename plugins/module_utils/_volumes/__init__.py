# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Where volumes live: one interface, one back end per driver."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._errors import Conflict, Invalid, Refused
from .._model.image import Inspected, QemuSource
from .._model.pool import Pool
from .._model.volume import Attachment, Snapshot, Volume

# Keep in sync with doc_fragments/_backend.py
BACKEND_OPTIONS: t.Dict[str, t.Any] = {
    "driver": {"type": "str", "choices": ["file", "lvm", "rbd"], "required": True},
    "path": {"type": "path"},
    "pool": {"type": "str"},
    "thin_pool": {"type": "str"},
    "namespace": {"type": "str"},
    "user": {"type": "str", "default": "cinder"},
    "conf": {"type": "path", "default": "/etc/ceph/ceph.conf"},
    "keyring": {"type": "path"},
    "secret_uuid": {"type": "str", "no_log": False},
    "data_pool": {"type": "str"},
    "features": {"type": "list", "elements": "str"},
    "max_clone_depth": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 10},
    "allocation": {"type": "str", "choices": ["sparse", "full", "thin", "thick"]},
    "max_over_subscription_ratio": {"type": "float", "default": 20.0},
    "max_pool_used_percent": {"type": "float", "default": 95.0},
}


@dataclasses.dataclass(frozen=True)
class Clone:
    """Something that shares data with a volume: another `volume`, or what somebody else made at `path`.

    `handle` is how the driver finds it. It is `bound` when it has snapshots that would go on sharing after a copy.
    """

    path: str
    handle: t.Tuple[str, ...] = dataclasses.field(repr=False)
    volume: t.Optional[Volume] = None
    bound: bool = False

    def __str__(self) -> str:
        return self.volume.name if self.volume else self.path


class Readable:
    """The data of a volume, or of a snapshot, open for reading."""

    size_bytes: int

    def extents(self) -> t.Iterator[t.Tuple[int, int]]:
        """Where there may be data, as (start, end) in bytes and in order; all else is zeros. Raises Failed."""
        raise NotImplementedError

    def read(self, start: int, size: int) -> bytes:
        """So many bytes from there on, which must be within `size_bytes`. Raises Failed."""
        raise NotImplementedError

    def pieces(self, most: int) -> t.Iterator[t.Tuple[int, bytes]]:
        """All data in order, as (where, bytes), at most so many bytes at a time. Raises Failed."""
        for start, end in self.extents():
            for at in range(start, end, most):
                yield at, self.read(at, min(most, end - at))


class VolumeBackend:
    """The verbs a driver must have. Every verb may be repeated after a crash without harm."""

    lock_path: t.Optional[str] = None
    where = ""
    allocation = ""  # how a volume takes its space when its wish does not say it
    allocations: t.Tuple[str, ...] = ()  # all ways that this pool has
    record_in_data = False  # the record is a part of the data: both are made, and go, with one swap
    warnings: t.Tuple[str, ...] = ()  # what the last look found wrong with records
    pause: t.Callable[[], t.ContextManager[None]] = staticmethod(contextlib.nullcontext)  # gives the lock away for as long as it is entered

    def observe(self) -> t.Dict[str, Volume]:
        """All volumes of the pool by name, from their records. Raises Unavailable."""
        raise NotImplementedError

    def missing(self, volume: t.Optional[Volume] = None, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        """Why nothing can be changed here, or this volume can't be made or grow as it says, or None.

        `others` are all volumes that shall be there besides, made already or not.
        """
        raise NotImplementedError

    def crowded(self, volume: Volume, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        """Why there is no room for one more snapshot of this volume, or None; `others` as above."""
        return None

    def outlook(self, volume: Volume) -> t.Optional[str]:
        """What a person should know of the room that the volume may come to need once a snapshot or clone shares its data, or None."""
        return None

    def capacity(self) -> Pool:
        """What the pool holds, and what it has left."""
        raise NotImplementedError

    def advice(self) -> t.Tuple[str, ...]:
        """What on this host, beside the pool itself, puts its volumes at risk."""
        return ()

    def holder(self, volume: Volume) -> t.Optional[str]:
        """Who on this host has the data open, as a person would say it, or None."""
        return None

    def dependants(self, volume: Volume) -> t.Optional[str]:
        """What was built upon the data and keeps it from being removed, as a person would say it, or None."""
        return None

    def clones(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.Tuple[Clone, ...]:
        """What shares data with a volume, or with one snapshot of it, and keeps that from being removed."""
        return ()

    def taken(self, volume: Volume) -> t.Optional[t.Set[str]]:
        """The ids of the volume's snapshots that are there; None where the volume itself is not yet."""
        return set()

    def instant(self, volume: Volume, allocation: t.Optional[str] = None) -> bool:
        """Whether `take`, or the making of a clone with this allocation, catches one moment of a volume that is being written to."""
        return True

    def copies(self, volume: Volume, source: t.Optional[Volume]) -> bool:
        """Whether a volume that is being made from a source needs `copy`: whether it has not all of its data yet, or too far from where it comes from.

        The source is None where it is gone already.
        """
        return False

    def needs_wipe(self, volume: Volume) -> bool:
        """Whether the next owner of the space could read what is on it."""
        return True

    def activate(self, volume: Volume) -> None:
        """Makes the data accessible under its path."""

    def locate(self, volume_id: str) -> str:
        """The path under which a volume's data stands, or will stand."""
        raise NotImplementedError

    def connection_info(self, volume: Volume) -> t.Dict[str, t.Any]:
        """How a host that has the storage at hand reaches the data, in Cinder's form; asks nobody."""
        return {"driver_volume_type": "local", "data": {"device_path": volume.path}}

    def clients(self, volume: Volume, attachment: Attachment) -> t.Tuple[str, ...]:
        """Who has the data open for an attachment, by names that `fence` takes; Refused where the storage can't keep a host from it."""
        raise Refused(
            f"volume {volume.name} can't be taken from {attachment.host} without its help: this storage can't keep a host from its data; "
            "bring the host back, and detach the volume"
        )

    def fence(self, volume: Volume, clients: t.Tuple[str, ...]) -> None:
        """Keeps these clients from the storage for good; Busy until it is certain that nothing of them can arrive any more."""
        raise NotImplementedError

    def credentials(self) -> t.List[t.Dict[str, t.Any]]:
        """What a host needs to be let in, beside the connection_info: secrets, which are handed out only when asked for."""
        return []

    def swap(self, before: t.Optional[Volume], after: t.Optional[Volume]) -> None:
        """Replaces a record by the next one, atomically; None: there is no record.

        Conflict when it is not `before` any more, Busy when somebody is in the way who will let go by himself.
        Where record and data are one, the first record of a volume that has a source brings the source's data.
        """
        raise NotImplementedError

    def allocate(self, volume: Volume) -> None:
        """Gives the volume its data of `size_bytes`, all zeros where there was none; also grows it.

        A volume that is still creating holds nothing worth keeping, all of it becomes zeros.
        """
        raise NotImplementedError

    def copy(self, volume: Volume) -> None:
        """Gives a volume that is being made a copy of its source's data, so that they share nothing; beyond its end there are zeros."""
        raise NotImplementedError

    def fill(self, volume: Volume, image: Inspected) -> None:
        """Makes the data of a volume that is being made what a guest would see of an image; beyond its end there are zeros."""
        raise NotImplementedError

    def reading(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.ContextManager[Readable]:
        """Opens the data of a volume, or of a snapshot of it, for reading; the caller keeps writers away, and pauses the lock. Raises Failed."""
        raise NotImplementedError

    def write(self, volume: Volume, pieces: t.Iterator[t.Tuple[int, bytes]]) -> None:
        """Makes the data of a volume that is being restored these pieces; all else becomes zeros.

        They come in order as (where, bytes), and begin and end at multiples of 4 KiB, the last one at the latest where the data ends.
        """
        raise NotImplementedError

    def qemu_source(self, volume: Volume, snapshot: t.Optional[Snapshot]) -> QemuSource:
        """How qemu-img reads the data of a volume, or of a snapshot of it, which is raw."""
        raise NotImplementedError

    def take(self, volume: Volume, snapshot: Snapshot) -> None:
        """Keeps what the volume is now as a snapshot."""
        raise NotImplementedError

    def drop(self, volume: Volume, snapshot: Snapshot, wipe: bool) -> None:
        """Removes a snapshot, its data overwritten before with `wipe` where the next owner of the space could read it. Clones keep what they share."""
        raise NotImplementedError

    def revert(self, volume: Volume, snapshot: Snapshot) -> None:
        """Makes the volume what it was, its size included."""
        raise NotImplementedError

    def separate(self, clone: Clone) -> None:
        """Gives a clone its own copy of all that it shares."""
        raise NotImplementedError

    def retire(self, volume: Volume) -> None:
        """Removes a volume that has clones: its record is gone, and its data as soon as the last clone is gone or has its own."""
        raise NotImplementedError

    def wipe(self, volume: Volume) -> None:
        """Overwrites the data, so that nobody reads it from the medium afterwards."""
        raise NotImplementedError

    def remove(self, volume: Volume) -> None:
        """Removes the data; the record is not touched."""
        raise NotImplementedError


def overtaken(volume: Volume) -> Conflict:
    """The error of a swap that came too late."""
    return Conflict(f"volume {volume.name} was changed by someone else meanwhile; look at it and run again")


def open_backend(options: t.Dict[str, t.Any]) -> VolumeBackend:
    """The back end for a `backend` dict. Drivers are imported here, so that only the used one is needed."""
    if options["driver"] == "file":
        from .file import FileBackend

        return FileBackend(options.get("path"), options.get("allocation"))
    if options["driver"] == "lvm":
        from .lvm import LvmBackend

        return LvmBackend(options)
    if options["driver"] == "rbd":
        from .rbd import RbdBackend

        return RbdBackend(options)
    raise Invalid(f"there is no volume driver {options['driver']!r}")
