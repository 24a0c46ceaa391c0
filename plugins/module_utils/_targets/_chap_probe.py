# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Tries a CHAP door without going in: no target daemon tells its passwords, but each tells whether one fits.

The first half of an iSCSI login (RFC 7143 sections 6.3, 11.12, 11.13; CHAP with MD5: RFC 1994), broken
off once the target has judged the secret. The T bit is never set, so that no session comes to be,
and the ISID is random, so that no living one could be taken for ours.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import typing as t

from .._errors import Unavailable
from .._model.data import Secret
from .._model.target import Acl, Portal
from ._tgtd_ipc import read_exactly

_TIMEOUT = 3.0
_LOGIN, _LOGIN_RESPONSE = 0x43, 0x23
_HEADER = struct.Struct(">BBBB4s6sHIHHII16s")
_AUTHENTICATION_FAILURE = 0x0201


class Fit(t.NamedTuple):
    """Whether the target takes the initiator's secret, and whether it proves to know its own."""

    incoming: bool
    mutual: bool


class _Refusal(Exception):
    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def try_door(portal: Portal, iqn: str, acl: Acl) -> Fit:
    """Which of the ACL's two secrets open; mutual counts as fitting where the ACL has none.

    Raises Unavailable when the portal can't be reached or judges nothing.
    """
    if acl.username is None or acl.password is None:
        return Fit(False, False)
    if acl.mutual_password is None:
        return Fit(_opens(portal, iqn, acl, None) is not None, True)
    proven = _opens(portal, iqn, acl, os.urandom(16))
    if proven is not None:
        return Fit(True, proven)
    return Fit(_opens(portal, iqn, acl, None) is not None, False)


def _opens(portal: Portal, iqn: str, acl: Acl, challenge: t.Optional[bytes]) -> t.Optional[bool]:
    """None when the secret is refused, else whether the target answered our challenge rightly."""
    try:
        with socket.create_connection((portal.ip, portal.port), _TIMEOUT) as channel:
            return _Login(channel).chap(iqn, acl, challenge)
    except _Refusal as refusal:
        if refusal.status == _AUTHENTICATION_FAILURE:
            return None
        raise Unavailable(
            f"portal {portal} does not judge the CHAP secret of {acl.initiator} for {iqn}: login status {refusal.status:#06x}; look at the target's state"
        ) from None
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise Unavailable(
            f"portal {portal} can't be asked whether the CHAP secret of {acl.initiator} still opens {iqn}: {error or 'it hung up'}; "
            "make the portal reachable from its own host"
        ) from None


class _Login:
    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.isid = b"\x80" + os.urandom(5)  # 0x80: the ISID is of the random format
        self.status_number = 0

    def chap(self, iqn: str, acl: Acl, challenge: t.Optional[bytes]) -> bool:
        offered = self._ask({"InitiatorName": acl.initiator, "TargetName": iqn, "SessionType": "Normal", "AuthMethod": "CHAP"})
        if offered.get("AuthMethod") != "CHAP":
            raise _Refusal(_AUTHENTICATION_FAILURE)
        asked = self._ask({"CHAP_A": "5"})
        answer = {"CHAP_N": acl.username or "", "CHAP_R": _proof(int(asked["CHAP_I"]), acl.password, _binary(asked["CHAP_C"]))}
        if challenge is None:
            self._ask(answer)
            return True
        number = os.urandom(1)[0]
        told = self._ask({**answer, "CHAP_I": str(number), "CHAP_C": "0x" + challenge.hex()})
        response = _binary(told.get("CHAP_R", "0x00"))
        return told.get("CHAP_N") == acl.mutual_username and response == _binary(_proof(number, acl.mutual_password, challenge))

    def _ask(self, keys: t.Dict[str, str]) -> t.Dict[str, str]:
        """One login request in the security stage, without the T bit, and the keys of its answer."""
        text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys.items())
        length = struct.pack(">I", len(text))  # the first byte, the length of additional headers, is 0
        self.channel.sendall(_HEADER.pack(_LOGIN, 0, 0, 0, length, self.isid, 0, 1, 0, 0, 1, self.status_number, b"") + _padded(text))
        header = read_exactly(self.channel, 48)
        size = int.from_bytes(header[5:8], "big")
        body = read_exactly(self.channel, size + -size % 4)[:size]
        status = int.from_bytes(header[36:38], "big")
        if header[0] & 0x3F != _LOGIN_RESPONSE:
            raise ValueError("it answers no login")
        if status:
            raise _Refusal(status)
        self.status_number = int.from_bytes(header[24:28], "big") + 1
        return dict(part.partition("=")[::2] for part in body.decode().split("\0") if part)


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (-len(text) % 4)


def _binary(text: str) -> bytes:
    """A number as RFC 7143 section 6.1 writes it: 0x and hex digits, or 0b and base64."""
    if text[:2].lower() == "0x":
        return bytes.fromhex(text[2:])
    return base64.b64decode(text[2:], validate=True)


def _proof(number: int, secret: t.Optional[Secret], challenge: bytes) -> str:
    text = bytes([number]) + (secret.reveal() if secret else "").encode() + challenge
    try:
        digest = hashlib.md5(text)
    except ValueError:  # a FIPS host: here MD5 is a protocol's, not ours to choose
        digest = hashlib.new("md5", text, usedforsecurity=False)
    return "0x" + digest.hexdigest()
