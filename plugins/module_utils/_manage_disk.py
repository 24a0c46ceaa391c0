# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""Disks of domains as a resource of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import os
import typing as t
import uuid

from ._errors import Conflict, Invalid, NotFound, NotSettled
from ._hosts.libvirt import LibvirtHost, lock_path
from ._model.data import Secret
from ._model.disk import ALIAS_PREFIX, Disk, DiskKey, DomainDisk, DomainKey, Image, ImageKey, Source
from ._model.disk import check_alias, check_bus, check_cephx_key, check_image, check_iotune, check_iqn, check_serial, check_uuid, guest_serial
from ._model.target import check_portal
from ._plan_disk import DiskWish, image_in_question, plan_disk
from ._reconcile import Plan, Resource, World

_SECTOR = 512
_NAMING = ("serial", "alias", "device")


class Disks(Resource):
    plural = "disks"

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.host = LibvirtHost(options["uri"])
        self.lock_path = lock_path(options["uri"])
        self._images: t.Optional[World] = None

    def want(self, item: t.Dict[str, t.Any]) -> DiskWish:
        present = item.get("state") != "absent"
        _check_names(item, present)
        serial = check_serial(item.get("serial"))
        source = item.get("source") or {}
        plain = {key: item.get(key) for key in ("device", "cache", "io", "discard", "read_only", "shareable")}
        return DiskWish(
            domain=item["domain"],
            present=present,
            serial=serial,
            alias=check_alias(item.get("alias") or (serial and ALIAS_PREFIX + serial)),
            bus=check_bus(item.get("device"), item.get("bus")),
            source=_source(source, present) if source else None,
            password=_password(source),
            iotune=check_iotune(item.get("iotune")),
            size_bytes=_size(item.get("size_bytes")),
            volume=_text(item, "volume"),
            attachment_id=_text(item, "attachment_id"),
            scope=item.get("scope") or "both",
            **plain,
        )

    def observe(self, wants: t.Sequence[DiskWish]) -> World:
        world = self.host.observe()
        if self._images is None:  # later QEMU has opened them, or closed them, or can't be kept from it
            looks = [(image_in_question(want, world), want.password) for want in wants]
            self._images = self.host.images([(source, key) for source, key in looks if source])
        return {**world, **self._images, **_sized(world, self.host.sizes({want.domain for want in wants}, world))}

    def assumed(self, result: t.Dict[str, t.Any], world: World) -> World:
        """Takes results of cinder_attachment: the image of a volume will be there as its record says."""
        info = result.get("connection_info") or {}
        if info.get("driver_volume_type") != "rbd":
            return {}
        key = ImageKey(info["data"]["name"])
        return {key: Image(result["size_bytes"])} if isinstance((world.get(key) or Image()).error, NotFound) else {}

    def plan(self, want: DiskWish, world: World) -> Plan:
        return plan_disk(want, world, self.host)

    def settled(self, plan: Plan, world: World) -> bool:
        if plan.after is not None and DomainKey(plan.key.domain) not in world:
            raise NotFound(f"domain {plan.key.domain} has vanished while {plan.title} was being changed; define it again and run the same play")
        now, after = _both(plan, world)
        if now.live and not after.live and self.host.refused(plan.key):
            raise NotSettled(_held(plan, now.live, "refused to let go of"))
        if (now.live, now.config) != (after.live, after.config):
            return False
        _check_size(plan, now.size_bytes, after.size_bytes)
        return bool(plan.closing) or now == after

    def unsettled(self, plan: Plan, world: World) -> str:
        now, after = _both(plan, world)
        if now.live and not after.live:
            return _held(plan, now.live, f"has not let go within {self.options['timeout']} s of")
        return super().unsettled(plan, world)

    def wait(self, seconds: float) -> None:
        self.host.listen(seconds)

    def show(self, plan: Plan, state: t.Optional[DomainDisk]) -> t.Dict[str, t.Any]:
        return disk_result(plan.key, state, plan.before)

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return {key: item[key] for key in ("domain", *_NAMING) if item.get(key)}


