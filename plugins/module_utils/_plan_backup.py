# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what backups are to what they shall be, and from a backup back to a volume: pure decisions, no reading, no writing.

The world holds the volumes by name, the backups by their keys, and for each volume whose backups are to be pruned the names of those.
While a backup is taken, the volume's record says so; it is written only when nobody can be writing, or from a snapshot taken at an instant.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._backups import BackupStore
from ._errors import Conflict, NotFound, Refused
from ._hosts import Workplace
from ._model.backup import Backup, Keep, Key, kept
from ._model.volume import GIB, Snapshot, Volume
from ._plan_known import activation, check_data, check_not_copied, check_not_taken, check_still, known_snapshot, known_volume, others, volume_named, who
from ._reconcile import Plan, Step, World
from ._volumes import Readable, VolumeBackend, overtaken


@dataclasses.dataclass(frozen=True)
class BackupWish:
    """What the user says of one backup; None is what the user does not care about. `now`: UTC, ISO 8601.

    `snapshot` is what is read instead of the volume, `to` the volume that gets what was kept, `keep` what stays of the backups of a volume.
    """

    volume: str
    name: str = ""
    state: str = "present"
    description: t.Optional[str] = None
    snapshot: t.Optional[str] = None
    force: bool = False
    to: t.Optional[str] = None
    overwrite: bool = False
    keep: t.Optional[Keep] = None
    fresh_id: str = ""
    now: str = ""

    def __str__(self) -> str:
        return f"backup {self.name} of volume {self.volume}" if self.name else f"the backups of volume {self.volume}"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where volumes are, where their backups are, and where these are taken."""

    volumes: VolumeBackend
    backups: BackupStore
    work: Workplace = dataclasses.field(default_factory=Workplace)


def plan_backup(want: BackupWish, world: World, places: Places) -> Plan:
    """Takes, finishes or deletes one backup, restores it, or prunes those of a volume. Raises NotFound, Conflict or Refused."""
    plan = {"present": _present, "absent": _absent, "restored": _restored, "pruned": _pruned}[want.state]
    return plan(want, world, places)


def volumes_of(world: World) -> World:
    """The volumes alone."""
    return {key: value for key, value in world.items() if isinstance(key, str) and isinstance(value, Volume)}


def backups_of(name: str, world: World) -> t.List[Backup]:
    """The backups of the volume that has this name, or else of those that had it; but never of one that has another by now, when this name is given."""
    volumes = volumes_of(world)
    volume = volume_named(name, volumes)
    elsewhere = {one.id for one in volumes.values()} if volume is not None else set()
    found = [one for one in world.values() if isinstance(one, Backup)]
    own = [one for one in found if volume is not None and one.volume_id == volume.id]
    return own or [one for one in found if one.volume == name and one.volume_id not in elsewhere]


def names_of(backups: t.Iterable[Backup]) -> t.Tuple[str, ...]:
    """Their names, the oldest first."""
    return tuple(one.name for one in sorted(backups, key=lambda one: (one.created_at, one.name)))


def pruned_key(volume: str) -> str:
    return f"the backups of volume {volume}"


def _found(want: BackupWish, world: World) -> t.Optional[Backup]:
    """The backup of this name, or None; Conflict when several volumes of the same name had one."""
    found = [one for one in backups_of(want.volume, world) if one.name == want.name]
    if len(found) > 1:
        ids = ", ".join(one.volume_id for one in found)
        raise Conflict(f"there are several of {want}, of volumes with the ids {ids}; delete what you don't need with restic forget")
    return found[0] if found else None


# ---- taking one


def _present(want: BackupWish, world: World, places: Places) -> Plan:
    have, volume = _found(want, world), volume_named(want.volume, volumes_of(world))
    marked = volume is not None and volume.backup is not None and volume.backup.name == want.name
    if have is None:
        return _take(want, known_volume(want.volume, volumes_of(world), places.volumes.where), volumes_of(world), places)
    _check_same(want, have, volume)
    return Plan(have.key, have, have, _release(t.cast(Volume, volume), places) if marked else (), label=str(want))


def _check_same(want: BackupWish, have: Backup, volume: t.Optional[Volume]) -> None:
    """Refuses a wish that what is there does not fulfil: a backup is never changed."""
    if volume is not None and have.volume_id != volume.id:
        raise Refused(f"{want} is there and is of another volume of that name, with the id {have.volume_id}; choose another name, or delete it")
    if want.description not in (None, have.description):
        raise Refused(f"{want} is there with another description, and a backup is never changed; delete it to take it anew")
    if want.snapshot is not None and not _is_from(want.snapshot, have, volume):
        raise Refused(f"{want} is there and was not taken from this snapshot {want.snapshot}; choose another name, or delete it to take it anew")


def _is_from(snapshot: str, have: Backup, volume: t.Optional[Volume]) -> bool:
    """Whether a backup was taken from a snapshot, as far as that is still there to compare."""
    now = volume.snapshot(snapshot) if volume else None
    return have.snapshot == snapshot and (now is None or now.id == have.snapshot_id)


def _take(want: BackupWish, volume: Volume, volumes: World, places: Places) -> Plan:
    ending, volume = _ended(want, volume, places)
    _check_free(want, volume, places.volumes)
    mark = _begun(volume, places.volumes) or _mark(want, volume, places)
    marked = dataclasses.replace(volume, status="backing-up", backup=mark)
    begin = () if marked == volume else (Step(f"mark volume {volume.name} backing-up", places.volumes.swap, (volume, marked)),)
    needed = _passes(marked, places.volumes) and not _is_taken(volume, places.volumes)
    crowded = places.volumes.crowded(volume, others(volumes, volumes[volume.name])) if needed else None
    refusal = places.volumes.missing() or crowded or places.backups.missing
    if refusal:
        raise Refused(f"{want} can't be taken: {refusal}")
    return _taking(want, marked, activation(volume, places.volumes) + ending + begin, places)


def _taking(want: BackupWish, marked: Volume, before: t.Tuple[Step, ...], places: Places) -> Plan:
    """Reads a volume whose record says so by then."""
    backup, mark = _backup(want, marked), t.cast(Snapshot, marked.backup)
    taking = Step(f"take a snapshot of volume {marked.name} to read from", places.volumes.take, (marked, mark))
    instant = (taking,) if _passes(marked, places.volumes) else ()
    write = Step(f"write {want} to {places.backups.where}", _write, (backup, marked, places))
    undo = (Step(f"leave volume {marked.name} as it was", _give_up, (marked, places.volumes)),)
    return Plan(backup.key, None, backup, before + instant + (write,) + _release(marked, places), label=str(want), undo=undo)


def _ended(want: BackupWish, volume: Volume, places: Places) -> t.Tuple[t.Tuple[Step, ...], Volume]:
    """What ends another backup of the volume, whose run was killed here, and the volume then: nightly ones each have a name of their own."""
    mark, here = volume.backup, places.work.name
    if mark is None or mark.name == want.name or not here or dict(mark.metadata).get("host") != here or places.work.anybody(volume.id):
        return (), volume
    ending = Step(f"give up backup {mark.name} of volume {volume.name}, whose run was killed", _give_up, (volume, places.volumes))
    return (ending,), volume.backed_up()


def _mark(want: BackupWish, volume: Volume, places: Places) -> Snapshot:
    """What the record says while the backup is taken."""
    given = known_snapshot(volume, want.snapshot) if want.snapshot else None
    size, moment = (given.size_bytes, given.created_at) if given else (volume.size_bytes, want.now)
    about = (("host", places.work.name), ("snapshot", want.snapshot))
    told = tuple((key, value) for key, value in about if value)
    return Snapshot(id=want.fresh_id, name=want.name, status="creating", size_bytes=size, created_at=moment, metadata=told)


def _begun(volume: Volume, backend: VolumeBackend) -> t.Optional[Snapshot]:
    """The mark of a run to go on from; not of one that was killed before it took the snapshot, which would be younger than the mark says."""
    return None if _passes(volume, backend) and not _is_taken(volume, backend) else volume.backup


def _passes(marked: Volume, backend: VolumeBackend) -> bool:
    """Whether the backup is read from a snapshot that is taken for it and goes afterwards."""
    return marked.backed_up_from is None and backend.instant(marked)


def _check_free(want: BackupWish, volume: Volume, backend: VolumeBackend) -> None:
    what = f"{want} can't be taken"
    if volume.backup is not None and (volume.backup.name, volume.backed_up_from) != (want.name, want.snapshot):
        raise Conflict(f"{what} now: {who(volume)}")
    if volume.backup is None and volume.status != volume.at_rest().status:
        raise Conflict(f"{what} while the volume is {volume.status}; run the play that was at it to its end first")
    if want.snapshot is None:
        if not _is_taken(volume, backend):
            check_still(volume, backend, what, want.force, "force=true")
        check_data(volume)


def _is_taken(volume: Volume, backend: VolumeBackend) -> bool:
    """Whether the snapshot that is taken for a backup is there: a run that was killed may have left it."""
    return volume.backup is not None and volume.backup.id in (backend.taken(volume) or set())


def _backup(want: BackupWish, volume: Volume) -> Backup:
    mark = t.cast(Snapshot, volume.backup)
    return Backup(
        name=want.name,
        volume=volume.name,
        volume_id=volume.id,
        size_bytes=mark.size_bytes,
        created_at=mark.created_at,
        description=want.description,
        volume_type=volume.volume_type,
        volume_description=volume.description,
        metadata=volume.metadata,
        multiattach=volume.multiattach,
        snapshot=want.snapshot,
        snapshot_id=known_snapshot(volume, want.snapshot).id if want.snapshot else None,
    )


def _write(backup: Backup, marked: Volume, places: Places) -> None:
    """Reads the volume, or a snapshot of it, while others may have the lock."""
    given = marked.backed_up_from
    snapshot = known_snapshot(marked, given) if given else marked.backup if _passes(marked, places.volumes) else None
    with places.work.at_work(marked.id), places.volumes.pause(), places.volumes.reading(marked, snapshot) as data:
        if data.size_bytes != backup.size_bytes:
            was = f"its record says {backup.size_bytes} bytes and its data has {data.size_bytes}"
            raise Conflict(f"{backup} can't be taken: {was}; have cinder_volume bring the volume to its record first")
        places.backups.keep(backup, _Watched(data, marked, places.volumes))


class _Watched(Readable):
    """The data of a volume, which ends with an error when the backup was given up while it was read: nothing is kept then.

    Afterwards it would be too late, as others may rely on what is kept.
    """

    def __init__(self, data: Readable, marked: Volume, backend: VolumeBackend) -> None:
        self.data, self.marked, self.backend, self.size_bytes = data, marked, backend, data.size_bytes

    def extents(self) -> t.Iterator[t.Tuple[int, int]]:
        yield from self.data.extents()
        if _still(self.marked, self.backend) is None:
            raise overtaken(self.marked)

    def read(self, start: int, size: int) -> bytes:
        return self.data.read(start, size)


def _still(marked: Volume, backend: VolumeBackend) -> t.Optional[Volume]:
    """The volume as it is now, if it is still marked by this run or one that it took over from: attachments may have come and gone."""
    found = next((one for one in backend.observe().values() if one.id == marked.id), None)
    return found if found is not None and found.backup == marked.backup else None


def _release(marked: Volume, places: Places) -> t.Tuple[Step, ...]:
    dropping = Step(f"remove that snapshot of volume {marked.name}", places.volumes.drop, (marked, marked.backup, True))
    return (
        *((dropping,) if _passes(marked, places.volumes) else ()),
        Step(f"mark volume {marked.name} as it was before", _unmark, (marked, places.volumes)),
    )


def _unmark(marked: Volume, backend: VolumeBackend) -> None:
    """Unless the same play, run again meanwhile, has found the backup there and done so."""
    now = _still(marked, backend)
    if now is not None:
        backend.swap(now, now.backed_up())


def _give_up(marked: Volume, backend: VolumeBackend) -> None:
    """Unless somebody else has ended it meanwhile, or it was not begun; a snapshot that was taken for it after that is nobody's."""
    now = next((one for one in backend.observe().values() if one.id == marked.id), None)
    if now is not None and _passes(marked, backend):
        backend.drop(now, t.cast(Snapshot, marked.backup), True)
    if now is not None and now.backup == marked.backup:
        backend.swap(now, now.backed_up())


