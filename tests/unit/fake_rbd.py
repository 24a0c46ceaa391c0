# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pool of a Ceph cluster in memory, with the verbs of _rbd_cluster.Cluster. It refuses what the real one refuses."""

from __future__ import annotations

from typing import Any

import contextlib
import dataclasses

from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Refused
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import Image

DF = {"stats": {"total_bytes": 1 << 40}, "pools": [{"name": "volumes", "stats": {"stored": 1 << 36, "max_avail": 1 << 38}}]}
MONITORS = {"mons": [{"public_addrs": {"addrvec": [{"type": "v2", "addr": "192.0.2.1:3300"}, {"type": "v1", "addr": "192.0.2.1:6789"}]}}]}


class FakeCluster:
    keyring = ""
    fsid = "f51d0000-0000-4000-8000-000000000001"
    key: Any = None

    def __init__(self) -> None:
        self.found: dict[str, Image] = {}  # by key
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
        return list(self.found.values())

    def image(self, image):
        return self.found.get(image.key)

    def named(self, name):
        return next((image for image in self.found.values() if image.name == name), None)

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
        if image.snapshots:
            raise Refused("it has snapshots: s1")
        self._write()
        self.found.pop(image.key, None)

    def watchers(self, image):
        return self.opened.get(image.name, [])

    def built_upon(self, image):
        return "it has snapshots: s1"

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
