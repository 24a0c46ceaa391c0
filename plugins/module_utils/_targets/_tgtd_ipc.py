# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""tgtd's management protocol over its unix socket: one connection, one request, one answer.

tgtadm speaks the same, but takes CHAP passwords from its command line, where every user of the host
can read them, and costs a process a call.

A request is a fixed header (struct tgtadm_req of tgt's usr/tgtadm.h, natural alignment) and a text
of comma separated `key=value`, ended by a NUL; an answer is an error number, a length, and text.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import struct
import typing as t

from .._errors import Failed, Unavailable

_REQUEST = struct.Struct("@II64sIiQQIIIIII")
_ANSWER = struct.Struct("@II")

MODES = {"system": 0, "target": 1, "device": 2, "portal": 3, "lld": 4, "session": 5, "connection": 6, "account": 7}
OPERATIONS = {"new": 0, "delete": 1, "show": 2, "bind": 3, "unbind": 4, "update": 5}

# Names of tgt's usr/tgtadm_error.h, as a person says them.
_ERRORS = {
    2: "no memory", 3: "no such driver", 4: "no such target", 5: "no such LUN", 9: "the target exists", 10: "the LUN exists",
    12: "the rule exists", 13: "no such rule", 14: "the account exists", 15: "no such account", 16: "too many accounts",
    17: "invalid request", 18: "the target has an outgoing account", 19: "the target is in use", 20: "the LUN is in use",
    22: "not supported", 23: "unknown parameter", 24: "removal is prevented",
}  # fmt: skip
EXISTS = frozenset({9, 10, 11, 12, 14})
MISSING = frozenset({4, 5, 13, 15})
_TIMEOUT = 30.0


class Tgtd:
    """A running tgtd. `socket_path` without the control port, as in tgtd's environment TGT_IPC_SOCKET."""

    def __init__(self, socket_path: str, control_port: int) -> None:
        self.address = f"{socket_path}.{control_port}"

    def ask(
        self, mode: str, operation: str, text: str = "", tid: int = -1, lun: int = 0, outgoing: bool = False, fine: t.FrozenSet[int] = frozenset()
    ) -> str:
        """The answer's text; errors whose number is in `fine` count as done. Raises Unavailable or Failed, which never quote `text`."""
        payload = text.encode() + b"\0" if text else b""
        length = _REQUEST.size + len(payload)
        header = _REQUEST.pack(MODES[mode], OPERATIONS[operation], b"iscsi", length, tid, 0, lun, 0, 0, 0, int(outgoing), 0, 0)
        error, answer = self._exchange(header + payload)
        if error and error not in fine:
            raise Failed(f"tgtd at {self.address} refused the request '{operation} {mode}': {_ERRORS.get(error, f'error {error}')}; its log says more")
        return answer

    def _exchange(self, request: bytes) -> t.Tuple[int, str]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_TIMEOUT)
                channel.connect(self.address)
                channel.sendall(request)
                error, length = _ANSWER.unpack(read_exactly(channel, _ANSWER.size))
                body = b"" if error else read_exactly(channel, length - _ANSWER.size)
        except (OSError, EOFError) as problem:
            why = "it hung up" if isinstance(problem, EOFError) else problem.strerror or str(problem)
            raise Unavailable(f"tgtd does not answer at {self.address}: {why}; start it (package tgt), or set control_port and ipc_socket") from problem
        return error, body.decode(errors="replace").rstrip("\0")


def read_exactly(channel: socket.socket, size: int) -> bytes:
    """So many bytes from the channel; EOFError when it ends before."""
    parts = b""
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


class ShownLun(t.NamedTuple):
    lun: int
    kind: str
    scsi_id: str
    serial: str
    megabytes: int
    read_only: bool
    bstype: str
    path: str


@dataclasses.dataclass
class Shown:
    """One target of `show target`; `accounts` in the order of the daemon's slots."""

    tid: int
    iqn: str
    sessions: t.List[t.Tuple[str, str]] = dataclasses.field(default_factory=list)
    luns: t.List[ShownLun] = dataclasses.field(default_factory=list)
    accounts: t.List[str] = dataclasses.field(default_factory=list)
    outgoing: t.Optional[str] = None
    admitted: t.List[str] = dataclasses.field(default_factory=list)


def parse_targets(text: str) -> t.Dict[str, Shown]:
    """The targets by name, from the answer to `show target`."""
    chunks = re.split(r"^Target (\d+): (.*)\n", text, flags=re.MULTILINE)[1:]
    return {iqn: _target(int(tid), iqn, body) for tid, iqn, body in zip(chunks[::3], chunks[1::3], chunks[2::3])}


def _target(tid: int, iqn: str, body: str) -> Shown:
    parts = re.split(r"^    (I_T nexus|LUN|Account|ACL) information:\n", body, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    accounts = sections.get("Account", "").split("\n")
    names = [line.strip() for line in accounts if line.strip()]
    outgoing = [name[: -len(" (outgoing)")] for name in names if name.endswith(" (outgoing)")]
    return Shown(
        tid=tid,
        iqn=iqn,
        sessions=re.findall(r"Initiator: (\S+) alias:.*\n(?:.*\n)*?\s+IP Address: (\S+)", sections.get("I_T nexus", "")),
        luns=[_lun(chunk) for chunk in re.split(r"^        LUN: ", sections.get("LUN", ""), flags=re.MULTILINE)[1:]],
        accounts=[name for name in names if not name.endswith(" (outgoing)")],
        outgoing=outgoing[0] if outgoing else None,
        admitted=sections.get("ACL", "").split(),
    )


def _lun(chunk: str) -> ShownLun:
    number, *rest = chunk.splitlines()
    lines = dict(line.strip().partition(": ")[::2] for line in rest)
    return ShownLun(
        lun=int(number),
        kind=lines["Type"],
        scsi_id=lines["SCSI ID"].strip(),
        serial=lines["SCSI SN"].strip(),
        megabytes=int(lines["Size"].split(" ")[0]),
        read_only=lines["Readonly"] == "Yes",
        bstype=lines["Backing store type"],
        path=lines["Backing store path"],
    )


def parse_portals(text: str) -> t.List[t.Tuple[str, int]]:
    """(ip, port) of each portal, from the answer to `show portal`."""
    return [(ip.strip("[]"), int(port)) for ip, port in re.findall(r"^Portal: (.+):(\d+),\d+$", text, flags=re.MULTILINE)]


def parse_accounts(text: str) -> t.Set[str]:
    """The names of all accounts, from the answer to `show account`."""
    return {line.strip() for line in text.splitlines()[1:] if line.strip()}


def shown_megabytes(size_bytes: int) -> int:
    """The rounded size that `show target` prints for a disk of this many bytes: the only one it tells.

    The formula is hdparm's estimate of a disk's decimal megabytes.
    """
    sectors = size_bytes // 512
    return ((sectors - (sectors // 625 - 974)) % (1 << 64)) // 1950
