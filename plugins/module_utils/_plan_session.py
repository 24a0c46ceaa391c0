# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From what a host has of a target to what it shall have: pure decisions, no reading, no writing.

Two rules stand above all. A device is handed over only after its identity was compared (`arrived`), and it is taken
away only when nobody holds it. Both are what CVE-2023-2088 lacked.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Failed, Invalid, NotFound, Refused, StorageError, Unavailable
from ._hosts import GROUND, InitiatorHost, found_portals, silence
from ._model.data import Secret
from ._model.session import DEFAULT_IFACE, RUNNING, Connection, Device, Ground, Map, NodeRecord, Session, map_wwid, ordered, wwn_link
from ._model.target import Portal
from ._reconcile import Plan, Step, World

Portals = t.Tuple[Portal, ...]

_IDENTITY = ("serial", "wwid", "size_bytes")
_LOGIN_TIMEOUT, _LOGIN_RETRIES = 10, 2  # bounded: open-iscsi's own defaults try for two minutes


@dataclasses.dataclass(frozen=True)
class SessionWish:
    """What the user says of one LUN; None is what the user does not care about."""

    iqn: str
    present: bool = True
    lun: t.Optional[int] = None
    portals: Portals = ()
    serial: t.Optional[str] = None
    wwid: t.Optional[str] = None
    size_bytes: t.Optional[int] = None
    username: t.Optional[str] = None
    password: t.Optional[Secret] = None
    mutual_username: t.Optional[str] = None
    mutual_password: t.Optional[Secret] = None
    keep_in_use: bool = False
    discovery: bool = False
    startup: str = "manual"
    multipath: t.Optional[bool] = None
    iface: str = DEFAULT_IFACE
    login_timeout: t.Optional[int] = None
    replacement_timeout: t.Optional[int] = None

    @property
    def title(self) -> str:
        what = f"LUN {self.lun}" if self.lun is not None else f"serial {self.serial}" if self.serial else "all LUNs"
        return f"{what} of {self.iqn}"


@dataclasses.dataclass(frozen=True)
class _Way:
    """What has to be done for a wish, before it is put into steps."""

    portals: Portals  # all that the target shall be reached at
    mapped: bool
    kept: Connection  # what stays of what there is
    stale: t.Tuple[Device, ...]
    ended: Portals  # sessions that are dead and have to be made anew
    new: Portals  # where to log in


def plan_session(want: SessionWish, world: World, host: InitiatorHost) -> Plan:
    """Logs in and has the LUN as a device, takes its growth over, or takes it away and logs out.

    Raises Conflict, Invalid, Refused or Unavailable.
    """
    have: Connection = world.get(want.iqn) or Connection()
    ground: Ground = world.get(GROUND) or Ground()
    if want.present:
        return _present(want, have, ground, world, host)
    return _absent(want, have, ground, host)


# ---- present ---------------------------------------------------------------------------------------------------------


def _present(want: SessionWish, have: Connection, ground: Ground, world: World, host: InitiatorHost) -> Plan:
    way = _way(want, have, ground, world)
    _check_ground(want, way, ground)
    records = tuple(_record(want, have, portal, world) for portal in way.portals)
    after = _after(want, way, records)
    steps = _claiming(want, way, ground, host) + _recording(have, records, host)
    steps += _clearing(want, have, way, host) + _growing(want, way, host) + _reaching(want, way, host)
    steps += _linking(way, way.kept.paths(want.lun), host)
    undo = _undoing(want, have, way, ground, host) if steps else ()
    warnings = [f"{want.iqn} is not reached at {portal}: {world[silence(portal)]}" for portal in way.portals if world.get(silence(portal))]
    if want.multipath and not way.mapped:
        warnings.append(f"{want.title} is in use without a multipath map, and stays without until it is let go")
    return Plan(want.iqn, world.get(want.iqn), after, steps, label=want.title, warnings=tuple(warnings), undo=undo)


