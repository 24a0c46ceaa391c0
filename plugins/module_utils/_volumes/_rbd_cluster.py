# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""A pool of a Ceph cluster through librados and librbd: every question bounded in time, every failure one of our errors."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import typing as t
import uuid
import weakref

from .._errors import Busy, Failed, Invalid, NotFound, Refused, StorageError, Unavailable
from ._rbd_image import RECORD, Image

try:
    import rados
    import rbd
except ImportError:
    rados = rbd = None

_DIRECTORY = "stackless.names"  # an object beside the images: the lock under which names are given, and notes of who gave one
_LOCK = "names"
_META = "metadata_"  # what librbd puts before the keys of image-meta in a header's omap
_NOT_SHARED = ("journaling", "fast-diff", "object-map", "exclusive-lock")  # what Cinder leaves out where several may write


@dataclasses.dataclass(frozen=True)
class Place:
    """Where images are, who asks, for how many seconds each question may take, and how new images are made.

    `features`: by Ceph's names, empty for the default of the pool or of Ceph.
    """

    pool: str
    namespace: str = ""
    data_pool: t.Optional[str] = None
    features: t.Tuple[str, ...] = ()
    user: str = "cinder"
    conf: str = "/etc/ceph/ceph.conf"
    keyring: t.Optional[str] = None
    timeout: int = 10

    @property
    def path(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool


class Cluster:
    """One pool, or one namespace of it. Nothing is asked before the first use."""

    def __init__(self, place: Place) -> None:
        if rbd is None:
            raise Unavailable("the Python libraries rados and rbd are missing on this host; install the packages python3-rados and python3-rbd")
        self.place = place
        self._features = _mask(place.features, "backend.features")
        self._client: t.Any = None
        self._pool: t.Any = None
        self._opened: t.List[t.Callable[[], None]] = []
        weakref.finalize(self, _close, self._opened)

    @property
    def name(self) -> str:
        """The cluster as a person would call it."""
        return f"the Ceph cluster of {self.client.conf_get('mon_host')}"

    @property
    def keyring(self) -> str:
        """The files where the key may be, separated by commas."""
        return self.client.conf_get("keyring")

    # ---- the way in

    @property
    def client(self) -> t.Any:
        """The connection."""
        if self._client is None:
            self._client = _connected(self.place, self._configured())
            self._opened.append(self._client.shutdown)
        return self._client

    @property
    def io(self) -> t.Any:
        """The pool."""
        if self._pool is None:
            self._pool = self._open()
            self._opened.append(self._pool.close)
        return self._pool

    def _configured(self) -> t.Any:
        place = self.place
        try:
            with open(place.conf, "rb"):
                pass
        except OSError as error:
            raise Unavailable(f"the Ceph configuration {place.conf} can't be read: {error.strerror}; bring it here, or correct backend.conf") from error
        limits = {key: str(place.timeout) for key in ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")}
        own = {"keyring": place.keyring} if place.keyring else {}
        try:
            return rados.Rados(conffile=place.conf, rados_id=place.user, conf={**limits, **own})
        except rados.Error as error:
            raise Unavailable(f"the Ceph configuration {place.conf} can't be understood: {_said(error)}; mend it, or correct backend.conf") from error

    def _open(self) -> t.Any:
        place = self.place
        with self.asked(f"open pool {place.pool}"):
            for option, name in (("data_pool", place.data_pool), ("pool", place.pool)):
                if name and not self.client.pool_exists(name):
                    make = f"make it (ceph osd pool create {name}, rbd pool init {name})"
                    raise NotFound(f"there is no pool {name} in {self.name}; {make}, or correct backend.{option}")
            pool = self.client.open_ioctx(place.pool)
            if place.namespace and not rbd.RBD().namespace_exists(pool, place.namespace):
                make = f"make it (rbd namespace create {place.path})"
                raise NotFound(f"there is no namespace {place.namespace} in pool {place.pool} of {self.name}; {make}, or correct backend.namespace")
            pool.set_namespace(place.namespace)
            if hasattr(pool, "set_osdmap_full_try"):
                pool.set_osdmap_full_try()  # a full pool says so, instead of letting wait
        return pool

    @contextlib.contextmanager
    def asked(self, what: str) -> t.Iterator[None]:
        """Turns what librados and librbd say meanwhile into our errors."""
        try:
            yield
        except (rados.Error, rbd.Error) as error:
            raise self._meaning(what, error) from error

    def _meaning(self, what: str, error: Exception) -> StorageError:
        place, number = self.place, _number(error)
        asked = f"{self.name} was asked to {what}"
        if number == errno.ETIMEDOUT:
            return Unavailable(f"{asked} and did not answer within {place.timeout} s: see with ceph -s which OSDs or monitors are down, and run again")
        if number in (errno.EPERM, errno.EACCES):
            where = f"pool={place.pool}" + (f" namespace={place.namespace}" if place.namespace else "")
            may = f"mon 'profile rbd' osd 'profile rbd {where}'"
            return Failed(f"{asked} and does not let client.{place.user} do that; grant it beside what it has (ceph auth caps, with {may})")
        if number in (errno.EDQUOT, errno.ENOSPC):
            return Failed(f"{asked} and has no room: pool {place.pool} is full; raise its quota, add OSDs or delete volumes (ceph health detail)")
        return Failed(f"{asked} and said no: {_said(error)}; see with ceph -s whether it is well, and run again")

    def ask(self, prefix: str, **words: str) -> t.Any:
        """What the monitors answer to a command, as data; None when they don't let us ask."""
        with self.asked(f"tell {prefix}"):
            status, answer, _words = self.client.mon_command(json.dumps({"prefix": prefix, "format": "json", **words}), b"")
        if status == -errno.ETIMEDOUT:
            raise Unavailable(f"the monitors of {self.name} did not answer within {self.place.timeout} s; see with ceph -s, and run again")
        return json.loads(answer) if status == 0 else None

    # ---- images

    def images(self) -> t.List[Image]:
        """All images of the pool, whoever made them; also those whose removal was begun and not ended, which Ceph lists as well."""
        with self.asked(f"list the images of {self.place.path}"):
            found = [self._image(one["name"], one["id"]) for one in rbd.RBD().list2(self.io) if one["id"]]
        return [image for image in found if image is not None]

    def image(self, image: Image) -> t.Optional[Image]:
        """The same image as it is now, or None."""
        with self.asked(f"look at image {image.name}"):
            return self._image(image.name, image.key)

    def _image(self, name: str, key: str) -> t.Optional[Image]:
        """One read of the header, in which size and record are of the same moment. Opening the image takes thirty times as long."""
        with rados.ReadOpCtx() as read:
            values, _status = self.io.get_omap_vals_by_keys(read, ("size", _META + RECORD))
            snapshots, _status = self.io.get_omap_vals(read, "", "snapshot_", 1)
            try:
                self.io.operate_read_op(read, _header(key))
            except rados.ObjectNotFound:
                return None  # removed between the list and the look
            fields = dict(_pairs(values))
            record = fields.get(_META + RECORD)
            text = None if record is None else record.decode("utf-8", "replace")
            return Image(name, key, int.from_bytes(fields.get("size", b""), "little"), text, bool(list(snapshots)))

    def named(self, name: str) -> t.Optional[Image]:
        """The image of this name, or None."""
        with self.asked(f"look for image {name}"):
            try:
                key = self.io.read(f"rbd_id.{name}")[4:].decode()  # a length, and the id
            except rados.ObjectNotFound:
                return None
            return self._image(name, key)

    def create(self, name: str, size_bytes: int, shared: bool) -> None:
        """Makes an image; without the features that bar several writers when it is `shared`."""
        with self.asked(f"make image {self.place.path}/{name}"):
            features = self._features or None
            if shared:
                features = (self._features or int(self.client.conf_get("rbd_default_features"))) & ~_mask(_NOT_SHARED)
            rbd.RBD().create(self.io, name, size_bytes, old_format=False, features=features, data_pool=self.place.data_pool)

    def share(self, image: Image) -> None:
        """Takes away the features that bar several writers."""
        with self.asked(f"change the features of image {image.name}"), rbd.Image(self.io, image_id=image.key) as opened:
            surplus = opened.features() & _mask(_NOT_SHARED)
            if surplus:
                opened.update_features(surplus, False)

    def resize(self, image: Image, size_bytes: int) -> None:
        with self.asked(f"grow image {image.name}"), rbd.Image(self.io, image_id=image.key) as opened:
            opened.resize(size_bytes, allow_shrink=False)

    def remove(self, image: Image) -> None:
        """Removes an image with its data; Busy while somebody has it open."""
        with self.asked(f"remove image {self.place.path}/{image.name}"):
            try:
                rbd.RBD().remove(self.io, image.name)
            except rbd.ImageBusy as error:
                raise Busy(f"image {image.name} can't be removed while somebody has it open; see with rbd status who it is") from error
            except rbd.ImageHasSnapshots as error:
                raise Refused(f"image {image.name} can't be removed: {self.built_upon(image)}; remove that first") from error
            except rbd.ImageNotFound as error:
                if self.image(image) is not None:
                    raise Failed(f"image {image.name} can't be moved to the trash of pool {self.place.pool}; see with ceph -s whether it has room") from error

    def watchers(self, image: Image) -> t.List[str]:
        """The addresses of all who have the image open, by the clients' ids."""
        with self.asked(f"tell who has image {image.name} open"):
            try:
                with rbd.Image(self.io, image_id=image.key, read_only=True) as opened:
                    return [f"{one['addr'].split('/')[0]} (client.{one['id']})" for one in opened.watchers_list()]
            except rbd.ImageNotFound:
                return []

    def built_upon(self, image: Image) -> t.Optional[str]:
        """The snapshots and clones of an image, as a person would say it, or None."""
        with self.asked(f"list the snapshots of image {image.name}"), rbd.Image(self.io, image_id=image.key, read_only=True) as opened:
            snapshots = [one["name"] for one in opened.list_snaps()]
            clones = ["/".join(filter(None, (one["pool"], one["pool_namespace"], one["image"]))) for one in opened.list_children2()]
        told = [f"{what} {', '.join(sorted(names))}" for what, names in (("snapshots:", snapshots), ("clones:", clones)) if names]
        return "it has " + " and ".join(told) if told else None

    # ---- records

    def swap_record(self, image: Image, text: str) -> bool:
        """Replaces the record, in one write that does nothing when it is not the one of `image` any more; whether it did."""
        with self.asked(f"write the record of image {image.name}"):
            return self._swap(_header(image.key), _META + RECORD, image.record or "", text)

    def _swap(self, name: str, key: str, old: str, new: str) -> bool:
        """Compare and swap of one value in an object's omap; a value that is not there counts as empty."""
        with rados.WriteOpCtx() as write:
            write.omap_cmp(key, old, rados.LIBRADOS_CMPXATTR_OP_EQ)
            self.io.set_omap(write, (key,), (new.encode("ascii"),))
            try:
                self.io.operate_write_op(write, name)
            except rados.ObjectNotFound:
                return False
            except rados.OSError as error:
                if _number(error) != errno.ECANCELED:
                    raise
                return False
        return True

    # ---- names

    @contextlib.contextmanager
    def naming(self, seconds: int) -> t.Iterator[None]:
        """Holds the lock under which volumes get their names, in the whole cluster; it ends by itself after so many seconds."""
        cookie = str(uuid.uuid4())
        with self.asked(f"lock the names in {self.place.path}"):
            try:
                self.io.lock_exclusive(_DIRECTORY, _LOCK, cookie, os.uname().nodename, seconds)
            except rados.ObjectBusy as error:
                raise Busy(f"another run is making or renaming a volume in {self.place.path}; one that was killed lets go within {seconds} s") from error
        try:
            yield
        finally:
            with contextlib.suppress(rados.Error):
                self.io.unlock(_DIRECTORY, _LOCK, cookie)

    def notes(self) -> t.Dict[str, str]:
        """What those who make and remove images have noted."""
        with self.asked(f"look at the names in {self.place.path}"), rados.ReadOpCtx() as read:
            values, _status = self.io.get_omap_vals(read, "", "", 1000)
            try:
                self.io.operate_read_op(read, _DIRECTORY)
            except rados.ObjectNotFound:
                return {}
            return {key: value.decode("ascii", "replace") for key, value in _pairs(values)}

    def note(self, notes: t.Dict[str, str]) -> None:
        """Notes something beside the images; an empty text takes a note away."""
        kept = {key: text.encode("ascii") for key, text in notes.items() if text}
        gone = tuple(key for key in notes if key not in kept)
        with self.asked(f"take notes in {self.place.path}"), rados.WriteOpCtx() as write:
            write.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
            if kept:
                self.io.set_omap(write, tuple(kept), tuple(kept.values()))
            if gone:
                self.io.remove_omap_keys(write, gone)
            self.io.operate_write_op(write, _DIRECTORY)


def _close(opened: t.List[t.Callable[[], None]]) -> None:
    """Ends what was opened, the last first: a pool that outlives its connection takes the process along."""
    while opened:
        opened.pop()()


def _connected(place: Place, client: t.Any) -> t.Any:
    """The client, connected; Unavailable with why it did not come about."""
    try:
        client.connect()
        return client
    except rados.Error as error:
        keyring = client.conf_get("keyring")
        closed = [path for path in keyring.split(",") if os.path.exists(path) and not os.access(path, os.R_OK)]
        why = _why_not(_number(error), place, client.conf_get("mon_host"), keyring, closed)
        client.shutdown()
        raise Unavailable(why) from error


def _pairs(values: t.Iterable[t.Tuple[str, t.Optional[bytes]]]) -> t.Iterator[t.Tuple[str, bytes]]:
    """What an omap holds; python3-rados has None for an empty value."""
    return ((key, value or b"") for key, value in values)


def _header(key: str) -> str:
    return f"rbd_header.{key}"


def _mask(names: t.Sequence[str], option: str = "") -> int:
    """The bits of features; Invalid, with the option that names them, when there is one that Ceph does not know."""
    try:
        return rbd.RBD().features_from_string(",".join(names)) if names else 0
    except rbd.InvalidArgument as error:
        raise Invalid(f"{option} is {list(names)}, which holds one that Ceph on this host does not know; give names as in `rbd help create`") from error


def _number(error: Exception) -> int:
    return abs(getattr(error, "errno", None) or 0)


def _said(error: Exception) -> str:
    """What librados or librbd says, without the names of its own functions."""
    return str(error).partition(" (")[0]


def _why_not(number: int, place: Place, monitors: str, keyring: str, closed: t.Sequence[str] = ()) -> str:
    """The sentence for a connection that did not come about."""
    user, cluster = f"client.{place.user}", f"the Ceph cluster of {monitors or place.conf}"
    if number == errno.ETIMEDOUT:
        return f"{cluster} does not answer {user} within {place.timeout} s; check that its monitors run and can be reached from here, or correct backend.conf"
    if not monitors:
        return f"the Ceph configuration {place.conf} names no monitors; give mon_host there, or correct backend.conf"
    if number in (errno.EACCES, errno.EPERM) and closed:
        return f"the key of {user} in {closed[0]} can't be read; let this task's user read it, run the task with become: true, or correct backend.keyring"
    if number in (errno.EACCES, errno.EPERM):
        return f"{cluster} refuses {user}: it does not know it or has another key; compare `ceph auth get {user}` with {keyring}"
    if number in (errno.ENOENT, errno.EIO):
        return f"there is no key of {user} for {cluster} in {keyring}; put it there (ceph auth get {user}), readable for this task, or correct backend.keyring"
    return f"{cluster} can't be spoken to by {user}: {os.strerror(number)}; check mon_host in {place.conf} and that its monitors run"