# ---- deleting


def _absent(want: BackupWish, world: World, places: Places) -> Plan:
    have, volume = _found(want, world), volume_named(want.volume, volumes_of(world))
    marked = volume is not None and volume.backup is not None and volume.backup.name == want.name
    steps = () if have is None else (Step(f"delete {have}", places.backups.forget, ([have],)),)
    key = have.key if have else Key(volume.id if volume else want.volume, want.name)
    return Plan(key, have, None, steps + (_release(t.cast(Volume, volume), places) if marked else ()), label=str(want))


def _pruned(want: BackupWish, world: World, places: Places) -> Plan:
    have = backups_of(want.volume, world)
    stay = kept(have, t.cast(Keep, want.keep))
    gone = [one for one in have if one not in stay]
    step = Step(f"delete the backups {', '.join(names_of(gone))} of volume {want.volume}", places.backups.forget, (gone,))
    return Plan(pruned_key(want.volume), names_of(have), names_of(stay), (step,) if gone else (), label=str(want))


# ---- and back


def _restored(want: BackupWish, world: World, places: Places) -> Plan:
    backup, to = _found(want, world), want.to or want.volume
    if backup is None:
        near = ", ".join(one.name for one in backups_of(want.volume, world)[:8]) or "none"
        raise NotFound(f"there is no {want} at {places.backups.where}; choose one of: {near}")
    volumes = volumes_of(world)
    have = volume_named(to, volumes)
    if have is None:
        return _made_anew(want, to, backup, volumes, places)
    if _holds(have, backup, want.overwrite):
        return Plan(to, have, have, label=to)
    return _overwritten(want, have, backup, volumes, places)


