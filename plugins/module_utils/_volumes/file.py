# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes as raw files in a directory, each with a JSON record beside it.

volume-<id> holds the data, volume-<id>.json the record, snapshot-<id> what a snapshot kept. Snapshots and volumes that are
made from others are whole copies, which share nothing but what the file system lets them share. Records are replaced by rename(2) under a
flock(2) of the directory, so a reader always sees a whole record and two writers never cross.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import typing as t

from .._errors import Failed, Invalid, Refused, Unavailable
from .._hosts.files import part_of, remove_parts, sync_directory, unlink
from .._model.image import Inspected, QemuSource
from .._model.pool import Pool
from .._model.volume import Snapshot, Volume, record_of, volume_from
from . import Readable, VolumeBackend, overtaken
from ._sparse import SparseFile, copy, unshared, write

_CHUNK = 4 << 20


class FileBackend(VolumeBackend):
    """A pool that is a directory. `path` must exist: a missing mount must not be filled by mistake."""

    allocations = ("sparse", "full")

    def __init__(self, path: t.Optional[str], allocation: t.Optional[str] = None) -> None:
        if not path or not os.path.isabs(path):
            raise Invalid(f"backend.path is {path!r}; the file driver needs the absolute path of a directory for its volumes")
        self.path = self.where = self.lock_path = path
        self.allocation = allocation or "sparse"
        self._check()

    def _check(self) -> None:
        if self.allocation not in self.allocations:
            raise Invalid(f"backend.allocation is {self.allocation!r}; the file driver has {' and '.join(self.allocations)}")
        if not os.path.isdir(self.path):
            raise Unavailable(f"the volume directory {self.path} does not exist or is no directory; create it, or mount its file system")

    def observe(self) -> t.Dict[str, Volume]:
        volumes = {}
        for entry in self._entries():
            if entry.startswith("volume-") and entry.endswith(".json"):
                volume = self._read(entry)
                if volume is not None:
                    volumes[volume.name] = volume
        return volumes

    def _entries(self) -> t.List[str]:
        try:
            return os.listdir(self.path)
        except OSError as error:
            raise Unavailable(f"the volume directory {self.path} can't be read: {error.strerror}") from error

    def _read(self, entry: str) -> t.Optional[Volume]:
        full = os.path.join(self.path, entry)
        try:
            with open(full, encoding="utf-8") as handle:
                record = json.load(handle)
            data = full[: -len(".json")]
            return volume_from({**record, "path": data, "data_bytes": _size_of(data)})
        except FileNotFoundError:
            return None  # deleted between the listing and the look
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"the volume record {full} can't be read: {error}; repair it or move it away") from error

    def missing(self, volume: t.Optional[Volume] = None, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        if not os.access(self.path, os.W_OK) or os.statvfs(self.path).f_flag & os.ST_RDONLY:
            return f"the volume directory {self.path} is read-only; mount it writable"
        if volume is None or volume.allocation != "full":
            return None
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        needed = volume.size_bytes - (_size_of(self.locate(volume.id)) or 0)
        if free < needed:
            return f"the volume directory {self.path} has {free} bytes free, {needed} are needed; free some space or use another backend"
        return None

    def capacity(self) -> Pool:
        system = os.statvfs(self.path)
        promised = sum(volume.size_bytes for volume in self.observe().values())
        total, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
        return Pool(self.where, self.allocation, total, free, allocated_bytes=promised, provisioned_bytes=promised)

    def locate(self, volume_id: str) -> str:
        return os.path.join(self.path, f"volume-{volume_id}")

    def _kept(self, snapshot_id: str) -> str:
        """The path under which a snapshot stands."""
        return os.path.join(self.path, f"snapshot-{snapshot_id}")

    def taken(self, volume: Volume) -> t.Optional[t.Set[str]]:
        return {snapshot.id for snapshot in volume.snapshots if _size_of(self._kept(snapshot.id)) is not None}

    def instant(self, volume: Volume, allocation: t.Optional[str] = None) -> bool:
        return False  # a copy takes time, in which nobody may write

    def copies(self, volume: Volume, source: t.Optional[Volume]) -> bool:
        return _size_of(self.locate(volume.id)) is None

    def swap(self, before: t.Optional[Volume], after: t.Optional[Volume]) -> None:
        some = t.cast(Volume, after or before)
        record = self.locate(some.id) + ".json"
        now = self._read(os.path.basename(record))
        if now != before:
            raise overtaken(some)
        try:
            if after is None:
                os.unlink(record)
            else:
                self._write(record, after)
            sync_directory(self.path)
        except OSError as error:
            raise Failed(f"the record {record} can't be written: {error.strerror}") from error

    def _write(self, record: str, volume: Volume) -> None:
        fresh = os.path.join(self.path, ".record.new")  # one writer at a time: a killed one leaves at most this
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            json.dump({key: value for key, value in record_of(volume).items() if key != "path"}, handle, indent=1)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(fresh, record)

    def allocate(self, volume: Volume) -> None:
        path = self.locate(volume.id)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if os.fstat(handle).st_size < volume.size_bytes:
                    os.truncate(handle, volume.size_bytes)
                if volume.allocation == "full":
                    os.posix_fallocate(handle, 0, volume.size_bytes)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise Failed(
                f"volume {volume.name} can't get {volume.size_bytes} bytes at {path}: {error.strerror}; free some space or use another backend"
            ) from error

    def copy(self, volume: Volume) -> None:
        source = self._kept(volume.snapshot_id) if volume.snapshot_id else self.locate(t.cast(str, volume.source_volid))
        self._put(volume, self.locate(volume.id), lambda part: copy(source, part))

    def fill(self, volume: Volume, image: Inspected) -> None:
        def filled(part: str) -> None:
            image.convert("-O", "raw", part)
            if os.stat(part).st_size > volume.size_bytes:  # some formats say their size twice
                raise Refused(f"volume {volume.name} can't have all of its image, which holds more than its header says; get it from where you trust it")

        self._put(volume, self.locate(volume.id), filled)

    @contextlib.contextmanager
    def reading(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.Iterator[Readable]:
        path = self._kept(snapshot.id) if snapshot else self.locate(volume.id)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise Failed(f"the data of volume {volume.name} at {path} can't be read: {error.strerror}; bring it back, and run again") from error
        try:
            yield SparseFile(handle, path)
        finally:
            os.close(handle)

    def write(self, volume: Volume, pieces: t.Iterator[t.Tuple[int, bytes]]) -> None:
        self._put(volume, self.locate(volume.id), lambda part: write(part, volume.size_bytes, pieces))

    def qemu_source(self, volume: Volume, snapshot: t.Optional[Snapshot]) -> QemuSource:
        return QemuSource(self._kept(snapshot.id) if snapshot else self.locate(volume.id))

    def take(self, volume: Volume, snapshot: Snapshot) -> None:
        self._put(volume, self._kept(snapshot.id), lambda part: copy(self.locate(volume.id), part))

    def revert(self, volume: Volume, snapshot: Snapshot) -> None:
        self._put(volume, self.locate(volume.id), lambda part: copy(self._kept(snapshot.id), part))

    def _put(self, volume: Volume, path: str, write: t.Callable[[str], None]) -> None:
        """Puts a whole file in place, unless another run was faster. Who is killed leaves at most a part of it beside, which the next one removes."""
        part = part_of(path)
        try:
            remove_parts(path)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
            with self.pause():  # it takes minutes, and the records say what goes on
                write(part)
            if self._read(os.path.basename(self.locate(volume.id)) + ".json") != volume:
                raise overtaken(volume)
            os.replace(part, path)
            sync_directory(self.path)
        except OSError as error:
            see = "see whether there is room and all files are there, and run again"
            raise Failed(f"{path} of volume {volume.name} can't be written: {error.strerror}; {see}") from error
        finally:
            unlink(part)

    def wipe(self, volume: Volume) -> None:
        self._overwrite(f"volume {volume.name}", self.locate(volume.id))

    def _overwrite(self, what: str, path: str) -> None:
        try:
            with open(path, "r+b", buffering=0) as handle:
                with self.pause():  # it takes minutes, and the records say what goes on
                    for start, end in unshared(handle.fileno()):
                        _zero(handle.fileno(), start, end)
                    os.fsync(handle.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ENOSPC:  # the file system writes elsewhere whatever is overwritten: there is nothing to be had
                return
            raise Failed(f"the data of {what} at {path} can't be overwritten: {error.strerror}") from error

    def remove(self, volume: Volume) -> None:
        self._remove(f"volume {volume.name}", self.locate(volume.id))

    def drop(self, volume: Volume, snapshot: Snapshot, wipe: bool) -> None:
        what, path = f"snapshot {snapshot.name} of volume {volume.name}", self._kept(snapshot.id)
        if wipe:
            self._overwrite(what, path)
        self._remove(what, path)

    def _remove(self, what: str, path: str) -> None:
        """Removes a file, and the parts of it that killed runs have left."""
        try:
            remove_parts(path)
            unlink(path)
        except OSError as error:
            raise Failed(f"the data of {what} at {path} can't be removed: {error.strerror}") from error


def _size_of(path: str) -> t.Optional[int]:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _zero(handle: int, start: int, end: int) -> None:
    zeros = memoryview(bytes(_CHUNK))
    while start < end:
        start += os.pwrite(handle, zeros[: min(_CHUNK, end - start)], start)
