# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""open-iscsi: its node records as files, and logins and logouts of many targets in one go.

What shapes this file, all measured on open-iscsi 2.1.8:
- iscsiadm takes a CHAP password only on its command line, which every user can read. So records are written as files;
  what a record does not say comes from the host's iscsid.conf.
- One `iscsiadm -m node -L all` logs in to ten targets twice as fast as ten processes, but takes every record of the host.
  So it is given a view of its own of the directory of records, a tmpfs with only those that are meant. It ends with the process.
- Its exit status is that of any one of the logins. What became of each stands in its lines, and in /sys.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import selectors
import shutil
import socket
import time
import typing as t

from .._errors import Failed, Unavailable
from .._model.data import Secret
from .._model.session import DEFAULT_IFACE, NodeRecord, Session, portal_at
from .._model.target import Portal
from .command import run

Settings = t.Tuple[t.Tuple[str, str], ...]
Failures = t.Dict[t.Tuple[str, Portal], str]

_ROOTS = ("/etc/iscsi", "/var/lib/iscsi")
_DRAFT = ".stackless-block.node"
_SOCKET = "@ISCSIADM_ABSTRACT_NAMESPACE"
_KNOCK = 3.0  # seconds that a portal has to take a connection
_BUILT_IN = (DEFAULT_IFACE, "iser")
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000

_ADDRESS, _PORT = "node.conn[0].address", "node.conn[0].port"
_METHOD = "node.session.auth.authmethod"
_RETRIES = "node.session.initial_login_retry_max"
_TEXTS = {"startup": "node.startup", "scan": "node.session.scan", "username": "node.session.auth.username", "mutual_username": "node.session.auth.username_in"}
_SECRETS = {"password": "node.session.auth.password", "mutual_password": "node.session.auth.password_in"}
_NUMBERS = {
    "login_timeout": "node.conn[0].timeo.login_timeout",
    "login_retries": _RETRIES,
    "replacement_timeout": "node.session.timeo.replacement_timeout",
}
_OWN = {"node.name", "node.tpgt", "iface.iscsi_ifacename", _ADDRESS, _PORT, _METHOD, *_TEXTS.values(), *_SECRETS.values(), *_NUMBERS.values()}

_LOGIN_FAILED = re.compile(r"Could not login to \[iface: ([^,]+), target: ([^,]+), portal: ([^,]+),(\d+)\]")
_REASON = re.compile(r"initiator reported error \((\d+) - ([^)]*)\)")
_FOUND = re.compile(r"^\[?([0-9A-Fa-f.:]+)\]?:(\d+),(\d+) (\S+)$", re.MULTILINE)

# What iscsiadm's numbers (open-iscsi, include/iscsi_err.h) mean to a person. 5 and 8 also stand for a portal that went silent.
_REFUSED = 24
_NO_LOGIN = (5, 8)
_NO_DAEMON = (18, 20)


