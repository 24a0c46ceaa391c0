# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Target daemons in memory, never looser than tgtd and LIO: they refuse what those refuse, and what would open a door by accident."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from typing import Any, Sequence

from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.target import Acl, Export, Lun, Portal, Session, Target, ordered
from ansible_collections.stackless.block.plugins.module_utils._targets import ACCOUNTS, PORTALS, Look, TargetBackend, Traits, backing, holder, traits
from ansible_collections.stackless.block.plugins.module_utils._targets._lio_shape import wwid_of


@dataclasses.dataclass
class Daemon:
    """One target of the daemon: doors by name and by address, incoming accounts, the outgoing one."""

    luns: dict[int, Lun] = dataclasses.field(default_factory=dict)
    doors: list[str] = dataclasses.field(default_factory=list)
    addresses: set[str] = dataclasses.field(default_factory=set)
    accounts: list[str] = dataclasses.field(default_factory=list)
    outgoing: str | None = None
    sessions: list[Session] = dataclasses.field(default_factory=list)


class FakeTargets(TargetBackend):
    shared_portals = chap_per_target = mutual_per_target = global_accounts = True
    where = "the fake"
    bstypes = ("rdwr", "aio")

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.targets: dict[str, Daemon] = {}
        self.saved: dict[str, Target] = {}
        self.passwords: dict[str, Secret] = {}  # of all accounts, which are global
        self.portals: set[Portal] = {Portal("127.0.0.1", 3260)}

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(vars(self))

    def restart(self) -> None:
        """The daemon forgets all but what it was started with."""
        self.targets, self.passwords, self.portals = {}, {}, {Portal("127.0.0.1", 3260)}

    def observe(self, looks: Sequence[Look]) -> dict[Any, Any]:
        users = {name: frozenset(iqn for iqn, d in self.targets.items() if name in [*d.accounts, d.outgoing]) for name in self.passwords}
        world: dict[Any, Any] = {PORTALS: frozenset(self.portals), ACCOUNTS: users}
        for look in looks:
            saved = self.saved.get(look.iqn)
            daemon = self.targets.get(look.iqn)
            live = self._live(look, saved or Target(look.iqn), daemon) if daemon else None
            if live or saved:
                world[look.iqn] = Export(live, saved, sessions=tuple(daemon.sessions) if daemon else ())
            for path in look.paths | {lun.path for lun in (saved.luns if saved else ())}:
                if path in self.sizes:
                    world[backing(path)] = self.sizes[path]
        return world

    def _live(self, look: Look, record: Target, daemon: Daemon) -> Target:
        acls = tuple(self._acl(name, record.acl(name), daemon) for name in daemon.doors)
        used = {name for acl in acls for name in (acl.username, acl.mutual_username)}
        known = {name for acl in record.acls for name in (acl.username, acl.mutual_username)} | record.strays
        there = {*daemon.accounts, daemon.outgoing} - {None} | (set(self.passwords) & known)
        portals = frozenset((record.portals | look.portals) & self.portals)
        strays, outgoing = frozenset(there - used), None if daemon.outgoing in used else daemon.outgoing
        return ordered(Target(look.iqn, portals, tuple(daemon.luns.values()), acls, frozenset(daemon.addresses), strays, outgoing))

    def _acl(self, name: str, saved: Acl | None, daemon: Daemon) -> Acl:
        if saved is None or saved.username not in daemon.accounts:
            return Acl(name)
        password = saved.password if self.passwords[saved.username] == saved.password else None
        if saved.mutual_username != daemon.outgoing or saved.mutual_username is None:
            return Acl(name, saved.username, password)
        mutual = saved.mutual_password if self.passwords[saved.mutual_username] == saved.mutual_password else None
        return Acl(name, saved.username, password, saved.mutual_username, mutual)

    def names(self) -> set[str]:
        return set(self.targets) | set(self.saved)

    def presumed(self, path: str) -> Traits:
        return Traits({"bstype": "rdwr", "discard": None}, fixed=frozenset({"discard"}))

    def wwid(self, serial: str) -> str:
        return "naa.6" + hashlib.sha256(serial.encode()).hexdigest()[:31]

    def save(self, target: Target) -> None:
        self.saved[target.iqn] = target

    def forget(self, iqn: str) -> None:
        self.saved.pop(iqn, None)

    def create(self, iqn: str) -> None:
        assert iqn not in self.targets, "this target already exists"
        self.targets[iqn] = Daemon()

    def delete(self, iqn: str) -> None:
        assert not self.targets[iqn].sessions, "this target is still active"
        del self.targets[iqn]

    def add_portal(self, iqn: str, portal: Portal) -> None:
        assert portal not in self.portals, "address in use"
        self.portals.add(portal)

    def add_lun(self, iqn: str, lun: Lun, kept_off: frozenset[str] = frozenset()) -> None:
        assert lun.lun not in self.targets[iqn].luns, "this logical unit number already exists"
        self.targets[iqn].luns[lun.lun] = dataclasses.replace(lun, size_bytes=self.sizes[lun.path])

    def identify_lun(self, iqn: str, lun: Lun) -> None:
        self.targets[iqn].luns[lun.lun] = lun

    def remove_lun(self, iqn: str, number: int) -> None:
        assert not self.targets[iqn].sessions, "a LUN in use was removed"
        del self.targets[iqn].luns[number]

    def admit(self, iqn: str, acl: Acl) -> None:
        daemon = self.targets[iqn]
        if acl.username:
            self.passwords[acl.username] = acl.password
            if acl.username not in daemon.accounts:
                daemon.accounts.append(acl.username)
        if acl.mutual_username:
            self.passwords[acl.mutual_username] = acl.mutual_password
            daemon.outgoing = acl.mutual_username
        if acl.initiator not in daemon.doors:
            daemon.doors.append(acl.initiator)

    def deny(self, iqn: str, initiator: str) -> None:
        daemon = self.targets[iqn]
        assert initiator not in [s.initiator for s in daemon.sessions], "a session lost its ACL"
        daemon.doors.remove(initiator)

    def drop_address(self, iqn: str, address: str) -> None:
        self.targets[iqn].addresses.remove(address)

    def drop_account(self, iqn: str, username: str) -> None:
        daemon = self.targets.get(iqn) or Daemon()
        if username in daemon.accounts:
            daemon.accounts.remove(username)
            wishes_chap = any(acl.username for acl in self.saved[iqn].acls if acl.initiator in daemon.doors) if iqn in self.saved else False
            assert daemon.accounts or not (daemon.doors and wishes_chap), "a door stands open without any account"
        if daemon.outgoing == username:
            daemon.outgoing = None
        if not any(username in [*d.accounts, d.outgoing] for d in self.targets.values()):
            self.passwords.pop(username, None)


