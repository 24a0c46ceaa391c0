# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes as RBD images of one pool of a Ceph cluster, each with its record in its own image-meta.

The image volume-<id> is data and record in one: the record goes with it. A record changes by one write to the image's
header that compares it with what it was, so that it does nothing when somebody was faster, on whatever host.

A name is given under a lock that the whole cluster shares, because no single object could hold all names and records.
Who gives one notes the id of the image that is about to be made: if he is killed before it has its record, the next one
removes it. A removal is noted with the record, which goes before the last of the image does. A volume's name is only in
its record. The image keeps its own, which guests' definitions know.

A volume that is made from another one is a clone of its image, until a chain of them gets too long. A volume that goes
while clones share its data is kept in Ceph's trash, with its record, until a later removal finds that nobody needs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
import typing as t
import uuid

from .._ceph import Place, host_of
from .._errors import Busy, Conflict, Failed, Invalid, Refused, StorageError
from .._model.disk import check_uuid
from .._model.image import Inspected, QemuSource
from .._model.pool import Pool
from .._model.volume import Attachment, Snapshot, Volume
from . import Clone, Readable, VolumeBackend, overtaken
from . import _rbd_pool as figures
from ._rbd_image import Image, cloning_name, has_record, image_name, is_ours, record_text, snapshot_id, snapshot_name, volume_of, volumes_in
from ._rbd_lineage import Lineage

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,127}")  # nothing that means something in rbd:pool/namespace/image
_NAMED = {"pool": "a pool", "data_pool": "a pool", "namespace": "a namespace of the pool", "user": "a Ceph user without client."}
# Notes in the cluster: a volume's id after the first two
_MAKING = "making."  # it is being made, and may have no record yet: its name, and Ceph's id of the image that it is cloned from
_REMOVING = "removing."  # it is being removed, and may have no record any more: that record
_NAMING = "naming"  # a name is being given: that name
_GENERATION = "generation"  # changes whenever a name was given
# what begins with a status that nobody may have the image open for
_ALONE = {"deleting": "deleted", "reverting": "reverted", "restoring-backup": "overwritten with a backup"}
_LOCK = "/run/stackless-block-rbd-{}.lock"


