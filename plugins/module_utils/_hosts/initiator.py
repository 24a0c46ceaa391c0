# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""This host as an initiator: open-iscsi, the kernel and dm-multipath behind one set of verbs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import typing as t

from .._errors import Failed, Refused, StorageError, Unavailable
from .._model.session import DEFAULT_IFACE, Connection, Device, Ground, NodeRecord, Session, map_wwid, ordered
from .._model.target import Portal
from . import GROUND, InitiatorHost, Portals, found_portals, silence
from .connector import configured_initiator, runs
from .iscsiadm import Failures, Iscsiadm, meaning, silences
from .multipath import Multipath
from .sysfs import Sysfs

LOCK = "/run/stackless-block-iscsi.lock"
_SCANS = 16  # scans at once; each waits for its target
_TRIES = 2  # of what may be asked too early

World = t.Dict[t.Hashable, t.Any]


class IscsiLook(t.NamedTuple):
    """What has to be seen of one target: do these portals answer, and shall they be asked for more?"""

    iqn: str
    portals: Portals = ()
    discovery: bool = False
    iface: str = DEFAULT_IFACE


class _Login(t.NamedTuple):
    iqn: str
    portals: Portals
    iface: str
    every: bool


class OpenIscsiHost(InitiatorHost):
    """The ground, portals and holders are looked at until the first steps are done: to see whether those came true takes none."""

    def __init__(self) -> None:
        self.iscsiadm, self.sysfs, self.multipath = Iscsiadm(), Sysfs(), Multipath()
        self._asked: t.Dict[IscsiLook, t.Union[t.Dict[Portal, int], Unavailable]] = {}
        self._failed: Failures = {}
        self._unmapped: t.Dict[str, str] = {}
        self._flushed = False
        self._ground: t.Optional[Ground] = None
        self._logins: t.List[_Login] = []
        self._logouts: t.Set[t.Tuple[str, Portal]] = set()
        self._scans: t.List[t.Tuple[str, int]] = []
        self._scanned: t.Dict[t.Tuple[int, int], int] = {}  # how often, by session and LUN
        self._maps: t.List[t.Tuple[str, int]] = []

    # ---- looking

    def observe(self, looks: t.Sequence[IscsiLook]) -> World:
        """The world: Connections by target name, GROUND, and of portals without a session why they can't be reached."""
        iqns = {look.iqn for look in looks}
        seen = self.sysfs.connections(iqns, closely=not self._flushed)
        if self._ground is None or not self._flushed:
            self._ground = self.ground()
        world: World = {GROUND: self._ground}
        for iqn in iqns:
            found = ordered(dataclasses.replace(seen.get(iqn, Connection()), records=self.iscsiadm.records(iqn)))
            if found:
                world[iqn] = found
        if not self._flushed:
            world.update(self._portals(looks, world))
        return world

    def ground(self) -> Ground:
        return Ground(
            installed=self.iscsiadm.installed(),
            daemon=self.iscsiadm.answers(),
            multipathd=runs("multipathd"),
            initiator=configured_initiator(),
            ifaces=self.iscsiadm.ifaces(),
            claimed=self.multipath.claimed(),
        )

    def names(self) -> t.Set[str]:
        """All targets that have a record or a session."""
        return self.iscsiadm.targets() | self.sysfs.targets()

    def _portals(self, looks: t.Sequence[IscsiLook], world: World) -> World:
        missing = {look.iqn: [p for p in look.portals if not _has_session(world, look.iqn, p)] for look in looks}
        silent = silences(portal for portals in missing.values() for portal in portals)
        told: World = {}
        for look in looks:
            answering = [portal for portal in look.portals if portal not in silent]
            if look.discovery and answering:
                told[found_portals(look.iqn)] = self._discovered(look, answering[0])
        named = [(look, portal) for look, found in self._asked.items() if isinstance(found, dict) for portal in found]
        more = {portal for look, portal in named if not _has_session(world, look.iqn, portal)}
        silent.update(silences(more - set(silent)))
        return {**told, **{silence(portal): why for portal, why in silent.items()}}

    def _discovered(self, look: IscsiLook, portal: Portal) -> t.Union[t.Dict[Portal, int], Unavailable]:
        """What a portal names, or the error of the one target that it names nothing for; it is asked once."""
        if look not in self._asked:
            try:
                self._asked[look] = self.iscsiadm.discover(portal, look.iqn, look.iface)
            except Unavailable as error:
                self._asked[look] = error
        return self._asked[look]

    def linked(self, links: t.Iterable[str]) -> bool:
        """Whether udev has made all of these links, which costs next to nothing to see."""
        return all(map(os.path.lexists, links))

    def failed(self, iqn: str) -> t.Dict[Portal, str]:
        """Where this run could not log in, or out, and why."""
        return {portal: why for (name, portal), why in self._failed.items() if name == iqn}

    def unmapped(self, iqn: str) -> t.Optional[str]:
        """Why multipathd made no map, if it refused."""
        return self._unmapped.get(iqn)

    # ---- what is done at once

    def write_record(self, record: NodeRecord) -> None:
        self.iscsiadm.write(record)

    def drop_record(self, iqn: str, portal: Portal, iface: str) -> None:
        self.iscsiadm.drop(iqn, portal, iface)

    def claim(self, wwid: str) -> None:
        self.multipath.claim(wwid)

    def unclaim(self, wwid: str) -> None:
        self.multipath.unclaim(wwid)

    def drop_map(self, wwid: str) -> None:
        there = self.sysfs.map(wwid)
        if there:
            self.multipath.drop(there, dead=not self.sysfs.any_running(there.devices))

    def resize_map(self, wwid: str) -> None:
        there = self.sysfs.map(wwid)
        if there:
            self.multipath.resize(there)

    def rescan(self, device: Device) -> None:
        self.sysfs.rescan(device)

    def announce(self, name: str) -> None:
        self.sysfs.announce(name)

    def flush_buffers(self, device: Device) -> None:
        self.sysfs.flush_buffers(str(device.name))

    def delete(self, device: Device) -> None:
        self.sysfs.delete(device)

    def take_away(self, iqn: str, lun: int, portals: Portals) -> None:
        have = self.sysfs.connections({iqn}, closely=True).get(iqn, Connection())
        paths = tuple(device for device in have.paths(lun) if device.portal in portals)
        above = have.map_of(paths)
        if above and above.devices <= {device.name for device in paths}:
            self._refuse_held(iqn, lun, have, paths)
            self.multipath.drop(above, dead=not self.sysfs.any_running(above.devices))
        elif not above:
            self._refuse_held(iqn, lun, have, paths)
        for device in paths:
            self.sysfs.delete(device)

    def _refuse_held(self, iqn: str, lun: int, have: Connection, paths: t.Sequence[Device]) -> None:
        """A process that looks at a device which was handed to nobody is no holder, it only came to see what is new."""
        holders = ", ".join(str(holder) for holder in have.holders(paths) if holder.kind != "process")
        if holders:
            raise Refused(f"LUN {lun} of {iqn} is in use by {holders}")

    # ---- what is gathered

    def log_in(self, iqn: str, portals: Portals, iface: str, every: bool) -> None:
        self._logins.append(_Login(iqn, portals, iface, every))

    def log_out(self, iqn: str, portals: Portals) -> None:
        self._logouts |= {(iqn, portal) for portal in portals}

    def scan(self, iqn: str, lun: int) -> None:
        self._scans.append((iqn, lun))

    def make_map(self, iqn: str, lun: int) -> None:
        self._maps.append((iqn, lun))

    def flush(self) -> None:
        """Everything gathered, for all targets at once. What fails for one of them is an error of that target alone."""
        self._flushed = True
        logouts, logins, scans, maps = self._gathered()
        if logouts:
            self._log_out(logouts)
        if logins:
            self._log_in(logins, lambda: self._scan(scans, 0))
        for number in range(_TRIES if scans else 0):
            self._scan(scans, number)
        if maps:
            self._make_maps(maps)

    def _gathered(self) -> t.Tuple[t.Any, ...]:
        """What was gathered, for this once: whatever becomes of it, a later flush must not do it again."""
        gathered = self._logouts, self._logins, self._scans, self._maps
        self._logouts, self._logins, self._scans, self._maps = set(), [], [], []
        return gathered

    def _log_out(self, ends: t.Set[t.Tuple[str, Portal]]) -> None:
        """Ends what no device needs; once more where iscsid was not ready for it, as right after it was started."""
        for _attempt in range(_TRIES):
            idle = self._idle(ends)
            if idle:
                said = self._end(idle)
                self._failed.update({(iqn, session.portal): said for iqn, session in idle})
        lasting = {(iqn, session.portal) for iqn, session in self._idle(ends)}
        self._failed = {key: why for key, why in self._failed.items() if key in lasting or key not in ends}

    def _idle(self, ends: t.Set[t.Tuple[str, Portal]]) -> t.List[t.Tuple[str, Session]]:
        seen = self.sysfs.connections({iqn for iqn, portal in ends}, closely=False)
        sessions = [(iqn, session) for iqn, have in seen.items() for session in have.sessions if (iqn, session.portal) in ends]
        return [(iqn, s) for iqn, s in sessions if not any(device.portal == s.portal for device in seen[iqn].devices)]

    def _end(self, idle: t.Sequence[t.Tuple[str, Session]]) -> str:
        try:
            return _unsaid(self.iscsiadm.log_out([(iqn, self.sysfs.portal_group(session), session) for iqn, session in idle]))
        except Failed as error:
            return str(error)

    def _log_in(self, logins: t.Sequence[_Login], meanwhile: t.Callable[[], None]) -> None:
        """At every portal, or round after round at the next one where there was none that let this host in.

        Sessions are scanned while others still come up: the kernel and udev are longer busy with a disk than iscsid with a login.
        """
        rounds = max(len(login.portals) for login in logins)
        inside: t.Set[str] = set()
        for number in range(rounds):
            asked = [(login, portal) for login in logins for portal in _turn(login, number) if login.every or login.iqn not in inside]
            if asked:
                self._try(asked, meanwhile)
                inside |= {login.iqn for login, portal in asked if (login.iqn, portal) not in self._failed}

    def _try(self, asked: t.Sequence[t.Tuple[_Login, Portal]], meanwhile: t.Callable[[], None]) -> None:
        records = [record for login, portal in asked for record in self.iscsiadm.records(login.iqn) if (record.portal, record.iface) == (portal, login.iface)]
        try:
            failures, said = self.iscsiadm.log_in(records, meanwhile)
        except Failed as error:
            failures, said = {}, str(error)
        there = self.sysfs.sessions({login.iqn for login, portal in asked})
        reached = {(iqn, session.portal) for iqn, sessions in there.items() for session in sessions if session.alive}
        lost = [(login.iqn, portal) for login, portal in asked if (login.iqn, portal) not in reached]
        silent = silences(portal for _iqn, portal in lost) if lost else {}
        initiator = configured_initiator() or "this host"
        for key in lost:
            self._failed[key] = meaning(failures[key], initiator, silent.get(key[1])) if key in failures else _unsaid(said)

    def _scan(self, scans: t.Sequence[t.Tuple[str, int]], before: int) -> None:
        """Scans side by side through the sessions that do not show their LUN and were scanned so often before."""
        there = self.sysfs.sessions({iqn for iqn, lun in scans})
        alive = [(session, lun) for iqn, lun in scans for session in there.get(iqn, ()) if session.alive]
        missing = [(s, lun) for s, lun in alive if self._scanned.get((s.sid, lun), 0) <= before and not self.sysfs.shows(s, lun)]
        self._scanned.update({(session.sid, lun): before + 1 for session, lun in missing})
        if missing:
            with concurrent.futures.ThreadPoolExecutor(_SCANS) as pool:
                list(pool.map(lambda each: self._scan_one(*each), missing))

    def _scan_one(self, session: Session, lun: int) -> None:
        with contextlib.suppress(StorageError):  # what did not come is seen afterwards
            self.sysfs.scan(session, lun)

    def _make_maps(self, maps: t.Sequence[t.Tuple[str, int]]) -> None:
        seen = self.sysfs.connections({iqn for iqn, lun in maps}, closely=False)
        for iqn, lun in maps:
            try:
                self._map_paths([device for device in seen.get(iqn, Connection()).paths(lun) if device.name and device.wwid])
            except StorageError as error:
                self._unmapped[iqn] = str(error)

    def _map_paths(self, paths: t.Sequence[Device]) -> None:
        for device in paths:
            if map_wwid(str(device.wwid)) not in self.multipath.claimed():
                self.multipath.claim(str(device.wwid))
            self.multipath.add_path(str(device.name))
        there = self.sysfs.map(str(paths[0].wwid)) if paths else None
        if there and there.size_bytes != paths[0].size_bytes:
            self.multipath.resize(there)  # multipathd remembers the size that a path had when it came


def _turn(login: _Login, number: int) -> Portals:
    """The portals whose turn it is in a round."""
    if login.every:
        return login.portals if number == 0 else ()
    return login.portals[number : number + 1]


def _has_session(world: t.Mapping[t.Any, t.Any], iqn: str, portal: Portal) -> bool:
    session = (world.get(iqn) or Connection()).session(portal)
    return session is not None and session.alive


def _unsaid(said: str) -> str:
    """What iscsiadm said where it had no word for one session alone."""
    return f"iscsiadm says: {' '.join(said.split())[:300] or 'nothing'}"
