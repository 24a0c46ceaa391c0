# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""iSCSI targets: what one is, what is saved of it, and which names, portals and secrets are well formed.

Source of the name rules: RFC 7143 section 4.2.7; of the least length of a secret: RFC 7143 section 9.2.1.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t
import uuid

from .._errors import Invalid
from .data import Secret, as_data

_TARGET = re.compile(r"(iqn\.\d{4}-\d{2}\.[a-z0-9-]+(\.[a-z0-9-]+)*(:[a-z0-9.:-]+)?|eui\.[0-9a-f]{16}|naa\.([0-9a-f]{16}){1,2})", re.ASCII)
_INITIATOR = re.compile(r"(iqn\.\d{4}-\d{2}\.[A-Za-z0-9.:_-]+|eui\.[0-9A-Fa-f]{16}|naa\.([0-9A-Fa-f]{16}){1,2})", re.ASCII)
# Texts that end up in a daemon's configuration file and on its command protocol: no blank, comma, quote, # or $.
_PATH = re.compile(r"/[A-Za-z0-9/._:@+=-]+", re.ASCII)
_SERIAL = re.compile(r"[A-Za-z0-9._:-]{1,36}", re.ASCII)
# LIO takes a CHAP text that begins with NULL for none.
_USERNAME = re.compile(r"(?!NULL)[A-Za-z0-9._:@-]{1,128}", re.ASCII)
_PASSWORD = re.compile(r"(?!NULL)[A-Za-z0-9._:@%+=/-]{12,128}", re.ASCII)
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9 ,._:-]{1,128}", re.ASCII)
_MAX_NAME = 223

Attributes = t.Tuple[t.Tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, order=True)
class Portal:
    """Where a target is reached; `ip` is an address in its shortest spelling, never a host name."""

    ip: str
    port: int = 3260

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Lun:
    """One disk of a target.

    `serial` None: it has none of its own yet. `size_bytes` None: not known, or not saved. `discard` None: the
    daemon has no such choice. `attributes` are (name, value), ordered, as far as they were looked for.
    """

    lun: int
    path: str
    serial: t.Optional[str] = None
    wwid: t.Optional[str] = None
    size_bytes: t.Optional[int] = None
    read_only: bool = False
    bstype: t.Optional[str] = None
    write_cache: bool = True
    discard: t.Optional[bool] = None
    attributes: Attributes = ()


@dataclasses.dataclass(frozen=True)
class Acl:
    """One initiator that is let in.

    No `username`: nothing is known of its CHAP account, or with a daemon that tells, none is asked for. A
    `username` without `password`: the saved password does not open the door. An empty `username`: it is asked
    for CHAP and has no account yet. `mapped` False: it does not see all LUNs of the target as it should.
    """

    initiator: str
    username: t.Optional[str] = None
    password: t.Optional[Secret] = None
    mutual_username: t.Optional[str] = None
    mutual_password: t.Optional[Secret] = None
    read_only: bool = False
    mapped: bool = True


@dataclasses.dataclass(frozen=True)
class Session:
    initiator: str
    ip: str


@dataclasses.dataclass(frozen=True)
class Target:
    """A target by name. LUNs are ordered by number, ACLs by initiator.

    `addresses` are doors for whoever comes from there, which only others make. `strays` are accounts
    of the target that belong to none of its ACLs: of others, or left by a change that was cut short.
    `stray_mutual` is the one among them by which the target proves itself. `enabled` False: it lets nobody in
    yet. `attributes` are (name, value), ordered, as far as they were looked for.
    """

    iqn: str
    portals: t.FrozenSet[Portal] = frozenset()
    luns: t.Tuple[Lun, ...] = ()
    acls: t.Tuple[Acl, ...] = ()
    addresses: t.FrozenSet[str] = frozenset()
    strays: t.FrozenSet[str] = frozenset()
    stray_mutual: t.Optional[str] = None
    enabled: bool = True
    attributes: Attributes = ()

    def lun(self, number: int) -> t.Optional[Lun]:
        return next((lun for lun in self.luns if lun.lun == number), None)

    def meant(self, number: t.Optional[int], path: t.Optional[str], serial: t.Optional[str]) -> t.Optional[Lun]:
        """The LUN that someone means who may leave its number open: then by its path, else by its serial."""
        if number is not None:
            return self.lun(number)
        if path is not None:
            return next((lun for lun in self.luns if lun.path == path), None)
        return next((lun for lun in self.luns if serial is not None and lun.serial == serial), None)

    def acl(self, initiator: str) -> t.Optional[Acl]:
        return next((acl for acl in self.acls if acl.initiator == initiator), None)


