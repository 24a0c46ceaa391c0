# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what the snapshots of a volume are to what they shall be: pure decisions, no reading, no writing.

A snapshot stands in the record of its volume, so that each of its changes is one compare-and-swap of that.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Refused
from ._model.volume import Snapshot, Volume
from ._plan_clones import checked_clones, separation
from ._plan_known import BUSY, activation, check_data, check_not_copied, check_still, check_taken, known_volume, others, volume_named
from ._reconcile import Plan, Step, World
from ._volumes import Clone, VolumeBackend


@dataclasses.dataclass(frozen=True)
class SnapshotWish:
    """What the user says of one snapshot; None is what the user does not care about. `now`: UTC, ISO 8601."""

    volume: str
    name: str
    present: bool = True
    description: t.Optional[str] = None
    metadata: t.Optional[t.Tuple[t.Tuple[str, str], ...]] = None
    force: bool = False
    clones: str = "refuse"
    fresh_id: str = ""
    now: str = ""

    def __str__(self) -> str:
        return f"snapshot {self.name} of volume {self.volume}"


def plan_snapshot(want: SnapshotWish, world: World, backend: VolumeBackend) -> Plan:
    """Takes, finishes, updates or deletes one snapshot. Raises Invalid, NotFound, Conflict or Refused."""
    if not want.present:
        return _absent(want, volume_named(want.volume, world), world, backend)
    volume = known_volume(want.volume, world, backend.where)
    have = volume.snapshot(want.name)
    if have is None or have.status == "creating":
        return _take(want, volume, have or _fresh(want, volume), world, backend)
    if have.status == "deleting":
        raise Conflict(f"{want} is half deleted by an earlier run; finish that with state=absent, then take it anew")
    check_taken(volume, have)
    after = volume.with_snapshot(_described(want, have))
    steps = () if after == volume else (Step(f"update {want}", backend.swap, (volume, after)),)
    return Plan(volume.name, volume, after, steps, label=str(want))


def _fresh(want: SnapshotWish, volume: Volume) -> Snapshot:
    return Snapshot(id=want.fresh_id, name=want.name, size_bytes=volume.size_bytes, created_at=want.now, status="creating")


def _described(want: SnapshotWish, have: Snapshot) -> Snapshot:
    told = {"description": want.description, "metadata": want.metadata}
    return dataclasses.replace(have, **{key: value for key, value in told.items() if value is not None})


def _take(want: SnapshotWish, volume: Volume, snapshot: Snapshot, world: World, backend: VolumeBackend) -> Plan:
    if volume.status in BUSY:
        raise Conflict(f"{want} can't be taken while the volume is {volume.status}; run the play that was at it to its end first")
    if not (snapshot.taken and backend.instant(volume)):  # it is there already: what is left is to say so
        check_still(volume, backend, f"{want} can't be taken", want.force, "force=true")
    check_data(volume)
    refusal = backend.missing() or (None if snapshot.taken else backend.crowded(volume, others(world, volume)))
    if refusal:
        raise Refused(f"{want} can't be taken: {refusal}")
    taking = _described(want, dataclasses.replace(snapshot, status="creating"))
    recorded, after = volume.with_snapshot(taking), volume.with_snapshot(dataclasses.replace(taking, status="available"))
    record = () if recorded == volume else (Step(f"record {want} as creating", backend.swap, (volume, recorded)),)
    steps = (
        Step(f"take {want}", backend.take, (recorded, taking)),
        Step(f"mark {want} available", backend.swap, (recorded, after)),
    )
    undo = (Step(f"remove {want} again", _untake, (recorded, taking, backend)),)
    warnings = tuple(filter(None, [backend.outlook(volume)]))
    return Plan(volume.name, volume, after, activation(volume, backend) + record + steps, label=str(want), warnings=warnings, undo=undo)


def _untake(volume: Volume, taking: Snapshot, backend: VolumeBackend) -> None:
    """A snapshot that could not be taken is not left half made, unless somebody else has made more of it meanwhile."""
    now = backend.observe().get(volume.name)
    if now is not None and now.snapshot(taking.name) == taking:
        backend.drop(now, taking, False)
        backend.swap(now, now.without_snapshot(taking.name))


def _absent(want: SnapshotWish, volume: t.Optional[Volume], world: World, backend: VolumeBackend) -> Plan:
    have = volume.snapshot(want.name) if volume else None
    if volume is None or have is None:
        warning = f"there is no volume {want.volume} at {backend.where}: nothing to delete"
        return Plan(want.volume, volume, volume, label=str(want), warnings=() if volume else (warning,))
    if volume.status in BUSY:
        raise Conflict(f"{want} can't be deleted while the volume is {volume.status}; run the play that was at it to its end first")
    if have.status == "uploading":
        raise Conflict(f"{want} can't be deleted while it is written to {have.uploading_to}; let the run that is at it end, or run it again if it was killed")
    check_not_copied(volume, world, backend, f"{want} can't be deleted", have)
    clones = checked_clones(f"{want} can't be deleted", volume, have, world, backend, want.clones)
    return Plan(volume.name, volume, volume.without_snapshot(want.name), _deletion(want, volume, have, backend, clones), label=str(want))


def _deletion(want: SnapshotWish, volume: Volume, have: Snapshot, backend: VolumeBackend, clones: t.Sequence[Clone]) -> t.Tuple[Step, ...]:
    deleting = volume.with_snapshot(dataclasses.replace(have, status="deleting"))
    return (
        *(() if deleting == volume else (Step(f"mark {want} deleting", backend.swap, (volume, deleting)),)),
        *(separation(clones, backend) if want.clones == "flatten" else ()),
        Step(f"remove {want}", backend.drop, (deleting, have, True)),
        Step(f"remove the record of {want}", backend.swap, (deleting, deleting.without_snapshot(want.name))),
    )
