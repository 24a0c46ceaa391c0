# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What an initiator host has of a target: node records, sessions, SCSI devices, multipath maps, and who holds them.

The words are open-iscsi's and the kernel's. What a plan can't foretell (the number of a session, the name of a
device) does not count when two states are compared.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from .._errors import Invalid
from .data import Secret
from .target import Portal

LOGGED_IN = "LOGGED_IN"
RUNNING = "running"
DEFAULT_IFACE = "default"

_WWID = re.compile(r"(naa|eui)\.[0-9a-f]{16}([0-9a-f]{16})?", re.ASCII)
_SERIAL = re.compile(r"[!-~]{1,254}", re.ASCII)
# A node record is lines of `name = value`: what would end the line, or is taken off its ends, can't be a value.
_VALUE = re.compile(r"[!-~]{1,255}", re.ASCII)
_IFACE = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_MAX_LUN = 16383


def portal_at(address: str, port: t.Any) -> Portal:
    """A portal as open-iscsi writes it, with the address in its shortest spelling."""
    return Portal(str(ipaddress.ip_address(address.strip("[]"))), int(port))


@dataclasses.dataclass(frozen=True)
class NodeRecord:
    """How the host logs in at one portal. None is what the record leaves to the host's defaults.

    `private`: only root can read the file. `rest` are its other settings, which are kept as they are.
    """

    iqn: str
    portal: Portal
    iface: str = DEFAULT_IFACE
    startup: str = "manual"
    scan: str = "manual"
    username: t.Optional[str] = None
    password: t.Optional[Secret] = None
    mutual_username: t.Optional[str] = None
    mutual_password: t.Optional[Secret] = None
    login_timeout: t.Optional[int] = None
    login_retries: t.Optional[int] = None
    replacement_timeout: t.Optional[int] = None
    private: bool = True
    tpgt: int = dataclasses.field(compare=False, default=1)
    rest: t.Tuple[t.Tuple[str, str], ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})


@dataclasses.dataclass(frozen=True)
class Session:
    portal: Portal
    iface: str = DEFAULT_IFACE
    state: str = dataclasses.field(compare=False, default=LOGGED_IN)
    sid: int = dataclasses.field(compare=False, default=0, metadata={"hidden": True})
    host: int = dataclasses.field(compare=False, default=0, metadata={"hidden": True})

    @property
    def alive(self) -> bool:
        return self.state == LOGGED_IN


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who has a device open. `kind` is domain, process, mount, swap or device."""

    kind: str
    name: str
    pid: t.Optional[int] = None

    def __str__(self) -> str:
        words = {"mount": "the file system at", "device": "the block device"}
        told = f"{words.get(self.kind, self.kind)} {self.name}"
        return f"{told} (pid {self.pid})" if self.pid else told


@dataclasses.dataclass(frozen=True)
class Device:
    """One SCSI disk: a LUN as it is reached through one session. No `name`: the kernel has no block device for it (yet).

    `exchanged`: what it says to be, when that is another volume than the one that the kernel, and whoever uses it, takes it for.
    """

    lun: int
    portal: Portal
    serial: t.Optional[str] = None
    wwid: t.Optional[str] = None
    size_bytes: t.Optional[int] = None
    name: t.Optional[str] = dataclasses.field(compare=False, default=None)
    hctl: t.Optional[str] = dataclasses.field(compare=False, default=None)
    state: str = dataclasses.field(compare=False, default=RUNNING)
    exchanged: t.Optional[str] = dataclasses.field(compare=False, default=None)
    holders: t.Tuple[Holder, ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})
    links: t.Tuple[str, ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})


@dataclasses.dataclass(frozen=True)
class Map:
    """One multipath map. `wwid` is that of its paths, `devices` are their names, `holders` do not count its own partitions."""

    wwid: str
    size_bytes: t.Optional[int] = None
    name: t.Optional[str] = dataclasses.field(compare=False, default=None)
    device: t.Optional[str] = dataclasses.field(compare=False, default=None)
    devices: t.FrozenSet[str] = dataclasses.field(compare=False, default=frozenset())
    holders: t.Tuple[Holder, ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})
    links: t.Tuple[str, ...] = dataclasses.field(compare=False, default=(), metadata={"hidden": True})


@dataclasses.dataclass(frozen=True)
class Connection:
    """All that the host has of one target. Records and sessions are ordered by portal, devices by LUN and portal."""

    records: t.Tuple[NodeRecord, ...] = ()
    sessions: t.Tuple[Session, ...] = ()
    devices: t.Tuple[Device, ...] = ()
    maps: t.Tuple[Map, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.records or self.sessions or self.devices or self.maps)

    def session(self, portal: Portal) -> t.Optional[Session]:
        return next((session for session in self.sessions if session.portal == portal), None)

    def record(self, portal: Portal, iface: str) -> t.Optional[NodeRecord]:
        return next((record for record in self.records if (record.portal, record.iface) == (portal, iface)), None)

    def paths(self, lun: t.Optional[int]) -> t.Tuple[Device, ...]:
        """The devices of one LUN."""
        return tuple(device for device in self.devices if device.lun == lun)

    def map_of(self, devices: t.Iterable[Device]) -> t.Optional[Map]:
        """The map above any of these devices."""
        names, wwids = {device.name for device in devices}, {device.wwid for device in devices}
        return next((each for each in self.maps if names & each.devices or each.wwid in wwids), None)

    def holders(self, devices: t.Sequence[Device]) -> t.Tuple[Holder, ...]:
        """Who uses these devices, through their map or without it."""
        above = self.map_of(devices)
        found = [holder for device in devices for holder in device.holders] + list(above.holders if above else ())
        return tuple(sorted(set(found), key=str))


def ordered(connection: Connection) -> Connection:
    return Connection(
        tuple(sorted(connection.records, key=lambda record: (record.portal, record.iface))),
        tuple(sorted(connection.sessions, key=lambda session: (session.portal, session.iface))),
        tuple(sorted(connection.devices, key=lambda device: (device.lun, device.portal))),
        tuple(sorted(connection.maps, key=lambda each: each.wwid)),
    )


@dataclasses.dataclass(frozen=True)
class Ground:
    """What the host itself is able to do."""

    installed: bool = True
    daemon: bool = True
    multipathd: bool = False
    initiator: t.Optional[str] = None
    ifaces: t.FrozenSet[str] = frozenset({DEFAULT_IFACE})
    claimed: t.FrozenSet[str] = frozenset()  # WWIDs that multipathd was told to make maps of

    @property
    def name(self) -> str:
        return self.initiator or "this host"


def wwn_link(wwid: t.Optional[str], mapped: bool) -> t.Optional[str]:
    """The link that udev makes for a device of this WWID (60-persistent-storage.rules), or for the map of such devices (the
    rules of multipath-tools); its name is the same after every boot."""
    if not wwid or not _WWID.fullmatch(wwid):
        return None
    if mapped:
        return f"/dev/disk/by-id/dm-uuid-mpath-{map_wwid(wwid)}"
    return f"/dev/disk/by-id/wwn-0x{wwid.split('.', 1)[1]}"


def map_wwid(wwid: str) -> str:
    """A WWID as multipath-tools and udev's scsi_id write it: the type of the designator, then its digits (SPC-4, 7.8.6)."""
    kind, digits = wwid.split(".", 1)
    return {"naa": "3", "eui": "2"}.get(kind, "1") + digits