@dataclasses.dataclass(frozen=True)
class Export:
    """A target as it runs (`live`) and as it comes back after a restart (`saved`, what this collection manages of it).

    `intact` is False when the saved form was tampered with. `obstacle` says why it can't be saved.
    `accounts` are all accounts of the daemon with the targets that use them, where accounts are global.
    """

    live: t.Optional[Target] = None
    saved: t.Optional[Target] = None
    intact: bool = True
    sessions: t.Tuple[Session, ...] = dataclasses.field(default=(), compare=False)
    obstacle: t.Optional[str] = dataclasses.field(default=None, metadata={"hidden": True})

    @property
    def target(self) -> t.Optional[Target]:
        return self.live or self.saved

    def without_session(self, initiator: t.Optional[str]) -> Export:
        """The same with one session of this initiator less."""
        gone = next((session for session in self.sessions if session.initiator == initiator), None)
        kept = list(self.sessions)
        if gone:
            kept.remove(gone)
        return dataclasses.replace(self, sessions=tuple(kept))


def lacking(export: Export) -> t.List[str]:
    """What is saved and does not run, in words: a restore that came up short left it out."""
    saved, live = export.saved, export.live
    if saved is None:
        return []
    if live is None:
        return [f"target {saved.iqn}"]
    luns = [f"LUN {lun.lun} ({lun.path})" for lun in saved.luns if not live.lun(lun.lun)]
    acls = [f"initiator {acl.initiator}" for acl in saved.acls if not live.acl(acl.initiator)]
    portals = [f"portal {portal}" for portal in sorted(saved.portals - live.portals)]
    return luns + acls + portals + ([] if live.enabled or not saved.enabled else ["the enabling of the target"])


def ordered(target: Target) -> Target:
    luns = tuple(sorted(target.luns, key=lambda lun: lun.lun))
    return dataclasses.replace(target, luns=luns, acls=tuple(sorted(target.acls, key=lambda acl: acl.initiator)))


# ---- to plain data and back


def target_data(target: Target, show: t.Callable[[Secret], t.Any] = str) -> t.Dict[str, t.Any]:
    """The whole target as JSON data; secrets as `show` makes them, masked by default."""
    return as_data(target, show)


def target_from(data: t.Dict[str, t.Any], secret: t.Callable[[t.Optional[str]], t.Optional[Secret]]) -> Target:
    """The inverse of target_data. `secret` turns a stored text into a Secret. Raises KeyError, TypeError, ValueError."""
    acls = [{**acl, "password": secret(acl["password"]), "mutual_password": secret(acl["mutual_password"])} for acl in data["acls"]]
    return ordered(
        Target(
            iqn=data["iqn"],
            portals=frozenset(Portal(**portal) for portal in data["portals"]),
            luns=tuple(Lun(**{**lun, "attributes": _pairs(lun.get("attributes"))}) for lun in data["luns"]),
            acls=tuple(Acl(**acl) for acl in acls),
            addresses=frozenset(data["addresses"]),
            strays=frozenset(data["strays"]),
            stray_mutual=data["stray_mutual"],
            enabled=data.get("enabled", True),
            attributes=_pairs(data.get("attributes")),
        )
    )


def _pairs(data: t.Optional[t.Sequence[t.Sequence[str]]]) -> Attributes:
    return tuple((name, value) for name, value in data or ())


