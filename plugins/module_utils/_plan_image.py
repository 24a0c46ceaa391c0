# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From a volume, or a snapshot of it, to a file that is an image of it: pure decisions, no reading, no writing.

What is read says so in its record: a volume that nobody holds is `uploading` itself; of one that is held a snapshot is taken for it, which goes
afterwards. The record names the file, so that whoever wants the same file goes on, and everybody else waits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from ._errors import Conflict, Refused
from ._model.image import Exported, ExportedFiles
from ._model.volume import Snapshot, Volume
from ._plan_known import activation, check_data, check_still, known_snapshot, known_volume
from ._reconcile import Plan, Step, World
from ._volumes import VolumeBackend, overtaken


@dataclasses.dataclass(frozen=True)
class ExportWish:
    """What the user says of one file. `now`: UTC, ISO 8601."""

    path: str
    present: bool = True
    volume: str = ""
    snapshot: t.Optional[str] = None
    format: str = ""
    compress: bool = False
    force: bool = False
    checksum: bool = True
    fresh_id: str = ""
    now: str = ""

    @property
    def key(self) -> t.Tuple[str, str]:
        return ("image", self.path)

    @property
    def source(self) -> str:
        return f"snapshot {self.snapshot} of volume {self.volume}" if self.snapshot else f"volume {self.volume}"


@dataclasses.dataclass(frozen=True)
class _Way:
    """How a volume is read: what is done before and after, its record meanwhile, and the snapshot that is read, if any."""

    before: t.Tuple[Step, ...]
    reading: Volume
    snapshot: t.Optional[Snapshot]
    after: t.Tuple[Step, ...]


def plan_image(want: ExportWish, world: World, backend: VolumeBackend, files: ExportedFiles) -> Plan:
    """Makes, finishes or removes one file. Raises NotFound, Conflict or Refused."""
    have: t.Optional[Exported] = world.get(want.key)
    if have is not None and have.flaw:
        raise Refused(f"{want.path} is there and is no image that was made here: {have.flaw}; choose another path, or remove it")
    if not want.present:
        return _absent(want, have, world, backend, files)
    volumes: World = {key: one for key, one in world.items() if isinstance(key, str)}
    if have is not None:
        return _there(want, have, volumes, backend)
    return _export(want, known_volume(want.volume, volumes, backend.where), backend, files)


def _there(want: ExportWish, have: Exported, volumes: World, backend: VolumeBackend) -> Plan:
    """What was made is never made anew; it is compared as far as what it was made from is still there. Whoever made it may have been killed then."""
    volume = volumes.get(want.volume)
    snapshot = volume.snapshot(want.snapshot) if volume and want.snapshot else None
    same = (have.volume, have.snapshot, have.format, have.compress) == (want.volume, want.snapshot, want.format, want.compress)
    if not same or (volume and have.volume_id != volume.id) or (snapshot and have.snapshot_id != snapshot.id):
        raise Refused(f"{want.path} is there, {have}; remove it with state=absent to make it anew, or choose another path")
    return Plan(want.key, have, have, _left_over(want, volumes, backend), label=want.path)


def _export(want: ExportWish, volume: Volume, backend: VolumeBackend, files: ExportedFiles) -> Plan:
    check_data(volume)
    way = _way(want, volume, backend)
    image = Exported(
        path=want.path,
        volume=volume.name,
        volume_id=volume.id,
        snapshot=want.snapshot,
        snapshot_id=way.snapshot.id if want.snapshot and way.snapshot else None,
        format=want.format,
        compress=want.compress,
        virtual_bytes=way.snapshot.size_bytes if way.snapshot else volume.size_bytes,
        created_at=want.now,
    )
    write = Step(f"write {want.source} to image {want.path}", _write, (image, way, want.checksum, backend, files))
    undo = Step(f"leave {want.source} as it was", _give_back, (want.path, backend))
    return Plan(want.key, None, image, activation(volume, backend) + (*way.before, write, *way.after), label=want.path, undo=(undo,))


def _way(want: ExportWish, volume: Volume, backend: VolumeBackend) -> _Way:
    what = f"{want.source} can't be written to image {want.path}"
    if want.snapshot is not None:
        return _from_snapshot(want, volume, known_snapshot(volume, want.snapshot), what, backend)
    begun = volume.snapshot(_passing_name(want.path))
    if begun is not None or volume.attachments:
        return _from_passing(want, volume, begun, what, backend)
    if volume.status not in ("available", "uploading") or volume.uploading_to not in (None, want.path):
        raise Conflict(f"{what} while the volume is {_busy(volume)}; run the play that was at it to its end first")
    reading = dataclasses.replace(volume, status="uploading", uploading_to=want.path)
    before = () if reading == volume else (Step(f"mark {want.source} uploading", backend.swap, (volume, reading)),)
    return _Way(before, reading, None, (_giving_back(want, backend),))


