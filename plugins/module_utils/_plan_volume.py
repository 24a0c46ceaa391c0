# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what a volume is to what it shall be: pure decisions, no reading, no writing."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Invalid, NotFound, Refused
from ._model.image import ImageWish, Inspected
from ._model.volume import GIB, MAKING, Volume
from ._plan_clones import checked_clones, separation
from ._plan_known import BUSY, activation, check_data, check_not_copied, check_not_taken, check_still
from ._plan_known import gib, known_snapshot, known_volume, others, volume_named, who
from ._reconcile import Plan, Step, World
from ._volumes import Clone, VolumeBackend

# From which statuses there is a way: an earlier run may have been stopped in those between two.
_GROWABLE = ("available", "in-use", "extending")
_DELETABLE = ("available", "deleting", *MAKING, "reverting", "restoring-backup", "error", "error_deleting", "error_extending")
# What other wishes have begun, and only they can finish.
_OTHERS_DO = {
    "deleting": "deleted by an earlier run; finish that with state=absent, then make it anew",
    "restoring-backup": "restored from a backup by an earlier run; finish that with cinder_backup, or delete it with state=absent",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """What a volume is made from: another volume, a snapshot of it, an image, or a volume that is kept of that.

    `force`: although somebody may be writing to it.

    `file` is the image, open and inspected, where a volume is to be made from it; with `fetch` it has to be brought here before.
    """

    volume: t.Optional[str] = None
    snapshot: t.Optional[str] = None
    force: bool = False
    image: t.Optional[ImageWish] = None
    file: t.Optional[Inspected] = dataclasses.field(default=None, compare=False, repr=False)
    fetch: bool = False

    @property
    def image_path(self) -> t.Optional[str]:
        return self.image.path if self.image else None

    def __str__(self) -> str:
        if self.image:
            return f"{self.image}, kept as volume {self.volume}" if self.volume else str(self.image)
        return f"snapshot {self.snapshot} of volume {self.volume}" if self.snapshot else f"volume {self.volume}"


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
    source: t.Optional[Source] = None
    revert_to: t.Optional[str] = None
    cascade: bool = False
    clones: str = "refuse"
    fresh_id: str = ""
    kept_at: t.Optional[str] = None


def plan_volume(want: VolumeWish, world: World, backend: VolumeBackend) -> Plan:
    """Creates, finishes, grows, renames, updates, reverts or deletes one volume.

    Raises Invalid, NotFound, Conflict or Refused.
    """
    if want.allocation not in (None, *backend.allocations):
        ways = " or ".join(backend.allocations)
        raise Invalid(f"volume {want.name} can't have allocation={want.allocation} at {backend.where}; choose {ways}")
    have = _renamed(want, world) or volume_named(want.name, world)
    if not want.present:
        return _absent(want, have, world, backend)
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


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a volume begins with; nothing by default."""

    volume_id: t.Optional[str] = None
    snapshot_id: t.Optional[str] = None
    size_bytes: int = 0
    volume_type: t.Optional[str] = None
    said: str = ""
    image: t.Optional[str] = None
    warnings: t.Tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Of a volume that is being made from it."""
        return "downloading" if self.image and not self.volume_id else "creating"


def _create(want: VolumeWish, world: World, backend: VolumeBackend) -> Plan:
    if want.revert_to is not None:
        raise NotFound(f"there is no volume {want.name} at {backend.where} that could be reverted; leave revert_to out to make it")
    origin = _Origin() if want.source is None else _origin(want, want.source, world, backend)
    size = _first_size(want, origin, backend)
    after = Volume(
        name=want.name,
        id=want.fresh_id,
        size_bytes=size,
        volume_type=want.volume_type or origin.volume_type,
        description=want.description,
        metadata=want.metadata or (),
        multiattach=bool(want.multiattach),
        allocation=want.allocation or backend.allocation,
        source_volid=origin.volume_id,
        snapshot_id=origin.snapshot_id,
        source_image=origin.image,
        kept_at=want.kept_at,
        path=backend.locate(want.fresh_id),
        data_bytes=size,  # as later items of the same task see it
    )
    refusal = backend.missing(after, others(world, None))
    if refusal:
        raise Refused(f"volume {want.name} can't be made: {refusal}")
    creating = dataclasses.replace(after, status=origin.status)
    record = Step(f"record volume {want.name} as {creating.status}{origin.said}", backend.swap, (None, creating))
    steps = (record,) + _creation(want, creating, after, world, backend)
    return Plan(want.name, None, after, steps, warnings=origin.warnings, undo=_unmaking(creating, backend))


def _origin(want: VolumeWish, source: Source, world: World, backend: VolumeBackend) -> _Origin:
    said = f", from {source}"
    if source.image is not None and source.volume is None:
        return _Origin(size_bytes=source.file.virtual_bytes if source.file else 0, image=source.image.path, said=said)
    volume = known_volume(t.cast(str, source.volume), world, backend.where)
    if source.snapshot is not None:
        snapshot = known_snapshot(volume, source.snapshot)
        return _Origin(volume.id, snapshot.id, snapshot.size_bytes, volume.volume_type, said)
    allocation = want.allocation or backend.allocation
    _check_source_still(want, source, volume, allocation, backend)
    outlook = backend.outlook(volume) if backend.instant(volume, allocation) else None
    return _Origin(volume.id, None, volume.size_bytes, volume.volume_type, said, source.image_path, (outlook,) if outlook else ())


def _check_source_still(want: VolumeWish, source: Source, volume: Volume, allocation: str, backend: VolumeBackend) -> None:
    what = f"volume {want.name} can't be made from volume {volume.name}"
    if volume.status in BUSY:
        raise Conflict(f"{what}, which is {volume.status}; {who(volume)}")
    check_still(volume, backend, what, source.force, "source.force=true", allocation)
    check_data(volume)


def _unmaking(creating: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """A volume whose source could not be brought to it is not left half made."""
    made_of = creating.source_image or creating.source_volid
    return (Step(f"remove volume {creating.name} again", _unmake, (creating, backend)),) if made_of else ()


def _unmake(creating: Volume, backend: VolumeBackend) -> None:
    """Unless somebody else has made more of it meanwhile, or nothing was made yet."""
    if backend.observe().get(creating.name) != creating:
        return
    if not backend.record_in_data:
        backend.remove(creating)
    backend.swap(creating, None)


def _first_size(want: VolumeWish, origin: _Origin, backend: VolumeBackend) -> int:
    size = want.size_bytes or _whole_gib(origin.size_bytes) * GIB
    if not size:
        raise Invalid(f"volume {want.name} does not exist at {backend.where} yet and needs a size_gib to be made")
    _check_fits(want.name, size, want.source, origin.size_bytes)
    return size


def _whole_gib(size: int) -> int:
    return -(-size // GIB)


def _check_fits(name: str, size: int, source: t.Optional[Source], needed: int) -> None:
    if size < needed:
        raise Refused(f"volume {name} can't have {size // GIB} GiB, as {source} needs {_whole_gib(needed)}; make it at least as large")


def _creation(want: VolumeWish, creating: Volume, after: Volume, world: World, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    filled = dataclasses.replace(creating, size_bytes=after.size_bytes)
    return (
        *_filling(want.source or Source(), creating, world, backend),
        Step(f"allocate {gib(after)} for volume {after.name}", backend.allocate, (filled,)),
        Step(f"mark volume {after.name} available", backend.swap, (creating, after)),
    )


def _filling(source: Source, creating: Volume, world: World, backend: VolumeBackend) -> t.Iterator[Step]:
    """What brings the data of the source to a volume that is being made."""
    if creating.source_volid:
        made_from = next((one for one in others(world, creating) if one.id == creating.source_volid), None)
        if backend.copies(creating, made_from):
            yield Step(f"copy to {creating.name} what it shares with its source", backend.copy, (creating,))
        return
    if creating.source_image:
        yield from _from_image(source, creating, backend)


def _from_image(source: Source, creating: Volume, backend: VolumeBackend) -> t.Iterator[Step]:
    if source.file is None:
        raise Conflict(f"volume {creating.name} is half made from image {creating.source_image}; run that to its end, or delete the volume with state=absent")
    if source.fetch:
        yield Step(f"download {source}", _bring, (creating, source, backend))
    else:  # it may be another one than that of a run that was stopped
        _check_fits(creating.name, creating.size_bytes, source, source.file.virtual_bytes)
    yield Step(f"write {source} to volume {creating.name}", _fill, (creating, source.file, backend))


def _bring(creating: Volume, source: Source, backend: VolumeBackend) -> None:
    """Gets an image, for which the size of the volume is known but not its own."""
    image = t.cast(Inspected, source.file)
    version, image.volume_id = image.version, creating.id
    with backend.pause():  # it takes minutes, and the record says what goes on
        image.bring(creating.size_bytes)
    if creating.kept_at and image.version != version:
        raise Conflict(f"{source} has changed meanwhile; run again")
    _check_fits(creating.name, creating.size_bytes, source, image.virtual_bytes)


def _update(want: VolumeWish, have: Volume, world: World, backend: VolumeBackend) -> Plan:
    _check_own(want, have)
    if want.source is not None:
        _check_source(want.source, have, world)
    changes = _changes(want, have)
    after = dataclasses.replace(have, size_bytes=_wished_size(want, have), **changes)
    if have.status in MAKING:  # an earlier run was stopped between the record and the data: go on from there
        after = dataclasses.replace(after, status="available")
        return dataclasses.replace(_way(want, have, after, _creation(want, have, after, world, backend)), undo=_unmaking(have, backend))
    check_data(have)
    if have.status == "reverting" or _reverts(want, have):
        check_not_taken(have, f"volume {have.name} can't be reverted")
        check_not_copied(have, world, backend, f"volume {have.name} can't be reverted")
        return _reversion(want, have, after, backend)
    if after.size_bytes > have.size_bytes or have.status == "extending":
        return _growth(want, have, dataclasses.replace(after, status=have.at_rest().status), world, backend)
    return _way(want, have, after, activation(have, backend) + _touch(have, after, sorted(changes), backend))


def _fill(creating: Volume, image: Inspected, backend: VolumeBackend) -> None:
    image.volume_id = creating.id
    backend.fill(creating, image)


def _check_own(want: VolumeWish, have: Volume) -> None:
    if have.kept_at and not want.kept_at:
        raise Refused(f"volume {have.name} is kept of image {have.source_image}, for volumes that are made from that; choose another name")
    if have.status in _OTHERS_DO:
        raise Conflict(f"volume {have.name} is half {_OTHERS_DO[have.status]}")


def _touch(have: Volume, after: Volume, changes: t.Sequence[str], backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What brings a volume to its record, and its record to the wish."""
    short = Step(f"grow the data of volume {have.name} to the recorded {gib(have)}", backend.allocate, (have,))
    update = Step(f"update {', '.join(changes)} of volume {have.name}", backend.swap, (have, after))
    return ((short,) if have.data_bytes < have.size_bytes else ()) + ((update,) if after != have else ())


def _check_source(source: Source, have: Volume, world: World) -> None:
    """Refuses a volume that was made from something else, as far as what it shall be made from is still there to compare."""
    if {key: getattr(have, key) for key in _known_of(source, world)} != _known_of(source, world):
        raise Refused(f"volume {have.name} is there and was not made from {source}; delete it to make it anew, or choose another name")


def _known_of(source: Source, world: World) -> t.Dict[str, t.Any]:
    """What the record of a volume that was made from a source has to say, as far as the source is there to tell."""
    if source.image is not None:
        return {"source_image": source.image.path}
    volume = volume_named(t.cast(str, source.volume), world)
    if volume is None:
        return {}
    snapshot = volume.snapshot(source.snapshot) if source.snapshot else None
    told = {"source_volid": volume.id, "snapshot_id": snapshot and snapshot.id}
    return told if snapshot or not source.snapshot else {"source_volid": volume.id}


def _growth(want: VolumeWish, have: Volume, after: Volume, world: World, backend: VolumeBackend) -> Plan:
    plan = _way(want, have, after, activation(have, backend) + _extension(have, after, world, backend))
    return dataclasses.replace(plan, undo=_unextending(have, after, backend))


def _reverts(want: VolumeWish, have: Volume) -> bool:
    """Whether the volume has to be reverted: not so when nobody had it since it was."""
    return want.revert_to is not None and known_snapshot(have, want.revert_to).id != have.reverted_to


def _reversion(want: VolumeWish, have: Volume, after: Volume, backend: VolumeBackend) -> Plan:
    if want.revert_to is None:
        raise Conflict(f"volume {have.name} is half reverted by an earlier run; finish that with revert_to")
    _check_revertible(have, after, backend)
    snapshot = known_snapshot(have, want.revert_to)
    after = dataclasses.replace(after, status="available", reverted_to=snapshot.id, restored_from=None)
    reverting = dataclasses.replace(have, status="reverting", reverted_to=None, restored_from=None)
    steps = [] if have == reverting else [Step(f"mark volume {have.name} reverting", backend.swap, (have, reverting))]
    steps.append(Step(f"revert volume {have.name} to snapshot {snapshot.name}", backend.revert, (reverting, snapshot)))
    if snapshot.size_bytes < have.size_bytes or have.allocation == "full":
        steps.append(Step(f"allocate {gib(have)} for volume {have.name}", backend.allocate, (reverting,)))
    steps.append(Step(f"mark volume {after.name} available", backend.swap, (reverting, after)))
    return _way(want, have, after, activation(have, backend) + tuple(steps))


def _check_revertible(have: Volume, after: Volume, backend: VolumeBackend) -> None:
    if have.attachments or have.status not in ("available", "reverting"):
        raise Refused(f"volume {have.name} is {have.status} and can't be reverted; {who(have)}")
    if after.size_bytes != have.size_bytes:
        raise Invalid(f"volume {have.name} can't be reverted and extended at once; do that in two tasks")
    holder = backend.holder(have)
    if holder:
        raise Refused(f"volume {have.name} can't be reverted: it is in use by {holder} on the storage host; end that first")


def _way(want: VolumeWish, have: Volume, after: Volume, steps: t.Tuple[Step, ...]) -> Plan:
    return Plan(after.name, have, after, steps, label=want.name)


def _wished_size(want: VolumeWish, have: Volume) -> int:
    size = have.size_bytes if want.size_bytes is None else want.size_bytes
    if size < have.size_bytes:
        raise Refused(f"volume {have.name} has {gib(have)} and can't shrink to {size // GIB} GiB; make a smaller one and copy the data")
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
        raise Conflict(f"volume {have.name} is {have.status} and can't be extended now; {who(have)}")
    check_not_taken(have, f"volume {have.name} can't be extended")
    check_not_copied(have, world, backend, f"volume {have.name} can't be extended")
    refusal = backend.missing(after, others(world, have))
    if refusal:
        raise Refused(f"volume {have.name} can't be extended: {refusal}")
    extending = dataclasses.replace(after, status="extending")
    steps = () if have == extending else (Step(f"mark volume {have.name} extending", backend.swap, (have, extending)),)
    return steps + (
        Step(f"grow volume {have.name} to {gib(after)}", backend.allocate, (extending,)),
        Step(f"mark volume {have.name} {after.status}", backend.swap, (extending, after)),
    )


def _unextending(have: Volume, after: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """Without it a volume that can't grow could neither be used nor given back any more."""
    back = dataclasses.replace(have.at_rest(), size_bytes=have.data_bytes) if have.status == "extending" else have
    extending = dataclasses.replace(after, status="extending")
    return (Step(f"leave volume {have.name} at {gib(back)}", _put_back, (backend, extending, back)),)


def _put_back(backend: VolumeBackend, extending: Volume, back: Volume) -> None:
    """The record as it was, unless the data is not as it was. Raises Conflict."""
    now = backend.observe().get(extending.name)
    if now != extending or now.data_bytes != back.data_bytes:
        raise Conflict(f"volume {extending.name} has changed meanwhile; run the same play again")
    backend.swap(extending, back)


def _absent(want: VolumeWish, have: t.Optional[Volume], world: World, backend: VolumeBackend) -> Plan:
    if have is None:
        return Plan(want.name, None, None)
    if have.attachments or have.status not in _DELETABLE:
        raise Refused(f"volume {have.name} is {have.status} and can't be deleted; {who(have)}")
    check_not_copied(have, world, backend, f"volume {have.name} can't be deleted", whole=True)
    for obstacle in _obstacles(want, have, backend):
        raise Refused(f"volume {have.name} can't be deleted: {obstacle}")
    clones = checked_clones(f"volume {have.name} can't be deleted", have, None, world, backend, want.clones)
    return Plan(have.name, have, None, _deletion(want, have, backend, clones))


def _obstacles(want: VolumeWish, have: Volume, backend: VolumeBackend) -> t.Iterator[str]:
    """What keeps a volume from being deleted, and what to do about it."""
    refusal = backend.missing()
    if refusal:
        yield refusal
    holder = backend.holder(have)
    if holder:
        yield f"it is in use by {holder} on the storage host; end that first"
    dependants = backend.dependants(have)
    if dependants:
        yield f"{dependants}; remove that first"
    for snapshot in have.snapshots:
        if snapshot.status == "uploading":
            yield f"its snapshot {snapshot.name} is written to {snapshot.uploading_to}; let the run that is at it end, or run it again if it was killed"
    if have.snapshots and not want.cascade:
        names = ", ".join(sorted(snapshot.name for snapshot in have.snapshots))
        yield f"it has snapshots: {names}; delete them first, or with it by cascade=true"


def _deletion(want: VolumeWish, have: Volume, backend: VolumeBackend, clones: t.Sequence[Clone]) -> t.Tuple[Step, ...]:
    deleting = dataclasses.replace(have, status="deleting")
    steps = [] if have == deleting else [Step(f"mark volume {have.name} deleting", backend.swap, (have, deleting))]
    dropping = [Step(f"remove snapshot {snapshot.name} of volume {have.name}", backend.drop, (deleting, snapshot, want.wipe)) for snapshot in have.snapshots]
    if clones and want.clones == "trash":
        retiring = Step(f"move volume {have.name} to the trash until its clones are gone", backend.retire, (deleting,))
        return (*steps, *dropping, retiring)
    return (*steps, *separation(clones, backend), *dropping, *_removal(want, have, deleting, backend))


def _removal(want: VolumeWish, have: Volume, deleting: Volume, backend: VolumeBackend) -> t.Iterator[Step]:
    if want.wipe and backend.needs_wipe(have):
        yield Step(f"wipe the data of volume {have.name}", backend.wipe, (deleting,))
    if not backend.record_in_data:
        yield Step(f"remove the data of volume {have.name}", backend.remove, (deleting,))
    what = "volume" if backend.record_in_data else "the record of volume"
    yield Step(f"remove {what} {have.name}", backend.swap, (deleting, None))
