# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what a target is to what it shall be: pure decisions, no reading, no writing.

A target has two parts: what this collection manages of it, which is saved, and what others put there.
The managed part is what was saved plus the wish; the others' part stays unless a purge is asked for.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Invalid, NotFound, Refused
from ._model.data import Secret
from ._model.target import Acl, Export, Lun, Portal, Target, ordered, own_serial
from ._reconcile import Plan, Step, World
from ._targets import ACCOUNTS, ELSEWHERE, PORTALS, TargetBackend, backing


@dataclasses.dataclass(frozen=True)
class LunWish:
    """What the user says of one LUN; None is what the user does not care about."""

    lun: int
    path: t.Optional[str] = None
    serial: t.Optional[str] = None
    read_only: t.Optional[bool] = None
    bstype: t.Optional[str] = None
    write_cache: t.Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class AclWish:
    """What the user says of one initiator. `fresh` is a random pair, used where there is none to keep."""

    initiator: str
    present: bool = True
    chap: str = "generate"
    username: t.Optional[str] = None
    password: t.Optional[Secret] = None
    mutual_username: t.Optional[str] = None
    mutual_password: t.Optional[Secret] = None
    fresh: t.Tuple[str, Secret] = ("", Secret(""))


@dataclasses.dataclass(frozen=True)
class TargetWish:
    iqn: str
    present: bool = True
    luns: t.Tuple[LunWish, ...] = ()
    portals: t.FrozenSet[Portal] = frozenset()
    acls: t.Tuple[AclWish, ...] = ()
    purge_luns: bool = False
    purge_portals: bool = False
    purge_acls: bool = False


def plan_target(want: TargetWish, world: World, backend: TargetBackend) -> Plan:
    """Makes, completes, changes or removes one target.

    Raises Invalid, NotFound, Conflict or Refused.
    """
    have: Export = world.get(want.iqn) or Export()
    if have.obstacle:
        raise Conflict(have.obstacle)
    if not want.present:
        return _absent(want, have, world, backend)
    managed = _managed(want, have, world, backend)
    live = _live(want, have, managed)
    _check_portals(want, world, backend)
    _check_accounts(managed, have, world, backend)
    _check_mutual(managed, live, backend)
    _check_sessions(want, have, live)
    _check_doors(have, managed, live)
    after = Export(live, _record(managed), sessions=have.sessions)
    if live.addresses:
        where = ", ".join(sorted(live.addresses))
        return Plan(want.iqn, world.get(want.iqn), after, _steps(have, after, world, backend), warnings=(_WIDE.format(want.iqn, where),))
    return Plan(want.iqn, world.get(want.iqn), after, _steps(have, after, world, backend))


_WIDE = "target {0} lets in every initiator from {1}, which someone else allowed; purge_acls takes that away"


# ---- what the target shall be


