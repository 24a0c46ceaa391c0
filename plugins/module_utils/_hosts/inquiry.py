# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Asks a SCSI disk itself who it is.

The kernel keeps what a disk said when it was found. Where a target gave another volume the same number meanwhile, that is
a lie which nothing corrects, and I/O goes to the other volume. So identity is asked for, by INQUIRY through SG_IO
(SPC-4, 6.6 and 7.8; the kernel's include/scsi/sg.h).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import typing as t

_SG_IO = 0x2285
_FROM_DEVICE = -3
_TIMEOUT = 5000  # milliseconds
_LENGTH = 252
_SERIAL, _DESIGNATORS = 0x80, 0x83
_KINDS = {3: "naa", 2: "eui"}  # by how much the kernel prefers them


class _Header(ctypes.Structure):
    _fields_ = [
        ("interface_id", ctypes.c_int),
        ("direction", ctypes.c_int),
        ("command_length", ctypes.c_ubyte),
        ("sense_length", ctypes.c_ubyte),
        ("parts", ctypes.c_ushort),
        ("length", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("command", ctypes.c_void_p),
        ("sense", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("message_status", ctypes.c_ubyte),
        ("sense_written", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("residue", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


class Identity(t.NamedTuple):
    serial: t.Optional[str]
    wwid: t.Optional[str]


def identity(path: str) -> t.Optional[Identity]:
    """What the disk says of itself now, or None when it does not answer."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return Identity(parse_serial(_page(handle, _SERIAL)), parse_wwid(_page(handle, _DESIGNATORS)))
    except OSError:
        return None
    finally:
        os.close(handle)


def _page(handle: int, page: int) -> bytes:
    """One VPD page; empty when the disk has none. Raises OSError when it does not answer."""
    command = (ctypes.c_ubyte * 6)(0x12, 0x01, page, _LENGTH >> 8, _LENGTH & 0xFF, 0)
    data, sense = (ctypes.c_ubyte * _LENGTH)(), (ctypes.c_ubyte * 32)()
    header = _Header(
        interface_id=ord("S"),
        direction=_FROM_DEVICE,
        command_length=6,
        sense_length=32,
        length=_LENGTH,
        data=ctypes.addressof(data),
        command=ctypes.addressof(command),
        sense=ctypes.addressof(sense),
        timeout=_TIMEOUT,
    )
    fcntl.ioctl(handle, _SG_IO, header)
    if header.host_status or header.driver_status & ~8:  # 8: there is sense data
        raise OSError(5, "the disk does not answer")
    return b"" if header.status else bytes(data[: _LENGTH - header.residue])


def parse_serial(page: bytes) -> t.Optional[str]:
    """The unit serial number of page 0x80: four bytes of header, of which the last two are the length, then ASCII."""
    if len(page) < 4 or page[1] != _SERIAL:
        return None
    return page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace").strip("\0 ") or None


def parse_wwid(page: bytes) -> t.Optional[str]:
    """The name of the logical unit in page 0x83, as the kernel writes it: NAA before EUI-64."""
    found: t.Dict[int, str] = {}
    at = 4
    while len(page) >= at + 4 and page[1] == _DESIGNATORS:
        kind, association, length = page[at + 1] & 0x0F, page[at + 1] >> 4 & 0x03, page[at + 3]
        if kind in _KINDS and association == 0 and len(page) >= at + 4 + length:
            found.setdefault(kind, f"{_KINDS[kind]}.{page[at + 4 : at + 4 + length].hex()}")
        at += 4 + length
    return next((found[kind] for kind in _KINDS if kind in found), None)