def _holds(have: Volume, backup: Backup, overwrite: bool) -> bool:
    """Whether a volume was restored from a backup and nobody had it since, or was made from it and need not be what it was then."""
    if have.status == "restoring-backup":
        return False
    return have.restored_from == backup.id or (have.source_backup == backup.id and not overwrite)


def _made_anew(want: BackupWish, to: str, backup: Backup, volumes: World, places: Places) -> Plan:
    after = Volume(
        name=to,
        id=want.fresh_id,
        size_bytes=-(-backup.size_bytes // GIB) * GIB,
        volume_type=backup.volume_type,
        description=backup.volume_description,
        metadata=backup.metadata,
        multiattach=backup.multiattach,
        allocation=places.volumes.allocation,
        source_backup=backup.id,
        restored_from=backup.id,
        path=places.volumes.locate(want.fresh_id),
        data_bytes=-(-backup.size_bytes // GIB) * GIB,
    )
    refusal = places.volumes.missing(after, [*volumes.values()])
    if refusal:
        raise Refused(f"volume {to} can't be restored: {refusal}")
    restoring = dataclasses.replace(after, status="restoring-backup")
    record = Step(f"record volume {to} as restoring-backup", places.volumes.swap, (None, restoring))
    undo = (Step(f"remove volume {to} again", _unmake, (restoring, places.volumes)),)
    return Plan(to, None, after, (record,) + _restoring(want, restoring, after, backup, places), label=to, undo=undo)


def _overwritten(want: BackupWish, have: Volume, backup: Backup, volumes: World, places: Places) -> Plan:
    what, resumed = f"volume {have.name} can't be restored from {want}", have.status == "restoring-backup" and have.restored_from == backup.id
    if not (want.overwrite or resumed):
        raise Refused(f"{what}: it is there and holds something else; name another one with to, or have its data overwritten with overwrite=true")
    _check_writable(what, have, backup, volumes, places.volumes)
    after = dataclasses.replace(have, status="available", restored_from=backup.id, reverted_to=None)
    restoring = dataclasses.replace(after, status="restoring-backup")
    begin = () if restoring == have else (Step(f"mark volume {have.name} restoring-backup", places.volumes.swap, (have, restoring)),)
    return Plan(have.name, have, after, activation(have, places.volumes) + begin + _restoring(want, restoring, after, backup, places), label=have.name)


def _check_writable(what: str, have: Volume, backup: Backup, volumes: World, backend: VolumeBackend) -> None:
    if have.attachments or have.status not in ("available", "restoring-backup"):
        raise Refused(f"{what} while it is {have.status}; {who(have)}")
    check_not_taken(have, what)
    check_not_copied(have, volumes, backend, what)
    if have.kept_at:
        raise Refused(f"{what}: it is kept of image {have.source_image}, for volumes that are made from that; choose another one")
    holder = backend.holder(have)
    if holder:
        raise Refused(f"{what}: it is in use by {holder} on the storage host; end that first")
    if have.size_bytes < backup.size_bytes:
        raise Refused(f"{what}: it has {have.size_bytes} bytes and {backup.size_bytes} are needed; extend it first, or name another one with to")
    refusal = backend.missing()
    if refusal:
        raise Refused(f"{what}: {refusal}")


def _restoring(want: BackupWish, restoring: Volume, after: Volume, backup: Backup, places: Places) -> t.Tuple[Step, ...]:
    return (
        Step(f"write {want} to volume {after.name}", _write_back, (restoring, backup, places)),
        Step(f"allocate {after.size_bytes / GIB:g} GiB for volume {after.name}", places.volumes.allocate, (restoring,)),
        Step(f"mark volume {after.name} available", places.volumes.swap, (restoring, after)),
    )


def _write_back(restoring: Volume, backup: Backup, places: Places) -> None:
    places.volumes.write(restoring, places.backups.give(backup))


def _unmake(restoring: Volume, backend: VolumeBackend) -> None:
    """Unless somebody else has made more of it meanwhile, or nothing was made yet."""
    if backend.observe().get(restoring.name) != restoring:
        return
    if not backend.record_in_data:
        backend.remove(restoring)
    backend.swap(restoring, None)