def _managed(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> Target:
    record = have.saved or Target(want.iqn)
    managed = Target(
        iqn=want.iqn,
        portals=want.portals if want.purge_portals else want.portals | record.portals,
        luns=_luns(want, have, world, backend),
        acls=_acls(want, record),
    )
    paths = [lun.path for lun in managed.luns]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise Invalid(f"two LUNs of {want.iqn} would share {twice}; give each its own data")
    return ordered(managed)


def _luns(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> t.Tuple[Lun, ...]:
    record, live = have.saved or Target(want.iqn), have.live or Target(want.iqn)
    wished = {wish.lun: wish for wish in want.luns}
    kept = [] if want.purge_luns else [lun for lun in record.luns if lun.lun not in wished]
    luns = [_kept_lun(lun, live.lun(lun.lun), want.iqn, world) for lun in kept]
    for wish in wished.values():
        luns.append(_wished_lun(wish, record.lun(wish.lun), live.lun(wish.lun), want.iqn, world, backend))
    return tuple(luns)


def _kept_lun(saved: Lun, live: t.Optional[Lun], iqn: str, world: World) -> Lun:
    """A saved LUN that the wish does not name: as it was saved, and as large as its data."""
    size = world.get(backing(saved.path))
    if size is None and (live is None or live.path != saved.path):
        raise _no_data(saved.lun, iqn, saved.path)
    return dataclasses.replace(saved, size_bytes=live.size_bytes if size is None and live else size)


def _wished_lun(wish: LunWish, saved: t.Optional[Lun], live: t.Optional[Lun], iqn: str, world: World, backend: TargetBackend) -> Lun:
    """A LUN that the wish names: what it leaves open is as it was, or as the back end makes it."""
    known = saved or live or Lun(wish.lun, wish.path or "", bstype=backend.default_bstype)
    path = wish.path or known.path
    if not path:
        raise Invalid(f"LUN {wish.lun} of {iqn} does not exist yet and needs a path")
    if known.path != path:
        raise Refused(f"LUN {wish.lun} of {iqn} is taken by {known.path}; choose another number for {path}, or remove that LUN first")
    size = world.get(backing(path))
    if size is None:
        raise _no_data(wish.lun, iqn, path)
    serial, wwid = _identity(wish, saved, live, iqn, backend)
    return dataclasses.replace(known, serial=serial, wwid=wwid, size_bytes=size, **_said(wish, iqn, backend))


def _said(wish: LunWish, iqn: str, backend: TargetBackend) -> t.Dict[str, t.Any]:
    """The attributes that the wish gives a value."""
    if wish.bstype not in (None, *backend.bstypes):
        raise Invalid(f"LUN {wish.lun} of {iqn} can't have bstype {wish.bstype}; choose one of {', '.join(backend.bstypes)}")
    return {key: getattr(wish, key) for key in ("read_only", "bstype", "write_cache") if getattr(wish, key) is not None}


def _identity(wish: LunWish, saved: t.Optional[Lun], live: t.Optional[Lun], iqn: str, backend: TargetBackend) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """Serial and WWID: the user's, else the saved, else those someone else gave; a new LUN gets its own."""
    if wish.serial is None and saved:
        return saved.serial, saved.wwid
    if wish.serial is None and live:
        return live.serial, live.wwid
    serial = wish.serial or own_serial(iqn, wish.lun)
    return serial, backend.wwid(serial)


def _acls(want: TargetWish, record: Target) -> t.Tuple[Acl, ...]:
    wished = {wish.initiator: wish for wish in want.acls}
    kept = [] if want.purge_acls else [acl for acl in record.acls if acl.initiator not in wished]
    return tuple(kept + [_acl(wish, record.acl(wish.initiator), want.iqn) for wish in wished.values() if wish.present])


def _acl(wish: AclWish, saved: t.Optional[Acl], iqn: str) -> Acl:
    if wish.chap == "none":
        return Acl(wish.initiator)
    saved = saved or Acl(wish.initiator)
    acl = Acl(wish.initiator, *_incoming(wish, saved), *_mutual(wish, saved))
    if acl.mutual_username and not acl.mutual_password:
        raise Invalid(f"mutual_username {acl.mutual_username} of {wish.initiator} at {iqn} comes without a mutual_password; give both")
    if acl.mutual_password == acl.password:
        raise Invalid(f"the mutual_password of {wish.initiator} at {iqn} equals the password, which would let either side play the other; choose two")
    return acl


def _incoming(wish: AclWish, saved: Acl) -> t.Tuple[t.Optional[str], t.Optional[Secret]]:
    """The initiator's pair: the user's, else the saved one, else the one made for this run."""
    if wish.chap == "given":
        return wish.username, wish.password
    return (saved.username, saved.password) if saved.username else wish.fresh


def _mutual(wish: AclWish, saved: Acl) -> t.Tuple[t.Optional[str], t.Optional[Secret]]:
    """The pair by which the target proves itself: the user's, else the saved one."""
    if wish.mutual_username not in (None, saved.mutual_username):
        return wish.mutual_username, wish.mutual_password
    return saved.mutual_username, wish.mutual_password or saved.mutual_password


def _live(want: TargetWish, have: Export, managed: Target) -> Target:
    """The managed part, and of the others' part what is not to be purged."""
    live, record = have.live or Target(want.iqn), have.saved or Target(want.iqn)
    denied = {wish.initiator for wish in want.acls if not wish.present}
    numbers = {lun.lun for lun in managed.luns} | {lun.lun for lun in record.luns}
    admitted = {acl.initiator for acl in managed.acls} | {acl.initiator for acl in record.acls} | denied
    foreign = Target(want.iqn) if want.purge_acls else live
    strays = foreign.strays - usernames(record) - usernames(managed)
    luns = () if want.purge_luns else tuple(lun for lun in live.luns if lun.lun not in numbers)
    return ordered(
        Target(
            iqn=want.iqn,
            portals=managed.portals,
            luns=managed.luns + luns,
            acls=managed.acls + tuple(acl for acl in foreign.acls if acl.initiator not in admitted),
            addresses=foreign.addresses,
            strays=strays,
            stray_mutual=foreign.stray_mutual if foreign.stray_mutual in strays else None,
        )
    )


def _record(managed: Target) -> Target:
    """What is saved of the managed part: all but the sizes, which the data itself has."""
    return dataclasses.replace(managed, luns=tuple(dataclasses.replace(lun, size_bytes=None) for lun in managed.luns))


def usernames(target: Target) -> t.FrozenSet[str]:
    """All account names that a target speaks of."""
    pairs = [(acl.username, acl.mutual_username) for acl in target.acls]
    return frozenset(name for pair in pairs for name in pair if name) | target.strays


# ---- what is refused


def _check_portals(want: TargetWish, world: World, backend: TargetBackend) -> None:
    for portal, why in sorted(world.get(ELSEWHERE, {}).items()):
        if portal in want.portals:
            raise Invalid(f"nobody can listen at portal {portal} of {want.iqn} on this host: {why}; give an address of this host and a port that is free")
    more = world.get(PORTALS, frozenset()) - want.portals
    if want.purge_portals and backend.shared_portals and more:
        raise Refused(
            f"purge_portals of {want.iqn} would close {', '.join(map(str, sorted(more)))}, but a portal of {backend.where} serves all targets; "
            "leave purge_portals out, or close portals where the daemon is started"
        )


def _check_accounts(managed: Target, have: Export, world: World, backend: TargetBackend) -> None:
    open_ones = [acl.initiator for acl in managed.acls if not acl.username]
    if backend.chap_per_target and 0 < len(open_ones) < len(managed.acls):
        raise Refused(
            f"target {managed.iqn} asks all initiators for CHAP or none, so {', '.join(open_ones)} can't come without; give each CHAP, or a target of its own"
        )
    mutual = {(acl.mutual_username or "", acl.mutual_password) for acl in managed.acls if acl.mutual_username}
    if backend.mutual_per_target and len(mutual) > 1:
        raise Refused(f"target {managed.iqn} can prove itself with one mutual pair only, not {len(mutual)}; give all its acls the same")
    _check_names([acl.username for acl in managed.acls if acl.username] + [pair[0] for pair in mutual], managed.iqn, have, world, backend)


def _check_mutual(managed: Target, live: Target, backend: TargetBackend) -> None:
    if backend.mutual_per_target and live.stray_mutual and any(acl.mutual_username for acl in managed.acls):
        raise Refused(
            f"target {managed.iqn} already proves itself as {live.stray_mutual}, which someone else made, and has one mutual pair only; "
            "leave out mutual_username, or use purge_acls"
        )


def _check_names(names: t.List[str], iqn: str, have: Export, world: World, backend: TargetBackend) -> None:
    for name in names:
        if names.count(name) > 1:
            raise Conflict(f"username {name} stands twice in the acls of {iqn}; give each initiator its own, so that one can be denied alone")
        if backend.global_accounts and _is_others(name, iqn, have, world):
            raise Conflict(f"username {name} is already an account at {backend.where} that is not of {iqn}; choose another one")


def _is_others(name: str, iqn: str, have: Export, world: World) -> bool:
    users = world.get(ACCOUNTS, {}).get(name)
    planned = any(name in usernames(e.saved) for key, e in world.items() if isinstance(e, Export) and e.saved and key != iqn)
    ours = bool(have.saved) and name in usernames(have.saved)
    return planned or (users is not None and bool(users - {iqn} or not users) and not ours)


def _check_sessions(want: TargetWish, have: Export, live: Target) -> None:
    """Refuses to take a door or a disk from under a session."""
    before = have.live or Target(want.iqn)
    denied = {acl.initiator for acl in before.acls} | {wish.initiator for wish in want.acls}
    denied -= {acl.initiator for acl in live.acls}
    by_address = before.addresses != live.addresses
    cut = sorted({s.initiator for s in have.sessions if s.initiator in denied or (by_address and not live.acl(s.initiator))})
    if cut:
        raise Refused(f"{', '.join(cut)} is logged in at {want.iqn} and may use its disks; log out there first, then deny it")
    for lun in before.luns:
        lost = _lost(lun, live.lun(lun.lun), have)
        if lost and have.sessions:
            raise Refused(f"LUN {lun.lun} of {want.iqn} {lost}, and it is in use by {_users(have)}; log out there first")


def _lost(before: Lun, after: t.Optional[Lun], have: Export) -> t.Optional[str]:
    """Why a LUN has to be taken away, if so."""
    if after is None:
        return "is to be removed"
    if before == after or _is_unfinished(before, after, have):
        return None
    names = [f.name for f in dataclasses.fields(Lun) if getattr(before, f.name) != getattr(after, f.name)]
    told = ", ".join(f"{name} ({getattr(before, name)} instead of {getattr(after, name)})" for name in names)
    return f"has to be made anew because of its {told}"


def _is_unfinished(before: Lun, after: Lun, have: Export) -> bool:
    """Whether an earlier run was stopped between making this LUN and giving it its serial."""
    given = dataclasses.replace(after, serial=None, wwid=None, read_only=before.read_only)
    return before == given and have.saved is not None and have.saved.lun(after.lun) is not None


def _check_doors(have: Export, managed: Target, live: Target) -> None:
    """Refuses to leave a door of someone else open without CHAP, which asked for CHAP before."""
    foreign = {acl.initiator for acl in live.acls} - {acl.initiator for acl in managed.acls} | live.addresses
    if foreign and have.live and usernames(have.live) and not usernames(live):
        raise Refused(
            f"target {live.iqn} would be left without any CHAP account and so open to {', '.join(sorted(foreign))}, which someone else let in; "
            "use purge_acls, or deny those too"
        )


def _no_data(number: int, iqn: str, path: str) -> NotFound:
    return NotFound(f"there is no file or block device {path} for LUN {number} of {iqn}; make the volume first, or give the right path")


def _users(have: Export) -> str:
    return ", ".join(sorted({f"{s.initiator} ({s.ip})" for s in have.sessions}))


# ---- the way there


def _steps(have: Export, after: Export, world: World, backend: TargetBackend) -> t.Tuple[Step, ...]:
    """Saved before it is live, shut before it is removed from the saved form; doors open last."""
    live, saved = t.cast(Target, after.live), t.cast(Target, after.saved)
    iqn, before = live.iqn, have.live or Target(live.iqn)
    gone = _gone_accounts(have, after, world)
    first = _first_record(have, saved, gone)
    steps = [] if have.saved == first and have.intact else [Step(f"save target {iqn}", backend.save, (first,))]
    if have.live is None:
        steps.append(Step(f"create target {iqn}", backend.create, (iqn,)))
    steps += _closing_steps(before, live, backend)
    steps += _portal_steps(live, before, world, backend)
    steps += _lun_steps(before, live, have, backend)
    changed = [acl for acl in live.acls if acl not in before.acls]
    steps += [Step(_admission(before, acl), backend.admit, (iqn, acl)) for acl in changed]
    steps += [Step(f"remove CHAP account {name} from {iqn}", backend.drop_account, (iqn, name)) for name in sorted(gone)]
    if first != saved:
        steps.append(Step(f"save target {iqn} without what is gone", backend.save, (saved,)))
    return tuple(steps)


def _admission(before: Target, acl: Acl) -> str:
    have = before.acl(acl.initiator)
    if have is None or have.username is None:
        return f"admit {acl.initiator} to {before.iqn}"
    return f"set the CHAP secret of {acl.initiator} at {before.iqn}"


def _gone_accounts(have: Export, after: Export, world: World) -> t.FrozenSet[str]:
    """The accounts that are there now and shall not be."""
    saved = usernames(have.saved) if have.saved else frozenset()
    there = usernames(have.live) if have.live else frozenset()
    there |= saved & frozenset(world.get(ACCOUNTS, {}))
    return there - (usernames(after.live) if after.live else frozenset())


def _first_record(have: Export, final: Target, gone: t.FrozenSet[str]) -> Target:
    """Until all is done, what goes away stays in the record, so that a run after a crash knows of it."""
    if have.saved is None:
        return final
    luns = tuple(lun for lun in have.saved.luns if not final.lun(lun.lun))
    acls = tuple(acl for acl in have.saved.acls if not final.acl(acl.initiator))
    first = ordered(dataclasses.replace(final, luns=final.luns + luns, acls=final.acls + acls))
    return dataclasses.replace(first, strays=(gone & usernames(have.saved)) - usernames(first))


def _closing_steps(before: Target, after: Target, backend: TargetBackend) -> t.List[Step]:
    denied = [acl.initiator for acl in before.acls if not after.acl(acl.initiator)]
    steps = [Step(f"deny {name} at {before.iqn}", backend.deny, (before.iqn, name)) for name in denied]
    addresses = sorted(before.addresses - after.addresses)
    return steps + [Step(f"deny address {address} at {before.iqn}", backend.drop_address, (before.iqn, address)) for address in addresses]


def _portal_steps(after: Target, before: Target, world: World, backend: TargetBackend) -> t.List[Step]:
    planned = {portal for e in world.values() if isinstance(e, Export) and e.live and backend.shared_portals for portal in e.live.portals}
    missing = sorted(after.portals - before.portals - planned - world.get(PORTALS, frozenset()))
    return [Step(f"listen at portal {portal}", backend.add_portal, (portal,)) for portal in missing]


def _lun_steps(before: Target, after: Target, have: Export, backend: TargetBackend) -> t.List[Step]:
    iqn, steps = after.iqn, []
    unfinished = [lun.lun for lun in before.luns if after.lun(lun.lun) and _is_unfinished(lun, after.lun(lun.lun), have)]
    for lun in before.luns:
        if lun != after.lun(lun.lun) and lun.lun not in unfinished:
            steps.append(Step(f"remove LUN {lun.lun} from {iqn}", backend.remove_lun, (iqn, lun.lun)))
    for lun in after.luns:
        if lun.lun in unfinished:
            steps.append(Step(f"give LUN {lun.lun} of {iqn} its serial", backend.identify_lun, (iqn, lun)))
        elif lun not in before.luns:
            steps.append(Step(f"add LUN {lun.lun} ({lun.path}) to {iqn}", backend.add_lun, (iqn, lun)))
    return steps


def _absent(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> Plan:
    if have.sessions:
        raise Refused(f"target {want.iqn} is in use by {_users(have)}; log out there first, then remove it")
    saved = usernames(have.saved) if have.saved else frozenset()
    steps = [Step(f"delete target {want.iqn}", backend.delete, (want.iqn,))] if have.live else []
    names = sorted(saved & frozenset(world.get(ACCOUNTS, {})))
    steps += [Step(f"remove CHAP account {name} of {want.iqn}", backend.drop_account, (want.iqn, name)) for name in names]
    if have.saved or not have.intact:
        steps.append(Step(f"forget target {want.iqn}", backend.forget, (want.iqn,)))
    return Plan(want.iqn, world.get(want.iqn), None, tuple(steps))
