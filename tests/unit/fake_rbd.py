# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pool of a Ceph cluster in memory, with the verbs of _rbd_lineage.Lineage. It refuses what the real one refuses."""

from __future__ import annotations

from typing import Any

import contextlib
import dataclasses

from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Failed, Refused
from ansible_collections.stackless.block.plugins.module_utils._volumes import Clone
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import Image

DF = {"stats": {"total_bytes": 1 << 40}, "pools": [{"name": "volumes", "stats": {"stored": 1 << 36, "max_avail": 1 << 38}}]}
MONITORS = {"mons": [{"public_addrs": {"addrvec": [{"type": "v2", "addr": "192.0.2.1:3300"}, {"type": "v1", "addr": "192.0.2.1:6789"}]}}]}


class FakeCluster:
    keyring = ""
    fsid = "f51d0000-0000-4000-8000-000000000001"
    key: Any = None

    def __init__(self) -> None:
        self.found: dict[str, Image] = {}  # by key
        self.trash: dict[str, Image] = {}  # by key
        self.snaps: dict[str, dict[str, int]] = {}  # by key of the image: their numbers by name
        self.hidden: dict[str, set[int]] = {}  # by key of the image: the numbers of removed ones that clones keep
        self.parents: dict[str, tuple[str, int]] = {}  # by key of the clone: key of the parent, and number of its snapshot
        self.opened: dict[str, list[str]] = {}  # by name of the image: who has it open
        self.noted: dict[str, str] = {}
        self.writes = 0
        self.made = 0
        self.locked = False
        self.answers = {"df": DF, "mon dump": MONITORS, "osd pool ls": [{"pool_name": "volumes", "flags_names": "hashpspool"}]}
        self.before_write = lambda: None

    def _write(self) -> None:
        self.before_write()
        self.writes += 1

    def ask(self, prefix, **words):
        return self.answers.get(prefix)

    def images(self):
        return [self._shown(image) for image in self.found.values()]

    def image(self, image):
        return self._shown(self.found.get(image.key))

    def named(self, name):
        return self._shown(next((image for image in self.found.values() if image.name == name), None))

    def _shown(self, image):
        kept = image and (image.snapshots or self.snaps.get(image.key) or self.hidden.get(image.key))
        return dataclasses.replace(image, snapshots=bool(kept)) if image else None

    def create(self, name, size_bytes, shared):
        assert self.named(name) is None
        self._write()
        self.made += 1
        self.found[f"k{self.made}"] = Image(name, f"k{self.made}", size_bytes)

    def share(self, image):
        self._write()

    def resize(self, image, size_bytes):
        self._write()
        have = self.found[image.key]
        assert size_bytes > have.size_bytes
        self.found[image.key] = dataclasses.replace(have, size_bytes=size_bytes)

    def remove(self, image):
        if self.watchers(image):
            raise Busy(", ".join(self.watchers(image)))
        self._write()
        self._delete(self.found, image)

    def _delete(self, where, image):
        now = self._shown(where.get(image.key))
        if now and now.snapshots:
            raise Refused("it has snapshots")
        self._detach(image.key)
        where.pop(image.key, None)

    def _detach(self, key):
        """A clone shares nothing any more: what was kept for it alone goes."""
        parent, _number = self.parents.pop(key, (None, 0))
        if parent:
            self.hidden[parent] &= {number for other, number in self.parents.values() if other == parent}

    # ---- lineage

    def snapshots(self, image):
        return sorted(self.snaps.get(image.key, {})) or (["s1"] if image.snapshots and not self.hidden.get(image.key) else [])

    def take(self, image, name):
        self._write()
        self.made += 1
        self.snaps.setdefault(image.key, {}).setdefault(name, self.made)

    def drop(self, image, name):
        self._write()
        number = self.snaps.get(image.key, {}).pop(name, None)
        if (image.key, number) in self.parents.values():
            self.hidden.setdefault(image.key, set()).add(number)

    @contextlib.contextmanager
    def watching(self, image):
        self.opened.setdefault(image.name, []).append("this run")
        try:
            yield
        finally:
            self.opened[image.name].remove("this run")

    def revert(self, image, name, check):
        with self.watching(image):
            check()
        self._write()
        if name not in self.snaps[image.key]:
            raise Failed(f"there is no snapshot {name}")
        self.found[image.key] = dataclasses.replace(self.found[image.key], size_bytes=self.reverted_bytes)
        return self.reverted_bytes

    reverted_bytes = 1 << 30

    def clone(self, parent, snapshot, name, shared):
        assert self.named(name) is None
        self._write()
        self.made += 1
        key = f"k{self.made}"
        self.found[key] = dataclasses.replace(self.found[parent.key], name=name, key=key, snapshots=False)
        self.parents[key] = (parent.key, self.snaps[parent.key][snapshot])
        self.hidden.setdefault(parent.key, set())

    def clones(self, image, snapshot=None):
        number = self.snaps.get(image.key, {}).get(snapshot)
        keys = [key for key, parent in self.parents.items() if parent[0] == image.key and snapshot in (None, snapshot if parent[1] == number else None)]
        return [self.own(self.found.get(key) or self.trash[key]) for key in keys]

    def own(self, image):
        where = " in the trash" if image.key in self.trash else ""
        return Clone(f"rbd:volumes/{image.name}{where}", ("volumes", "", image.key))

    def flatten(self, clone):
        self._write()
        self._detach(clone.handle[2])

    def depth(self, image, most):
        key, depth = image.key, 0
        while key in self.parents and depth <= most:
            key, depth = self.parents[key][0], depth + 1
        return depth

    def retire(self, image):
        self._write()
        self.trash[image.key] = self.found.pop(image.key)

    def trashed(self):
        return [self._shown(image) for image in self.trash.values()]

    def sweep(self, image):
        self._write()
        self._delete(self.trash, image)
        return True

    def watchers(self, image):
        return self.opened.get(image.name, [])

    def swap_record(self, image, text):
        self._write()
        have = self.found.get(image.key)
        if have is None or (have.record or "") != (image.record or ""):
            return False
        self.found[image.key] = dataclasses.replace(have, record=text)
        return True

    @contextlib.contextmanager
    def naming(self, seconds):
        if self.locked:
            raise Busy("another run is making or renaming a volume")
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    def notes(self):
        return dict(self.noted)

    def note(self, notes):
        assert self.locked or not {"naming", "generation"} & set(notes), "noted without the lock"
        self._write()
        self.noted.update(notes)
        self.noted = {key: text for key, text in self.noted.items() if text}
