# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of domains in memory, no looser than libvirt: what libvirt refuses, it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from ansible_collections.stackless.block.plugins.module_utils._hosts import DiskHost
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.disk import RBD_CONFIG, Disk, DiskKey, DiskSecret, Domain, DomainDisk
from ansible_collections.stackless.block.plugins.module_utils._model.disk import DomainKey, Image, ImageKey, Iotune, Record, SecretKey


class FakeHost(DiskHost):
    """Keeps for each domain its copies and notes, by scope; `writes` counts what was done to it."""

    where = "test:///fake"
    rbd_config = "/etc/rbd.conf"

    def __init__(self) -> None:
        self.domains: dict[str, Domain] = {}
        self.copies: dict[tuple[str, str], dict[str, Disk]] = {}
        self.records: dict[tuple[str, str], dict[str, Record]] = {}
        self.secrets: dict[SecretKey, DiskSecret] = {}
        self.images: dict[str, Image] = {}
        self.has_rbd_config = False
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
        world.update({**self.secrets, RBD_CONFIG: self.has_rbd_config, **{ImageKey(path): image for path, image in self.images.items()}})
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
        secret = next((self.secrets[key] for key in sorted(disk.secrets, key=str) if key in self.secrets), None)
        size = self.sizes.get(disk.live.source.identity) if disk.live else None
        return dataclasses.replace(disk, password=secret.value if secret else None, size_bytes=size)

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

    def set_secret(self, key: SecretKey, value: Secret) -> None:
        self.writes += 1
        self.secrets[key] = DiskSecret(key, value, True)

    def drop_secret(self, key: SecretKey) -> None:
        self.writes += 1
        assert self.secrets.pop(key).ours

    def write_rbd_config(self) -> None:
        self.writes += 1
        self.has_rbd_config = True

    def attach(self, domain: str, disk: Disk, scopes: Sequence[str]) -> None:
        self.writes += 1
        for scope in scopes:
            there = self.copies[domain, scope]
            assert disk.key not in there, "non unique alias detected"
            assert disk.device not in {other.device for other in there.values()}, "target already exists"
        if "live" in scopes and disk.source.username:
            assert disk.source.secret and self.secrets[disk.source.secret].value is not None, "Secret not found"
        assert disk.source.config != self.rbd_config or self.has_rbd_config, "error reading conf file"
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