def _way(want: SessionWish, have: Connection, ground: Ground, world: World) -> _Way:
    stale = _stale(want, have)
    dead = _dead(want, have)
    gone = stale + tuple(device for device in have.paths(want.lun) if device.portal in dead and device not in stale)
    kept = _without(have, gone, dead)
    mapped = _mapped(want, kept, ground)
    portals = want.portals + tuple(sorted(set(_discovered(want, world)) - set(want.portals)))
    return _Way(portals, mapped, kept, gone, dead, _missing(want, kept, portals, mapped, world))


def _discovered(want: SessionWish, world: World) -> t.Dict[Portal, int]:
    found = world.get(found_portals(want.iqn), {})
    if isinstance(found, StorageError):
        raise found
    return t.cast(t.Dict[Portal, int], found)


def _stale(want: SessionWish, have: Connection) -> t.Tuple[Device, ...]:
    """The devices in this LUN's place that are another volume's, or that the kernel gave up; refused while someone holds one."""
    found = []
    for device in have.paths(want.lun):
        wrong = _wrong(want, device)
        holders = ", ".join(map(str, have.holders((device,))))
        if wrong and holders:
            raise Conflict(
                f"in the place of {want.title} is {device.name} with {wrong}, and it is in use by {holders}; "
                "find out who that volume belongs to and let it go there, or correct the wish"
            )
        if wrong or (device.state == "offline" and not holders):
            found.append(device)
    return tuple(found)


def _wrong(want: SessionWish, device: Device) -> str:
    """What shows that a device is not the wished volume, or that its users take it for another one; empty when it is right."""
    other = [name for name in ("serial", "wwid") if getattr(want, name) not in (None, getattr(device, name))]
    told = ", ".join(f"{name} {getattr(device, name)}, not {getattr(want, name)}" for name in other)
    return told or (f"{device.exchanged}, which it had not when it was found" if device.exchanged else "")


def _dead(want: SessionWish, have: Connection) -> Portals:
    """Sessions that are down and that nobody would miss: they are made anew. Those in use come back by themselves, or not."""
    if have.holders(have.paths(want.lun)):
        return ()
    others = {device.portal for device in have.devices if device.lun != want.lun}
    return tuple(s.portal for s in have.sessions if not s.alive and s.portal in want.portals and s.portal not in others)


def _without(have: Connection, gone: t.Sequence[Device], portals: t.Container[Portal]) -> Connection:
    devices = tuple(device for device in have.devices if device not in gone)
    above = [have.map_of([device]) for device in gone]
    maps = tuple(each for each in have.maps if each not in above or any(device.name in each.devices for device in devices))
    return dataclasses.replace(have, devices=devices, maps=maps, sessions=tuple(s for s in have.sessions if s.portal not in portals))


def _mapped(want: SessionWish, kept: Connection, ground: Ground) -> bool:
    """Whether the device is a multipath map: where there is one already, and else where it is wished and nobody uses the bare device."""
    paths = kept.paths(want.lun)
    if kept.map_of(paths):
        return True
    if any(device.holders for device in paths):
        return False
    if want.multipath and not ground.multipathd:
        raise Unavailable(f"multipathd does not run on this host, but {want.title} shall be a multipath map; start it, or set multipath=false")
    return ground.multipathd if want.multipath is None else want.multipath


def _missing(want: SessionWish, kept: Connection, portals: Portals, mapped: bool, world: World) -> Portals:
    """Where to log in: at every portal without a session, or without multipath at any one when there is no session at all."""
    alive = [session for session in kept.sessions if session.alive]
    if not mapped and kept.sessions:
        missing: Portals = ()
    else:
        missing = tuple(portal for portal in portals if not kept.session(portal))
    answering = tuple(portal for portal in missing if not world.get(silence(portal)))
    if not alive and not answering:
        raise _unreached(want, kept, missing, world)
    return answering


def _unreached(want: SessionWish, kept: Connection, missing: Portals, world: World) -> Unavailable:
    down = [f"{session.portal} (its session is down: {session.state})" for session in kept.sessions]
    told = "; ".join([f"{portal} ({world[silence(portal)]})" for portal in missing] + down)
    holders = ", ".join(map(str, kept.holders(kept.paths(want.lun))))
    held = f"; the device is in use by {holders}, whose I/O goes on when a session comes back" if holders else ""
    return Unavailable(f"no portal of {want.iqn} is reached: {told}; check that the target's service runs, and the network to it{held}")


