# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""LUNs of an initiator host as a resource of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Failed, Invalid
from ._hosts import GROUND, silence
from ._hosts.initiator import LOCK, IscsiLook, OpenIscsiHost
from ._model.data import Secret, as_data
from ._model.disk import check_iqn
from ._model.session import Connection, Device, Ground, Holder, Map, check_iface, check_lun, check_seconds, check_serial, check_value, check_wwid
from ._model.session import wwn_link
from ._model.target import Portal, check_portal
from ._plan_session import SessionWish, arrived, departed, handed_over, is_degraded, left_over, plan_session, waiting_for
from ._reconcile import Plan, Resource, World, wait_until

Options = t.Dict[str, t.Any]

_LINKS = 3.0  # seconds that links are waited for before the next look
_PAIRS = (("username", "password"), ("mutual_username", "mutual_password"))


class Sessions(Resource):
    plural = "sessions"
    lock_path = LOCK

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.host = OpenIscsiHost()
        self.ground = Ground()
        self._wishes: t.Dict[str, SessionWish] = {}
        self._awaited: t.Set[str] = set()

    def want(self, item: Options) -> SessionWish:
        iqn = check_iqn(item.get("target_iqn"), "target_iqn")
        present = item.get("state") != "absent"
        portals = tuple(dict.fromkeys(check_portal(portal["ip"], portal.get("port"), iqn) for portal in item.get("portals") or ()))
        if present and not portals:
            raise Invalid(f"{iqn} has no portals; give at least one")
        return SessionWish(
            iqn=iqn,
            present=present,
            lun=check_lun(item.get("lun"), iqn, present),
            portals=portals,
            serial=check_serial(item.get("serial"), iqn),
            wwid=check_wwid(item.get("wwid"), iqn),
            size_bytes=_size(item.get("size_bytes"), iqn),
            keep_in_use=item.get("if_in_use") == "keep",
            discovery=bool(item.get("discovery")),
            startup=item.get("startup") or "manual",
            multipath=item.get("multipath"),
            iface=check_iface(item.get("iface"), iqn),
            login_timeout=check_seconds(item.get("login_timeout"), "login_timeout", iqn),
            replacement_timeout=check_seconds(item.get("replacement_timeout"), "replacement_timeout", iqn, least=0),
            **_chap(item, iqn),
        )

    def observe(self, wants: t.Sequence[SessionWish]) -> World:
        world = self.host.observe([IscsiLook(want.iqn, want.portals if want.present else (), want.discovery, want.iface) for want in wants])
        self.ground = world[GROUND]
        return world

    def assumed(self, result: Options, world: World) -> World:
        """Takes results of iscsi_target (its portals will answer) and libvirt_disk (the domain will have let go)."""
        if result.get("changed") and "luns" in result:
            return {silence(Portal(portal["ip"], portal["port"])): None for portal in result.get("portals") or ()}
        if result.get("live") is False and result.get("domain"):
            return _let_go(result, world)
        return {}

    def plan(self, want: SessionWish, world: World) -> Plan:
        plan = plan_session(want, world, self.host)
        self._wishes[plan.title] = want
        return plan

    def flush(self) -> None:
        self.host.flush()

    def settled(self, plan: Plan, world: World) -> bool:
        want, have = self._both(plan, world)
        failed = self.host.failed(want.iqn)
        unmapped = self.host.unmapped(want.iqn) if want.present else None
        if unmapped:
            raise Failed(unmapped)
        if not want.present:
            return departed(plan, have, failed)
        there = arrived(want, plan.after, have, failed)
        link = wwn_link(want.wwid, mapped=bool(plan.after.maps))
        if link and not there:
            self._awaited.add(link)
        return there

    def wait(self, seconds: float) -> None:
        """Until udev has made the links: a look meanwhile would only take time from it."""
        links, self._awaited = self._awaited, set()
        if self.host.linked(links):
            super().wait(seconds)
        else:
            wait_until(lambda: self.host.linked(links), max(seconds, _LINKS))

    def unsettled(self, plan: Plan, world: World) -> str:
        want, have = self._both(plan, world)
        wait = self.options["timeout"]
        if want.present:
            return f"{want.title} can't be handed over after {wait} s: {waiting_for(want, have)}"
        return f"of {want.title} there is still {left_over(plan.before, plan.after, have) or 'something'} after {wait} s; run the same play again"

    def left(self, plan: Plan, world: World) -> str:
        _want, have = self._both(plan, world)
        return left_over(plan.after, plan.before, have)

    def doubts(self, plan: Plan, state: t.Optional[Connection]) -> t.Sequence[str]:
        want = self._wishes[plan.title]
        if not want.present or not is_degraded(want, state or Connection()):
            return ()
        failed = "; ".join(f"at {portal}: {why}" for portal, why in sorted(self.host.failed(want.iqn).items()))
        return (f"{want.title} is degraded: not all of its portals are reached{'; ' if failed else ''}{failed}",)

    def show(self, plan: Plan, state: t.Optional[Connection]) -> Options:
        want = self._wishes[plan.title]
        return session_result(want, state or Connection(), self.ground)

    def identify(self, item: Options) -> Options:
        return {"target_iqn": item.get("target_iqn"), **({"lun": item["lun"]} if item.get("lun") is not None else {})}

    def _both(self, plan: Plan, world: World) -> t.Tuple[SessionWish, Connection]:
        want = self._wishes[plan.title]
        return want, world.get(want.iqn) or Connection()


