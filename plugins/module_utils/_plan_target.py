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
from ._model.target import Acl, Attributes, Export, Lun, Portal, Target, ordered, own_serial, reads_as_number
from ._reconcile import Plan, Step, World
from ._targets import ACCOUNTS, ELSEWHERE, PORTALS, TargetBackend, Traits, backing, holder, traits


@dataclasses.dataclass(frozen=True)
class LunWish:
    """What the user says of one LUN; None is what the user does not care about."""

    lun: t.Optional[int]
    path: t.Optional[str] = None
    serial: t.Optional[str] = None
    read_only: t.Optional[bool] = None
    bstype: t.Optional[str] = None
    write_cache: t.Optional[bool] = None
    discard: t.Optional[bool] = None
    attributes: Attributes = ()


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
    read_only: t.Optional[bool] = None
    fresh: t.Tuple[str, Secret] = ("", Secret(""))


@dataclasses.dataclass(frozen=True)
class TargetWish:
    iqn: str
    present: bool = True
    luns: t.Tuple[LunWish, ...] = ()
    portals: t.FrozenSet[Portal] = frozenset()
    acls: t.Tuple[AclWish, ...] = ()
    attributes: Attributes = ()
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
    want = dataclasses.replace(want, luns=_numbered(want, have, backend))
    _check_attributes(want, backend)
    managed = _managed(want, have, world, backend)
    live = _live(want, have, managed, backend)
    _check_portals(want, have, world, backend)
    _check_data(managed, have, world)
    _check_accounts(managed, have, world, backend)
    _check_mutual(managed, live, backend)
    _check_sessions(want, have, live, backend)
    _check_doors(have, managed, live, backend)
    after = Export(live, _record(live if backend.saves_live else managed), sessions=have.sessions)
    if live.addresses:
        where = ", ".join(sorted(live.addresses))
        return Plan(want.iqn, world.get(want.iqn), after, _steps(have, after, world, backend), warnings=(_WIDE.format(want.iqn, where),))
    return Plan(want.iqn, world.get(want.iqn), after, _steps(have, after, world, backend))


_WIDE = "target {0} lets in every initiator from {1}, which someone else allowed; purge_acls takes that away"


# ---- what the target shall be