def _check_ground(want: SessionWish, way: _Way, ground: Ground) -> None:
    if way.new or way.ended:
        _check_tools(ground)
    if want.iface not in ground.ifaces:
        raise Invalid(f"open-iscsi has no iface {want.iface} on this host; make it (iscsiadm -m iface -o new -I {want.iface}), or correct iface")


def _check_tools(ground: Ground) -> None:
    if not ground.installed:
        raise Unavailable("open-iscsi is not installed on this host; install the package open-iscsi (on Red Hat's systems iscsi-initiator-utils)")
    if not ground.daemon:
        raise Unavailable("iscsid does not run on this host, nor does its socket wait for it; start it (systemctl start iscsid)")


def _record(want: SessionWish, have: Connection, portal: Portal, world: World) -> NodeRecord:
    """The node record as it shall be; what the wish does not speak of stays."""
    known = have.record(portal, want.iface)
    if known is None:
        known = NodeRecord(want.iqn, portal, want.iface, tpgt=_discovered(want, world).get(portal, 1))
    return dataclasses.replace(
        known,
        startup=want.startup,
        scan="manual",
        username=want.username,
        password=want.password,
        mutual_username=want.mutual_username,
        mutual_password=want.mutual_password,
        login_timeout=want.login_timeout or _LOGIN_TIMEOUT,
        login_retries=_LOGIN_RETRIES,
        replacement_timeout=known.replacement_timeout if want.replacement_timeout is None else want.replacement_timeout,
        private=True,
    )


def _after(want: SessionWish, way: _Way, records: t.Tuple[NodeRecord, ...]) -> Connection:
    kept = way.kept
    sessions = kept.sessions + tuple(Session(portal, want.iface) for portal in (way.new if way.mapped else way.new[:1]))
    told = {name: getattr(want, name) for name in _IDENTITY if getattr(want, name) is not None}
    mine = tuple(dataclasses.replace(device, **told) for device in kept.paths(want.lun))
    reached = {device.portal for device in mine}
    mine += tuple(Device(t.cast(int, want.lun), s.portal, **told) for s in sessions if s.portal not in reached and s.alive)
    others = tuple(device for device in kept.devices if device.lun != want.lun)
    written = {(record.portal, record.iface) for record in records}
    old = tuple(record for record in kept.records if (record.portal, record.iface) not in written)
    return ordered(Connection(old + records, sessions, others + mine, _maps_after(want, way)))


def _maps_after(want: SessionWish, way: _Way) -> t.Tuple[Map, ...]:
    if not way.mapped:
        return way.kept.maps
    there = way.kept.map_of(way.kept.paths(want.lun)) or Map(want.wwid or "")
    grown = dataclasses.replace(there, size_bytes=want.size_bytes or there.size_bytes)
    return tuple(each for each in way.kept.maps if each != there) + (grown,)


def _claiming(want: SessionWish, way: _Way, ground: Ground, host: InitiatorHost) -> t.Tuple[Step, ...]:
    """Told beforehand, multipathd takes the first path at once; otherwise it may wait for a second one (find_multipaths)."""
    if _claims(want, way, ground):
        return (Step(f"have multipathd make a map of {want.wwid}", host.claim, (want.wwid,)),)
    if want.multipath is False and not way.mapped and want.wwid and map_wwid(want.wwid) in ground.claimed:
        return (Step(f"have multipathd make no map of {want.wwid}", host.unclaim, (want.wwid,)),)
    return ()


def _claims(want: SessionWish, way: _Way, ground: Ground) -> bool:
    return way.mapped and want.wwid is not None and map_wwid(want.wwid) not in ground.claimed


def _recording(have: Connection, records: t.Tuple[NodeRecord, ...], host: InitiatorHost) -> t.Tuple[Step, ...]:
    wrong = [record for record in records if record != have.record(record.portal, record.iface)]
    return tuple(Step(f"write the node record of {record.iqn} at {record.portal}", host.write_record, (record,)) for record in wrong)


