# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes and attachments as resources of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t
import uuid

from ._errors import Invalid
from ._hosts import progress
from ._images import ImageFile
from ._model.image import ImageWish, Inspected, image_wish, secrets_of
from ._model.pool import pool_result
from ._model.volume import GIB, MAKING, Attachment, Volume, check_name, check_size, record_of, volume_from
from ._plan_attachment import AttachmentWish, plan_attachment
from ._plan_kept_image import Keeping, plan_with_kept
from ._plan_volume import Source, VolumeWish
from ._reconcile import Lock, Plan, Resource, World
from ._volumes import open_backend

_MAX_TEXT = 255
IMAGE_CACHE = "/var/cache/stackless-block/images"


class OnBackend(Resource):
    """What volumes, their snapshots and attachments share: the back end, one look at all of its records, one lock."""

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.backend = open_backend(options["backend"])
        self.lock_path = self.backend.lock_path

    def hold(self, lock: Lock) -> None:
        self.backend.pause = lock.pause

    def observe(self, wants: t.Sequence[t.Any]) -> World:
        world: World = dict(self.backend.observe())
        for name in {name for want in wants for name in self.with_snapshots(want)} & set(world):
            taken = self.backend.taken(world[name]) if world[name].snapshots else None
            world[name] = world[name] if taken is None else world[name].with_taken(taken)
        return world

    def with_snapshots(self, want: t.Any) -> t.Tuple[str, ...]:
        """The names of the volumes whose snapshots a wish is about: it is looked whether they are there."""
        return ()

    def warned(self, plan: Plan, *more: str) -> Plan:
        """The plan with what the look at the back end found besides."""
        return dataclasses.replace(plan, warnings=(*plan.warnings, *self.backend.warnings, *more))

    def assumed(self, result: t.Dict[str, t.Any], world: World) -> World:
        record = result.get("record")
        if not record:
            return {}
        volume = volume_from({**record, "data_bytes": record["size_bytes"]})
        return {volume.name: volume}


class Volumes(OnBackend):
    plural = "volumes"
    advice: t.Optional[t.Tuple[str, ...]] = None  # of the host, asked once

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.images: t.Dict[ImageWish, Inspected] = {}  # that were inspected, or are yet to be downloaded
        self.promised: t.Set[ImageWish] = set()  # images that an item before this one brings
        self.cache: t.Dict[str, t.Any] = options.get("image_cache") or {}

    def want(self, item: t.Dict[str, t.Any]) -> VolumeWish:
        name = check_name(item.get("name"))
        return VolumeWish(
            name=name,
            present=item.get("state") != "absent",
            new_name=None if item.get("new_name") is None else check_name(item["new_name"]),
            size_bytes=check_size(name, item.get("size_gib")),
            volume_type=text_of(name, "volume_type", item),
            description=text_of(name, "description", item),
            metadata=metadata_of(name, item.get("metadata")),
            multiattach=item.get("multiattach"),
            allocation=item.get("allocation"),
            wipe=item.get("wipe") is not False,
            source=_source(name, item.get("source")),
            revert_to=None if item.get("revert_to") is None else check_name(item["revert_to"], "snapshot"),
            cascade=bool(item.get("cascade")),
            clones=item.get("clones") or "refuse",
            fresh_id=str(uuid.uuid4()),
        )

    def observe(self, wants: t.Sequence[t.Any]) -> World:
        if self.advice is None:
            self.advice = self.backend.advice()
        self.promised.clear()
        return super().observe(wants)

    def with_snapshots(self, want: VolumeWish) -> t.Tuple[str, ...]:
        return tuple(filter(None, [want.name, want.new_name, want.source and want.source.volume]))

    def plan(self, want: VolumeWish, world: World) -> Plan:
        want = self._with_image(want, world)
        plan, besides = plan_with_kept(want, self._keeping(), world, self.backend)
        world.update(besides)
        if want.source and want.source.image and want.source.fetch:
            self.promised.add(want.source.image)
        return self.warned(plan, *(self.advice or ()))

    def _with_image(self, want: VolumeWish, world: World) -> VolumeWish:
        """The wish with its image, open and inspected or ready to be brought, where a volume is to be made from it."""
        image = want.source.image if want.source and want.present else None
        if image is None or _is_made(world.get(want.name) or world.get(want.new_name)):
            return want
        if image not in self.images:
            self.images[image] = self._image(image)
        file = self.images[image]
        return dataclasses.replace(want, source=Source(image=image, file=file, fetch=not file.here and image not in self.promised))

    def _keeping(self) -> Keeping:
        most = self.cache.get("volumes_gib")
        return Keeping(self.cache.get("volumes") or 0, None if most is None else most * GIB, utc_now(), str(uuid.uuid4()))

    def _image(self, wish: ImageWish) -> Inspected:
        if wish.url is None:
            return ImageFile(wish)
        from ._downloads import Download  # only now: loading what it needs for the web takes longer than most runs take

        most = self.cache.get("size_gib")
        return Download(wish, self.cache.get("path") or IMAGE_CACHE, 20 if most is None else most, self.options.get("lock_timeout") or 0)

    @staticmethod
    def hidden(options: t.Dict[str, t.Any]) -> t.Set[str]:
        sources = [item.get("source") or {} for item in [options, *(options.get("volumes") or ())]]
        return {secret for source in sources for secret in secrets_of(source.get("image") or "")}

    def settled(self, plan: Plan, world: World) -> bool:
        """Others may have gone on with a volume since, or made another one of its name."""
        have = world.get(plan.key)
        if plan.after is None:
            return have is None or have.id != plan.before.id
        return have is not None and have.id == plan.after.id and (have.data_bytes or 0) >= plan.after.size_bytes

    def show(self, plan: Plan, state: t.Optional[Volume]) -> t.Dict[str, t.Any]:
        return volume_result(state)


