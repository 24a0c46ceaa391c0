# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what a volume is to what it shall be: pure decisions, no reading, no writing."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Invalid, NotFound, Refused
from ._model.volume import GIB, Volume
from ._reconcile import Plan, Step, World
from ._volumes import VolumeBackend

# The statuses between two: an earlier run was stopped there, or another one is at it.
_GROWABLE = ("available", "in-use", "extending")
_DELETABLE = ("available", "deleting", "creating", "error", "error_deleting", "error_extending")


@dataclasses.dataclass(frozen=True)
class VolumeWish:
    """What the user says of one volume; None is what the user does not care about."""

    name: str
    present: bool = True
    new_name: t.Optional[str] = None
    size_bytes: t.Optional[int] = None
    volume_type: t.Optional[str] = None
    description: t.Optional[str] = None
    metadata: t.Optional[t.Tuple[t.Tuple[str, str], ...]] = None
    multiattach: t.Optional[bool] = None
    allocation: t.Optional[str] = None
    wipe: bool = True
    fresh_id: str = ""


def plan_volume(want: VolumeWish, world: World, backend: VolumeBackend) -> Plan:
    """Creates, finishes, grows, renames, updates or deletes one volume.

    Raises Invalid, NotFound, Conflict or Refused.
    """
    if want.allocation not in (None, *backend.allocations):
        ways = " or ".join(backend.allocations)
        raise Invalid(f"volume {want.name} can't have allocation={want.allocation} at {backend.where}; choose {ways}")
    have = _renamed(want, world) or volume_named(want.name, world)
    if not want.present:
        return _absent(want, have, backend)
    if have is None:
        return _create(want, world, backend)
    return _update(want, have, world, backend)


def _renamed(want: VolumeWish, world: World) -> t.Optional[Volume]:
    """The volume that has its new name already, or None."""
    if want.new_name is None or not want.present or want.new_name == want.name:
        return None
    old, new = volume_named(want.name, world), volume_named(want.new_name, world)
    if old and new:
        raise Conflict(f"volume {want.name} can't be renamed to {want.new_name}: there is another volume of that name; choose another one")
    if not (old or new):
        raise NotFound(f"there is neither a volume {want.name} to rename nor a volume {want.new_name}; make it first, or look at the names")
    return new


def _create(want: VolumeWish, world: World, backend: VolumeBackend) -> Plan:
    if want.size_bytes is None:
        raise Invalid(f"volume {want.name} does not exist at {backend.where} yet and needs a size_gib to be made")
    after = Volume(
        name=want.name,
        id=want.fresh_id,
        size_bytes=want.size_bytes,
        volume_type=want.volume_type,
        description=want.description,
        metadata=want.metadata or (),
        multiattach=bool(want.multiattach),
        allocation=want.allocation or backend.allocation,
        path=backend.locate(want.fresh_id),
    )
    refusal = backend.missing(after, _others(world, None))
    if refusal:
        raise Refused(f"volume {want.name} can't be made: {refusal}")
    creating = dataclasses.replace(after, status="creating")
    record = Step(f"record volume {want.name} as creating", backend.swap, (None, creating))
    return Plan(want.name, None, after, (record,) + _creation(creating, after, backend))


def _others(world: World, have: t.Optional[Volume]) -> t.List[Volume]:
    """All other volumes that are there, or shall be when this run is through."""
    return [volume for volume in world.values() if volume is not None and volume is not have]


