# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What the planners of volumes, their snapshots and attachments share: what must be there, and be at rest."""

from __future__ import annotations

import typing as t

from ._errors import Conflict, NotFound, Refused
from ._model.volume import GIB, MAKING, Snapshot, Volume
from ._reconcile import Step, World
from ._volumes import VolumeBackend

# Somebody is at the volume itself, or was killed there: its record must not be moved under them.
BUSY = (*MAKING, "uploading", "extending", "reverting", "restoring-backup", "deleting")


def volume_named(name: str, world: World) -> t.Optional[Volume]:
    """The volume of exactly this name, or None; Conflict when its record can't be relied upon."""
    volume: t.Optional[Volume] = world.get(name)
    if volume is not None and volume.flaw:
        raise Conflict(f"the record of volume {name} is damaged: {volume.flaw}")
    return volume


def known_volume(name: str, world: World, where: str) -> Volume:
    """The volume of exactly this name, or NotFound with the names there are."""
    volume = volume_named(name, world)
    if volume is None:
        near = ", ".join(sorted(str(key) for key in world)[:8]) or "none"
        raise NotFound(f"there is no volume {name} at {where}; make it first, or choose one of: {near}")
    return volume


def known_snapshot(volume: Volume, name: str) -> Snapshot:
    """The snapshot of exactly this name that can be relied upon; NotFound with the names there are, or Conflict."""
    snapshot = volume.snapshot(name)
    if snapshot is None:
        near = ", ".join(sorted(one.name for one in volume.snapshots)[:8]) or "none"
        raise NotFound(f"volume {volume.name} has no snapshot {name}; take it first, or choose one of: {near}")
    if snapshot.status not in ("available", "uploading"):
        raise Conflict(f"snapshot {name} of volume {volume.name} is {snapshot.status}; run the play that was at it to its end first")
    check_taken(volume, snapshot)
    return snapshot


def check_data(have: Volume) -> None:
    """Refuses a volume whose data is gone: a record alone is not a volume."""
    if have.data_bytes is None:
        raise Refused(f"the data of volume {have.name} is gone from {have.path}; bring it back, or delete the volume with state=absent")


def check_taken(volume: Volume, snapshot: Snapshot) -> None:
    """Refuses a snapshot whose data is gone: a record alone is not a snapshot."""
    if snapshot.taken is False:
        raise Refused(f"the data of snapshot {snapshot.name} of volume {volume.name} is gone from {volume.path}; delete the snapshot with state=absent")


def check_still(volume: Volume, backend: VolumeBackend, what: str, forced: bool, force: str, allocation: t.Optional[str] = None) -> None:
    """Refuses what would catch a volume while somebody may be writing to it, unless that is `forced`, by this option, and done at one instant.

    `allocation` is that of a volume that shall be made from it.
    """
    if not volume.attachments:
        return
    held = f"while volume {volume.name} is held by {volume.holders()}, who may be writing"
    if not backend.instant(volume, allocation):
        raise Refused(f"{what} {held}: {backend.where} copies it, which takes time; detach it first")
    if not forced:
        raise Refused(f"{what} {held}; detach it first, or take it as it is at that moment with {force}")


def check_not_copied(volume: Volume, world: World, backend: VolumeBackend, what: str, snapshot: t.Optional[Snapshot] = None, whole: bool = False) -> None:
    """Refuses what would disturb a copy of a volume, of one snapshot, or with `whole` of any; it may be a killed run's, half made."""
    taking = [*_being_taken(volume, snapshot, backend.instant(volume))]
    of = [one for one in filter(None, world.values()) if one.status in MAKING and one.source_volid == volume.id]
    copied = [one for one in of if not backend.instant(volume, one.allocation)]
    made = [f"volume {one.name}" for one in copied if whole or one.snapshot_id == (snapshot and snapshot.id)]
    if taking or made:
        raise Conflict(f"{what} while it is copied to {(taking + made)[0]}; let the run that is at it end, or run it again if it was killed")


def _being_taken(volume: Volume, snapshot: t.Optional[Snapshot], instant: bool) -> t.Iterator[str]:
    """What is being read from the volume itself, which takes time unless it is done at an `instant`, or from this snapshot."""
    if snapshot is None and not instant:
        yield from (f"snapshot {one.name}" for one in volume.snapshots if one.status == "creating")
    read = volume.backed_up_from == snapshot.name if snapshot else not (instant or volume.backed_up_from)
    if volume.backup and read:
        yield f"backup {volume.backup.name}"


def check_not_taken(volume: Volume, what: str) -> None:
    """Refuses what would change a volume under a snapshot that somebody has begun to take."""
    taking = [snapshot.name for snapshot in volume.snapshots if snapshot.status == "creating"]
    if taking:
        raise Conflict(f"{what} while its snapshot {taking[0]} is being taken; run that to its end first")


def others(world: World, have: t.Optional[Volume]) -> t.List[Volume]:
    """All other volumes that are there, or shall be when this run is through."""
    return [volume for volume in world.values() if volume is not None and volume is not have]


def activation(have: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What makes the data accessible, where it is not."""
    return () if have.active else (Step(f"activate volume {have.name}", backend.activate, (have,)),)


def gib(volume: Volume) -> str:
    return f"{volume.size_bytes / GIB:g} GiB"


def who(volume: Volume) -> str:
    if volume.backup:
        give_up = "give it up with state=absent of cinder_backup"
        return f"backup {volume.backup.name} of it is being taken; let the run that is at it end, run it again if it was killed, or {give_up}"
    return f"it is held by {volume.holders()}; detach it first" if volume.attachments else "wait for the run that is at it, or set it right by hand"