def find_disks(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The disks of all domains, or of exactly the named ones, ordered by domain and device."""
    host = LibvirtHost(options["uri"])
    world = host.observe()
    there = {key.name for key in world if isinstance(key, DomainKey)}
    names = there if options.get("domains") is None else set(options["domains"])
    missing = ", ".join(sorted(names - there))
    if missing:
        raise NotFound(f"there is no domain {missing} at {host.where}; correct domains, or leave it out to see all")
    world = {**world, **_sized(world, host.sizes(names, world))}
    found = [(key, disk) for key, disk in world.items() if isinstance(key, DiskKey) and key.domain in names and disk.copies]
    results = [{**disk_result(key, disk), "ours": disk.record is not None} for key, disk in found]
    return {"disks": sorted(results, key=lambda result: (result["domain"], len(result["device"]), result["device"]))}


def disk_result(key: DiskKey, state: t.Optional[DomainDisk], before: t.Optional[DomainDisk] = None) -> t.Dict[str, t.Any]:
    """A disk as a module returns it; one that is gone keeps the names it had."""
    now = state or DomainDisk(key.domain)
    scopes = [scope for scope in ("live", "config") if getattr(now, scope)]
    shared = {
        "domain": key.domain,
        "live": "live" in scopes,
        "persistent": "config" in scopes,
        "scope": "both" if len(scopes) == 2 else "".join(scopes) or None,
        "size_bytes": now.size_bytes,
        "volume": getattr(now.record, "volume", None),
        "attachment_id": getattr(now.record, "attachment_id", None),
    }
    return {**shared, **_disk_fields(now.disk or (before or now).disk)}


def _disk_fields(disk: t.Optional[Disk]) -> t.Dict[str, t.Any]:
    names = ("alias", "device", "bus", "serial", "cache", "io", "discard", "read_only", "shareable")
    fields = {name: getattr(disk, name, None) for name in names}
    fields["iotune"] = dict(disk.iotune) if disk else {}
    fields["guest_serial"] = guest_serial(disk) if disk else None
    fields["source"] = _source_result(disk.source) if disk else None
    return fields


def _source_result(source: Source) -> t.Dict[str, t.Any]:
    names = {"path": "image", "portals": "monitors"} if source.protocol == "rbd" else {}
    told = {names.get(key, key): value for key, value in dataclasses.asdict(source).items() if value is not None and key != "real_path"}
    told[names.get("portals", "portals")] = [{"ip": ip, "port": port} for ip, port in source.portals]
    return told


def _sized(world: World, sizes: t.Dict[t.Tuple[str, str], int]) -> World:
    sized: World = {}
    for key, disk in world.items():
        if isinstance(key, DiskKey) and disk.live and (key.domain, disk.live.device) in sizes:
            sized[key] = dataclasses.replace(disk, size_bytes=sizes[(key.domain, disk.live.device)])
    return sized


def _both(plan: Plan, world: World) -> t.Tuple[DomainDisk, DomainDisk]:
    """What the disk is and what it shall be; one that is gone has no copies."""
    gone = DomainDisk(plan.key.domain)
    return world.get(plan.key) or gone, plan.after or gone


def _check_size(plan: Plan, found: t.Optional[int], asked: t.Optional[int]) -> None:
    """The gate of identity that a source can't be asked for before it is attached."""
    if asked is not None and found is not None and asked != found:
        raise Conflict(f"{plan.title} has {found} bytes, not {asked}; check that it is the right volume, and detach it if it is not")


def _held(plan: Plan, live: Disk, what: str) -> str:
    return (
        f"the guest of domain {plan.key.domain} {what} {live.device} ({plan.title}); the disk is still attached and nothing of its "
        "storage may be taken away: let the guest release it (or resume it, or shut it down) and run the same play again"
    )


def _check_names(item: t.Dict[str, t.Any], present: bool) -> None:
    if not item.get("domain"):
        raise Invalid("a disk names no domain; give the name of the libvirt domain that has it or shall have it")
    if not any(item.get(key) for key in _NAMING):
        raise Invalid(f"the disk of domain {item['domain']} has no name; give its serial, alias or device")
    if present and not item.get("serial"):
        raise Invalid(f"the disk for domain {item['domain']} has no serial; give the volume's id, so that the guest can tell its disks apart")


def _source(source: t.Dict[str, t.Any], present: bool) -> Source:
    if source["type"] == "network":
        return _rbd(source, present) if source.get("protocol") == "rbd" else _iscsi(source, present)
    path = source.get("path")
    if not path or not os.path.isabs(path) or not path.isprintable():
        raise Invalid(f"source.path is {path!r}; a source of type {source['type']} needs the absolute path of the {source['type']}")
    return Source(type=source["type"], path=path, real_path=os.path.realpath(path))


def _password(source: t.Dict[str, t.Any]) -> t.Optional[Secret]:
    if source.get("protocol") == "rbd":
        return check_cephx_key(source.get("password"), "source.password")
    return Secret(source["password"]) if source.get("password") else None


def _rbd(source: t.Dict[str, t.Any], present: bool) -> Source:
    image = check_image(source.get("image"))
    monitors = tuple((portal.ip, portal.port) for portal in (check_portal(one["ip"], one["port"], image) for one in source.get("monitors") or ()))
    lacking = [name for name, given in (("monitors", monitors), ("username", source.get("username"))) if not given]
    if present and lacking:
        raise Invalid(f"the source {image} has no {' and no '.join(lacking)}; give monitors and username")
    return Source(
        type="network",
        protocol="rbd",
        path=image,
        portals=monitors,
        username=_text(source, "username"),
        secret_uuid=check_uuid(source.get("secret_uuid"), "source.secret_uuid") or _secret_uuid(source.get("username"), monitors),
        config=source.get("config"),
    )


def _secret_uuid(username: t.Optional[str], monitors: t.Tuple[t.Tuple[str, int], ...]) -> t.Optional[str]:
    """The same for all disks that a user has of one cluster, as far as its monitors tell it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ceph://{username}@{sorted(monitors)}")) if username and monitors else None


def _iscsi(source: t.Dict[str, t.Any], present: bool) -> Source:
    iqn = check_iqn(source.get("target_iqn"), "source.target_iqn")
    portals = [check_portal(portal["ip"], portal["port"], iqn) for portal in source.get("portals") or ()]
    lacking = [name for name, given in (("lun", source.get("lun") is not None), ("portals", portals)) if not given]
    if present and lacking:
        raise Invalid(f"the source {iqn} has no {' and no '.join(lacking)}; give lun and portals")
    if source.get("password") and not source.get("username"):
        raise Invalid(f"the source {iqn} has a password but no username; give both, or none")
    return Source(
        type="network",
        protocol="iscsi",
        target_iqn=iqn,
        lun=_lun(source.get("lun"), iqn),
        portals=tuple((portal.ip, portal.port) for portal in portals),
        initiator=check_iqn(source["initiator"], "source.initiator") if source.get("initiator") else None,
        username=_text(source, "username"),
    )


def _lun(lun: t.Optional[int], iqn: str) -> t.Optional[int]:
    if lun is not None and lun < 0:
        raise Invalid(f"source.lun of {iqn} is {lun}; give the number of a LUN, 0 or more")
    return lun


def _size(size_bytes: t.Optional[int]) -> t.Optional[int]:
    if size_bytes is not None and (size_bytes <= 0 or size_bytes % _SECTOR):
        raise Invalid(f"size_bytes is {size_bytes}; give the size of the volume, a positive multiple of {_SECTOR}")
    return size_bytes


def _text(item: t.Dict[str, t.Any], key: str) -> t.Optional[str]:
    text = item.get(key)
    if text and (len(text) > 255 or not text.isprintable()):
        raise Invalid(f"{key} of the disk must be at most 255 printable characters; shorten it, without line breaks")
    return text or None
