# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An initiator host in memory, no looser than open-iscsi, the kernel and multipathd: what they refuse, it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.stackless.block.plugins.module_utils._hosts import GROUND, InitiatorHost, silence
from ansible_collections.stackless.block.plugins.module_utils._model.session import RUNNING, Connection, Device, Ground, Holder, Map, NodeRecord, Session
from ansible_collections.stackless.block.plugins.module_utils._model.session import map_wwid, ordered, wwn_link
from ansible_collections.stackless.block.plugins.module_utils._model.target import Portal

IQN = "iqn.2026-01.org.example:v1"


@dataclasses.dataclass
class Lun:
    """A LUN as the target shows it: its number is not its identity."""

    serial: str
    wwid: str
    size_bytes: int


class FakeInitiator(InitiatorHost):
    """Keeps what a host has of one target; gathered verbs are done at once. `writes` counts what was done to it."""

    def __init__(self, multipathd: bool = False) -> None:
        self.ground = Ground(multipathd=multipathd, initiator="iqn.1993-08.org.debian:01:fake")
        self.luns: dict[int, Lun] = {}
        self.dead_portals: dict[Portal, str] = {}
        self.records: dict[tuple[Portal, str], NodeRecord] = {}
        self.sessions: dict[Portal, Session] = {}
        self.devices: dict[tuple[int, Portal], Device] = {}
        self.maps: dict[str, int] = {}  # wwid -> size
        self.holders: dict[str, tuple[Holder, ...]] = {}  # by the name of a device or map
        self.claimed: set[str] = set()
        self.unlinked: set[str] = set()  # names of block devices that udev has made no links for
        self.made = self.writes = 0

    def observe(self) -> dict[Any, Any]:
        world: dict[Any, Any] = {GROUND: dataclasses.replace(self.ground, claimed=frozenset(self.claimed))}
        world.update({silence(portal): why for portal, why in self.dead_portals.items()})
        devices = [dataclasses.replace(d, holders=self.holders.get(str(d.name), ()), links=self._links(d)) for d in self.devices.values()]
        seen = ordered(Connection(tuple(self.records.values()), tuple(self.sessions.values()), tuple(devices), tuple(self._maps())))
        return {**world, IQN: seen} if seen else world

    def _links(self, device: Device) -> tuple[str, ...]:
        link = wwn_link(device.wwid, False)
        return (link,) if link and device.name not in self.unlinked else ()

    def _maps(self) -> list[Map]:
        found = []
        for wwid, size in self.maps.items():
            names = frozenset(str(device.name) for device in self.devices.values() if device.wwid == wwid)
            links = () if "dm-0" in self.unlinked else (str(wwn_link(wwid, True)),)
            found.append(Map(wwid, size, "mpath-" + wwid, "dm-0", names, self.holders.get("mpath-" + wwid, ()), links))
        return found

    def trace(self) -> str:
        return repr(vars(self))

    def _device(self, lun: int, portal: Portal) -> None:
        shown = self.luns.get(lun)
        if shown and (lun, portal) not in self.devices:
            self.made += 1
            self.devices[lun, portal] = Device(lun, portal, shown.serial, shown.wwid, shown.size_bytes, f"sd{self.made}", f"{self.made}:0:0:{lun}")
            if self.ground.multipathd and map_wwid(shown.wwid) in self.claimed:
                self.maps.setdefault(shown.wwid, shown.size_bytes)

    # ---- the verbs

    def write_record(self, record: NodeRecord) -> None:
        self.writes += 1
        self.records[record.portal, record.iface] = record

    def drop_record(self, iqn: str, portal: Portal, iface: str) -> None:
        self.writes += 1
        assert portal not in self.sessions, "a record is removed while its session lives"
        self.records.pop((portal, iface), None)

    def log_in(self, iqn: str, portals: tuple[Portal, ...], iface: str, every: bool) -> None:
        self.writes += 1
        assert self.ground.installed and self.ground.daemon
        for portal in portals:
            assert (portal, iface) in self.records, "No records found"
            assert portal not in self.dead_portals
            if every or not self.sessions:
                self.sessions.setdefault(portal, Session(portal, iface))

    def log_out(self, iqn: str, portals: tuple[Portal, ...]) -> None:
        self.writes += 1
        used = {device.portal for device in self.devices.values()}
        for portal in set(portals) - used:
            self.sessions.pop(portal, None)

    def scan(self, iqn: str, lun: int) -> None:
        self.writes += 1
        for session in self.sessions.values():
            if session.alive:
                self._device(lun, session.portal)

    def make_map(self, iqn: str, lun: int) -> None:
        self.writes += 1
        assert self.ground.multipathd
        for device in [d for d in self.devices.values() if d.lun == lun]:
            assert not self.holders.get(str(device.name)), "the device is in use"
            self.claimed.add(map_wwid(str(device.wwid)))
            self.maps.setdefault(str(device.wwid), int(device.size_bytes or 0))

    def take_away(self, iqn: str, lun: int, portals: tuple[Portal, ...]) -> None:
        paths = [device for device in self.devices.values() if device.lun == lun and device.portal in portals]
        for wwid in {str(device.wwid) for device in paths}:
            if all(device in paths for device in self.devices.values() if device.wwid == wwid):
                self.maps.pop(wwid, None)
        for device in paths:
            self.delete(device)

    def claim(self, wwid: str) -> None:
        self.writes += 1
        self.claimed.add(map_wwid(wwid))

    def unclaim(self, wwid: str) -> None:
        self.writes += 1
        self.claimed.discard(map_wwid(wwid))

    def drop_map(self, wwid: str) -> None:
        self.writes += 1
        assert not self.holders.get("mpath-" + wwid), "map in use"
        self.maps.pop(wwid, None)

    def resize_map(self, wwid: str) -> None:
        self.writes += 1
        self.maps[wwid] = min(int(device.size_bytes or 0) for device in self.devices.values() if device.wwid == wwid)

    def rescan(self, device: Device) -> None:
        self.writes += 1
        there = self.devices[device.lun, device.portal]
        self.devices[device.lun, device.portal] = dataclasses.replace(there, size_bytes=self.luns[device.lun].size_bytes)

    def announce(self, name: str) -> None:
        self.writes += 1
        self.unlinked.discard(name)

    def flush_buffers(self, device: Device) -> None:
        self.writes += 1
        assert device.state == RUNNING, "I/O error"

    def delete(self, device: Device) -> None:
        self.writes += 1
        assert not self.holders.get(str(device.name)), "the device is in use"
        self.devices.pop((device.lun, device.portal), None)
        left = [each for each in self.devices.values() if each.wwid == device.wwid]
        assert left or device.wwid not in self.maps, "a map lost its last path"