def _managed(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> Target:
    record = have.saved or Target(want.iqn)
    luns = _luns(want, have, world, backend)
    managed = Target(
        iqn=want.iqn,
        portals=want.portals if want.purge_portals else want.portals | record.portals,
        luns=luns,
        acls=_acls(want, have, luns, backend),
    )
    paths = [lun.path for lun in managed.luns]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise Invalid(f"two LUNs of {want.iqn} would share {twice}; give each its own data")
    return ordered(managed)


def _numbered(want: TargetWish, have: Export, backend: TargetBackend) -> t.Tuple[LunWish, ...]:
    """The wishes for LUNs, each with a number: its own, else that of the LUN it means, else the daemon's first."""
    record, live = have.saved or Target(want.iqn), have.live or Target(want.iqn)
    there = Target(want.iqn, luns=record.luns + live.luns)
    wishes: t.Dict[int, LunWish] = {}
    for wish in want.luns:
        meant = there.meant(wish.lun, wish.path, wish.serial)
        number = wish.lun if wish.lun is not None else meant.lun if meant else backend.first_lun
        if number in wishes:
            raise Invalid(f"LUN {number} stands twice in {want.iqn}; name each once")
        if not backend.first_lun <= number <= backend.last_lun:
            raise Invalid(f"LUN {number} of {want.iqn} can't be a disk; choose a number from {backend.first_lun} to {backend.last_lun}")
        wishes[number] = dataclasses.replace(wish, lun=number)
    return tuple(wishes.values())


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
    number, there = t.cast(int, wish.lun), saved or live
    path = _path(wish, there, iqn)
    nature = world.get(traits(path), backend.presumed(path))
    known = there or Lun(number, path, **nature.defaults)
    size = world.get(backing(path))
    if size is None:
        raise _no_data(number, iqn, path)
    serial, wwid = _identity(wish, saved, live, iqn, backend)
    return dataclasses.replace(known, serial=serial, wwid=wwid, size_bytes=size, **_said(wish, iqn, path, nature, backend))


def _path(wish: LunWish, there: t.Optional[Lun], iqn: str) -> str:
    path = wish.path or (there.path if there else "")
    if not path:
        raise Invalid(f"LUN {wish.lun} of {iqn} does not exist yet and needs a path")
    if there and there.path != path:
        raise Refused(f"LUN {wish.lun} of {iqn} is taken by {there.path}; choose another number for {path}, or remove that LUN first")
    return path


def _said(wish: LunWish, iqn: str, path: str, nature: Traits, backend: TargetBackend) -> t.Dict[str, t.Any]:
    """What the wish gives a value."""
    if wish.bstype not in (None, *backend.bstypes):
        raise Invalid(f"LUN {wish.lun} of {iqn} can't have bstype {wish.bstype}; choose one of {', '.join(backend.bstypes)}")
    said = {key: getattr(wish, key) for key in ("read_only", "bstype", "write_cache", "discard") if getattr(wish, key) is not None}
    for key in sorted(nature.fixed & set(said)):
        if said[key] != nature.defaults[key]:
            raise Invalid(f"LUN {wish.lun} of {iqn} can't have {key} {said[key]}, which {path} or the target daemon does not allow; leave {key} out")
    return {**said, "attributes": wish.attributes}


def _identity(wish: LunWish, saved: t.Optional[Lun], live: t.Optional[Lun], iqn: str, backend: TargetBackend) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """Serial and WWID: the user's, else the saved, else those someone else gave; a new LUN gets its own."""
    if wish.serial is None and saved:
        return saved.serial, saved.wwid
    if wish.serial is None and live:
        return live.serial, live.wwid
    serial = wish.serial or own_serial(iqn, t.cast(int, wish.lun))
    return serial, backend.wwid(serial)


def _acls(want: TargetWish, have: Export, luns: t.Tuple[Lun, ...], backend: TargetBackend) -> t.Tuple[Acl, ...]:
    """An initiator may be kept from writing to the disks that others may write to; where there are none, it is as the others."""
    record, live = have.saved or Target(want.iqn), have.live or Target(want.iqn)
    wished = {wish.initiator: wish for wish in want.acls}
    acls = [] if want.purge_acls else [acl for acl in record.acls if acl.initiator not in wished]
    acls += [_acl(wish, record.acl(name) or live.acl(name), want.iqn, backend) for name, wish in wished.items() if wish.present]
    early = next((wish.initiator for wish in want.acls if wish.read_only and not luns), None)
    if early:
        raise Invalid(f"{early} can't be kept from writing at {want.iqn} before there is a LUN; give luns too")
    writable = any(not lun.read_only for lun in luns)
    return tuple(dataclasses.replace(acl, read_only=acl.read_only and writable) for acl in acls)


def _acl(wish: AclWish, known: t.Optional[Acl], iqn: str, backend: TargetBackend) -> Acl:
    known = known or Acl(wish.initiator)
    read_only = _read_only(wish, known, iqn, backend)
    if wish.chap == "none":
        return Acl(wish.initiator, read_only=read_only)
    acl = Acl(wish.initiator, *_incoming(wish, known), *_mutual(wish, known), read_only=read_only)
    if acl.mutual_username and not acl.mutual_password:
        raise Invalid(f"mutual_username {acl.mutual_username} of {wish.initiator} at {iqn} comes without a mutual_password; give both")
    if acl.mutual_password == acl.password:
        raise Invalid(f"the mutual_password of {wish.initiator} at {iqn} equals the password, which would let either side play the other; choose two")
    return acl


def _read_only(wish: AclWish, known: Acl, iqn: str, backend: TargetBackend) -> bool:
    if wish.read_only and not backend.per_acl_read_only:
        raise Refused(f"{wish.initiator} alone can't be kept from writing at {iqn}, where a LUN is read-only for all or for none; set read_only of the LUN")
    return known.read_only if wish.read_only is None else wish.read_only


def _incoming(wish: AclWish, saved: Acl) -> t.Tuple[t.Optional[str], t.Optional[Secret]]:
    """The initiator's pair: the user's, else the saved one, else the one made for this run."""
    if wish.chap == "given":
        return wish.username, wish.password
    usable = saved.username and saved.password and not reads_as_number(saved.username)
    return (saved.username, saved.password) if usable else wish.fresh


def _mutual(wish: AclWish, saved: Acl) -> t.Tuple[t.Optional[str], t.Optional[Secret]]:
    """The pair by which the target proves itself: the user's, else the saved one."""
    if wish.mutual_username not in (None, saved.mutual_username):
        return wish.mutual_username, wish.mutual_password
    return saved.mutual_username or None, wish.mutual_password or saved.mutual_password


def _live(want: TargetWish, have: Export, managed: Target, backend: TargetBackend) -> Target:
    """The managed part, and of the others' part what is not to be purged. A target that does not run comes back with the saved part of others."""
    live, record = have.live or Target(want.iqn), have.saved or Target(want.iqn)
    denied = {wish.initiator for wish in want.acls if not wish.present}
    numbers = {lun.lun for lun in managed.luns} | {lun.lun for lun in record.luns}
    admitted = {acl.initiator for acl in managed.acls} | {acl.initiator for acl in record.acls} | denied
    foreign = Target(want.iqn) if want.purge_acls else have.live or record
    strays = foreign.strays - usernames(record) - usernames(managed)
    luns = () if want.purge_luns else tuple(lun for lun in live.luns if lun.lun not in numbers)
    return ordered(
        Target(
            iqn=want.iqn,
            portals=managed.portals | _others_portals(want, live, backend),
            luns=managed.luns + luns,
            acls=managed.acls + tuple(acl for acl in foreign.acls if acl.initiator not in admitted),
            addresses=foreign.addresses,
            strays=strays,
            stray_mutual=foreign.stray_mutual if foreign.stray_mutual in strays else None,
            attributes=want.attributes,
        )
    )


def _others_portals(want: TargetWish, live: Target, backend: TargetBackend) -> t.FrozenSet[Portal]:
    return frozenset() if want.purge_portals or backend.shared_portals else live.portals


def _record(target: Target) -> Target:
    """What is saved of it: all but the sizes, which the data itself has."""
    return dataclasses.replace(target, luns=tuple(dataclasses.replace(lun, size_bytes=None) for lun in target.luns))


def usernames(target: Target) -> t.FrozenSet[str]:
    """All account names that a target speaks of."""
    pairs = [(acl.username, acl.mutual_username) for acl in target.acls]
    return frozenset(name for pair in pairs for name in pair if name) | target.strays


# ---- what is refused


def _check_attributes(want: TargetWish, backend: TargetBackend) -> None:
    for name, value in [pair for attributes in (want.attributes, *(wish.attributes for wish in want.luns)) for pair in attributes]:
        if backend.own_attributes is None:
            raise Invalid(f"attribute {name} of {want.iqn} can't be set, because this target daemon has none; leave attributes out")
        if name in backend.own_attributes:
            raise Invalid(f"attribute {name} of {want.iqn} follows from other options (acls, read_only, discard, write_cache); set those instead")


def _check_data(managed: Target, have: Export, world: World) -> None:
    """Refuses data that someone else has open."""
    live = have.live or Target(managed.iqn)
    for lun in managed.luns:
        who = world.get(holder(lun.path))
        if who and not live.lun(lun.lun):
            raise Conflict(f"{lun.path} for LUN {lun.lun} of {managed.iqn} is already {who}; take it away there first, or give other data")


def _check_portals(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> None:
    for portal, why in sorted(world.get(ELSEWHERE, {}).items()):
        if portal in want.portals:
            raise Invalid(f"nobody can listen at portal {portal} of {want.iqn} on this host: {why}; give an address of this host and a port that is free")
    if want.purge_portals:
        _check_closed(want, have, world, backend)


def _check_closed(want: TargetWish, have: Export, world: World, backend: TargetBackend) -> None:
    """Refuses to close a portal that serves others, or a session."""
    own = have.live.portals if have.live else frozenset()
    more = (world.get(PORTALS, frozenset()) if backend.shared_portals else own) - want.portals
    if more and backend.shared_portals:
        raise Refused(
            f"purge_portals of {want.iqn} would close {', '.join(map(str, sorted(more)))}, but a portal of {backend.where} serves all targets; "
            "leave purge_portals out, or close portals where the daemon is started"
        )
    if more and have.sessions:
        raise Refused(f"purge_portals of {want.iqn} would close {', '.join(map(str, sorted(more)))}, and it is in use by {_users(have)}; log out there first")


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
        if backend.global_accounts and names.count(name) > 1:
            raise Conflict(f"username {name} stands twice in the acls of {iqn}; give each initiator its own, so that one can be denied alone")
        if backend.global_accounts and _is_others(name, iqn, have, world):
            raise Conflict(f"username {name} is already an account at {backend.where} that is not of {iqn}; choose another one")


def _is_others(name: str, iqn: str, have: Export, world: World) -> bool:
    users = world.get(ACCOUNTS, {}).get(name)
    planned = any(name in usernames(e.saved) for key, e in world.items() if isinstance(e, Export) and e.saved and key != iqn)
    ours = bool(have.saved) and name in usernames(have.saved)
    return planned or (users is not None and bool(users - {iqn} or not users) and not ours)


def _check_sessions(want: TargetWish, have: Export, live: Target, backend: TargetBackend) -> None:
    """Refuses to take a door or a disk from under a session."""
    before = have.live or Target(want.iqn)
    denied = {acl.initiator for acl in before.acls} | {wish.initiator for wish in want.acls}
    denied -= {acl.initiator for acl in live.acls}
    by_address = before.addresses != live.addresses
    cut = sorted({s.initiator for s in have.sessions if s.initiator in denied or (by_address and not live.acl(s.initiator))})
    if cut:
        raise Refused(f"{', '.join(cut)} is logged in at {want.iqn} and may use its disks; log out there first, then deny it")
    for lun in before.luns:
        lost = _lost(lun, live.lun(lun.lun), have, backend)
        if lost and have.sessions:
            raise Refused(f"LUN {lun.lun} of {want.iqn} {lost}, and it is in use by {_users(have)}; log out there first")


def _lost(before: Lun, after: t.Optional[Lun], have: Export, backend: TargetBackend) -> t.Optional[str]:
    """Why a LUN has to be taken away, if so."""
    if after is None:
        return "is to be removed"
    if before == after or _changes(before, after, backend) or _is_unfinished(before, after, have):
        return None
    names = [f.name for f in dataclasses.fields(Lun) if getattr(before, f.name) != getattr(after, f.name)]
    told = ", ".join(f"{name} ({getattr(before, name)} instead of {getattr(after, name)})" for name in names)
    return f"has to be made anew because of its {told}"


def _changes(before: Lun, after: Lun, backend: TargetBackend) -> bool:
    """Whether the LUN becomes what it shall be in place."""
    names = {f.name for f in dataclasses.fields(Lun) if getattr(before, f.name) != getattr(after, f.name)}
    return names <= backend.changeable | ({"size_bytes"} if after.bstype in backend.growing else set())


def _is_unfinished(before: Lun, after: Lun, have: Export) -> bool:
    """Whether an earlier run was stopped between making this LUN and giving it its serial."""
    given = dataclasses.replace(after, serial=None, wwid=None, read_only=before.read_only)
    return before == given and have.saved is not None and have.saved.lun(after.lun) is not None


def _check_doors(have: Export, managed: Target, live: Target, backend: TargetBackend) -> None:
    """Refuses to leave a door of someone else open without CHAP, which asked for CHAP before."""
    foreign = {acl.initiator for acl in live.acls} - {acl.initiator for acl in managed.acls} | live.addresses
    if backend.chap_per_target and foreign and have.live and usernames(have.live) and not usernames(live):
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
    """What comes back after a restart is saved where it is read; the doors open last."""
    live, saved = t.cast(Target, after.live), t.cast(Target, after.saved)
    before = have.live or Target(live.iqn, enabled=not backend.enables)
    created = [] if have.live else [Step(f"create target {live.iqn}", backend.create, (live.iqn,))]
    steps = created + _closing_steps(before, live, backend) + _portal_steps(live, before, world, backend) + _lun_steps(before, live, have, backend)
    changed = [acl for acl in live.acls if acl not in before.acls]
    steps += [Step(_admission(before, acl), backend.admit, (live.iqn, acl)) for acl in changed]
    if live.enabled and not before.enabled:
        steps.append(Step(f"enable target {live.iqn}", backend.enable, (live.iqn,)))
    different = tuple(pair for pair in live.attributes if pair not in before.attributes)
    if different:
        told = ", ".join(f"{name}={value}" for name, value in different)
        steps.append(Step(f"set {told} of {live.iqn}", backend.set_attributes, (live.iqn, different)))
    return _with_saving(tuple(steps), have, after, world, backend)


def _with_saving(steps: t.Tuple[Step, ...], have: Export, after: Export, world: World, backend: TargetBackend) -> t.Tuple[Step, ...]:
    """A record of its own is written before anything is live, and loses what goes away at the end; a copy of what runs is taken last."""
    saved = t.cast(Target, after.saved)
    if backend.saves_live:
        same = not steps and have.saved == saved and have.intact
        return steps if same else (*steps, Step(f"save target {saved.iqn}", backend.save, (saved,)))
    gone = _gone_accounts(have, after, world)
    first = _first_record(have, saved, gone)
    begin = [] if have.saved == first and have.intact else [Step(f"save target {saved.iqn}", backend.save, (first,))]
    end = [Step(f"remove CHAP account {name} from {saved.iqn}", backend.drop_account, (saved.iqn, name)) for name in sorted(gone)]
    if first != saved:
        end.append(Step(f"save target {saved.iqn} without what is gone", backend.save, (saved,)))
    return (*begin, *steps, *end)


def _admission(before: Target, acl: Acl) -> str:
    have = before.acl(acl.initiator)
    if have is None or have.username is None:
        return f"admit {acl.initiator} to {before.iqn}"
    if (have.mapped, have.read_only) != (acl.mapped, acl.read_only):
        return f"map the LUNs of {before.iqn} to {acl.initiator}"
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
    steps = [Step(f"listen at portal {portal}", backend.add_portal, (after.iqn, portal)) for portal in missing]
    gone = () if backend.shared_portals else sorted(before.portals - after.portals)
    return steps + [Step(f"close portal {portal}", backend.remove_portal, (after.iqn, portal)) for portal in gone]


def _lun_steps(before: Target, after: Target, have: Export, backend: TargetBackend) -> t.List[Step]:
    steps = [
        Step(f"remove LUN {lun.lun} from {after.iqn}", backend.remove_lun, (after.iqn, lun.lun))
        for lun in before.luns
        if lun != after.lun(lun.lun) and _lost(lun, after.lun(lun.lun), have, backend)
    ]
    for lun in after.luns:
        steps += _one_lun_steps(before.lun(lun.lun), lun, have, after, backend)
    return steps


def _one_lun_steps(before: t.Optional[Lun], after: Lun, have: Export, target: Target, backend: TargetBackend) -> t.List[Step]:
    iqn = target.iqn
    if before == after:
        return []
    if before and _is_unfinished(before, after, have):
        return [Step(f"give LUN {after.lun} of {iqn} its serial", backend.identify_lun, (iqn, after))]
    if before and _changes(before, after, backend):
        return _change_steps(before, after, iqn, backend)
    kept_off = frozenset(acl.initiator for acl in target.acls if acl.read_only)
    return [Step(f"add LUN {after.lun} ({after.path}) to {iqn}", backend.add_lun, (iqn, after, kept_off))]


def _change_steps(before: Lun, after: Lun, iqn: str, backend: TargetBackend) -> t.List[Step]:
    """Sets what changes in place; a size follows by itself."""
    told = [f"{name}={getattr(after, name)}" for name in ("discard", "write_cache") if getattr(before, name) != getattr(after, name)]
    told += [f"{name}={value}" for name, value in after.attributes if (name, value) not in before.attributes]
    return [Step(f"set {', '.join(told)} of LUN {after.lun} of {iqn}", backend.change_lun, (iqn, after))] if told else []


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
