# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Targets as resources of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import secrets
import string
import typing as t

from ._errors import Invalid
from ._model.data import Secret, as_data
from ._model.target import (
    Acl,
    Export,
    Portal,
    Target,
    check_attributes,
    check_initiator,
    check_iqn,
    check_password,
    check_path,
    check_portal,
    check_serial,
    check_username,
    lacking,
    target_from,
)
from ._plan_target import AclWish, LunWish, TargetWish, plan_target
from ._reconcile import Plan, Resource, World
from ._targets import PORTALS, Look, LunLook, backing, open_targets

# As Cinder's iSCSI drivers make them: long enough to be unique, short enough for every initiator.
_USERNAME_LENGTH, _PASSWORD_LENGTH = 20, 16
_ALPHABET = string.ascii_letters + string.digits

_PAIRS = ("username", "password", "mutual_username", "mutual_password")

Options = t.Dict[str, t.Any]


class Targets(Resource):
    plural = "targets"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.backend = open_targets(options)
        self.lock_path = self.backend.lock_path
        self.served: t.FrozenSet[Portal] = frozenset()
        self.reveals = bool(options["return_secrets"])

    def want(self, item: Options) -> TargetWish:
        iqn = self.backend.spelled(check_iqn(item.get("target_iqn")))
        return TargetWish(
            iqn=iqn,
            present=item.get("state") != "absent",
            luns=tuple(_lun_wish(lun, iqn) for lun in item.get("luns") or []),
            portals=frozenset(check_portal(portal.get("ip"), portal.get("port"), iqn) for portal in item.get("portals") or []),
            acls=_once(iqn, [_acl_wish(acl, iqn, self.backend.spelled) for acl in item.get("acls") or []]),
            attributes=check_attributes(item.get("attributes"), iqn),
            **{key: bool(item.get(key)) for key in ("purge_luns", "purge_portals", "purge_acls")},
        )

    def observe(self, wants: t.Sequence[TargetWish]) -> World:
        world = self.backend.observe([_look(want, self.backend.first_lun) for want in wants])
        self.served = world[PORTALS]
        return world

    def flush(self) -> None:
        self.backend.flush()

    def plan(self, want: TargetWish, world: World) -> Plan:
        return plan_target(want, world, self.backend)

    def assumed(self, result: Options, world: World) -> World:
        """Takes results of cinder_volume and cinder_attachment (data), iscsi_target (targets), libvirt_disk and iscsi_initiator (sessions)."""
        if result.get("record") and result.get("path"):
            return {backing(result["path"]): result["record"]["size_bytes"]}
        if "target" in result and result.get("target_iqn"):
            sizes = {backing(lun["path"]): lun["size_bytes"] for lun in result.get("luns") or [] if lun["size_bytes"]}
            return {**sizes, result["target_iqn"]: _export_from(result["target"], world.get(result["target_iqn"]))}
        if "initiator" in result and result.get("sessions") == []:
            return _logged_out(result, world)
        return _let_go(result, world)

    def show(self, plan: Plan, state: t.Optional[Export]) -> Options:
        return target_result(state, self.served)

    def besides(self, shown: t.Sequence[t.Tuple[Plan, t.Any]]) -> Options:
        return credentials([state for plan, state in shown if state], self.options["return_secrets"])

    def identify(self, item: Options) -> Options:
        return {"target_iqn": item.get("target_iqn")}


def find_targets(options: Options) -> Options:
    """The targets of a host, ordered by name, or those of exactly the given names."""
    backend = open_targets(options)
    names = backend.names()
    if options.get("target_iqns") is not None:
        names &= set(options["target_iqns"])
    world = backend.observe([Look(iqn) for iqn in sorted(names)])
    found = [(iqn, world[iqn]) for iqn in sorted(names) if iqn in world]
    told = [{"target_iqn": iqn, **target_result(export, world[PORTALS]), "incomplete": lacking(export)} for iqn, export in found]
    return {"targets": told, **credentials([export for iqn, export in found], options["return_secrets"])}


def credentials(exports: t.Sequence[Export], asked: bool) -> Options:
    """The secrets of all initiators, for those who asked: a value of its own, which `no_log` on the task hides."""
    if not asked:
        return {}
    targets = [export.target for export in exports if export.target]
    return {"credentials": [{"target_iqn": target.iqn, **_pairs(acl)} for target in targets for acl in target.acls]}


def _pairs(acl: Acl) -> Options:
    return {"initiator": acl.initiator, **as_data({key: getattr(acl, key) for key in _PAIRS}, Secret.reveal)}


def target_result(export: t.Optional[Export], served: t.FrozenSet[Portal]) -> Options:
    """A target as a module returns it. `portals` are those it was given, else all that the daemon listens at."""
    if export is None or export.target is None:
        return {"portals": [], "luns": [], "acls": [], "sessions": [], "target": None}
    target = export.target
    return {
        "portals": as_data(sorted(target.portals or served)),
        "luns": as_data(target.luns),
        "acls": [{key: getattr(acl, key) for key in ("initiator", "username", "mutual_username", "read_only")} for acl in target.acls],
        "sessions": as_data(export.sessions),
        "target": as_data(export),
    }