def own_serial(iqn: str, lun: int) -> str:
    """The serial of a LUN that was given none: always the same for the same place, and no other's."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{iqn}/{lun}"))


# ---- what is well formed


def check_iqn(iqn: t.Optional[str]) -> str:
    if not iqn or len(iqn) > _MAX_NAME or not _TARGET.fullmatch(iqn):
        raise Invalid(
            f"target_iqn is {_short(iqn)}, which is no iSCSI name; write it like iqn.2026-01.org.example:volume-1, "
            f"in lower case, with letters, digits, dots, colons and dashes, at most {_MAX_NAME} characters"
        )
    return iqn


def check_initiator(initiator: t.Optional[str], iqn: str) -> str:
    if not initiator or len(initiator) > _MAX_NAME or not _INITIATOR.fullmatch(initiator):
        raise Invalid(f"initiator {_short(initiator)} in acls of {iqn} is no iSCSI name; take the one in /etc/iscsi/initiatorname.iscsi of that host")
    return initiator


def check_portal(ip: t.Optional[str], port: t.Optional[int], iqn: str) -> Portal:
    try:
        address = str(ipaddress.ip_address(ip or ""))
    except ValueError as error:
        raise Invalid(f"portal ip {_short(ip)} of {iqn} is no IP address; write one like 192.0.2.10 or 2001:db8::10") from error
    port = 3260 if port is None else port
    if not 1 <= port <= 65535:
        raise Invalid(f"portal port {port} of {iqn} is out of range; choose one from 1 to 65535")
    return Portal(address, port)


def check_path(path: t.Optional[str], lun: t.Optional[int], iqn: str) -> str:
    if not path or not _PATH.fullmatch(path):
        raise Invalid(
            f"{lun_name(lun)} of {iqn} has the path {_short(path)}; give the absolute path of its data, "
            "made of letters, digits and / . _ : @ + = - only, because the target daemon's files can't hold others"
        )
    return path


def check_serial(serial: t.Optional[str], lun: t.Optional[int], iqn: str) -> t.Optional[str]:
    if serial is not None and not _SERIAL.fullmatch(serial):
        raise Invalid(f"serial {_short(serial)} of {lun_name(lun)} of {iqn} must be 1 to 36 letters, digits or . _ : -; the volume id does")
    return serial


def check_username(username: t.Optional[str], what: str) -> str:
    if not username or not _USERNAME.fullmatch(username):
        raise Invalid(f"{what} must be 1 to 128 letters, digits or . _ : @ -; choose another name")
    if reads_as_number(username):
        raise Invalid(f"{what} begins with {username[:2]}, so that the target takes it for a number and lets nobody in; choose another name")
    return username


def reads_as_number(username: str) -> bool:
    """Whether a text is a binary value to iSCSI (RFC 7143, 6.1), which LIO decodes before it compares: "CHAP_N values do not match!"."""
    return username[:2].lower() in ("0x", "0b")


def check_password(password: t.Optional[str], what: str) -> Secret:
    """A CHAP secret as it may be given; the message never holds it."""
    if not password or not _PASSWORD.fullmatch(password):
        raise Invalid(f"{what} must be 12 to 128 letters, digits or . _ : @ % + = / -; choose another one, or leave it out to have one made")
    return Secret(password)


def check_attributes(given: t.Optional[t.Dict[str, t.Any]], iqn: str) -> Attributes:
    """Attributes as LIO writes them: its parameters, in camel case, are Yes or No, its other attributes 1 or 0."""
    pairs = []
    for name, value in sorted((given or {}).items()):
        if isinstance(value, bool):
            value = ("No", "Yes")[value] if name[:1].isupper() else str(int(value))
        if not _ATTRIBUTE.fullmatch(name) or not _VALUE.fullmatch(str(value)):
            told = f"attribute {_short(name)} of {iqn} can't be {_short(str(value))}"
            raise Invalid(f"{told}; give a name and a value of the kernel's, like default_cmdsn_depth: 64")
        pairs.append((name, str(value)))
    return tuple(pairs)


def lun_name(number: t.Optional[int]) -> str:
    return "a LUN" if number is None else f"LUN {number}"


def _short(text: t.Optional[str]) -> str:
    return repr(text) if text is None or len(text) <= 80 else repr(text[:77]) + "…"
