# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""RBD images as devices of a host's kernel, as a resource of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Invalid, NotFound
from ._hosts.krbd import LOCK, Krbd
from ._model.disk import Image, check_cephx_key, check_image, check_uuid
from ._model.mapping import LookKey, Mapping, MappingKey, Monitors, check_user
from ._model.target import check_portal
from ._plan_mapping import MappingWish, arrived, plan_mapping, waiting_for
from ._reconcile import Plan, Resource, World

Options = t.Dict[str, t.Any]

_NEEDED = ("monitors", "username", "password")
_SECTOR = 512


class Mappings(Resource):
    plural = "devices"
    lock_path = LOCK

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.host = Krbd()

    def want(self, item: Options) -> MappingWish:
        image = check_image(item.get("image"), "image")
        present = item.get("state") != "absent"
        lacking = [name for name in _NEEDED if not item.get(name)]
        if present and lacking:
            raise Invalid(f"image {image} has no {' and no '.join(lacking)}; give monitors, username and password")
        read_only, shared = item.get("mode") == "ro", bool(item.get("shared"))
        wished = item.get("exclusive")
        if shared and wished:
            raise Invalid(f"image {image} can't be both shared and exclusive; give one of them")
        return MappingWish(
            image=image,
            present=present,
            cluster=check_uuid(item.get("cluster_fsid"), "cluster_fsid"),
            monitors=_monitors(item, image),
            username=check_user(item.get("username"), image),
            password=check_cephx_key(item.get("password"), "password"),
            size_bytes=_size(item.get("size_bytes"), image),
            read_only=read_only,
            exclusive=wished is not False and not shared and not read_only,  # who only reads needs no lock
            shared=shared,
            keep_in_use=item.get("if_in_use") == "keep",
        )

    def observe(self, wants: t.Sequence[MappingWish]) -> World:
        return self.host.observe([(want.source, want.password) for want in wants if want.present])

    def assumed(self, result: Options, world: World) -> World:
        """Takes results of cinder_attachment (the image will be as the record says) and libvirt_disk (the domain will have let go)."""
        info = result.get("connection_info") or {}
        if info.get("driver_volume_type") == "rbd":
            return _as_recorded(info["data"], result["size_bytes"], world)
        if result.get("live") is False and result.get("domain"):
            return _let_go(result, world)
        return {}

    def plan(self, want: MappingWish, world: World) -> Plan:
        return plan_mapping(want, world, self.host)

    def flush(self) -> None:
        self.host.done()

    def settled(self, plan: Plan, world: World) -> bool:
        have = world.get(plan.key)
        return have is None if plan.after is None else arrived(plan.after, have)

    def unsettled(self, plan: Plan, world: World) -> str:
        if plan.after is None:
            return super().unsettled(plan, world)
        return f"{plan.title} can't be handed over after {self.options['timeout']} s: {waiting_for(plan.after, world.get(plan.key))}"

    def left(self, plan: Plan, world: World) -> str:
        have = world.get(plan.key)
        return f"the device {have.name}" if have and not plan.before else ""

    def show(self, plan: Plan, state: t.Optional[Mapping]) -> Options:
        return mapping_result(state, plan.key.cluster)

    def identify(self, item: Options) -> Options:
        return {"image": item.get("image")}


def mapping_result(state: t.Optional[Mapping], cluster: str) -> Options:
    """A device as a module returns it; one that is gone has no path."""
    told = {"cluster_fsid": cluster or None}
    if state is None:
        return {**told, "device_path": None, "device": None, "size_bytes": None, "mode": None, "exclusive": None, "image_id": None, "client": None}
    return {
        **told,
        "device_path": state.link,
        "device": None if state.number is None else f"/dev/{state.name}",
        "size_bytes": state.size_bytes,
        "mode": "ro" if state.read_only else "rw",
        "exclusive": state.exclusive,
        "image_id": state.image_id,
        "client": state.client,
    }


def _monitors(item: Options, image: str) -> Monitors:
    found = [check_portal(monitor["ip"], monitor.get("port") or 6789, image) for monitor in item.get("monitors") or ()]
    return tuple((monitor.ip, monitor.port) for monitor in found)


def _size(size_bytes: t.Optional[int], image: str) -> t.Optional[int]:
    if size_bytes is not None and (size_bytes <= 0 or size_bytes % _SECTOR):
        raise Invalid(f"size_bytes of image {image} is {size_bytes}; give the size of the volume, a positive multiple of {_SECTOR}")
    return size_bytes


def _as_recorded(told: Options, size_bytes: int, world: World) -> World:
    """The image of a volume that will be made, or grown, and its device: the kernel sees an image grow where it may write to it."""
    key = LookKey(told["name"], tuple((ip, int(port)) for ip, port in zip(told["hosts"], told["ports"])))
    image: t.Optional[Image] = world.get(key)
    if image is None or not isinstance(image.error, (NotFound, type(None))):
        return {}
    mapped = MappingKey(image.cluster or "", told["name"])
    have: t.Optional[Mapping] = world.get(mapped)
    grown = {} if have is None or have.read_only else {mapped: dataclasses.replace(have, size_bytes=size_bytes)}
    return {key: dataclasses.replace(image, size_bytes=size_bytes, error=None), **grown}


def _let_go(result: Options, world: World) -> World:
    """The device of a disk that libvirt_disk took out of its guest: its QEMU will have closed it."""
    path, gone = (result.get("source") or {}).get("path"), ("domain", result["domain"])
    return {
        key: dataclasses.replace(have, holders=tuple(holder for holder in have.holders if (holder.kind, holder.name) != gone))
        for key, have in world.items()
        if isinstance(have, Mapping) and path in (have.link, f"/dev/{have.name}")
    }