def _let_go(result: Options, world: World) -> World:
    """The target of a disk that libvirt_disk took out of its guest: QEMU will have logged out."""
    source = result.get("source") or {}
    export = world.get(source.get("target_iqn"))
    if export is None or result.get("live") is not False:
        return {}
    return {source["target_iqn"]: export.without_session(source.get("initiator"))}


def _logged_out(result: Options, world: World) -> World:
    """The target that iscsi_initiator logged its host out of."""
    export = world.get(result.get("target_iqn"))
    if export is None:
        return {}
    kept = tuple(session for session in export.sessions if session.initiator != result["initiator"])
    return {result["target_iqn"]: dataclasses.replace(export, sessions=kept)}


def _export_from(told: t.Optional[Options], seen: t.Optional[Export]) -> t.Optional[Export]:
    """The Export of a result's `target`. Secrets, which it does not hold, are those that were seen, or else taken as fitting."""
    if not told:
        return None
    seen = seen or Export()
    return Export(_target_of(told["live"], seen.live), _target_of(told["saved"], seen.saved), told["intact"], seen.sessions)


def _target_of(told: t.Optional[Options], seen: t.Optional[Target]) -> t.Optional[Target]:
    if not told:
        return None
    target = target_from(told, lambda text: text and Secret(text))
    return dataclasses.replace(target, acls=tuple(_with_secrets(acl, seen and seen.acl(acl.initiator)) for acl in target.acls))


def _with_secrets(acl: Acl, seen: t.Optional[Acl]) -> Acl:
    if seen is None or (seen.username, seen.mutual_username) != (acl.username, acl.mutual_username):
        return acl
    return dataclasses.replace(acl, password=seen.password, mutual_password=seen.mutual_password)


def _look(want: TargetWish, first_lun: int) -> Look:
    return Look(
        iqn=want.iqn,
        portals=want.portals,
        paths=frozenset(wish.path for wish in want.luns if wish.path),
        initiators=frozenset(wish.initiator for wish in want.acls if want.present and wish.present and wish.chap != "none"),
        attributes=frozenset(name for name, value in want.attributes),
        luns=tuple(_lun_look(wish, first_lun) for wish in want.luns if wish.attributes),
    )


def _lun_look(wish: LunWish, first_lun: int) -> LunLook:
    number = first_lun if wish.lun is None and not (wish.path or wish.serial) else wish.lun
    return LunLook(number, wish.path, wish.serial, frozenset(name for name, value in wish.attributes))


def _lun_wish(lun: Options, iqn: str) -> LunWish:
    number, path = lun.get("lun"), lun.get("path")
    return LunWish(
        lun=number,
        path=path if path is None else check_path(path, number, iqn),
        serial=check_serial(lun.get("serial"), number, iqn),
        attributes=check_attributes(lun.get("attributes"), iqn),
        **{key: lun.get(key) for key in ("read_only", "bstype", "write_cache", "discard")},
    )


def _acl_wish(acl: Options, iqn: str, spelled: t.Callable[[str], str]) -> AclWish:
    initiator = spelled(check_initiator(acl.get("initiator"), iqn))
    if acl.get("state") == "absent":
        return AclWish(initiator, present=False)
    pairs = {key: acl[key] for key in _PAIRS if acl.get(key) is not None}
    chap = acl.get("chap") or ("given" if {"username", "password"} & set(pairs) else "generate")
    _check_chap(chap, pairs, f"the acl of {initiator} at {iqn}")
    for key in pairs:
        check = check_password if key.endswith("password") else check_username
        pairs[key] = check(pairs[key], f"{key} of {initiator} at {iqn}")
    fresh = (_fresh_username(), Secret(_random(_PASSWORD_LENGTH)))
    return AclWish(initiator, chap=chap, read_only=acl.get("read_only"), fresh=fresh, **pairs)


def _check_chap(chap: str, pairs: Options, where: str) -> None:
    """Refuses secrets that contradict the kind of CHAP."""
    own = {"username", "password"} & set(pairs)
    if chap == "given" and len(own) < 2:
        raise Invalid(f"{where} needs both username and password; give both, or leave both out to have a pair made")
    if chap != "given" and own:
        raise Invalid(f"{where} gives a username or password, but chap is {chap}; leave chap out, or say given")
    if chap == "none" and pairs:
        raise Invalid(f"{where} has mutual secrets without CHAP; leave them out, or give it CHAP")


def _once(iqn: str, wishes: t.List[AclWish]) -> t.Tuple[AclWish, ...]:
    names = [wish.initiator for wish in wishes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise Invalid(f"initiator {twice} stands twice in {iqn}; name each once")
    return tuple(wishes)


def _fresh_username() -> str:
    """Begins with a letter: not like a number, see reads_as_number."""
    return secrets.choice(string.ascii_letters) + _random(_USERNAME_LENGTH - 1)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for position in range(length))