class Iscsiadm:
    """`root` is where the machine's files are; another one than / is for tests."""

    def __init__(self, root: str = "/") -> None:
        self._slash = root.rstrip("/")
        self.root = next((path for path in _ROOTS if os.path.isdir(f"{self._slash}{path}/nodes")), _ROOTS[0])

    @property
    def nodes(self) -> str:
        return f"{self._slash}{self.root}/nodes"

    # ---- what the host is able to do

    def installed(self) -> bool:
        return shutil.which("iscsiadm", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None

    def answers(self) -> bool:
        """Whether iscsid runs, or systemd waits in its place."""
        with contextlib.suppress(OSError), open(f"{self._slash}/proc/net/unix", encoding="utf-8", errors="replace") as handle:
            return any(line.rstrip().endswith(_SOCKET) for line in handle)
        return False

    def ifaces(self) -> t.FrozenSet[str]:
        with contextlib.suppress(OSError):
            return frozenset(_BUILT_IN) | frozenset(os.listdir(f"{self._slash}{self.root}/ifaces"))
        return frozenset(_BUILT_IN)

    # ---- node records

    def targets(self) -> t.Set[str]:
        with contextlib.suppress(OSError):
            return set(os.listdir(self.nodes))
        return set()

    def records(self, iqn: str) -> t.Tuple[NodeRecord, ...]:
        """The node records of one target, as far as they can be read."""
        found = [self._record(iqn, path) for path in self._files(iqn)]
        return tuple(record for record in found if record)

    def _files(self, iqn: str) -> t.Iterator[str]:
        """A record is a file in the directory of its portal, or, as older versions write it, a file in the portal's place."""
        folder = os.path.join(self.nodes, iqn)
        for name in _names(folder):
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                yield from (os.path.join(path, iface) for iface in _names(path))
            else:
                yield path

    def _record(self, iqn: str, path: str) -> t.Optional[NodeRecord]:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as handle:
                private = not os.fstat(handle.fileno()).st_mode & 0o077
                return parse_record(handle.read(), iqn, private)
        except (OSError, ValueError):
            return None

    def write(self, record: NodeRecord) -> None:
        """The record in one atomic change, in place of all of this portal and interface that there were."""
        settings = self._of_iface(record)
        folder = os.path.join(self.nodes, record.iqn, _place(record))
        try:
            for above in (self.nodes, os.path.dirname(folder), folder):
                os.makedirs(above, mode=0o700, exist_ok=True)
            self._replace(os.path.join(folder, record.iface), record_text(record, settings))
        except OSError as error:
            raise Failed(f"the node record of {record.iqn} can't be written to {folder}: {os.strerror(error.errno or 0)}; run the task as root") from error
        self._drop(record.iqn, record.portal, record.iface, keep=os.path.join(folder, record.iface))

    def _replace(self, path: str, text: str) -> None:
        """A file with this text, for root alone. A run that is killed leaves one draft, with its secrets, and the next one takes it over."""
        draft = f"{self._slash}{self.root}/{_DRAFT}"  # not beside the records: iscsiadm takes every file there for one
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="surrogateescape") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.rename(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def _of_iface(self, record: NodeRecord) -> Settings:
        """What a record holds of its interface, beside the name."""
        if record.iface in _BUILT_IN:
            return (("iface.transport_name", "iser"),) if record.iface == "iser" else ()
        with contextlib.suppress(OSError), open(f"{self._slash}{self.root}/ifaces/{record.iface}", encoding="utf-8") as handle:
            return tuple((name, value) for name, value in parse_settings(handle.read()).items() if name.startswith("iface.") and name not in _OWN)
        return ()

    def drop(self, iqn: str, portal: Portal, iface: str) -> None:
        self._drop(iqn, portal, iface)

    def _drop(self, iqn: str, portal: Portal, iface: str, keep: str = "") -> None:
        """Removes the files of a record, and the directories that are empty then."""
        for path in list(self._files(iqn)):
            record = self._record(iqn, path)
            if path != keep and record and (record.portal, record.iface) == (portal, iface):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                _prune(os.path.dirname(path), self.nodes)

    # ---- logins

    def log_in(self, records: t.Sequence[NodeRecord], meanwhile: t.Callable[[], None]) -> t.Tuple[Failures, str]:
        """Logs in by all of these records at once. Returns what iscsiadm says of those that failed, and all it says."""
        patience = max(((r.login_timeout or 30) * ((r.login_retries or 4) + 1) for r in records), default=0)
        said = self._with_records("-L", records, 30 + patience + 3 * len(records), meanwhile)
        return parse_failures(said), said

    def log_out(self, sessions: t.Sequence[t.Tuple[str, int, Session]]) -> str:
        """Ends these sessions, each with its target and portal group, at once. Returns what iscsiadm says."""
        records = [NodeRecord(iqn, session.portal, session.iface, tpgt=tpgt) for iqn, tpgt, session in sessions]
        return self._with_records("-U", records, 60 + 3 * len(records))

    def _with_records(self, act: str, records: t.Sequence[NodeRecord], timeout: float, meanwhile: t.Optional[t.Callable[[], None]] = None) -> str:
        texts = {os.path.join(self.nodes, record.iqn, _place(record), record.iface): record_text(record, self._of_iface(record)) for record in records}
        libc = ctypes.CDLL(None, use_errno=True)
        os.makedirs(self.nodes, mode=0o700, exist_ok=True)

        def alone() -> None:
            _see_only(libc, self.nodes, texts)

        return run(["iscsiadm", "-m", "node", act, "all"], timeout, before=alone, meanwhile=meanwhile).text

    def discover(self, portal: Portal, iqn: str, iface: str) -> t.Dict[Portal, int]:
        """The portals that a portal names for a target, each with its portal group. Writes no record."""
        words = ["iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", str(portal), "-I", iface, "-o", "nonpersistent"]
        said = run(words, 30)
        found = {portal_at(ip, port): int(tpgt) for ip, port, tpgt, name in _FOUND.findall(said.text) if name == iqn}
        if said.status not in (0, 21):
            raise Unavailable(f"discovery at {portal} failed: {' '.join(said.text.split())[:300]}; check the portal, or leave out discovery")
        return found


def _see_only(libc: t.Any, nodes: str, texts: t.Mapping[str, str]) -> None:
    """Gives this process, and nobody else, a directory of records with only these files."""
    _must(libc.unshare(_CLONE_NEWNS))
    _must(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    _must(libc.mount(b"tmpfs", os.fsencode(nodes), b"tmpfs", ctypes.c_ulong(0), b"mode=0700"))
    os.umask(0o077)
    for path, text in texts.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as out:
            out.write(text)


def _must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _names(folder: str) -> t.List[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _prune(folder: str, top: str) -> None:
    """Removes a directory and those above it, below `top`, as far as they are empty."""
    with contextlib.suppress(OSError):
        while folder != top:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _place(record: NodeRecord) -> str:
    return f"{record.portal.ip},{record.portal.port},{record.tpgt}"


# ---- texts


def parse_settings(text: str) -> t.Dict[str, str]:
    """The lines `name = value` of a record."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals and value.strip()}


def parse_record(text: str, iqn: str, private: bool) -> NodeRecord:
    """A node record; raises ValueError for one that is none."""
    told = parse_settings(text)
    if _ADDRESS not in told:
        raise ValueError("a record without an address")
    chap = told.get(_METHOD) == "CHAP"
    secret = {field: Secret(told[name]) for field, name in _SECRETS.items() if chap and name in told}
    texts = {field: told[name] for field, name in _TEXTS.items() if name in told and (chap or "username" not in field)}
    return NodeRecord(
        iqn=iqn,
        portal=portal_at(told[_ADDRESS], told.get(_PORT, 3260)),
        iface=told.get("iface.iscsi_ifacename", DEFAULT_IFACE),
        **{"startup": "manual", "scan": "auto", **texts},
        **t.cast(t.Dict[str, t.Any], secret),
        **t.cast(t.Dict[str, t.Any], {field: int(told[name]) for field, name in _NUMBERS.items() if name in told}),
        private=private,
        tpgt=int(told.get("node.tpgt", 1)),
        rest=tuple((name, value) for name, value in told.items() if name not in _OWN and not name.startswith("iface.")),
    )


def record_text(record: NodeRecord, of_iface: Settings = ()) -> str:
    """The inverse of parse_record."""
    told: t.Dict[str, t.Any] = {"node.name": record.iqn, "node.tpgt": record.tpgt, "iface.iscsi_ifacename": record.iface, **dict(of_iface)}
    told.update({_ADDRESS: record.portal.ip, _PORT: record.portal.port, _METHOD: "CHAP" if record.username else "None"})
    for fields in (_TEXTS, _SECRETS, _NUMBERS):
        told.update({name: getattr(record, field) for field, name in fields.items() if getattr(record, field) is not None})
    told.update(dict(record.rest))
    return "".join(f"{name} = {value.reveal() if isinstance(value, Secret) else value}\n" for name, value in told.items())


def parse_failures(text: str) -> Failures:
    """By target and portal, why iscsiadm could not log in: its number, a blank, its words."""
    failures: Failures = {}
    last: t.Optional[t.Tuple[str, Portal]] = None
    for line in text.splitlines():
        named, reason = _LOGIN_FAILED.search(line), _REASON.search(line)
        if named:
            last = (named.group(2), portal_at(named.group(3), named.group(4)))
            failures[last] = "0 no reason given"
        elif reason and last:
            failures[last] = f"{reason.group(1)} {reason.group(2)}"
    return failures


def meaning(failure: str, initiator: str, silent: t.Optional[str]) -> str:
    """A failed login for a person. `silent` is why its portal can't be reached now, if so."""
    number, _blank, words = failure.partition(" ")
    if silent:
        return f"the portal is not reached ({silent})"
    if int(number) == _REFUSED:
        return f"the target refused the login: its ACL does not let {initiator} in, or the CHAP username or password is wrong"
    if int(number) in _NO_LOGIN:
        return "the portal answers, but has no such target, or does not serve it there; export it, or correct target_iqn and portals"
    if int(number) in _NO_DAEMON:
        return "iscsid does not answer; look at systemctl status iscsid, and start it"
    return f"iscsiadm says: {words} ({number})"


# ---- portals


def silences(portals: t.Iterable[Portal]) -> t.Dict[Portal, str]:
    """The portals that take no connection, each with the reason; all are tried at once, and nothing is sent."""
    why: t.Dict[Portal, str] = {}
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as opened:
        for portal in set(portals):
            try:
                knock = opened.enter_context(socket.socket(socket.AF_INET6 if ":" in portal.ip else socket.AF_INET, socket.SOCK_STREAM))
            except OSError as error:  # a kernel without IPv6
                why[portal] = os.strerror(error.errno or 0)
                continue
            knock.setblocking(False)
            status = knock.connect_ex((portal.ip, portal.port))
            if status == errno.EINPROGRESS:
                waiting.register(knock, selectors.EVENT_WRITE, portal)
            elif status:
                why[portal] = os.strerror(status)
        return {**why, **_knocked(waiting)}


def _knocked(waiting: selectors.BaseSelector) -> t.Dict[Portal, str]:
    """Waits for all, within one deadline."""
    why: t.Dict[Portal, str] = {}
    deadline = time.monotonic() + _KNOCK
    while waiting.get_map() and time.monotonic() < deadline:
        for key, _events in waiting.select(max(deadline - time.monotonic(), 0)):
            status = t.cast(socket.socket, key.fileobj).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            waiting.unregister(key.fileobj)
            if status:
                why[key.data] = os.strerror(status)
    late = {key.data: f"no answer within {_KNOCK:g} s" for key in waiting.get_map().values()}
    return {**why, **late}