def _clearing(want: SessionWish, have: Connection, way: _Way, host: InitiatorHost) -> t.Tuple[Step, ...]:
    """Takes away what is in the LUN's place and is not it."""
    maps = [each for each in have.maps if each not in way.kept.maps]
    steps = _removing(want, maps, way.stale, host, flush=False)
    if way.ended:
        steps += (Step(f"end the dead session with {want.iqn} at {_listed(way.ended)}", host.log_out, (want.iqn, way.ended)),)
    return steps


def _reaching(want: SessionWish, way: _Way, host: InitiatorHost) -> t.Tuple[Step, ...]:
    steps: t.Tuple[Step, ...] = ()
    if way.new:
        where = _listed(way.new, "and" if way.mapped else "or")
        steps += (Step(f"log in to {want.iqn} at {where}", host.log_in, (want.iqn, way.new, want.iface, way.mapped)),)
    if _lacking(want, way):
        steps += (Step(f"scan for LUN {want.lun} of {want.iqn}", host.scan, (want.iqn, want.lun)),)
    early, late = _mapping(want, way, host)
    return early + steps + late


def _linking(way: _Way, paths: t.Tuple[Device, ...], host: InitiatorHost) -> t.Tuple[Step, ...]:
    """A device without the link by which it is handed over, or with one that leads elsewhere, is of no use to anybody."""
    above = way.kept.map_of(paths)
    names = [above.device] if above else [device.name for device in paths]
    if handed_over(way.kept, paths) or (way.mapped and not above):
        return ()
    return tuple(Step(f"have udev look at {name} again", host.announce, (name,)) for name in names if name)


def _mapping(want: SessionWish, way: _Way, host: InitiatorHost) -> t.Tuple[t.Tuple[Step, ...], t.Tuple[Step, ...]]:
    """multipathd has to be told of devices that are there already, and afterwards of those whose WWID nobody knew beforehand."""
    paths = way.kept.paths(want.lun)
    told = (Step(f"make a multipath map of {want.title}", host.make_map, (want.iqn, want.lun)),)
    if not way.mapped or way.kept.map_of(paths):
        return (), ()
    return (told, ()) if paths else ((), () if want.wwid else told)


def _lacking(want: SessionWish, way: _Way) -> Portals:
    """The portals through which the LUN is not seen yet."""
    seen = {device.portal for device in way.kept.paths(want.lun)}
    return way.new + tuple(s.portal for s in way.kept.sessions if s.alive and s.portal not in seen)


def _growing(want: SessionWish, way: _Way, host: InitiatorHost) -> t.Tuple[Step, ...]:
    if want.size_bytes is None:
        return ()
    paths = way.kept.paths(want.lun)
    there = way.kept.map_of(paths)
    wrong = [device for device in paths if device.size_bytes != want.size_bytes and device.state == RUNNING]
    steps = tuple(Step(f"look at the size of {device.name} again", host.rescan, (device,)) for device in wrong)
    if there and (there.size_bytes or 0) < want.size_bytes:
        steps += (Step(f"resize the multipath map {there.name} to {want.size_bytes} bytes", host.resize_map, (there.wwid,)),)
    return steps


def _undoing(want: SessionWish, have: Connection, way: _Way, ground: Ground, host: InitiatorHost) -> t.Tuple[Step, ...]:
    """What takes back only what this plan makes, last things first."""
    steps: t.Tuple[Step, ...] = ()
    scanned = _lacking(want, way)
    if scanned:
        steps += (Step(f"take {want.title} away again", host.take_away, (want.iqn, want.lun, scanned)),)
    early, _late = _mapping(want, way, host)
    if early:
        steps += (Step(f"remove the multipath map of {want.title} again", host.drop_map, (way.kept.paths(want.lun)[0].wwid,)),)
    if way.new:
        steps += (Step(f"log out of {want.iqn} again", host.log_out, (want.iqn, way.new)),)
    made = [portal for portal in way.portals if not have.record(portal, want.iface)]
    steps += tuple(Step(f"remove the node record of {want.iqn} at {p} again", host.drop_record, (want.iqn, p, want.iface)) for p in made)
    if _claims(want, way, ground):
        steps += (Step(f"have multipathd forget {want.wwid} again", host.unclaim, (want.wwid,)),)
    return steps