class RbdBackend(VolumeBackend):
    """A pool, or a namespace of it; both must be there."""

    record_in_data = True
    allocation = "thin"
    allocations = ("thin",)

    def __init__(self, options: t.Dict[str, t.Any], open_cluster: t.Callable[[Place], t.Any] = Lineage) -> None:
        self.place = _place(options)
        if options.get("allocation") not in (None, *self.allocations):
            raise Invalid(f"backend.allocation is {options['allocation']!r}; the rbd driver has only thin")
        self.cluster = open_cluster(self.place)
        self.ratio = options.get("max_over_subscription_ratio") or 20.0
        self.limit = options.get("max_pool_used_percent") or 95.0
        self.most_depth = 5 if options.get("max_clone_depth") is None else options["max_clone_depth"]
        self.where = f"rbd:{self.place.path}"
        # spares runs of one host the way to the cluster, which decides between them anyway; it takes root
        self.lock_path = _LOCK.format(self.place.path.replace("/", ".")) if os.geteuid() == 0 else None
        self.lease = 3 * self.place.timeout  # seconds for which names are locked, should this run be killed
        self._found: t.Dict[str, Volume] = {}  # the volumes of the last look, by path
        self._images: t.Dict[str, Image] = {}  # of volumes, by id, with what this run has changed since the last look
        self._others_bytes = 0  # what images that are no volumes of ours were promised
        self._generation = ""  # of the names, at the last look
        self._begun: t.Dict[str, str] = {}  # volumes that somebody was making then, by id
        self._depths: t.Dict[str, int] = {}  # of volumes that this run makes from others, by id
        self._answers: t.Dict[str, t.Any] = {}  # of the monitors, since the last look
        self._monitors: t.List[t.Tuple[str, str]] = []
        self._fsid: t.Optional[str] = None
        self._secret_uuid = check_uuid(options.get("secret_uuid"), "backend.secret_uuid")

    # ---- looking

    def observe(self) -> t.Dict[str, Volume]:
        notes = self.cluster.notes()  # before the look: what comes after it is noticed
        self._generation, self._begun = notes.get(_GENERATION, ""), _noted(_MAKING, notes)
        self._answers.clear()
        images = _with_remains(self.cluster.images(), notes)
        found, wrong = volumes_in(images, self.where)
        self._found = {t.cast(str, volume.path): volume for volume in found.values()}
        ids = {volume.id for volume in found.values()}
        self._images = {t.cast(str, image.volume_id): image for image in images if image.volume_id in ids}
        self._others_bytes = sum(image.size_bytes for image in images if image.volume_id not in ids)
        self.warnings = tuple(wrong)
        if not self._monitors:
            self._monitors = figures.addresses(self._told("mon dump") or {"mons": []})
            self._fsid = self.cluster.fsid
            self._secret_uuid = self._secret_uuid or secret_uuid(self.place.user, self._fsid)
        return found

    def _told(self, prefix: str, **words: str) -> t.Any:
        """The monitors' answer to a command, asked once for each look."""
        if prefix not in self._answers:
            self._answers[prefix] = self.cluster.ask(prefix, **words)
        return self._answers[prefix]

    def _space(self) -> t.Tuple[t.Optional[int], t.Optional[int]]:
        return figures.space(self._told("df"), self._told("osd pool get-quota", pool=self._data), self._data)

    @property
    def _data(self) -> str:
        """The pool that the data goes to."""
        return self.place.data_pool or self.place.pool

    def missing(self, volume: t.Optional[Volume] = None, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        if volume is None:  # a full pool lets records change and images go
            return None
        for pool in (self.place.pool, self._data):
            full = figures.full(self._told("osd pool ls", detail="detail"), pool)
            if full:
                return full
        total, free = self._space()
        what, promised = f"pool {self._data}", self._others_bytes + volume.size_bytes + sum(other.size_bytes for other in others)
        return figures.overfull(what, total, free, self.limit) or figures.oversubscribed(what, total, promised, self.ratio)

    def capacity(self) -> Pool:
        allocated = sum(volume.size_bytes for volume in self.observe().values())
        total, free = self._space()
        full = figures.full(self._told("osd pool ls", detail="detail"), self._data)
        self.warnings += (full,) if full else ()
        return Pool(f"pool {self._data}", self.allocation, total, free, allocated, self._others_bytes + allocated, self.ratio)

    def advice(self) -> t.Tuple[str, ...]:
        open_to_all = [path for path in self.cluster.keyring.split(",") if path and _readable_by_all(path)]
        return tuple(f"everybody on this host can read the key in {path}; take that away (chmod o-rwx)" for path in open_to_all)

    def dependants(self, volume: Volume) -> t.Optional[str]:
        image = self._images.get(volume.id)  # none yet where a check predicts it
        others = sorted(name for name in self.cluster.snapshots(image) if not is_ours(name)) if image and image.snapshots else []
        return f"its image has snapshots that were not made by cinder_snapshot: {', '.join(others)}" if others else None

    def needs_wipe(self, volume: Volume) -> bool:
        return False  # what an image never wrote reads as zeros

    def clones(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.Tuple[Clone, ...]:
        image = self._images.get(volume.id)
        if image is None or not image.snapshots:
            return ()
        found = self.cluster.clones(image, snapshot and snapshot_name(snapshot.id))
        return tuple(dataclasses.replace(clone, volume=self._found.get(clone.path)) for clone in found)

    def taken(self, volume: Volume) -> t.Optional[t.Set[str]]:
        image = self._images.get(volume.id)
        if image is None:
            return None
        return set(filter(None, map(snapshot_id, self.cluster.snapshots(image)))) if image.snapshots else set()

    def copies(self, volume: Volume, source: t.Optional[Volume]) -> bool:
        """Reading goes through all images that a clone descends from: Cinder stops at five as well (rbd_max_clone_depth)."""
        image, parent = self._images.get(volume.id), self._images.get(volume.source_volid or "")
        if image is not None:
            depth = self.cluster.depth(image, self.most_depth)
        else:
            known = self._depths.get(volume.source_volid or "", 0)
            depth = 1 + (self.cluster.depth(parent, self.most_depth) if parent else known)
        self._depths[volume.id] = 0 if depth > self.most_depth else depth
        return depth > self.most_depth

    def locate(self, volume_id: str) -> str:
        return f"{self.where}/{image_name(volume_id)}"

    def connection_info(self, volume: Volume) -> t.Dict[str, t.Any]:
        """As Cinder's driver tells it to Nova (cinder/volume/drivers/rbd.py, initialize_connection), with namespace and fsid."""
        data = {
            "name": f"{self.place.path}/{image_name(volume.id)}",
            "hosts": [host for host, _port in self._monitors],
            "ports": [port for _host, port in self._monitors],
            "auth_enabled": True,
            "auth_username": self.place.user,
            "secret_type": "ceph",
            "secret_uuid": self._secret_uuid,
            "volume_id": volume.id,
            "discard": True,
            "cluster_fsid": self._fsid,
        }
        return {"driver_volume_type": "rbd", "data": data}

    def credentials(self) -> t.List[t.Dict[str, t.Any]]:
        """The user's key, under the UUID that the connection_info has for it; none where this host may not read it."""
        key = self.cluster.key
        return [{"secret_uuid": self._secret_uuid, "username": self.place.user, "password": key.reveal()}] if key else []

    # ---- hosts that are lost

    def clients(self, volume: Volume, attachment: Attachment) -> t.Tuple[str, ...]:
        """The addresses of the clients on the attachment's host, which is all of them where nobody else may have the image open."""
        image = self._images.get(volume.id)
        found = self.cluster.clients(image) if image else []
        others = {a.ip for a in volume.attachments if a.instance != attachment.instance and a.host != attachment.host and a.status != "detached"}
        if not others:
            return tuple(found)
        mine = tuple(address for address in found if host_of(address) == attachment.ip)
        strangers = [address for address in found if host_of(address) not in {attachment.ip, *others}]
        if strangers:
            raise Refused(f"volume {volume.name} is open at {', '.join(strangers)} too, and nobody knows whose they are; look at rbd status")
        return mine

    def fence(self, volume: Volume, clients: t.Tuple[str, ...]) -> None:
        """On the cluster's blocklist; certain when the image's OSD, which has the map with that list, has thrown them out."""
        self.cluster.block(clients)
        left = set(clients) & set(self.cluster.connected(self._images[volume.id]))
        if left:
            blocked = f"{', '.join(sorted(left))}, though on the cluster's blocklist"
            raise Busy(f"volume {volume.name} is still open at {blocked}; see with ceph -s what is slow, and run again")

    # ---- the record

    def swap(self, before: t.Optional[Volume], after: t.Optional[Volume]) -> None:
        if before is None:
            return self._make(t.cast(Volume, after))
        image = self._images.get(before.id)
        if image is None or volume_of(image, self.where) != before:
            raise overtaken(before)
        if after is None:
            return self._remove(before, image)
        self._prepare(image, before, after)
        with self._naming(after) if after.name != before.name else contextlib.nullcontext():
            return self._write(image, before, after)

    def _prepare(self, image: Image, before: Volume, after: Volume) -> None:
        """What has to be so before the record says it. What can't be taken back once it has begun needs an image that nobody has open."""
        if after.status in _ALONE:
            watchers = self.cluster.watchers(image)
            if watchers:
                raise _still_open(before, _ALONE[after.status], ", ".join(watchers))
        if after.multiattach and not before.multiattach:
            self.cluster.share(image)
        if before.id in self._begun:  # its maker was killed: what holds data must not be taken for an image without a record
            self._forget_source(before.id, self._begun[before.id])
            self.cluster.note({_MAKING + before.id: ""})

    def _write(self, image: Image, before: Volume, after: Volume) -> None:
        text = record_text(after, image.key)
        if text != image.record and not self.cluster.swap_record(image, text):
            raise overtaken(before)
        self._images[after.id] = dataclasses.replace(image, record=text)

    def _make(self, volume: Volume) -> None:
        name, making = image_name(volume.id), self._being_made(volume)
        with self._naming(volume, making) as until:
            self._create(name, volume, making)
            image = self.cluster.named(name)
            if image is None or time.monotonic() > until:
                raise Failed(f"image {name} took too long to make for the lock of its name; see with ceph -s what is slow, and run again")
            self._write(image, volume, volume)
            self._forget_source(volume.id, making)

    def _being_made(self, volume: Volume) -> str:
        """The note of who makes a volume; names hold no spaces."""
        cloned = volume.source_volid and not volume.snapshot_id
        return f"{volume.name} from {self._source(volume).key}" if cloned else volume.name

    def _create(self, name: str, volume: Volume, making: str) -> None:
        if volume.source_volid is None:
            return self.cluster.create(name, volume.size_bytes, volume.multiattach)
        try:
            return self._clone(name, volume)
        except StorageError:
            with contextlib.suppress(StorageError):  # the note of it stays for the next one
                self._forget_source(volume.id, making)
            raise

    def _clone(self, name: str, volume: Volume) -> None:
        source = self._source(volume)
        snapshot = snapshot_name(volume.snapshot_id) if volume.snapshot_id else cloning_name(volume.id)
        if volume.snapshot_id is None:
            self.cluster.take(source, snapshot)
            now = self.cluster.image(source)
            if now is None or now.record != source.record:  # somebody may have begun to revert or to extend it
                raise Conflict(f"the source of volume {volume.name} was changed by someone else meanwhile; look at it and run again")
        self._images[t.cast(str, volume.source_volid)] = dataclasses.replace(source, snapshots=True)
        self.cluster.clone(source, snapshot, name, volume.multiattach)

    def _source(self, volume: Volume) -> Image:
        source = self._images.get(t.cast(str, volume.source_volid))
        if source is None:
            raise Conflict(f"the source of volume {volume.name} was removed by someone else meanwhile; choose another one")
        return source

    def _forget_source(self, volume_id: str, making: str) -> None:
        """Removes the snapshot that a clone of a volume began with, also in the trash; its data stays for as long as the clone needs it."""
        key = making.partition(" from ")[2]
        if key:
            self.cluster.drop(Image(f"with the id {key}", key, 0), cloning_name(volume_id))

    def _remove(self, volume: Volume, image: Image) -> None:
        self._check_same(volume, image)
        self._drop_own(image)
        self.cluster.note({_REMOVING + volume.id: t.cast(str, image.record)})
        try:
            self.cluster.remove(image)
        except Busy as error:
            raise _still_open(volume, "deleted", ", ".join(self.cluster.watchers(image)) or "somebody who lets go just now") from error
        with contextlib.suppress(StorageError):  # what others keep in the trash is no reason to fail, and the next deletion tries again
            self._sweep()  # before the note goes: who is killed here does it again
        self.cluster.note({_REMOVING + volume.id: ""})
        del self._images[volume.id]

    def _check_alone(self, volume: Volume, image: Image, done: str) -> None:
        """Nobody was faster, and nobody but this run, which has it open, has the image open."""
        self._check_same(volume, image)
        watchers = self.cluster.watchers(image)
        if len(watchers) > 1:
            raise _still_open(volume, done, ", ".join(watchers))

    def _drop_own(self, image: Image) -> None:
        """Removes what runs that failed or were killed have left of our snapshots; nobody begins one of a volume that is being deleted."""
        for name in self.cluster.snapshots(image) if image.snapshots else ():
            if is_ours(name):
                self.cluster.drop(image, name)

    def _check_same(self, volume: Volume, image: Image) -> None:
        now = self.cluster.image(image)
        if now is not None and now.record != image.record:
            raise overtaken(volume)

    @contextlib.contextmanager
    def _naming(self, volume: Volume, making: str = "") -> t.Iterator[float]:
        """Nobody else in the cluster gives a name meanwhile; yields until when (monotonic) a record may be written.

        A note says so until all is done. Who finds it under the lock knows that his last look may have been too early, and
        that its writer was killed.
        """
        until = time.monotonic() + self.lease - self.place.timeout
        own = {_MAKING + volume.id: making} if making else {}
        with self.cluster.naming(self.lease):
            notes = self.cluster.notes()
            if _NAMING in notes or notes.get(_GENERATION, "") != self._generation:
                self._check_free(volume)
            self.cluster.note({**self._cleared(notes), **own, _NAMING: volume.name})
            yield until
            self._generation = str(uuid.uuid4())
            self.cluster.note({**{key: "" for key in own}, _GENERATION: self._generation, _NAMING: ""})

    def _check_free(self, volume: Volume) -> None:
        """Looks again whether the name is still nobody's."""
        twin = self.observe().get(volume.name)
        if twin is not None and twin.id != volume.id:
            raise Conflict(f"volume {volume.name} was made by someone else meanwhile, at {twin.path}; look at it and run again")

    def _cleared(self, notes: t.Dict[str, str]) -> t.Dict[str, str]:
        """Removes the images of runs that were killed before they wrote a record; returns the notes to take away."""
        begun = _noted(_MAKING, notes)
        for volume_id, making in begun.items():
            image = self.cluster.named(image_name(volume_id))
            if image is not None and not has_record(image):
                self.cluster.remove(image)
            self._forget_source(volume_id, making)
        return {_MAKING + volume_id: "" for volume_id in begun}

    # ---- the data

    def allocate(self, volume: Volume) -> None:
        image = self._known(volume)
        if image.size_bytes < volume.size_bytes:
            self.cluster.resize(image, volume.size_bytes)
            self._images[volume.id] = dataclasses.replace(image, size_bytes=volume.size_bytes)

    def copy(self, volume: Volume) -> None:
        with self.pause():  # the cluster decides between runs anyway
            self.cluster.flatten(self.cluster.own(self._known(volume)))

    def fill(self, volume: Volume, image: Inspected) -> None:
        """Through QEMU's own client of the cluster, with the user and the key that we have (qemu-block-drivers(7))."""
        place, known = self.place, self._known(volume)
        name = known.name
        space = f"file.namespace={place.namespace}," if place.namespace else ""
        where = f"driver=raw,file.driver=rbd,file.pool={place.pool},{space}file.image={name},file.user={place.user},file.conf={_doubled(place.conf)}"
        with self.pause(), self.cluster.watching(known):
            self._check_alone(volume, known, "written to")
            image.convert("-n", "--target-image-opts", where, **self._environment())

    def _environment(self) -> t.Dict[str, str]:
        """Where QEMU's client finds the key, which no command line has."""
        return {"CEPH_KEYRING": self.place.keyring} if self.place.keyring else {}

    def qemu_source(self, volume: Volume, snapshot: t.Optional[Snapshot]) -> QemuSource:
        place = self.place
        where = {"driver": "rbd", "pool": place.pool, "image": self._known(volume).name, "user": place.user, "conf": place.conf}
        more = {"namespace": place.namespace, "snapshot": snapshot and snapshot_name(snapshot.id)}
        file = {**where, **{key: text for key, text in more.items() if text}}
        return QemuSource("json:" + json.dumps({"driver": "raw", "file": file}), tuple(self._environment().items()))

    def _known(self, volume: Volume) -> Image:
        image = self._images.get(volume.id)
        if image is None:
            raise overtaken(volume)
        return image

    def reading(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.ContextManager[Readable]:
        return self.cluster.reading(self._known(volume), snapshot and snapshot_name(snapshot.id))

    def write(self, volume: Volume, pieces: t.Iterator[t.Tuple[int, bytes]]) -> None:
        image = self._known(volume)
        with self.pause():
            self.cluster.write(image, pieces, lambda: self._check_alone(volume, image, _ALONE[volume.status]))

    def take(self, volume: Volume, snapshot: Snapshot) -> None:
        image = self._known(volume)
        self.cluster.take(image, snapshot_name(snapshot.id))
        self._images[volume.id] = dataclasses.replace(image, snapshots=True)

    def drop(self, volume: Volume, snapshot: Snapshot, wipe: bool) -> None:
        self.cluster.drop(self._known(volume), snapshot_name(snapshot.id))

    def revert(self, volume: Volume, snapshot: Snapshot) -> None:
        image = self._known(volume)

        with self.pause():
            size = self.cluster.revert(image, snapshot_name(snapshot.id), lambda: self._check_alone(volume, image, "reverted"))
        self._images[volume.id] = dataclasses.replace(image, size_bytes=size)

    def separate(self, clone: Clone) -> None:
        with self.pause():
            self.cluster.flatten(clone)

    def retire(self, volume: Volume) -> None:
        image = self._known(volume)
        self._check_same(volume, image)
        self._drop_own(image)
        self.cluster.retire(image)
        del self._images[volume.id]

    def _sweep(self) -> None:
        """Removes what was moved to the trash and is needed by nobody any more, and then what that had descended from."""
        ours = [image for image in self.cluster.trashed() if _is_retired(image) and not image.snapshots]
        removed = [image for image in ours if self.cluster.sweep(image)]
        if removed:
            self._sweep()


def _with_remains(images: t.List[Image], notes: t.Dict[str, str]) -> t.List[Image]:
    """The images, and what there may be of those whose removal was stopped when their header, and the record in it, was gone already."""
    names = {image.name for image in images}
    removing = {image_name(volume_id): record for volume_id, record in _noted(_REMOVING, notes).items()}
    return images + [Image(name, "", 0, record) for name, record in removing.items() if name not in names]


def _noted(kind: str, notes: t.Dict[str, str]) -> t.Dict[str, str]:
    """The notes of one kind, by the ids of the volumes."""
    return {key[len(kind) :]: text for key, text in notes.items() if key.startswith(kind)}


def _is_retired(image: Image) -> bool:
    """Whether an image in the trash was put there by us: its record says so, and is its own."""
    volume = volume_of(image, "")
    return volume.flaw is None and volume.status == "deleting"


def _still_open(volume: Volume, done: str, by: str) -> Busy:
    return Busy(f"volume {volume.name} can't be {done}, its image is open at {by}; end that, and run again (a host that died lets go within 30 s)")


def _place(options: t.Dict[str, t.Any]) -> Place:
    defaults = Place("")
    timeout = defaults.timeout if options.get("timeout") is None else options["timeout"]
    if timeout < 1:
        raise Invalid(f"backend.timeout is {timeout}; give the seconds that one question to the cluster may take, from 1")
    return Place(
        pool=_checked("pool", options.get("pool")),
        namespace=_checked("namespace", options["namespace"]) if options.get("namespace") else "",
        data_pool=_checked("data_pool", options["data_pool"]) if options.get("data_pool") else None,
        features=tuple(options.get("features") or ()),
        user=_checked("user", options.get("user") or defaults.user),
        conf=options.get("conf") or defaults.conf,
        keyring=options.get("keyring"),
        timeout=timeout,
    )


def _checked(option: str, name: t.Optional[str]) -> str:
    if not name or not _NAME.fullmatch(name) or (option == "user" and name.startswith("client.")):
        raise Invalid(f"backend.{option} is {name!r}; the rbd driver needs the name of {_NAMED[option]}: letters, digits, '.', '_' or '-'")
    return name


def secret_uuid(user: str, fsid: str) -> str:
    """One for each user of a cluster, on whatever host it is looked up. Cinder takes the fsid itself, which leaves no room for a second user."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ceph://{user}@{fsid}"))


def _doubled(text: str) -> str:
    """A text as a value in options of QEMU, where a comma would end it."""
    return text.replace(",", ",,")


def _readable_by_all(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o004)
    except OSError:
        return False
