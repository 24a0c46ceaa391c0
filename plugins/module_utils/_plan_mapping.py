# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what a kernel has of an image to what it shall have: pure decisions, no reading, no writing.

A device is taken for an image's only when cluster, pool, namespace, name, id and size are the same, and it is taken away
only when nobody holds it.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Refused, Unavailable
from ._hosts import GROUND, MappingHost
from ._model.data import Secret
from ._model.disk import Image, Source
from ._model.mapping import KernelGround, LookKey, Mapping, MappingKey, Monitors
from ._reconcile import Plan, Step, World

EXCLUSIVE_LOCK = 1 << 2  # RBD_FEATURE_EXCLUSIVE_LOCK
_TO_HAVE = "install the package that has it (the kernel's own, on Ubuntu linux-modules-extra, on Red Hat's systems kernel-modules)"


@dataclasses.dataclass(frozen=True)
class MappingWish:
    """What the user says of one image; None is what the user does not care about."""

    image: str
    present: bool = True
    cluster: t.Optional[str] = None
    monitors: Monitors = ()
    username: t.Optional[str] = None
    password: t.Optional[Secret] = None
    size_bytes: t.Optional[int] = None
    read_only: bool = False
    exclusive: bool = True
    shared: bool = False
    keep_in_use: bool = False

    @property
    def title(self) -> str:
        return f"image {self.image}"

    @property
    def source(self) -> Source:
        """Where the image is, in the words of a disk."""
        return Source("network", self.image, "rbd", portals=self.monitors, username=self.username)


def plan_mapping(want: MappingWish, world: World, host: MappingHost) -> Plan:
    """Maps an image, takes its growth over, or unmaps it. Raises Conflict, Refused or Unavailable."""
    return _present(want, world, host) if want.present else _absent(want, world, host)


# ---- present ---------------------------------------------------------------------------------------------------------


def _present(want: MappingWish, world: World, host: MappingHost) -> Plan:
    image = _seen(want, world)
    key = MappingKey(image.cluster or want.cluster or "", want.image)
    have: t.Optional[Mapping] = world.get(key)
    _check_twin(want, have)
    kept, doubts = _kept(want, have, image)
    warnings = _check_alone(want, have, image) + doubts
    ground: KernelGround = world.get(GROUND) or KernelGround()
    ruling = () if ground.ruled else (Step(f"write {host.rule}, by which udev names RBD devices", host.write_rule),)
    if kept:
        after = dataclasses.replace(kept, size_bytes=image.size_bytes)
        return Plan(key, have, after, ruling + _mending(kept, after, host), label=want.title, warnings=warnings)
    _check_able(want, ground)
    _check_features(want, image, ground)
    after = Mapping(want.image, key.cluster, image.size_bytes, want.read_only, want.exclusive, image.image_id)
    undo = (Step(f"unmap {want.title} again", host.unmap, (after,)),)
    return Plan(key, have, after, ruling + _making(want, have, after, ground, host), label=want.title, warnings=warnings, undo=undo)


def _seen(want: MappingWish, world: World) -> Image:
    """The image as a look at it found it; what keeps it from being the wished one is an error."""
    image: Image = world[LookKey(want.image, want.monitors)]
    if image.error:
        raise type(image.error)(f"{want.title} can't be mapped: {image.error}")
    if want.cluster and image.cluster and image.cluster != want.cluster:
        raise Conflict(f"the monitors of {want.title} lead to the cluster {image.cluster}, not to {want.cluster}; correct monitors or cluster_fsid")
    if want.size_bytes not in (None, image.size_bytes):
        raise Conflict(f"{want.title} has {image.size_bytes} bytes, not {want.size_bytes}; check that it is the right volume")
    return image


def _check_twin(want: MappingWish, have: t.Optional[Mapping]) -> None:
    if have and have.twin is not None:
        two = f"{have.name} and rbd{have.twin}"
        raise Conflict(f"{want.title} is mapped twice on this host, as {two}; find out who uses which, and unmap the other one (rbd device unmap)")


def _kept(want: MappingWish, have: t.Optional[Mapping], image: Image) -> t.Tuple[t.Optional[Mapping], t.Tuple[str, ...]]:
    """The device that stays, with what is to be said of it; none when it has to be made, or made anew."""
    if have is None:
        return None, ()
    foreign = _foreign(want, have, image)
    if foreign and have.holders:
        raise Conflict(f"{have.name} is {want.title} {foreign}, and in use by {have.users}; let it go there first, then map it again")
    unlike = _unlike(want, have, image)
    if unlike and have.holders:
        return have, (f"{want.title} {unlike}, and stays so until it is let go by {have.users}",)
    return (None if foreign or unlike else have), ()


def _foreign(want: MappingWish, have: Mapping, image: Image) -> str:
    """What keeps a device from being of any use for a wish."""
    if image.image_id not in (None, have.image_id):
        return f"as it was before another one got its name (id {have.image_id})"
    return "for reading only" if have.read_only and not want.read_only else ""