def find_sessions(options: Options) -> Options:
    """The LUNs of all targets that this host knows, or of exactly the given ones, ordered by target and number."""
    host = OpenIscsiHost()
    names = host.names()
    if options.get("target_iqns") is not None:
        names &= set(options["target_iqns"])
    world = host.observe([IscsiLook(iqn) for iqn in sorted(names)])
    ground: Ground = world[GROUND]
    found = [(iqn, world[iqn]) for iqn in sorted(names) if iqn in world]
    targets = [{"target_iqn": iqn, **_target_result(have, ground)} for iqn, have in found]
    return {"initiator": ground.initiator, "multipathd": ground.multipathd, "targets": targets}


def _target_result(have: Connection, ground: Ground) -> Options:
    names = ("portal", "iface", "startup", "username", "mutual_username")
    luns = [session_result(SessionWish("", lun=lun), have, ground) for lun in sorted({device.lun for device in have.devices})]
    return {
        "records": [{**{name: getattr(record, name) for name in names}, "portal": str(record.portal)} for record in have.records],
        "sessions": _sessions_result(have),
        "luns": [
            {**{key: value for key, value in told.items() if key not in ("sessions", "degraded", "initiator")}, "holders": _holders(have, told["lun"])}
            for told in luns
        ],
    }


def _holders(have: Connection, lun: int) -> t.List[str]:
    return [str(holder) for holder in have.holders(have.paths(lun))]


def session_result(want: SessionWish, have: Connection, ground: Ground) -> Options:
    """A LUN as a module returns it; one that is gone has no device."""
    paths = have.paths(want.lun) if want.present else ()
    above = have.map_of(paths)
    links = {link for seen in (*paths, *([above] if above else [])) for link in seen.links}
    return {
        "lun": want.lun,
        "device_path": handed_over(have, paths) or _predicted_path(paths, above),
        "by_path": sorted(link for link in links if link.startswith("/dev/disk/by-path/")),
        "by_id": sorted(link for link in links if link.startswith("/dev/disk/by-id/")),
        **{name: getattr((paths or (want,))[0], name) for name in ("serial", "wwid")},
        "size_bytes": paths[0].size_bytes if paths else None,
        "multipath": above.name if above else None,
        "paths": [{"portal": str(path.portal), "device": path.name, "hctl": path.hctl, "state": path.state} for path in paths],
        "sessions": _sessions_result(have),
        "degraded": is_degraded(want, have),
        "initiator": ground.initiator,
    }


def _predicted_path(paths: t.Sequence[Device], above: t.Optional[Map]) -> t.Optional[str]:
    """The link that a device will have which is not there yet, or not under its map."""
    future = any(path.name is None for path in paths) or (above is not None and above.name is None)
    return wwn_link(paths[0].wwid, above is not None) if future else None


def _sessions_result(have: Connection) -> t.List[Options]:
    return [{**as_data(session), "portal": str(session.portal)} for session in have.sessions]


def _let_go(result: Options, world: World) -> World:
    """The devices of a disk that libvirt_disk took out of its guest: its QEMU will have closed them."""
    path, serial = (result.get("source") or {}).get("path"), result.get("serial")
    gone = result["domain"]
    return {
        iqn: _without_domain(have, gone, lambda seen: path in seen.links or (serial is not None and serial == getattr(seen, "serial", None)))
        for iqn, have in world.items()
        if isinstance(have, Connection)
    }


def _without_domain(have: Connection, domain: str, is_its: t.Callable[[t.Any], bool]) -> Connection:
    def freed(seen: t.Any) -> t.Any:
        kept: t.Tuple[Holder, ...] = tuple(h for h in seen.holders if (h.kind, h.name) != ("domain", domain))
        return dataclasses.replace(seen, holders=kept) if is_its(seen) else seen

    return dataclasses.replace(have, devices=tuple(map(freed, have.devices)), maps=tuple(map(freed, have.maps)))


def _chap(item: Options, iqn: str) -> t.Dict[str, t.Any]:
    """The two pairs of a wish; a name without its password, or the other way round, is refused."""
    pairs: t.Dict[str, t.Any] = {}
    for name, password in _PAIRS:
        given = {key: check_value(item[key], f"{key} for {iqn}") for key in (name, password) if item.get(key) is not None}
        if len(given) == 1:
            raise Invalid(f"{', '.join(given)} for {iqn} stands alone; give both {name} and {password}, or none")
        if given:
            pairs.update({name: given[name], password: Secret(t.cast(str, given[password]))})
    if "mutual_username" in pairs and "username" not in pairs:
        raise Invalid(f"mutual CHAP for {iqn} needs CHAP of this host too; give username and password")
    return pairs


def _size(size_bytes: t.Optional[int], iqn: str) -> t.Optional[int]:
    if size_bytes is not None and size_bytes <= 0:
        raise Invalid(f"size_bytes of {iqn} is {size_bytes}; give the size of the volume")
    return size_bytes