def _creation(creating: Volume, after: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    filled = dataclasses.replace(creating, size_bytes=after.size_bytes)
    return (
        Step(f"allocate {_gib(after)} for volume {after.name}", backend.allocate, (filled,)),
        Step(f"mark volume {after.name} available", backend.swap, (creating, after)),
    )


def _update(want: VolumeWish, have: Volume, world: World, backend: VolumeBackend) -> Plan:
    if have.status == "deleting":
        raise Conflict(f"volume {have.name} is half deleted by an earlier run; finish that with state=absent, then make it anew")
    changes = _changes(want, have)
    size = _wished_size(want, have)
    after = dataclasses.replace(have, size_bytes=size, **changes)
    if have.status == "creating":  # an earlier run was stopped between the record and the data: go on from there
        after = dataclasses.replace(after, status="available")
        return _way(want, have, after, _creation(have, after, backend))
    check_data(have)
    steps = activation(have, backend)
    if size > have.size_bytes or have.status == "extending":
        after = dataclasses.replace(after, status=have.at_rest().status)
        return dataclasses.replace(_way(want, have, after, steps + _extension(have, after, world, backend)), undo=_unextending(have, after, backend))
    if have.data_bytes < have.size_bytes:
        steps += (Step(f"grow the data of volume {have.name} to the recorded {_gib(have)}", backend.allocate, (have,)),)
    if after != have:
        steps += (Step(f"update {', '.join(sorted(changes))} of volume {have.name}", backend.swap, (have, after)),)
    return _way(want, have, after, steps)


def _way(want: VolumeWish, have: Volume, after: Volume, steps: t.Tuple[Step, ...]) -> Plan:
    return Plan(after.name, have, after, steps, label=want.name)


def activation(have: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What makes the data accessible, where it is not."""
    return () if have.active else (Step(f"activate volume {have.name}", backend.activate, (have,)),)


def _wished_size(want: VolumeWish, have: Volume) -> int:
    size = have.size_bytes if want.size_bytes is None else want.size_bytes
    if size < have.size_bytes:
        raise Refused(f"volume {have.name} has {_gib(have)} and can't shrink to {size // GIB} GiB; make a smaller one and copy the data")
    return size


def _changes(want: VolumeWish, have: Volume) -> t.Dict[str, t.Any]:
    if want.allocation not in (None, have.allocation):
        raise Refused(f"volume {have.name} is {have.allocation} and can't become {want.allocation}; make another one and copy the data")
    wished = {key: getattr(want, key) for key in ("volume_type", "description", "metadata", "multiattach")}
    wished["name"] = want.new_name
    changes = {key: value for key, value in wished.items() if value is not None and value != getattr(have, key)}
    if "multiattach" in changes and have.attachments:
        raise Refused(f"multiattach of volume {have.name} can't change while it is held by {have.holders()}; detach it first")
    return changes


def _extension(have: Volume, after: Volume, world: World, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    if have.status not in _GROWABLE:
        raise Conflict(f"volume {have.name} is {have.status} and can't be extended now; {_who(have)}")
    refusal = backend.missing(after, _others(world, have))
    if refusal:
        raise Refused(f"volume {have.name} can't be extended: {refusal}")
    extending = dataclasses.replace(after, status="extending")
    steps = () if have == extending else (Step(f"mark volume {have.name} extending", backend.swap, (have, extending)),)
    return steps + (
        Step(f"grow volume {have.name} to {_gib(after)}", backend.allocate, (extending,)),
        Step(f"mark volume {have.name} {after.status}", backend.swap, (extending, after)),
    )


def _unextending(have: Volume, after: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """Without it a volume that can't grow could neither be used nor given back any more."""
    back = dataclasses.replace(have.at_rest(), size_bytes=have.data_bytes) if have.status == "extending" else have
    extending = dataclasses.replace(after, status="extending")
    return (Step(f"leave volume {have.name} at {_gib(back)}", _put_back, (backend, extending, back)),)


def _put_back(backend: VolumeBackend, extending: Volume, back: Volume) -> None:
    """The record as it was, unless the data is not as it was. Raises Conflict."""
    now = backend.observe().get(extending.name)
    if now != extending or now.data_bytes != back.data_bytes:
        raise Conflict(f"volume {extending.name} has changed meanwhile; run the same play again")
    backend.swap(extending, back)


def _absent(want: VolumeWish, have: t.Optional[Volume], backend: VolumeBackend) -> Plan:
    if have is None:
        return Plan(want.name, None, None)
    if have.attachments or have.status not in _DELETABLE:
        raise Refused(f"volume {have.name} is {have.status} and can't be deleted; {_who(have)}")
    refusal = backend.missing()
    if refusal:
        raise Refused(f"volume {have.name} can't be deleted: {refusal}")
    holder = backend.holder(have)
    if holder:
        raise Refused(f"volume {have.name} can't be deleted: it is in use by {holder} on the storage host; end that first")
    dependants = backend.dependants(have)
    if dependants:
        raise Refused(f"volume {have.name} can't be deleted: {dependants}; remove that first")
    return Plan(have.name, have, None, _deletion(want, have, backend))


def _deletion(want: VolumeWish, have: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    deleting = dataclasses.replace(have, status="deleting")
    steps = [] if have == deleting else [Step(f"mark volume {have.name} deleting", backend.swap, (have, deleting))]
    if want.wipe and backend.needs_wipe(have):
        steps.append(Step(f"wipe the data of volume {have.name}", backend.wipe, (deleting,)))
    if not backend.record_in_data:
        steps.append(Step(f"remove the data of volume {have.name}", backend.remove, (deleting,)))
    what = "volume" if backend.record_in_data else "the record of volume"
    steps.append(Step(f"remove {what} {have.name}", backend.swap, (deleting, None)))
    return tuple(steps)


def check_data(have: Volume) -> None:
    """Refuses a volume whose data is gone: a record alone is not a volume."""
    if have.data_bytes is None:
        raise Refused(f"the data of volume {have.name} is gone from {have.path}; bring it back, or delete the volume with state=absent")


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


def _gib(volume: Volume) -> str:
    return f"{volume.size_bytes / GIB:g} GiB"


def _who(volume: Volume) -> str:
    return f"it is held by {volume.holders()}; detach it first" if volume.attachments else "wait for the run that is at it, or set it right by hand"
