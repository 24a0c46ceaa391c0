# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""RBD images that the kernel of a host has as block devices. The words are those of rbd(8) and of the kernel's rbd driver.

What a plan can't foretell (the number of a device, the client behind it) does not count when two states are compared.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import Invalid
from .session import Holder

Monitors = t.Tuple[t.Tuple[str, int], ...]

LINKS = "/dev/stackless-block/rbd"
_USER = re.compile(r"[A-Za-z0-9._-]{1,128}")  # nothing that ends an option of the kernel's


@dataclasses.dataclass(frozen=True)
class MappingKey:
    """Where a Mapping stands in the world: two clusters may have images of one name."""

    cluster: str
    image: str


@dataclasses.dataclass(frozen=True)
class LookKey:
    """Where the Image stands that was looked at through these monitors."""

    image: str
    monitors: Monitors


@dataclasses.dataclass(frozen=True)
class Mapping:
    """One image as a block device. `cluster` is the fsid of its cluster, `client` is Ceph's name for the kernel as its user.

    `linked`: whether the link by which it is handed over leads to it. `twin` is the number of another device of the same image.
    """

    image: str
    cluster: str
    size_bytes: t.Optional[int] = None
    read_only: bool = False
    exclusive: bool = False
    image_id: t.Optional[str] = dataclasses.field(compare=False, default=None, metadata={"hidden": True})
    number: t.Optional[int] = dataclasses.field(compare=False, default=None, metadata={"hidden": True})
    client: t.Optional[str] = dataclasses.field(compare=False, default=None, metadata={"hidden": True})
    linked: bool = dataclasses.field(compare=False, default=False, metadata={"hidden": True})
    twin: t.Optional[int] = dataclasses.field(compare=False, default=None, metadata={"hidden": True})
    holders: t.Tuple[Holder, ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})

    @property
    def name(self) -> str:
        """What the kernel calls the device."""
        return f"rbd{self.number}"

    @property
    def link(self) -> str:
        """The name by which it is handed over, the same after every boot: rbd0 is another image then."""
        return f"{LINKS}/{self.cluster}/{self.image}"

    @property
    def users(self) -> str:
        return ", ".join(map(str, self.holders))


@dataclasses.dataclass(frozen=True)
class KernelGround:
    """What the host itself is able to do. `features` are those of images that its kernel knows, None while the module is not loaded."""

    installed: bool = True
    loaded: bool = True
    keyring: bool = True
    ruled: bool = True
    features: t.Optional[int] = None


def check_user(user: t.Optional[str], image: str) -> t.Optional[str]:
    if user and not _USER.fullmatch(user):
        raise Invalid(f"username {user[:60]!r} of {image} can't be a Ceph user here; give its name without client., of letters, digits, '.', '_' and '-'")
    return user or None