def _removing(want: SessionWish, maps: t.Sequence[Map], devices: t.Sequence[Device], host: InitiatorHost, flush: bool) -> t.Tuple[Step, ...]:
    """The safe order: what is written goes out, from the top down, before the way for it is gone."""
    steps = tuple(Step(f"flush and remove the multipath map {each.name}", host.drop_map, (each.wwid,)) for each in maps)
    for device in devices:
        if flush and device.state == RUNNING and device.name and not device.exchanged:
            steps += (Step(f"flush the buffers of {device.name}", host.flush_buffers, (device,)),)
        steps += (Step(f"delete the SCSI device {device.name or ''} ({device.hctl})", host.delete, (device,)),)
    return steps


def _listed(portals: Portals, word: str = "and") -> str:
    return f" {word} ".join(map(str, portals))


# ---- whether it came true --------------------------------------------------------------------------------------------


def arrived(want: SessionWish, after: Connection, have: Connection, failed: t.Mapping[Portal, str]) -> bool:
    """Whether the device may be handed over. `failed` are portals where this run could not log in, and why.

    Raises Failed, NotFound or Conflict when it never will be.
    """
    sessions = [session for session in have.sessions if session.alive]
    if not sessions and failed:
        raise Failed(f"no login to {want.iqn}: " + "; ".join(f"at {portal} {why}" for portal, why in sorted(failed.items())))
    paths = have.paths(want.lun)
    if sessions and not paths:
        raise NotFound(f"{want.iqn} is logged in to, but shows this host no LUN {want.lun}; check the target's LUNs and what its ACL maps, or correct lun")
    for device in paths:
        _check_identity(want, device)
    reached = {device.portal for device in paths if device.name}
    if not paths or any(session.portal not in reached for session in sessions):
        return False
    return _is_ready(want, bool(after.maps), have, paths)


def _check_identity(want: SessionWish, device: Device) -> None:
    """The gate that no device passes unseen."""
    for name in _IDENTITY:
        asked, found = getattr(want, name), getattr(device, name)
        if name == "size_bytes" and device.state != RUNNING:
            continue  # a path that is down tells its size of old
        if asked is not None and device.name and asked != found:
            hint = "extend the volume and its export, or correct size_bytes" if name == "size_bytes" else "check what the target exports, or correct the wish"
            raise Conflict(f"{want.title} is {device.name} with {name} {found}, not {asked}, and was handed to nobody; {hint}")


def _is_ready(want: SessionWish, mapped: bool, have: Connection, paths: t.Tuple[Device, ...]) -> bool:
    above = have.map_of(paths)
    if mapped and above is None:
        return False
    if above is None:
        return handed_over(have, paths) is not None
    whole = {device.name for device in paths} <= above.devices and want.size_bytes in (None, above.size_bytes)
    return whole and handed_over(have, paths) is not None


def handed_over(have: Connection, paths: t.Tuple[Device, ...]) -> t.Optional[str]:
    """The link by which the device is given to others, if it leads to these paths."""
    above = have.map_of(paths)
    if not paths:
        return None
    top: t.Any = above or paths[0]
    links = above.links if above else tuple(link for device in paths for link in device.links)
    stable = wwn_link(top.wwid, mapped=above is not None)
    wanted = [stable] if stable else [link for link in sorted(links) if link.startswith("/dev/disk/by-path/")]
    return next((link for link in wanted if link in links), None)


def waiting_for(want: SessionWish, have: Connection) -> str:
    """Why the device can't be handed over yet."""
    paths = have.paths(want.lun)
    above = have.map_of(paths)
    names = ", ".join(device.name or str(device.hctl) for device in paths) or "no device"
    down = [f"{session.portal} is {session.state}" for session in have.sessions if not session.alive]
    if down and len(down) == len(have.sessions):
        return "the session at " + ", ".join(down)
    if not all(device.name for device in paths):
        return f"the kernel has no block device for {names}; look at its log"
    if above is None:
        return f"neither a multipath map nor the link of {names} has come; check that udev runs, and what multipath -ll says of it"
    return f"the multipath map {above.name} is not complete; check what multipath -ll says of it"