class Attachments(OnBackend):
    plural = "attachments"

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.reveals = bool(options.get("return_secrets"))

    def want(self, item: t.Dict[str, t.Any]) -> AttachmentWish:
        volume = check_name(item.get("volume"))
        for key in ("instance", "action"):
            if not item.get(key):
                raise Invalid(f"the attachment of volume {volume} names no {key}; give {key}")
        told = {key: item.get(key) or None for key in ("host", "mode", "transport", "iqn_prefix", "initiator", "ip", "device", "step", "reason")}
        return AttachmentWish(volume=volume, instance=item["instance"], action=item["action"], fresh_id=str(uuid.uuid4()), **told)

    def plan(self, want: AttachmentWish, world: World) -> Plan:
        return self.warned(plan_attachment(want, world, self.backend))

    def settled(self, plan: Plan, world: World) -> bool:
        # Another item of the list may have moved on the same volume: only this item's write is looked for.
        return plan.key in world

    def show(self, plan: Plan, state: t.Optional[Volume]) -> t.Dict[str, t.Any]:
        if state is None:
            return {}
        return {**attachment_result(state, plan.label.split(" for ", 1)[1]), "connection_info": self.backend.connection_info(state)}

    def besides(self, shown: t.Sequence[t.Tuple[Plan, t.Any]]) -> t.Dict[str, t.Any]:
        return {"credentials": self.backend.credentials() if shown else []} if self.reveals else {}

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return {key: item.get(key) for key in ("volume", "instance", "action")}


