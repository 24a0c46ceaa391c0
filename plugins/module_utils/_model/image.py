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

from .._errors import Invalid

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx")
SECTOR = 512

_CHECKSUM = re.compile(r"([a-z0-9_]+):([0-9A-Fa-f]+)")


@dataclasses.dataclass(frozen=True)
class ImageWish:
    """A file on the storage host, the format it is said to have, and the checksum (algorithm, hexadecimal digest) that it shall have."""

    path: str
    format: str
    checksum: t.Optional[t.Tuple[str, str]] = None

    def __str__(self) -> str:
        return f"image {self.path}"


class Inspected:
    """An image that was inspected, and may be read: `virtual_bytes` is the size that a guest would see."""

    virtual_bytes: int

    def convert(self, *target: str, kept: t.Tuple[int, ...] = (), **environment: str) -> None:
        """Writes what a guest would see to a target in the words of qemu-img(1), and flushes it. Raises Unavailable or Failed.

        The writer has these handles, `kept`, open as well, for as long as it lives.
        """
        raise NotImplementedError


def image_wish(path: str, format: t.Optional[str], checksum: t.Optional[str]) -> ImageWish:
    """What a task says of an image; raises Invalid."""
    if not path.startswith("/"):
        raise Invalid(f"image {path!r} is no absolute path; give the path of a file on the storage host")
    if format not in FORMATS:
        raise Invalid(f"image {path} is given without its format, which is never guessed; give source.format, one of {', '.join(FORMATS)}")
    return ImageWish(path, format, _checksum(path, checksum) if checksum else None)


def _checksum(path: str, text: str) -> t.Tuple[str, str]:
    found = _CHECKSUM.fullmatch(text)
    if not found or found.group(1) not in hashlib.algorithms_guaranteed or found.group(1).startswith("shake"):
        known = ", ".join(sorted(name for name in hashlib.algorithms_guaranteed if name.startswith("sha") and "_" not in name))
        raise Invalid(f"the checksum of image {path} is {text!r}; give an algorithm and the digest, such as sha256:9f86d0... (there are {known} and more)")
    return found.group(1), found.group(2).lower()
