# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Images from outside: what the user says of one, and what may be believed of it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing as t
import urllib.parse

from .._errors import Invalid
from .data import Secret

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx")
EXPORTS = ("raw", "qcow2")  # what volumes are made
SECTOR = 512

_CHECKSUM = re.compile(r"([a-z0-9_]+):([0-9A-Fa-f]+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLAIN = re.compile(r"[!-~]+")


@dataclasses.dataclass(frozen=True)
class ImageWish:
    """A file on the storage host, the format it is said to have, and the checksum (algorithm, hexadecimal digest) that it shall have.

    Where it has to be downloaded first, `url` is from where, and `path` the same without what nobody else may see: user, password
    and what follows a question mark.
    """

    path: str
    format: str
    checksum: t.Optional[t.Tuple[str, str]] = None
    url: t.Optional[Secret] = None

    def __str__(self) -> str:
        return f"image {self.path}"


class Inspected:
    """An image that was inspected, and may be read: `virtual_bytes` is the size that a guest would see.

    One that is not `here` yet has no size; `bring` gets and inspects it first. `version` tells it from all others there are or
    will be; empty where nobody can.
    """

    virtual_bytes = 0
    here = True
    version = ""
    volume_id = ""  # the volume that it is read for, under whose id others see how far that is

    def bring(self, most_bytes: int) -> None:
        """Gets an image for a volume of at most so many bytes, and inspects it. Raises Refused, Unavailable, NotFound or Failed."""

    def convert(self, *target: str, kept: t.Tuple[int, ...] = (), **environment: str) -> None:
        """Writes what a guest would see to a target in the words of qemu-img(1), and flushes it. Raises Unavailable or Failed.

        The writer has these handles, `kept`, open as well, for as long as it lives.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was made of a volume, or a snapshot of it, as the note beside it says.

    `virtual_bytes` is the size that a guest would see, `size_bytes` how long the file is; `checksum` is that of the file, with its
    algorithm. `flaw` is why the file can't be what was made here.
    """

    path: str
    volume: str
    volume_id: str
    format: str
    virtual_bytes: int
    created_at: str = dataclasses.field(compare=False)
    snapshot: t.Optional[str] = None
    snapshot_id: t.Optional[str] = None
    compress: bool = False
    size_bytes: t.Optional[int] = dataclasses.field(default=None, compare=False)
    checksum: t.Optional[str] = dataclasses.field(default=None, compare=False)
    flaw: str = dataclasses.field(default="", compare=False, metadata={"hidden": True})

    def __str__(self) -> str:
        of = f"snapshot {self.snapshot} of volume {self.volume}" if self.snapshot else f"volume {self.volume}"
        return f"made of {of} ({self.volume_id}) as {'compressed ' if self.compress else ''}{self.format}"


@dataclasses.dataclass(frozen=True)
class QemuSource:
    """How qemu-img(1) reads a volume, or a snapshot of it: what it calls it, and what its environment must say."""

    name: str
    environment: t.Tuple[t.Tuple[str, str], ...] = ()


class ExportedFiles:
    """Files that are made of volumes."""

    def write(self, image: Exported, source: QemuSource) -> str:
        """Writes a file beside the one that shall be, and returns its path. Raises Unavailable or Failed."""
        raise NotImplementedError

    def forget(self, part: str) -> None:
        """Removes what was written."""
        raise NotImplementedError

    def keep(self, image: Exported, part: str, checksum: bool) -> None:
        """Makes what was written the file that shall be, with a note of what it is. Raises Failed."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Removes a file, its note, and what killed runs have left of it. Raises Failed."""
        raise NotImplementedError


def image_wish(place: str, format: t.Optional[str], checksum: t.Optional[str]) -> ImageWish:
    """What a task says of an image, by its path or its URL; raises Invalid."""
    url = Secret(place) if _URL.match(place) else None
    path = shown_url(place) if url else place
    if not (url or path.startswith("/")):
        raise Invalid(f"image {path!r} is no absolute path; give the path of a file on the storage host, or an address with http:// or https://")
    if format not in FORMATS:
        raise Invalid(f"image {path} is given without its format, which is never guessed; give source.format, one of {', '.join(FORMATS)}")
    return ImageWish(path, format, _checksum(path, checksum) if checksum else None, url)


def shown_url(url: str) -> str:
    """An address as everybody may see it; Invalid where it is none that images come from."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.port == 0:  # which is a ValueError where it is no number
            raise ValueError("port 0")
    except ValueError as error:
        raise Invalid("the address of an image can't be understood: its host or port is wrong; correct source.image") from error
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{parts.path}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"image {shown} is nothing to download; give an address with http:// or https://, or the path of a file on the storage host")
    if not _PLAIN.fullmatch(url):
        raise Invalid(f"the address of an image at {host} holds spaces or letters that no address has; write them as %20 and the like")
    return shown


def secrets_of(url: str) -> t.Iterator[str]:
    """The parts of an address that nobody else may see, as they stand in it."""
    if not _URL.match(url):
        return
    address, question, query = url.partition("#")[0].partition("?")
    login, at, _host = address.partition("://")[2].partition("/")[0].rpartition("@")
    if at:
        yield login + at
    if query:
        yield question + query


def _checksum(path: str, text: str) -> t.Tuple[str, str]:
    found = _CHECKSUM.fullmatch(text)
    if not found or found.group(1) not in hashlib.algorithms_guaranteed or found.group(1).startswith("shake"):
        known = ", ".join(sorted(name for name in hashlib.algorithms_guaranteed if name.startswith("sha") and "_" not in name))
        raise Invalid(f"the checksum of image {path} is {text!r}; give an algorithm and the digest, such as sha256:9f86d0... (there are {known} and more)")
    return found.group(1), found.group(2).lower()
