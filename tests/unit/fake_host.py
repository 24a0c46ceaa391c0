# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of domains in memory, no looser than libvirt: what libvirt refuses, it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from ansible_collections.stackless.block.plugins.module_utils._hosts import DiskHost
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Chap, ChapKey, Disk, DiskKey, Domain, DomainDisk, DomainKey, Iotune, Record


class FakeHost(DiskHost):
    """Keeps for each domain its copies and notes, by scope; `writes` counts what was done to it."""

    where = "test:///fake"

    def __init__(self) -> None:
        self.domains: dict[str, Domain] = {}
        self.copies: dict[tuple[str, str], dict[str, Disk]] = {}
        self.records: dict[tuple[str, str], dict[str, Record]] = {}
        self.chaps: dict[str, Chap] = {}
        self.sizes: dict[tuple[Any, ...], int] = {}
        self.writes = 0

    def add(self, name: str, active: bool = True, persistent: bool = True) -> FakeHost:
        self.domains[name] = Domain(name, "uuid-" + name, active, persistent)
        for scope in [scope for scope, has in (("live", active), ("config", persistent)) if has]:
            self.copies[name, scope], self.records[name, scope] = {}, {}
        return self

    def put(self, domain: str, disk: Disk, *scopes: str) -> FakeHost:
        for scope in scopes:
            self.copies[domain, scope][disk.key] = disk
        return self

    def observe(self) -> dict[Any, Any]:
        world: dict[Any, Any] = {DomainKey(name): domain for name, domain in self.domains.items()}
        world.update({ChapKey(iqn): chap for iqn, chap in self.chaps.items()})
        for name in self.domains:
            found: dict[str, dict[str, Any]] = {}
            for scope in ("live", "config"):
                for key, disk in self.copies.get((name, scope), {}).items():
                    found.setdefault(key, {})[scope] = disk
                for key, record in self.records.get((name, scope), {}).items():
                    found.setdefault(key, {})[f"{scope}_record"] = record
            for key, parts in found.items():
                world[DiskKey(name, key)] = self._complete(DomainDisk(name, **parts))
        return world

    def _complete(self, disk: DomainDisk) -> DomainDisk:
        chap = next((self.chaps[iqn] for iqn in sorted(disk.targets) if iqn in self.chaps), None)
        size = self.sizes.get(disk.live.source.identity) if disk.live else None
        return dataclasses.replace(disk, password=chap.password if chap else None, size_bytes=size)

    def trace(self) -> str:
        """Everything a write would change; values of secrets by the number of writes."""
        return repr(vars(self))

    # ---- the verbs

    def write_record(self, domain: str, record: Record, scopes: Sequence[str]) -> None:
        self.writes += 1
        for scope in scopes:
            self.records[domain, scope][record.alias] = record

    def drop_record(self, domain: str, alias: str, scopes: Sequence[str]) -> None:
        self.writes += 1
        for scope in scopes:
            self.records[domain, scope].pop(alias, None)

    def set_chap(self, target_iqn: str, password: Secret) -> None:
        self.writes += 1
        self.chaps[target_iqn] = Chap(target_iqn, password, True)

    def drop_chap(self, target_iqn: str) -> None:
        self.writes += 1
        assert self.chaps.pop(target_iqn).ours

    def attach(self, domain: str, disk: Disk, scopes: Sequence[str]) -> None:
        self.writes += 1
        for scope in scopes:
            there = self.copies[domain, scope]
            assert disk.key not in there, "non unique alias detected"
            assert disk.device not in {other.device for other in there.values()}, "target already exists"
        if "live" in scopes and disk.source.username:
            assert self.chaps[str(disk.source.target_iqn)].password is not None, "Secret not found"
        self.put(domain, disk, *scopes)

    def update(self, domain: str, disk: Disk) -> None:
        self.writes += 1
        before = self.copies[domain, "config"][disk.key]
        assert (before.device, before.bus) == (disk.device, disk.bus)
        self.put(domain, disk, "config")

    def limit(self, domain: str, device: str, iotune: Iotune) -> None:
        self.writes += 1
        live = next(disk for disk in self.copies[domain, "live"].values() if disk.device == device)
        self.put(domain, dataclasses.replace(live, iotune=iotune), "live")

    def resize(self, domain: str, device: str, size_bytes: int) -> None:
        self.writes += 1
        live = next(disk for disk in self.copies[domain, "live"].values() if disk.device == device)
        assert self.sizes[live.source.identity] < size_bytes
        self.sizes[live.source.identity] = size_bytes

    def detach(self, domain: str, name: str) -> None:
        self.writes += 1
        self.copies[domain, "config"].pop(name, None)

    def unplug(self, domain: str, name: str) -> None:
        self.writes += 1
        self.copies[domain, "live"].pop(name, None)
