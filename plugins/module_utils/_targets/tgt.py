# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""tgt: targets of a tgtd, live over its socket and saved as files for tgt-admin.

What shapes this file, all seen on tgt 1.0.85:
- A target without any account asks nobody for CHAP. So an account is never away while a door is open.
- Accounts stand in slots. Unbinding one that is not the last leaves a hole: the last account is not
  found any more, and the next `show target` kills the daemon. So accounts are only ever taken from the
  end; those behind the one to go are taken off before, and put back after.
- Doors are names or addresses, and any open one suffices.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from .._errors import Unavailable
from .._model.data import Secret
from .._model.target import Acl, Export, Lun, Portal, Session, Target, ordered
from . import ACCOUNTS, ELSEWHERE, PORTALS, Look, TargetBackend, Traits, backing
from ._here import size_of, why_not
from ._chap_probe import Fit, try_door
from ._tgt_file import CACHE_OFF, NOBODY, Saved, TargetFiles, scsi_id
from ._tgtd_ipc import EXISTS, MISSING, Shown, ShownLun, Tgtd, parse_accounts, parse_portals, parse_targets, shown_megabytes

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # listening everywhere, and where to try that
_NAMES = ("iqn.", "eui.", "naa.")
_MEGABYTE = 1000000


class TgtBackend(TargetBackend):
    """All verbs change what `observe` saw along with the daemon, so that a verb needs no look of its own."""

    shared_portals = chap_per_target = mutual_per_target = global_accounts = True
    bstypes = ("rdwr", "aio")

    def __init__(self, control_port: int, ipc_socket: str, config_dir: str) -> None:
        self.tgtd = Tgtd(ipc_socket, control_port)
        self.files = TargetFiles(config_dir)
        self.where = self.tgtd.address
        self.lock_path = config_dir
        self.files.check()
        self._shown: t.Dict[str, Shown] = {}
        self._accounts: t.Set[str] = set()
        self._known: t.Dict[str, t.Set[str]] = {}  # by target, the accounts that its saved form names

    # ---- looking

    def observe(self, looks: t.Sequence[Look]) -> t.Dict[t.Hashable, t.Any]:
        self._shown = parse_targets(self.tgtd.ask("target", "show"))
        self._accounts = parse_accounts(self.tgtd.ask("account", "show"))
        served = frozenset(Portal(*portal) for portal in parse_portals(self.tgtd.ask("portal", "show")))
        world: t.Dict[t.Hashable, t.Any] = {ACCOUNTS: self._users()}
        reached = set(served)
        for look in looks:
            saved = self.files.read(look.iqn)
            record = saved.target or Target(look.iqn)
            export = self._export(look, saved, served)
            reached |= {portal for portal in record.portals | look.portals if _serves(served, portal)}
            if export.target or export.obstacle or not export.intact:
                world[look.iqn] = export
            for path in look.paths | {lun.path for lun in record.luns}:
                size = size_of(path)
                if size is not None:
                    world[backing(path)] = size
        wished = {portal for look in looks for portal in look.portals} - reached
        return {**world, PORTALS: frozenset(reached), ELSEWHERE: {portal: why for portal in wished for why in why_not(portal)}}

    def names(self) -> t.Set[str]:
        return set(parse_targets(self.tgtd.ask("target", "show"))) | self.files.names()

    def _users(self) -> t.Dict[str, t.FrozenSet[str]]:
        users: t.Dict[str, t.Set[str]] = {name: set() for name in self._accounts}
        for shown in self._shown.values():
            for name in _bound(shown):
                users.setdefault(name, set()).add(shown.iqn)
        return {name: frozenset(iqns) for name, iqns in users.items()}

    def _export(self, look: Look, saved: Saved, served: t.FrozenSet[Portal]) -> Export:
        record = saved.target or Target(look.iqn)
        self._known[look.iqn] = _usernames(record)
        shown = self._shown.get(look.iqn)
        live = self._live(shown, record, look, served) if shown else None
        sessions = tuple(Session(*session) for session in shown.sessions) if shown else ()
        return Export(live, saved.target, saved.intact, sessions, saved.obstacle)

    def _live(self, shown: Shown, record: Target, look: Look, served: t.FrozenSet[Portal]) -> Target:
        doors = [door for door in shown.admitted if door != NOBODY]
        acls = tuple(self._acl(name, shown, record, look, served) for name in doors if name.startswith(_NAMES))
        used = {name for acl in acls for name in (acl.username, acl.mutual_username)}
        there = set(_bound(shown)) | (self._accounts & self._known[look.iqn])
        live = Target(
            iqn=shown.iqn,
            portals=frozenset(portal for portal in record.portals | look.portals if _serves(served, portal)),
            luns=tuple(_live_lun(lun, shown.tid, record.lun(lun.lun)) for lun in shown.luns if lun.lun),
            acls=acls,
            addresses=frozenset(door for door in doors if not door.startswith(_NAMES)),
            strays=frozenset(there - used),
            stray_mutual=None if shown.outgoing in used else shown.outgoing,
        )
        return ordered(live)

    def _acl(self, initiator: str, shown: Shown, record: Target, look: Look, served: t.FrozenSet[Portal]) -> Acl:
        """The ACL as far as it is true: a secret that does not open the door is not its secret."""
        acl = record.acl(initiator)
        if acl is None or acl.username not in shown.accounts:
            return Acl(initiator)
        if acl.mutual_username != shown.outgoing:
            acl = Acl(initiator, acl.username, acl.password)
        if initiator not in look.initiators:
            return acl
        fit = self._fit(acl, shown.iqn, record.portals | look.portals, served)
        fitting = {"password": acl.password if fit.incoming else None, "mutual_password": acl.mutual_password if fit.mutual else None}
        return dataclasses.replace(acl, **fitting)

    def _fit(self, acl: Acl, iqn: str, wished: t.FrozenSet[Portal], served: t.FrozenSet[Portal]) -> Fit:
        """Tries the door at the first served portal that answers."""
        portals = sorted(portal for portal in wished if _serves(served, portal)) or sorted(served)
        if not portals:
            raise Unavailable(f"tgtd at {self.where} listens at no portal, so that it can't be told whether the CHAP secrets of {iqn} still fit; give portals")
        problems: t.List[Unavailable] = []
        for portal in portals:
            try:
                return try_door(Portal(_ANY.get(portal.ip, portal.ip), portal.port), iqn, acl)
            except Unavailable as error:
                problems.append(error)
        raise problems[0]

    def presumed(self, path: str) -> Traits:
        return Traits({"bstype": "rdwr", "discard": None}, fixed=frozenset({"discard"}))

    def wwid(self, serial: str) -> str:
        return "naa.6" + hashlib.sha256(serial.encode()).hexdigest()[:31]

    # ---- the saved form

    def save(self, target: Target) -> None:
        self.files.write(target)
        self._known[target.iqn] = _usernames(target)

    def forget(self, iqn: str) -> None:
        self.files.remove(iqn)

    # ---- the target and its LUNs

    def create(self, iqn: str) -> None:
        tid = max((shown.tid for shown in self._shown.values()), default=0) + 1
        self.tgtd.ask("target", "new", f"targetname={iqn}", tid=tid)
        self._shown[iqn] = Shown(tid, iqn)

    def delete(self, iqn: str) -> None:
        shown = self._shown.pop(iqn, None)
        if shown is not None:
            self.tgtd.ask("target", "delete", tid=shown.tid)

    def add_portal(self, iqn: str, portal: Portal) -> None:
        self.tgtd.ask("portal", "new", f"portal={portal}")

    def add_lun(self, iqn: str, lun: Lun, kept_off: t.FrozenSet[str] = frozenset()) -> None:
        self.tgtd.ask("device", "new", f"path={lun.path},bstype={lun.bstype}", tid=self._shown[iqn].tid, lun=lun.lun)
        self.identify_lun(iqn, lun)

    def identify_lun(self, iqn: str, lun: Lun) -> None:
        changes = [f"scsi_id={scsi_id(lun.wwid)}"] if lun.wwid else []
        changes += [f"readonly={int(lun.read_only)}"]
        changes += [] if lun.write_cache else [f"mode_page={CACHE_OFF}"]
        changes += [f"scsi_sn={lun.serial}"] if lun.serial else []
        self.tgtd.ask("device", "update", ",".join(changes), tid=self._shown[iqn].tid, lun=lun.lun)

    def remove_lun(self, iqn: str, number: int) -> None:
        self.tgtd.ask("device", "delete", tid=self._shown[iqn].tid, lun=number, fine=MISSING)

    # ---- doors and accounts

    def admit(self, iqn: str, acl: Acl) -> None:
        shown = self._shown[iqn]
        doors = self._shut(shown) if acl.username in self._accounts else []
        if acl.mutual_username and acl.mutual_password:
            self._set_outgoing(shown, acl.mutual_username, acl.mutual_password)
        if acl.username and acl.password:
            self._remove_account(shown, acl.username)
            self._new_account(acl.username, acl.password)
            self._bind(shown, acl.username)
        for door in [*doors, acl.initiator]:
            self._open(shown, door)

    def deny(self, iqn: str, initiator: str) -> None:
        self._close(self._shown[iqn], initiator)

    def drop_address(self, iqn: str, address: str) -> None:
        self._close(self._shown[iqn], address)

    def drop_account(self, iqn: str, username: str) -> None:
        shown = self._shown.get(iqn) or Shown(0, iqn)
        # only where it comes first and others stay would the doors stand open without any account meanwhile
        doors = self._shut(shown) if shown.accounts[:1] == [username] and shown.accounts[1:] else []
        self._remove_account(shown, username)
        for door in doors:
            self._open(shown, door)

    def _shut(self, shown: Shown) -> t.List[str]:
        """Shuts every door; living sessions go on. Returns them, to be opened again."""
        doors = list(shown.admitted)
        for door in doors:
            self._close(shown, door)
        return doors

    def _open(self, shown: Shown, door: str) -> None:
        if door not in shown.admitted:
            self.tgtd.ask("target", "bind", _door(door), tid=shown.tid, fine=EXISTS)
            shown.admitted.append(door)

    def _close(self, shown: Shown, door: str) -> None:
        if door in shown.admitted:
            self.tgtd.ask("target", "unbind", _door(door), tid=shown.tid, fine=MISSING)
            shown.admitted.remove(door)

    def _new_account(self, username: str, password: Secret) -> None:
        self.tgtd.ask("account", "new", f"user={username},password={password.reveal()}")
        self._accounts.add(username)

    def _bind(self, shown: Shown, username: str) -> None:
        self.tgtd.ask("account", "bind", f"user={username}", tid=shown.tid, fine=EXISTS)
        shown.accounts.append(username)

    def _unbind_last(self, shown: Shown) -> None:
        self.tgtd.ask("account", "unbind", f"user={shown.accounts[-1]}", tid=shown.tid)
        shown.accounts.pop()

    def _remove_account(self, shown: Shown, username: str) -> None:
        """Unbinds without leaving a hole in the slots, then deletes the account unless another target uses it."""
        self._drop_outgoing(shown, username)
        if username in shown.accounts:
            behind = shown.accounts[shown.accounts.index(username) + 1 :]
            while username in shown.accounts:
                self._unbind_last(shown)
            for name in behind:
                self._bind(shown, name)
        if username in self._accounts and not any(username in _bound(other) for other in self._shown.values()):
            self.tgtd.ask("account", "delete", f"user={username}", fine=MISSING)
            self._accounts.discard(username)

    def _set_outgoing(self, shown: Shown, username: str, password: Secret) -> None:
        if shown.outgoing:
            self._drop_outgoing(shown, shown.outgoing)
        self._remove_account(shown, username)
        self._new_account(username, password)
        self.tgtd.ask("account", "bind", f"user={username}", tid=shown.tid, outgoing=True)
        shown.outgoing = username

    def _drop_outgoing(self, shown: Shown, username: str) -> None:
        if shown.outgoing == username:
            self.tgtd.ask("account", "unbind", f"user={username}", tid=shown.tid, outgoing=True, fine=MISSING)
            shown.outgoing = None


