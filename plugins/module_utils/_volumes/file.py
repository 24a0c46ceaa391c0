# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes as raw files in a directory, each with a JSON record beside it.

volume-<id> holds the data, volume-<id>.json the record. Records are replaced by rename(2) under a
flock(2) of the directory, so a reader always sees a whole record and two writers never cross.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import Failed, Invalid, Unavailable
from .._model.pool import Pool
from .._model.volume import Volume, record_of, volume_from
from . import VolumeBackend, overtaken

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
            self._sync_directory()
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

    def _sync_directory(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

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

    def wipe(self, volume: Volume) -> None:
        path = self.locate(volume.id)
        try:
            with open(path, "r+b", buffering=0) as handle:
                with self.pause():  # it takes minutes, and the volume's status says what goes on
                    for start, end in _data_extents(handle.fileno()):
                        _zero(handle.fileno(), start, end)
                    os.fsync(handle.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed(f"the data of volume {volume.name} at {path} can't be overwritten: {error.strerror}") from error

    def remove(self, volume: Volume) -> None:
        try:
            os.unlink(self.locate(volume.id))
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed(f"the data of volume {volume.name} at {self.locate(volume.id)} can't be removed: {error.strerror}") from error


def _size_of(path: str) -> t.Optional[int]:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _data_extents(handle: int) -> t.Iterator[t.Tuple[int, int]]:
    """Where a sparse file really holds data; holes never held a byte and need no wiping (lseek(2))."""
    size, end = os.fstat(handle).st_size, 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole up to the end
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end


def _zero(handle: int, start: int, end: int) -> None:
    zeros = memoryview(bytes(_CHUNK))
    while start < end:
        start += os.pwrite(handle, zeros[: min(_CHUNK, end - start)], start)
