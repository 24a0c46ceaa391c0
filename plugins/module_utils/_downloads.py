# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Images that are downloaded, each to a file of its own in a directory where nobody else may look.

A file is named after its checksum, or else after the address and the server's mark of the version, so that it is either there and the
right one, or not there. What a connection or a run that ended early has brought stays as <name>.part, and the next one goes on with it.
A download holds a lock on its part: of two runs that want one file the second finds it there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import typing as t

from ._errors import Failed, Refused, StorageError, Unavailable
from ._hosts import progress, web
from ._images import ImageFile
from ._model.image import ImageWish, Inspected
from ._model.volume import GIB
from ._reconcile import locked, wait_until

_TRIES = 4  # connections, one after the other, that brought nothing
_PAUSE = 0.5  # seconds between them, and twice as long every time
_DAY = 86400.0  # seconds
_ROOM = 64 << 20  # what a format may need beside the data


class Download(Inspected):
    """An image at an address. When it is made the server is asked once, unless the right file is here already."""

    def __init__(self, wish: ImageWish, folder: str, most_gib: int, patience: float) -> None:
        self.wish, self.folder, self.most_bytes, self.patience = wish, folder, most_gib * GIB, patience
        self._url = wish.url.reveal() if wish.url else ""
        self._told = web.Told()
        self.file = self._found(self._told)
        if self.file is None:
            self._told = web.look(self._url) or web.Told()
            self.file = self._found(self._told)

    @property
    def here(self) -> bool:  # type: ignore[override]
        return self.file is not None

    @property
    def virtual_bytes(self) -> int:  # type: ignore[override]
        return self.file.virtual_bytes if self.file else 0

    @property
    def version(self) -> str:  # type: ignore[override]
        return self._mark(self._told) if self._lasts(self._told) else ""

    def convert(self, *target: str, kept: t.Tuple[int, ...] = (), **environment: str) -> None:
        if self.file is None:
            raise Failed(f"{self.wish} is not here any more; run again")
        self.file.used()
        self.file.volume_id = self.volume_id
        self.file.convert(*target, kept=kept, **environment)

    def bring(self, most_bytes: int) -> None:
        self._make_folder()
        told = self._asked()
        part = self._path(told) + ".part"
        try:
            with locked(part, self.patience):
                self.file = self._found(told)
                if self.file is None:
                    told = self._fetch(part, told, most_bytes)
                    self._keep(part, self._path(told))
            self._told = told
            if not self._lasts(told):
                os.unlink(self._path(told))  # it is open, and nobody could ever tell which version it was
            self._make_room(self._path(told))
        except OSError as error:
            raise Failed(f"{self.wish} can't be kept in {self.folder}: {error.strerror}; make room there, or give another image_cache.path") from error

    def _asked(self) -> web.Told:
        """What the server says of the file; some say it only to who gets that."""
        told = web.look(self._url)
        try:
            if told is None:
                with web.get(self._url) as answer:
                    told = answer.told
        except web.Cut as error:
            raise Unavailable(f"{self.wish} can't be downloaded: {error}; see whether the server runs and this host gets there") from error
        return told

    # ---- files

    def _path(self, told: web.Told) -> str:
        """Where the image stands, or will stand, in the version that is known by now."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", self.wish.path.rpartition("/")[2])[:64]
        return os.path.join(self.folder, f"{name}.{hashlib.sha256(self._mark(told).encode()).hexdigest()[:32]}")

    def _mark(self, told: web.Told) -> str:
        return ":".join(self.wish.checksum) if self.wish.checksum else f"{self._url}\n{told.mark or os.getpid()}"

    def _lasts(self, told: web.Told) -> bool:
        """Whether another run can know what the file is: a server that marks no versions may have another one by then."""
        return bool(self.wish.checksum or told.mark)

    def _found(self, told: web.Told) -> t.Optional[ImageFile]:
        """The file, if it is there and certainly the right one."""
        path = self._path(told)
        if not self._lasts(told) or not os.path.isfile(path):
            return None
        try:
            return ImageFile(self.wish, path)
        except Refused:
            if self.wish.checksum is None:
                raise
            return None  # it was damaged here, or was meant as another format: what comes now is checked as well

    def _make_folder(self) -> None:
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            found = os.lstat(self.folder)
        except OSError as error:
            raise Unavailable(f"{self.folder}, where images are kept, can't be made: {error.strerror}; give another image_cache.path") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(f"{self.folder}, where images are kept, is open to others; make it a directory of this task's user with mode 0700")

    def _keep(self, part: str, path: str) -> None:
        """Gives what was brought its name, once it is known to be a good image. One that is not is not worth keeping."""
        try:
            self.file = ImageFile(self.wish, part)
        except StorageError:
            os.truncate(part, 0)  # and not removed: another run may wait for its lock
            raise
        os.replace(part, path)

    def _make_room(self, path: str) -> None:
        """Removes the images that were not used for the longest time, until all of them together are not too much."""
        found = [(entry.stat(), entry) for entry in os.scandir(self.folder) if entry.is_file(follow_symlinks=False)]
        held = sum(facts.st_blocks * 512 for facts, _entry in found)
        for facts, entry in sorted(found, key=lambda one: one[0].st_mtime):
            in_work = entry.name.endswith(".part") and facts.st_mtime > time.time() - _DAY
            if entry.path != path and not in_work and (held > self.most_bytes or not facts.st_size):
                held -= facts.st_blocks * 512
                os.unlink(entry.path)

    # ---- bytes

    def _fetch(self, part: str, told: web.Told, most_bytes: int) -> web.Told:
        """Brings the whole file, with as many connections as it takes, as long as they bring something; returns which version that is."""
        failures = 0
        while True:
            before = os.stat(part).st_size
            try:
                return self._bring_more(part, told, most_bytes)
            except web.Cut as error:
                if isinstance(error, web.Beyond):
                    os.truncate(part, 0)
                failures = 1 if os.stat(part).st_size > before else failures + 1
                if failures >= _TRIES:
                    raise Unavailable(f"{self.wish} can't be downloaded: {error}; what has come stays, run again") from error
            wait_until(lambda: False, _PAUSE * 2 ** (failures - 1))

    def _bring_more(self, part: str, told: web.Told, most_bytes: int) -> web.Told:
        """One connection's work; what came earlier is used only where it is certain that it belongs to the same file."""
        have = os.stat(part).st_size if self._lasts(told) else 0
        if have and have == told.size_bytes:
            return told
        with web.get(self._url, have, told.mark) as answer, open(part, "r+b") as file:
            file.truncate(answer.start)
            file.seek(answer.start)
            self._check_room(answer, most_bytes)
            with progress.shown(self.volume_id) as seen:
                self._take_all(answer, file, most_bytes, seen)
            file.flush()
            os.fsync(file.fileno())
            return answer.told

    def _take_all(self, answer: web.Answer, file: t.BinaryIO, most_bytes: int, seen: t.Optional[int]) -> None:
        at = answer.start
        for piece in answer.pieces():
            at += len(piece)
            self._check_fits(at, most_bytes)
            file.write(piece)
            progress.say(seen, at, answer.told.size_bytes)

    def _check_room(self, answer: web.Answer, most_bytes: int) -> None:
        if answer.told.size_bytes is None:
            return
        self._check_fits(answer.told.size_bytes, most_bytes)
        space = os.statvfs(self.folder)
        needed, free = answer.told.size_bytes - answer.start, space.f_bavail * space.f_frsize
        if free < needed:
            raise Failed(f"{self.wish} needs {needed} bytes in {self.folder}, which has {free} free; make room there, or give another image_cache.path")

    def _check_fits(self, size: int, most_bytes: int) -> None:
        most = most_bytes if self.wish.format == "raw" else most_bytes + most_bytes // 8 + _ROOM
        if size > most:
            raise Refused(f"{self.wish} is larger than a volume of {most_bytes / GIB:g} GiB can hold; make that larger, or correct the address")