def _unlike(want: MappingWish, have: Mapping, image: Image) -> str:
    """What a device is not as it was wished, so that it is made anew as soon as nobody uses it."""
    if have.exclusive != want.exclusive:
        return "is mapped exclusively" if have.exclusive else "is not mapped exclusively"
    if want.read_only and not have.read_only:
        return "is mapped for writing"
    watches = image.others(have.client) != image.holders
    if image.image_id and not have.read_only and not watches:
        return f"is mapped by {have.client}, which its cluster does not know any more (was it fenced? see ceph osd blocklist ls)"
    return ""


def _check_alone(want: MappingWish, have: t.Optional[Mapping], image: Image) -> t.Tuple[str, ...]:
    """Two that write to one image destroy what is on it. Who may let go yet is waited for when it is mapped."""
    others = () if want.shared else image.others(have.client if have else None)
    if not others:
        return ()
    told = f"{want.title} is open at {', '.join(others)}"
    if have and not have.holders:
        raise Conflict(f"{told}, and mapped on this host as {have.name}, which nobody uses; end that there, or unmap it here")
    return (f"{told} too" if have else f"{told}; it is mapped only when that has ended",)


def _check_able(want: MappingWish, ground: KernelGround) -> None:
    if not ground.installed:
        raise Unavailable(f"the kernel of this host has no driver rbd for {want.title}; {_TO_HAVE}, or use transport rbd, which needs none")
    if not ground.keyring:
        raise Unavailable("the library libkeyutils.so.1, by which a key is given to the kernel, is missing on this host; install the package libkeyutils1")


def _check_features(want: MappingWish, image: Image, ground: KernelGround) -> None:
    if want.exclusive and image.image_id and not image.features & EXCLUSIVE_LOCK:
        enable = f"enable it (rbd feature enable {want.image} exclusive-lock)"
        raise Refused(f"{want.title} can't be mapped exclusively without the feature exclusive-lock; {enable}, or give exclusive: false")
    surplus = 0 if ground.features is None else image.features & ~ground.features
    if surplus:
        what = f"features that the kernel of this host does not know ({surplus:#x})"
        raise Refused(f"{want.title} has {what}; disable them (rbd feature disable), or use transport rbd")


def _making(want: MappingWish, have: t.Optional[Mapping], after: Mapping, ground: KernelGround, host: MappingHost) -> t.Tuple[Step, ...]:
    load = () if ground.loaded else (Step("load the kernel's driver rbd", host.load),)
    old = (Step(f"unmap {want.title} ({have.name})", host.unmap, (have,)),) if have else ()
    return load + old + (Step(f"map {want.title}", host.map, (after, want.source, want.password, want.shared)),)


def _mending(kept: Mapping, after: Mapping, host: MappingHost) -> t.Tuple[Step, ...]:
    steps: t.Tuple[Step, ...] = ()
    if kept.size_bytes != after.size_bytes:
        steps += (Step(f"look at the size of {kept.name} again", host.refresh, (kept,)),)
    if not kept.linked:
        steps += (Step(f"have udev look at {kept.name} again", host.announce, (kept,)),)
    return steps


def arrived(after: Mapping, have: t.Optional[Mapping]) -> bool:
    """Whether the device may be handed over. Raises Conflict when it is another image's."""
    if have is None:
        return False
    if after.image_id not in (None, have.image_id):
        raise Conflict(f"image {after.image} was exchanged for another one while it was mapped ({have.name}); run the same play again")
    return have == after and have.linked


def waiting_for(after: Mapping, have: t.Optional[Mapping]) -> str:
    """What keeps a device from being handed over."""
    if have is None:
        return "the kernel has no device for it; look at its log"
    if have.size_bytes != after.size_bytes:
        return f"{have.name} has {have.size_bytes} bytes, not {after.size_bytes}; look at the kernel's log"
    return f"the link of {have.name} has not come; check that udev runs"


# ---- absent ----------------------------------------------------------------------------------------------------------


def _absent(want: MappingWish, world: World, host: MappingHost) -> Plan:
    key, have = _mine(want, world)
    if have is None:
        return Plan(key, None, None, label=want.title)
    _check_twin(want, have)
    if have.holders and want.keep_in_use:
        left = f"{want.title} is still in use by {have.users}, so it stays mapped"
        return Plan(key, have, have, label=want.title, warnings=(left,))
    if have.holders:
        raise Refused(f"{want.title} ({have.name}) is in use by {have.users}; let it go there first, then unmap it")
    steps = (Step(f"flush the buffers of {have.name}", host.flush, (have,)),) if not have.read_only else ()
    return Plan(key, have, None, steps + (Step(f"unmap {want.title} ({have.name})", host.unmap, (have,)),), label=want.title)


def _mine(want: MappingWish, world: World) -> t.Tuple[MappingKey, t.Optional[Mapping]]:
    """The one device of exactly this image; without the name of its cluster it must be the only one."""
    found = [(key, each) for key, each in world.items() if isinstance(key, MappingKey) and key.image == want.image and each]
    mine = [(key, each) for key, each in found if want.cluster in (None, key.cluster)]
    if len(mine) > 1:
        clusters = " and ".join(key.cluster for key, _each in mine)
        raise Conflict(f"{want.title} is mapped from several clusters, {clusters}; say which with cluster_fsid")
    return mine[0] if mine else (MappingKey(want.cluster or "", want.image), None)