def device_wwid(map_uuid: str) -> str:
    """The inverse of map_wwid."""
    return {"3": "naa", "2": "eui"}.get(map_uuid[:1], "t10") + "." + map_uuid[1:]


# ---- what is well formed


def check_wwid(wwid: t.Optional[str], iqn: str) -> t.Optional[str]:
    if wwid is None:
        return None
    if not _WWID.fullmatch(wwid.lower()):
        raise Invalid(f"wwid {wwid[:80]!r} of {iqn} is none; write it like naa.6001405a1c2e4b6d8f0a1b2c3d4e5f60, as iscsi_target returns it")
    return wwid.lower()


def check_serial(serial: t.Optional[str], iqn: str) -> t.Optional[str]:
    if serial is not None and not _SERIAL.fullmatch(serial):
        raise Invalid(f"serial {serial[:80]!r} of {iqn} can't be one; give 1 to 254 characters without blanks, such as the volume's id")
    return serial


def check_lun(lun: t.Optional[int], iqn: str, needed: bool) -> t.Optional[int]:
    if lun is None and needed:
        raise Invalid(f"the LUN of {iqn} has no number; give lun")
    if lun is not None and not 0 <= lun <= _MAX_LUN:
        raise Invalid(f"LUN {lun} of {iqn} can't be a disk; give a number from 0 to {_MAX_LUN}")
    return lun


def check_value(text: t.Optional[str], what: str) -> t.Optional[str]:
    """A value of a node record; the message never holds it."""
    if text is not None and not _VALUE.fullmatch(text):
        raise Invalid(f"{what} must be 1 to 255 ASCII characters without blanks and line breaks, which a node record can't hold; choose another one")
    return text


def check_iface(iface: t.Optional[str], iqn: str) -> str:
    if iface is not None and not _IFACE.fullmatch(iface):
        raise Invalid(f"iface {iface[:80]!r} of {iqn} is no name of an interface; give one that iscsiadm -m iface lists")
    return iface or DEFAULT_IFACE


def check_seconds(seconds: t.Optional[int], what: str, iqn: str, least: int = 1) -> t.Optional[int]:
    if seconds is not None and not least <= seconds <= 86400:
        raise Invalid(f"{what} of {iqn} is {seconds}; give {least} to 86400 seconds")
    return seconds
