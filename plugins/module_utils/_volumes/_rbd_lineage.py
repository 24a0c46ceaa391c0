# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What images descend from, and what descends from them: snapshots, clones and Ceph's trash.

Clones are of Ceph's second format, whatever the cluster's default: a snapshot with clones needs no protection, and one
that is removed is kept out of sight until its last clone is gone (https://docs.ceph.com/en/latest/rbd/rbd-snapshot/).
"""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import Failed, Refused
from . import Clone, Readable
from ._rbd_cluster import Cluster
from ._rbd_image import Image

try:
    import rbd
except ImportError:
    rbd = None


_DISCARD = 1 << 30  # bytes of one call


class Lineage(Cluster):
    """One pool, or one namespace of it, with what its images come from."""

    @contextlib.contextmanager
    def _open_image(self, what: str, image: Image, read_only: bool = False) -> t.Iterator[t.Any]:
        with self.asked(f"{what} image {image.name}"), rbd.Image(self.io, image_id=image.key, read_only=read_only) as opened:
            yield opened

    @contextlib.contextmanager
    def watching(self, image: Image) -> t.Iterator[None]:
        """Has an image open meanwhile, so that others see that somebody is at it."""
        with self._open_image("open", image):
            yield

    # ---- snapshots

    def snapshots(self, image: Image) -> t.List[str]:
        """The names of the snapshots of an image, without those that are removed and kept for clones."""
        with self._open_image("list the snapshots of", image, read_only=True) as opened:
            return [one["name"] for one in opened.list_snaps() if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER]

    def take(self, image: Image, name: str) -> None:
        """Takes a snapshot, unless there is one of this name."""
        with self._open_image("take a snapshot of", image) as opened, contextlib.suppress(rbd.ImageExists):
            opened.create_snap(name)

    def drop(self, image: Image, name: str) -> None:
        """Removes a snapshot, if there are an image and one of this name."""
        asked = self.asked(f"remove snapshot {name} of image {image.name}")
        with asked, contextlib.suppress(rbd.ImageNotFound), rbd.Image(self.io, image_id=image.key) as opened:
            try:
                if opened.is_protected_snap(name):  # another's doing: nothing of ours needs it
                    opened.unprotect_snap(name)
            except rbd.ImageBusy as error:
                first = f"snapshot {name} of image {image.name} has clones of Ceph's first format, which it can't be taken from"
                raise Refused(f"{first}; give them their own data (rbd flatten)") from error
            opened.remove_snap(name)

    def revert(self, image: Image, name: str, check: t.Callable[[], None]) -> int:
        """Makes an image what it was at a snapshot, if `check` finds nothing against it; returns its size in bytes now.

        Who opens the image meanwhile can't write to it where it has the exclusive lock.
        """
        with self._alone(f"revert to snapshot {name}", image, check) as opened:
            opened.rollback_to_snap(name)
            return opened.size()

    def write(self, image: Image, pieces: t.Iterator[t.Tuple[int, bytes]], check: t.Callable[[], None]) -> None:
        """Makes an image these pieces (where, bytes), and zeros elsewhere, if `check` finds nothing against it; as `revert`."""
        with self._alone("write to", image, check) as opened:
            size = opened.size()
            for start in range(0, size, _DISCARD):
                opened.discard(start, min(_DISCARD, size - start))
            for start, piece in pieces:
                opened.write(piece, start)
            opened.flush()

    @contextlib.contextmanager
    def _alone(self, what: str, image: Image, check: t.Callable[[], None]) -> t.Iterator[t.Any]:
        """Has an image open that nobody else may write to: locked, where it has the exclusive lock, and looked at after that."""
        with self._open_image(what, image) as opened:
            if opened.features() & rbd.RBD_FEATURE_EXCLUSIVE_LOCK:
                opened.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
            check()
            yield opened

    @contextlib.contextmanager
    def reading(self, image: Image, snapshot: t.Optional[str]) -> t.Iterator[Readable]:
        """Has an image, or a snapshot of it, open for reading."""
        with self._open_image("read", image, read_only=True) as opened:
            if snapshot is not None:
                opened.set_snap(snapshot)
            yield _OpenImage(opened, lambda: self.asked(f"read image {image.name}"))

    # ---- clones

    def clone(self, parent: Image, snapshot: str, name: str, shared: bool) -> None:
        """Makes an image that begins as a snapshot of another one, whose image-meta it takes along."""
        with self.asked(f"clone image {parent.name} to {self.place.path}/{name}"):
            self.client.conf_set("rbd_default_clone_format", "2")
            try:
                rbd.RBD().clone(self.io, parent.name, snapshot, self.io, name, features=self.features_of(shared), data_pool=self.place.data_pool)
            except (rbd.InvalidArgument, rbd.FunctionNotSupported) as error:
                raise Failed(
                    f"image {parent.name} can't be cloned: it lacks the feature layering, or pool {self.place.pool} insists on Ceph's first format of clones; "
                    f"give it that feature, or take rbd_default_clone_format away (rbd config pool ls {self.place.pool})"
                ) from error

    def clones(self, image: Image, snapshot: t.Optional[str] = None) -> t.List[Clone]:
        """What was cloned from an image, or from one of its snapshots, in whatever pool."""
        with self._open_image("list the clones of", image, read_only=True) as opened, contextlib.suppress(rbd.ImageNotFound):
            if snapshot is not None:
                opened.set_snap(snapshot)
            return [self._clone(one) for one in opened.list_children2()]
        return []

    def _clone(self, one: t.Mapping[str, t.Any]) -> Clone:
        path = "/".join(filter(None, (one["pool"], one["pool_namespace"], one["image"])))
        where = " in the trash" if one["trash"] else ""
        handle = (one["pool"], one["pool_namespace"], one["id"])
        return Clone(f"rbd:{path}{where}", handle, bound=self._is_bound(*handle))

    def _is_bound(self, pool: str, namespace: str, key: str) -> bool:
        """Whether snapshots of a clone would go on sharing after it was flattened."""
        with self.client.open_ioctx(pool) as io:
            io.set_namespace(namespace)
            with contextlib.suppress(rbd.ImageNotFound), rbd.Image(io, image_id=key, read_only=True) as opened:
                return not opened.features() & rbd.RBD_FEATURE_DEEP_FLATTEN and bool(list(opened.list_snaps()))
        return False

    def flatten(self, clone: Clone) -> None:
        """Copies what a clone shares with its parent; nothing where it shares nothing any more."""
        pool, namespace, key = clone.handle
        with self.asked(f"copy what {clone.path} shares"), self.client.open_ioctx(pool) as io:
            io.set_namespace(namespace)
            with contextlib.suppress(rbd.ImageNotFound), rbd.Image(io, image_id=key) as opened:
                if _parent(opened):
                    opened.flatten()

    def own(self, image: Image) -> Clone:
        """The image itself as something that `flatten` takes."""
        return Clone(f"{self.place.path}/{image.name}", (self.place.pool, self.place.namespace, image.key))

    def depth(self, image: Image, most: int) -> int:
        """From how many images, one behind the other, an image descends; counts to `most` + 1, and in this pool."""
        depth, key = 0, t.cast(t.Optional[str], image.key)
        while key is not None and depth <= most:
            with self.asked(f"tell where image {image.name} comes from"), rbd.Image(self.io, image_id=key, read_only=True) as opened:
                parent = _parent(opened)
                depth += parent is not None
                key = opened.parent_id() if parent == (self.place.pool, self.place.namespace) else None
        return depth

    # ---- the trash

    def retire(self, image: Image) -> None:
        """Moves an image to the trash, from where `sweep` removes it when it may."""
        with self.asked(f"move image {image.name} to the trash"):
            try:
                rbd.RBD().trash_move(self.io, image.name, 0)
            except rbd.ImageNotFound as error:
                raise Failed(f"image {image.name} can't be moved to the trash of pool {self.place.pool}; see with ceph -s whether it has room") from error

    def trashed(self) -> t.List[Image]:
        """The images in the trash that are named as ours are."""
        with self.asked(f"look into the trash of {self.place.path}"):
            listed = [Image(one["name"], one["id"], 0) for one in rbd.RBD().trash_list(self.io)]
            found = [self._image(image.name, image.key) for image in listed if image.volume_id]
        return [image for image in found if image is not None]

    def sweep(self, image: Image) -> bool:
        """Removes an image from the trash for good; whether it did.

        Somebody may have found it there and opened it, or Ceph keeps it for a while yet: by the pool's wish, or by the clock of another host.
        """
        kept = (rbd.ImageNotFound, rbd.ImageBusy, rbd.ImageHasSnapshots, rbd.PermissionError)
        with self.asked(f"remove image {image.name} from the trash"), contextlib.suppress(*kept):
            rbd.RBD().trash_remove(self.io, image.key)
            return True
        return False


class _OpenImage(Readable):
    def __init__(self, opened: t.Any, asked: t.Callable[[], t.ContextManager[None]]) -> None:
        self.opened, self.asked = opened, asked
        self.size_bytes = opened.size()

    def extents(self) -> t.Iterator[t.Tuple[int, int]]:
        """As the objects themselves tell: the map of objects, which would be faster, may be old while somebody writes."""
        found: t.List[t.Tuple[int, int]] = []
        with self.asked():
            self.opened.diff_iterate(0, self.size_bytes, None, lambda start, size, exists: found.append((start, start + size)) if exists else None)
        return iter(found)

    def read(self, start: int, size: int) -> bytes:
        with self.asked():
            return self.opened.read(start, size)


def _parent(opened: t.Any) -> t.Optional[t.Tuple[str, str]]:
    """Pool and namespace of the image that a clone descends from; None where it shares nothing."""
    try:
        spec = opened.get_parent_image_spec()
    except rbd.ImageNotFound:
        return None
    return spec["pool_name"], spec["pool_namespace"]