def _busy(it: t.Union[Volume, Snapshot]) -> str:
    return f"{it.status} to {it.uploading_to}" if it.uploading_to else it.status


def _from_snapshot(want: ExportWish, volume: Volume, snapshot: Snapshot, what: str, backend: VolumeBackend) -> _Way:
    if snapshot.uploading_to not in (None, want.path):
        raise Conflict(f"{what} while it is {_busy(snapshot)}; run the play that was at it to its end first")
    reading = dataclasses.replace(snapshot, status="uploading", uploading_to=want.path)
    record = volume.with_snapshot(reading)
    before = () if record == volume else (Step(f"mark {want.source} uploading", backend.swap, (volume, record)),)
    return _Way(before, record, reading, (_giving_back(want, backend),))


def _from_passing(want: ExportWish, volume: Volume, begun: t.Optional[Snapshot], what: str, backend: VolumeBackend) -> _Way:
    """By a snapshot of its own, as somebody may be writing to the volume. One that an earlier run took is as good."""
    check_still(volume, backend, what, want.force or begun is not None, "force=true")
    name, source = _passing_name(want.path), want.source
    fresh = Snapshot(want.fresh_id, name, volume.size_bytes, want.now, "creating", f"for image {want.path}", uploading_to=want.path)
    taking = dataclasses.replace(begun, status="creating") if begun and begun.taken is False else begun or fresh
    recorded, reading = volume.with_snapshot(taking), dataclasses.replace(taking, status="uploading")
    record = volume.with_snapshot(reading)
    steps = () if recorded == volume else (Step(f"record snapshot {name} of {source} as creating", backend.swap, (volume, recorded)),)
    if taking.status == "creating":
        steps += (
            Step(f"take snapshot {name} of {source}", backend.take, (recorded, taking)),
            Step(f"mark snapshot {name} of {source} uploading", backend.swap, (recorded, record)),
        )
    return _Way(steps, record, reading, (_giving_back(want, backend),))


def _passing_name(path: str) -> str:
    """The name of the snapshot that is taken for an image alone."""
    return "upload-" + hashlib.sha256(path.encode()).hexdigest()[:16]


def _giving_back(want: ExportWish, backend: VolumeBackend) -> Step:
    return Step(f"leave {want.source} as it was", _give_back, (want.path, backend))


def _write(image: Exported, way: _Way, checksum: bool, backend: VolumeBackend, files: ExportedFiles) -> None:
    """Unless somebody else has ended it meanwhile; what he made is as good."""

    def still() -> bool:
        now = backend.observe().get(way.reading.name)
        return now is not None and image.path in _paths(now)

    with backend.pause():  # it takes minutes, and the record says what goes on
        part = files.write(image, backend.qemu_source(way.reading, way.snapshot))
    if not still():
        files.forget(part)
        raise overtaken(way.reading)
    files.keep(image, part, checksum)


def _paths(volume: Volume) -> t.List[t.Optional[str]]:
    return [volume.uploading_to, *(snapshot.uploading_to for snapshot in volume.snapshots)]


def _give_back(path: str, backend: VolumeBackend) -> None:
    """What the record says now, without the upload to this file: others may have changed the rest of it meanwhile."""
    for volume in backend.observe().values():
        if path not in _paths(volume):
            continue
        passing = volume.snapshot(_passing_name(path))
        if passing is not None:
            backend.drop(volume, passing, True)
        after = volume.without_snapshot(passing.name) if passing else volume
        for snapshot in after.snapshots:
            if snapshot.uploading_to == path:
                after = after.with_snapshot(dataclasses.replace(snapshot, status="available", uploading_to=None))
        if after.uploading_to == path:
            after = dataclasses.replace(after.at_rest(), uploading_to=None)
        backend.swap(volume, after)


def _absent(want: ExportWish, have: t.Optional[Exported], world: World, backend: VolumeBackend, files: ExportedFiles) -> Plan:
    left = _left_over(want, world, backend)
    removing = (Step(f"remove image {want.path}", files.remove, (want.path,)),) if have or left else ()
    return Plan(want.key, have, None, removing + left, label=want.path)


def _left_over(want: ExportWish, world: World, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What gives back the volumes that runs which were killed have left as they were read."""
    left = sorted(one.name for one in world.values() if isinstance(one, Volume) and want.path in _paths(one))
    return (Step(f"leave volume {', '.join(left)} as it was", _give_back, (want.path, backend)),) if left else ()
