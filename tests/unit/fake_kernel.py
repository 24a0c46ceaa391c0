# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's kernel with devices of a cluster's images, in memory, no looser than krbd: what it refuses, this refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.stackless.block.plugins.module_utils._errors import NotFound
from ansible_collections.stackless.block.plugins.module_utils._hosts import GROUND, MappingHost
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Image, Source
from ansible_collections.stackless.block.plugins.module_utils._model.mapping import KernelGround, LookKey, Mapping, MappingKey
from ansible_collections.stackless.block.plugins.module_utils._model.session import Holder

FSID, OTHER_FSID = "5c000000-0000-4000-8000-000000000001", "5c000000-0000-4000-8000-000000000002"
MONITORS = (("192.0.2.1", 6789),)
IMAGE = "volumes/a-1"
MIB = 1 << 20
FEATURES = 61


class FakeKernel(MappingHost):
    """`images` are those of the cluster behind MONITORS, by name; `devices` what the kernel shows, by number."""

    rule = "/rules"

    def __init__(self, loaded: bool = True, ruled: bool = True) -> None:
        self.ground = KernelGround(loaded=loaded, ruled=ruled)
        self.images = {IMAGE: Image(MIB, (), None, FSID, "id-1", FEATURES), "volumes/a-10": Image(MIB, (), None, FSID, "id-10", FEATURES)}
        self.devices: dict[int, Mapping] = {}
        self.held: dict[int, tuple[Holder, ...]] = {}
        self.unlinked: set[int] = set()
        self.writes = 0

    def observe(self) -> dict[Any, Any]:
        world: dict[Any, Any] = {GROUND: self.ground}
        for name in (*self.images, "volumes/none"):
            missing = Image(error=NotFound(f"there is no image {name} in the cluster"), cluster=FSID)
            world[LookKey(name, MONITORS)] = self.images.get(name, missing)
        for number, each in sorted(self.devices.items()):
            seen = dataclasses.replace(each, holders=self.held.get(number, ()), linked=self.ground.ruled and number not in self.unlinked)
            known = world.setdefault(MappingKey(each.cluster, each.image), seen)
            if known is not seen:
                world[MappingKey(each.cluster, each.image)] = dataclasses.replace(known, twin=number)
        return world

    def trace(self) -> str:
        return repr(vars(self))

    def watched(self, name: str, client: str, there: bool) -> None:
        image = self.images[name]
        others = image.others(client)
        self.images[name] = dataclasses.replace(image, holders=(*others, f"192.0.2.7 ({client})") if there else others)

    # ---- the verbs

    def load(self) -> None:
        self.writes += 1
        self.ground = dataclasses.replace(self.ground, loaded=True)

    def write_rule(self) -> None:
        self.writes += 1
        self.unlinked = set(self.devices)  # udev has seen those before
        self.ground = dataclasses.replace(self.ground, ruled=True)

    def map(self, wish: Mapping, source: Source, key: Any, shared: bool) -> None:
        self.writes += 1
        image = self.images[wish.image]
        assert self.ground.loaded and key and source.portals == MONITORS and source.path == wish.image
        assert shared or not image.holders, "open elsewhere"
        assert not wish.exclusive or image.features & 4, "exclusive-lock feature is not enabled"
        number = next(n for n in range(9) if n not in self.devices)
        client = f"client.{4000 + self.writes}"
        made = {"size_bytes": image.size_bytes, "image_id": image.image_id, "number": number, "client": client}
        self.devices[number] = dataclasses.replace(wish, **made)
        self.unlinked.discard(number)
        if not wish.read_only:
            self.watched(wish.image, client, there=True)

    def refresh(self, mapping: Mapping) -> None:
        self.writes += 1
        size = self.images[mapping.image].size_bytes
        self.devices[mapping.number] = dataclasses.replace(self.devices[mapping.number], size_bytes=size)

    def announce(self, mapping: Mapping) -> None:
        self.writes += 1
        self.unlinked.discard(mapping.number)

    def flush(self, mapping: Mapping) -> None:
        self.writes += 1
        assert mapping.number in self.devices

    def unmap(self, wish: Mapping) -> None:
        self.writes += 1
        for number, each in list(self.devices.items()):
            if (each.image, each.cluster) == (wish.image, wish.cluster) and wish.number in (None, number):
                assert not self.held.get(number), "the device is in use"
                del self.devices[number]
                if each.image in self.images and each.cluster == FSID:
                    self.watched(each.image, str(each.client), there=False)
