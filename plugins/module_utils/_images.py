# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Images from outside, and images for others.

Of those from outside nothing reads one before it is known to be what it is said to be, and to lead nowhere else.

A format can make whoever reads it open other files of the host, in the reader's name (CVE-2022-47951, CVE-2024-32498,
CVE-2024-40767). So the bytes themselves are inspected by oslo.utils, which OpenStack's services use, and qemu-img is told the
format and never guesses it (CVE-2026-24708).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import stat
import struct
import typing as t

from ._errors import Failed, NotFound, Refused, Unavailable
from ._hosts.files import part_of, remove_parts, sync_directory, unlink
from ._hosts.qemu_img import convert
from ._model.data import as_data
from ._model.image import SECTOR, Exported, ExportedFiles, Inspected, ImageWish, QemuSource

# What the inspector may find where a format is claimed: it knows what may stand on a raw disk as well.
_FOUND = {"raw": ("raw", "gpt", "iso")}
_QEMU = {"vhd": "vpc"}  # QEMU's own name, where that is another one
_WHY = {
    "backing_file": "it builds upon another file",
    "data_file": "it keeps its data in another file",
    "unknown_features": "it has features that nobody knows here",
    "descriptor": "its descriptor names other files, or is none of an image in one piece",
    "footer": "its end does not fit its beginning",
    "mbr": "its partition table contradicts itself",
}
_CHUNK = 4 << 20


class ImageFile(Inspected):
    """A file that is open: what was inspected is what is read later, or nothing is."""

    def __init__(self, wish: ImageWish, path: t.Optional[str] = None) -> None:
        """`path` is where it stands when that is not where the wish says."""
        self.wish = wish
        try:
            self._handle = os.open(path or wish.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFound(f"there is no image {wish.path} on this host; bring it here, or correct source.image") from error
        except OSError as error:
            raise Unavailable(f"image {wish.path} can't be read: {error.strerror}") from error
        self._size = self._length()
        self._state = None if path else self._seen()  # a place of ours is nobody else's
        self.virtual_bytes = self._inspected()
        self._check_size()
        self._check_sum()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    @property
    def version(self) -> str:  # type: ignore[override]
        """Its checksum, or else what changes whenever somebody writes to it."""
        if self.wish.checksum:
            return ":".join(self.wish.checksum)
        return f"{self.wish.path}\n{self._seen()}"

    def _seen(self) -> str:
        """What changes whenever somebody writes to it."""
        found = os.fstat(self._handle)
        return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"

    def used(self) -> None:
        """Notes when it was needed last, for who has to choose what to remove."""
        os.utime(self._handle)

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._handle}"

    def _length(self) -> int:
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode):
            raise self._refused("it is no regular file")
        return found.st_size

    def _refused(self, why: str) -> Refused:
        return Refused(f"image {self.wish.path} is refused: {why}; get it from where you trust it, or have it converted there")

    def _inspected(self) -> int:
        """The size in bytes that the image has for a guest."""
        format_inspector, claimed = _inspector(), self.wish.format
        try:
            found = format_inspector.detect_file_format(self._path)
            if str(found) not in _FOUND.get(claimed, (claimed,)):
                raise self._refused(f"it is said to be {claimed}, and is {found}")
            found.safety_check()
            self._check_plain(claimed)
            return self._size if claimed == "raw" else int(found.virtual_size)
        except format_inspector.SafetyCheckFailed as error:
            raise self._refused(" and ".join(_WHY.get(name, f"its {name} is not safe") for name in sorted(error.failures))) from error
        except (format_inspector.ImageFormatError, struct.error, ValueError) as error:
            raise self._refused(f"it can't be understood as {claimed} ({error})") from error

    def _check_plain(self, claimed: str) -> None:
        """The inspector does not tell which qcow2 are encrypted (the crypt_method of the header, docs/interop/qcow2.txt of QEMU)."""
        if claimed == "qcow2" and os.pread(self._handle, 4, 32) != bytes(4):
            raise self._refused("it is encrypted")

    def _check_size(self) -> None:
        if self.virtual_bytes <= 0 or self.virtual_bytes % SECTOR:
            raise self._refused(f"its size of {self.virtual_bytes} bytes is none that a disk can have")

    def _check_same(self) -> None:
        """Who may write to an image could make another one of it behind the inspector's back."""
        if self._state not in (None, self._seen()):
            raise self._refused("it was written to or replaced since it was inspected")

    def _check_sum(self) -> None:
        if self.wish.checksum is None:
            return
        algorithm, wanted = self.wish.checksum
        found = digest_of(self._handle, algorithm)
        if found != wanted:
            raise self._refused(f"its {algorithm} is {found}, not {wanted}")

    def convert(self, *target: str, kept: t.Tuple[int, ...] = (), **environment: str) -> None:
        claimed = self.wish.format
        words = [*target[:-1], self._path, target[-1]]
        self._check_same()
        convert(str(self.wish), _QEMU.get(claimed, claimed), words, self.volume_id, pass_fds=(self._handle, *kept), **environment)
        self._check_same()