def is_degraded(want: SessionWish, have: Connection) -> bool:
    """Whether a map is reached by fewer portals than were named."""
    paths = have.paths(want.lun)
    if not have.map_of(paths):
        return False
    alive = {session.portal for session in have.sessions if session.alive}
    good = {device.portal for device in paths if device.state == RUNNING} & alive
    return bool(set(want.portals) - good)


# ---- absent ----------------------------------------------------------------------------------------------------------


def _absent(want: SessionWish, have: Connection, ground: Ground, host: InitiatorHost) -> Plan:
    mine = tuple(device for device in have.devices if _is_meant(want, device))
    holders = ", ".join(map(str, have.holders(mine)))
    if holders and want.keep_in_use:
        left = f"{want.title} is still in use by {holders}, so it stays"
        return Plan(want.iqn, have or None, have or None, label=want.title, warnings=(left,))
    if holders:
        raise Refused(f"{want.title} is in use by {holders}; let it go there first, then log out")
    rest = _without(have, mine, ())
    gone = [each for each in have.maps if each not in rest.maps]
    steps = _unclaiming(want, mine, ground, host) + _removing(want, gone, mine, host, flush=True)
    if rest.devices:
        return Plan(want.iqn, have, rest, steps, label=want.title)
    return _leaving(want, have, steps, ground, host)


def _leaving(want: SessionWish, have: Connection, steps: t.Tuple[Step, ...], ground: Ground, host: InitiatorHost) -> Plan:
    """No LUN needs the sessions any more."""
    if have.sessions:
        _check_tools(ground)
        ended = tuple(session.portal for session in have.sessions)
        steps += (Step(f"log out of {want.iqn} at {_listed(ended)}", host.log_out, (want.iqn, ended)),)
    closing = tuple(Step(f"remove the node record of {r.iqn} at {r.portal}", host.drop_record, (r.iqn, r.portal, r.iface)) for r in have.records)
    return Plan(want.iqn, have or None, None, steps, label=want.title, closing=closing)


def _is_meant(want: SessionWish, device: Device) -> bool:
    """Whether a device is the wished LUN; one with another serial is somebody else's and stays."""
    return want.lun in (None, device.lun) and want.serial in (None, device.serial) and want.wwid in (None, device.wwid)


def _unclaiming(want: SessionWish, mine: t.Sequence[Device], ground: Ground, host: InitiatorHost) -> t.Tuple[Step, ...]:
    """First of all, as the WWID is known only as long as there is a device."""
    wwids = {device.wwid for device in mine if device.wwid} | ({want.wwid} if want.wwid else set())
    known = sorted(wwid for wwid in wwids if map_wwid(wwid) in ground.claimed)
    return tuple(Step(f"have multipathd forget {wwid}", host.unclaim, (wwid,)) for wwid in known)


def departed(plan: Plan, have: Connection, failed: t.Mapping[Portal, str]) -> bool:
    """Whether all that the plan takes away is gone. Raises Failed when a session could not be ended."""
    before, after = plan.before or Connection(), plan.after or Connection()
    devices = {(d.lun, d.portal) for d in before.devices} - {(d.lun, d.portal) for d in after.devices}
    gone = not any((device.lun, device.portal) in devices for device in have.devices)
    maps = set(before.maps) - set(after.maps)
    sessions = (set(before.sessions) - set(after.sessions)) & set(have.sessions)
    stuck = sorted(session.portal for session in sessions if session.portal in failed)
    if stuck:
        raise Failed(f"no logout of {plan.key} at {stuck[0]}: {failed[stuck[0]]}; the next run tries again")
    return gone and not maps & set(have.maps) and not sessions


def left_over(before: t.Optional[Connection], after: t.Optional[Connection], have: Connection) -> str:
    """What is still there that stands in `before` and not in `after`; empty when all of it is gone."""
    before, after = before or Connection(), after or Connection()
    names = [f"device {d.name} ({d.hctl})" for d in have.devices if d in before.devices and d not in after.devices]
    names += [f"multipath map {each.name}" for each in have.maps if each in before.maps and each not in after.maps]
    names += [f"the session at {s.portal} ({s.state})" for s in have.sessions if s in before.sessions and s not in after.sessions]
    return ", ".join(names)
