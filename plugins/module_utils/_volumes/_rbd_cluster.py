# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What the driver does in a pool of a Ceph cluster: images, the records in their headers, and the names of volumes."""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t
import uuid

from .._ceph import Client, Place, number_of
from .._errors import Busy, Failed, Invalid, NotFound, Refused
from ._rbd_image import RECORD, Image

try:
    import rados
    import rbd
except ImportError:
    rados = rbd = None

_DIRECTORY = "stackless.names"  # an object beside the images: the lock under which names are given, and notes of who gave one
_LOCK = "names"
_FOR_GOOD = 5 * 365 * 86400.0  # seconds on the blocklist, as the csi-addons' NetworkFence takes them: longer than a lost host is remembered
_META = "metadata_"  # what librbd puts before the keys of image-meta in a header's omap
_NOT_SHARED = ("journaling", "fast-diff", "object-map", "exclusive-lock")  # what Cinder leaves out where several may write


class Cluster(Client):
    """One pool, or one namespace of it."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._features = _mask(place.features, "backend.features")

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
        with self.asked(f"make image {self.place.path}/{name}"):
            rbd.RBD().create(self.io, name, size_bytes, old_format=False, features=self.features_of(shared), data_pool=self.place.data_pool)

    def features_of(self, shared: bool) -> int:
        """The features of a new image, whatever the one has that it is cloned from; without those that bar several writers when it is `shared`."""
        wanted = self._features or int(self.client.conf_get("rbd_default_features"))
        return wanted & ~_mask(_NOT_SHARED) if shared else wanted

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
                raise Refused(f"image {image.name} can't be removed: it has a snapshot or a clone since just now; run again") from error
            except rbd.ImageNotFound as error:
                if self.image(image) is not None:
                    raise Failed(f"image {image.name} can't be moved to the trash of pool {self.place.pool}; see with ceph -s whether it has room") from error

    def watchers(self, image: Image) -> t.Sequence[str]:
        """Who has the image open, or locked."""
        try:
            return self.look(image.name).holders
        except NotFound:
            return ()

    def clients(self, image: Image) -> t.List[str]:
        """The addresses, with their nonces, of all clients that may write to the image: those that have it open, and those that have it
        locked. Who was silent for 30 s counts as gone, but goes on with his lock when he wakes up."""
        with self._looking(image) as opened:
            lockers = (opened.list_lockers() or {}).get("lockers", ())
            return sorted({one["addr"] for one in opened.watchers_list()} | {address for _client, _cookie, address in lockers})

    def connected(self, image: Image) -> t.List[str]:
        """The addresses, with their nonces, of those clients that the image's OSD serves."""
        with self._looking(image) as opened:
            return sorted({one["addr"] for one in opened.watchers_list()})

    @contextlib.contextmanager
    def _looking(self, image: Image) -> t.Iterator[t.Any]:
        with self.asked(f"tell who has image {image.name} open"), rbd.Image(self.io, image_id=image.key, read_only=True) as opened:
            yield opened

    def block(self, addresses: t.Sequence[str]) -> None:
        """Puts clients on the blocklist, and waits until this host, and with it every OSD it speaks to, knows of it."""
        for address in addresses:
            self.tell("osd blocklist", blocklistop="add", addr=address, expire=_FOR_GOOD)
        with self.asked("tell the newest map of its OSDs"):
            self.client.wait_for_latest_osdmap()

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
                if number_of(error) != errno.ECANCELED:
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