class FakeLio(TargetBackend):
    """LIO in memory, as far as targets see it: an ACL has its own secrets, and what is saved is a copy of what runs."""

    where = "the fake"
    per_acl_read_only = saves_live = enables = True
    first_lun, last_lun = 0, 255
    bstypes = ("block", "fileio")
    growing = frozenset({"block"})
    changeable = frozenset({"discard", "attributes"})
    own_attributes = frozenset({"authentication", "emulate_tpu"})

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.live: dict[str, Target] = {}
        self.saved: dict[str, Target] = {}
        self.sessions: dict[str, tuple[Session, ...]] = {}
        self.unsaved: set[str] = set()  # targets changed since they were saved
        self.held: dict[str, str] = {}  # data that someone else has open, and who

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(vars(self))

    def observe(self, looks: Sequence[Look]) -> dict[Any, Any]:
        world: dict[Any, Any] = {PORTALS: frozenset()}
        for look in looks:
            live, saved = self._seen(self.live.get(look.iqn), look), self._seen(self.saved.get(look.iqn), look)
            if live:
                luns = tuple(dataclasses.replace(lun, size_bytes=self.sizes[lun.path] if lun.bstype == "block" else lun.size_bytes) for lun in live.luns)
                live = dataclasses.replace(live, luns=luns)
            if live or saved:
                world[look.iqn] = Export(live, saved, intact=look.iqn not in self.unsaved, sessions=self.sessions.get(look.iqn, ()))
            for path in look.paths | {lun.path for lun in (saved.luns if saved else ())}:
                if path in self.sizes:
                    world.update({backing(path): self.sizes[path], traits(path): self.presumed(path)})
                if path in self.held:
                    world[holder(path)] = self.held[path]
        return world

    def _seen(self, target: Target | None, look: Look) -> Target | None:
        """Attributes are told as far as they are asked for."""
        if target is None:
            return None
        asked = {lun.lun: one.attributes for one in look.luns if (lun := target.meant(one.lun, one.path, one.serial))}
        luns = tuple(dataclasses.replace(lun, attributes=only(lun.attributes, asked.get(lun.lun, frozenset()))) for lun in target.luns)
        return dataclasses.replace(target, luns=luns, attributes=only(target.attributes, look.attributes))

    def names(self) -> set[str]:
        return set(self.live) | set(self.saved)

    def presumed(self, path: str) -> Traits:
        if path.startswith("/dev/"):
            return Traits({"bstype": "block", "discard": True, "write_cache": True}, fixed=frozenset({"bstype", "write_cache"}))
        return Traits({"bstype": "fileio", "discard": True, "write_cache": False}, fixed=frozenset({"bstype"}))

    def wwid(self, serial: str) -> str:
        return wwid_of(serial)

    def save(self, target: Target) -> None:
        live = self.live[target.iqn]
        self.saved[target.iqn] = dataclasses.replace(live, luns=tuple(dataclasses.replace(lun, size_bytes=None) for lun in live.luns))
        self.unsaved.discard(target.iqn)

    def forget(self, iqn: str) -> None:
        self.saved.pop(iqn, None)

    def _change(self, iqn: str, **parts: Any) -> None:
        self.live[iqn] = ordered(dataclasses.replace(self.live[iqn], **parts))
        self.unsaved.add(iqn)

    def create(self, iqn: str) -> None:
        assert iqn not in self.live, "this target already exists"
        saved = self.saved.get(iqn, Target(iqn))
        self.live[iqn] = Target(iqn, addresses=saved.addresses, enabled=False, attributes=(("default_cmdsn_depth", "64"), ("login_timeout", "15")))

    def enable(self, iqn: str) -> None:
        saved = self.saved.get(iqn, Target(iqn)).attributes
        kept = tuple(pair for pair in self.live[iqn].attributes if pair[0] not in dict(saved))
        self._change(iqn, enabled=True, attributes=tuple(sorted(kept + saved)))

    def set_attributes(self, iqn: str, attributes: tuple[tuple[str, str], ...]) -> None:
        self._change(iqn, attributes=tuple(sorted({**dict(self.live[iqn].attributes), **dict(attributes)}.items())))

    def delete(self, iqn: str) -> None:
        assert not self.sessions.get(iqn), "a session lost its target"
        del self.live[iqn]
        self.unsaved.discard(iqn)

    def add_portal(self, iqn: str, portal: Portal) -> None:
        assert not self.live[iqn].enabled or self.live[iqn].portals or portal not in self.live[iqn].portals
        self._change(iqn, portals=self.live[iqn].portals | {portal})

    def remove_portal(self, iqn: str, portal: Portal) -> None:
        assert not self.sessions.get(iqn), "a session lost its portal"
        self._change(iqn, portals=self.live[iqn].portals - {portal})

    def add_lun(self, iqn: str, lun: Lun, kept_off: frozenset[str] = frozenset()) -> None:
        assert not self.live[iqn].lun(lun.lun), "this LUN already exists"
        users = [one.path for target in self.live.values() for one in target.luns] + list(self.held)
        assert lun.path not in users, "the device is in use"
        luns = (*self.live[iqn].luns, dataclasses.replace(lun, size_bytes=self.sizes[lun.path]))
        acls = tuple(acl if acl.read_only == (acl.initiator in kept_off) else dataclasses.replace(acl, mapped=False) for acl in self.live[iqn].acls)
        self._change(iqn, luns=luns, acls=acls)

    def change_lun(self, iqn: str, lun: Lun) -> None:
        before = self.live[iqn].lun(lun.lun)
        same = dataclasses.replace(lun, discard=before.discard, attributes=before.attributes, size_bytes=before.size_bytes)
        assert same == before, "this does not change in place"
        self._change(iqn, luns=(*(one for one in self.live[iqn].luns if one.lun != lun.lun), lun))

    def remove_lun(self, iqn: str, number: int) -> None:
        assert not self.sessions.get(iqn), "a LUN in use was removed"
        self._change(iqn, luns=tuple(lun for lun in self.live[iqn].luns if lun.lun != number))

    def admit(self, iqn: str, acl: Acl) -> None:
        assert not acl.username or acl.password, "a door for a secret that nobody knows"
        others = tuple(one for one in self.live[iqn].acls if one.initiator != acl.initiator)
        self._change(iqn, acls=(*others, dataclasses.replace(acl, mapped=True)))

    def deny(self, iqn: str, initiator: str) -> None:
        assert initiator not in [s.initiator for s in self.sessions.get(iqn, ())], "a session lost its ACL"
        self._change(iqn, acls=tuple(acl for acl in self.live[iqn].acls if acl.initiator != initiator))

    def drop_address(self, iqn: str, address: str) -> None:
        self._change(iqn, addresses=self.live[iqn].addresses - {address})


def only(attributes: tuple[tuple[str, str], ...], names: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in attributes if pair[0] in names)