def find_volumes(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The volumes of a backend, ordered by name, or those of exactly the given names."""
    backend = open_backend(options["backend"])
    found = backend.observe()
    names = set(found) if options.get("names") is None else set(options["names"]) & set(found)
    kept = {name for name in names if found[name].kept_at}
    shown = {"volumes": names - kept, "images": kept}
    return {**{what: [volume_result(found[name]) for name in sorted(some)] for what, some in shown.items()}, "warnings": list(backend.warnings)}


def find_pool(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The figures of a backend's pool, with what should be done about it."""
    backend = open_backend(options["backend"])
    pool = backend.capacity()
    return pool_result(pool, [*backend.warnings, *backend.advice()])


def volume_result(volume: t.Optional[Volume]) -> t.Dict[str, t.Any]:
    """A volume as a module returns it, with the whole record beside the plain fields."""
    if volume is None:
        return {"status": "deleted", "record": None}
    record = record_of(volume)
    return {**record, "size_gib": volume.size_bytes >> 30, "progress": _progress(volume), "record": record}


def _progress(volume: Volume) -> t.Optional[float]:
    """How far what goes on with a volume, or a snapshot of it, is; a run that was killed may have left a number behind."""
    going_on = {volume.status, *(snapshot.status for snapshot in volume.snapshots)} & {"downloading", "uploading"}
    return progress.percent(volume.id) if going_on else None


def attachment_result(volume: Volume, instance: str) -> t.Dict[str, t.Any]:
    """An attachment as a module returns it.

    `others` and `others_on_host` count the attachments of the same volume that may still hold its exported
    device: while there are any, the export (the host's ACL) has to stay. `others_staying` are those on the
    host that are not on their way back: while there are any, its session, or its device, has to stay.
    """
    attachment = volume.attachment(instance)
    shared = {
        "volume_id": volume.id,
        "volume_status": volume.status,
        "size_bytes": volume.size_bytes,
        "multiattach": volume.multiattach,
        "record": record_of(volume),
        "path": volume.path,
    }
    if attachment is None:
        return {**shared, "attachment_id": None, "status": None}
    holding = [a for a in volume.attachments if a.instance != instance and a.status != "detached" and a.transport not in ("local", "rbd")]
    on_host = [a for a in holding if a.host == attachment.host]
    staying = [a for a in on_host if a.status != "detaching" and a.transport in ("host", "krbd")]
    counts = {"others": len(holding), "others_on_host": len(on_host), "others_staying": len(staying)}
    return {**shared, **_attachment_fields(attachment), **counts}


def _attachment_fields(attachment: Attachment) -> t.Dict[str, t.Any]:
    names = ("host", "status", "mode", "transport", "target_iqn", "initiator", "ip", "device", "step", "reason")
    return {"attachment_id": attachment.id, **{name: getattr(attachment, name) for name in names}}


def _is_made(volume: t.Optional[Volume]) -> bool:
    return volume is not None and volume.status not in MAKING


def _source(name: str, source: t.Optional[t.Dict[str, t.Any]]) -> t.Optional[Source]:
    if source is None:
        return None
    given = [key for key in ("volume", "image") if source.get(key)]
    if len(given) != 1 or (source.get("snapshot") and "image" in given):
        raise Invalid(f"the source of volume {name} must be one thing; give volume, volume and snapshot, or image and format")
    if source.get("image"):
        return Source(image=image_wish(source["image"], source.get("format"), source.get("checksum")))
    if source["volume"] == name:
        raise Invalid(f"volume {name} can't be made from itself; give another name, or revert_to to make it what it was at a snapshot")
    snapshot = None if source.get("snapshot") is None else check_name(source["snapshot"], "snapshot")
    return Source(check_name(source["volume"]), snapshot, bool(source.get("force")))


def utc_now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_of(name: str, key: str, item: t.Dict[str, t.Any]) -> t.Optional[str]:
    text = item.get(key)
    if text is not None and (len(text) > _MAX_TEXT or not text.isprintable()):
        raise Invalid(f"{key} of {name} must be at most {_MAX_TEXT} printable characters; shorten it, without line breaks")
    return text


def metadata_of(name: str, metadata: t.Optional[t.Dict[str, t.Any]]) -> t.Optional[t.Tuple[t.Tuple[str, str], ...]]:
    if metadata is None:
        return None
    for key, value in metadata.items():
        if not isinstance(value, (str, int, float, bool)) or max(len(str(key)), len(str(value))) > _MAX_TEXT:
            raise Invalid(f"metadata {key} of {name} must be one plain value of at most {_MAX_TEXT} characters")
    return tuple(sorted((str(key), str(value)) for key, value in metadata.items()))