class Files(ExportedFiles):
    """Files that are made of volumes, each with a note beside it: <path>.json."""

    def found(self, path: str) -> t.Optional[Exported]:
        """The file that stands at a path, and what its note says of it; None where there is none."""
        try:
            size, regular = os.lstat(path).st_size, stat.S_ISREG(os.lstat(path).st_mode)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{path} can't be looked at: {error.strerror}; correct path") from error
        try:
            with open(_note(path), encoding="utf-8") as handle:
                told = Exported(**{**json.load(handle), "path": path})
        except (OSError, ValueError, TypeError):
            return Exported(path, "", "", "", 0, "", flaw="there is no note of what it is beside it")
        if not regular or told.size_bytes != size:
            return dataclasses.replace(told, flaw=f"it is no file of {told.size_bytes} bytes, as the note beside it says")
        return told

    def write(self, image: Exported, source: QemuSource) -> str:
        part, what = part_of(image.path), f"image {image.path}"
        try:
            remove_parts(image.path)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise Failed(f"{what} can't be written: {error.strerror}; see whether its directory is there and can be written to") from error
        try:
            words = ["-O", image.format, *(["-c"] if image.compress else []), source.name, part]
            convert(what, "raw", words, image.volume_id, **dict(source.environment))
        except BaseException:
            self.forget(part)
            raise
        return part

    def forget(self, part: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(part)

    def keep(self, image: Exported, part: str, checksum: bool) -> None:
        try:
            with open(part, "rb") as handle:
                os.fsync(handle.fileno())
                size = os.fstat(handle.fileno()).st_size
                digest = f"sha256:{digest_of(handle.fileno(), 'sha256')}" if checksum else None
            if os.path.lexists(image.path):
                raise FileExistsError(errno.EEXIST, "somebody else put a file there meanwhile: remove it, or choose another path")
            self._note(dataclasses.replace(image, size_bytes=size, checksum=digest))
            os.replace(part, image.path)
            sync_directory(os.path.dirname(image.path))
        except OSError as error:
            self.forget(part)
            raise Failed(f"image {image.path} can't be put in its place: {error.strerror}; mend that and run again") from error

    def _note(self, image: Exported) -> None:
        """Before the file: a note alone counts for nothing."""
        part = part_of(_note(image.path))
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as handle:
            json.dump({key: value for key, value in as_data(image).items() if key != "path"}, handle, indent=1)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, _note(image.path))

    def remove(self, path: str) -> None:
        """Also from under a run that is still writing it, which fails then: what it read may be old by the time it is through."""
        try:
            remove_parts(path, all=True)
            unlink(path)
            unlink(_note(path))
        except OSError as error:
            raise Failed(f"image {path} can't be removed: {error.strerror}; mend that and run again") from error


def _note(path: str) -> str:
    return f"{path}.json"


def digest_of(handle: int, algorithm: str) -> str:
    """The checksum of a file, as hexadecimal digits."""
    found, start = hashlib.new(algorithm), 0
    while True:
        piece = os.pread(handle, _CHUNK, start)
        if not piece:
            return found.hexdigest()
        found.update(piece)
        start += len(piece)


def _inspector() -> t.Any:
    """oslo.utils' module of that name, loaded only when there is something to inspect: it takes longer than most runs take."""
    try:
        from oslo_utils.imageutils import format_inspector
    except ImportError as error:
        raise Unavailable(
            "the Python library oslo.utils with its inspector of image formats is missing on this host; "
            "install the package python3-oslo.utils (8 or newer), or oslo.utils with pip"
        ) from error
    return format_inspector