def _door(door: str) -> str:
    return f"initiator-name={door}" if door.startswith(_NAMES) else f"initiator-address={door}"


def _bound(shown: Shown) -> t.List[str]:
    return [*shown.accounts, *([shown.outgoing] if shown.outgoing else [])]


def _usernames(target: Target) -> t.Set[str]:
    pairs = [(acl.username, acl.mutual_username) for acl in target.acls]
    return {name for pair in pairs for name in pair if name} | target.strays


def _serves(served: t.FrozenSet[Portal], portal: Portal) -> bool:
    everywhere = Portal("::" if ":" in portal.ip else "0.0.0.0", portal.port)
    return portal in served or everywhere in served


def _live_lun(lun: ShownLun, tid: int, saved: t.Optional[Lun]) -> Lun:
    """`show target` rounds the size and knows nothing of the write cache: that is as it was saved."""
    size = size_of(lun.path) if lun.kind == "disk" else None
    if size is None or shown_megabytes(size) != lun.megabytes:
        size = lun.megabytes * _MEGABYTE
    own = lun.serial != f"beaf{tid}{lun.lun}"  # what tgtd gives by itself: the same on every host
    return Lun(
        lun=lun.lun,
        path=lun.path,
        serial=lun.serial if own else None,
        wwid=_naa(lun.scsi_id) if own else None,
        size_bytes=size,
        read_only=lun.read_only,
        bstype=lun.bstype,
        write_cache=saved.write_cache if saved else True,
    )


def _naa(text: str) -> str:
    """The designator that tgtd makes of a scsi_id: its last digits, what is no hexadecimal digit counts as 0."""
    digits = "".join(c.lower() if c in "0123456789abcdefABCDEF" else "0" for c in text)
    return "naa.6" + digits.rjust(32, "0")[-31:]
