# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Disks of domains: what libvirt keeps of them, live and persistent, and what we note beside them.

The words are libvirt's (https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms), with one
exception: what libvirt calls <target dev> is `device` here, because a target is iSCSI's.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import typing as t
import uuid

from .._errors import Invalid, StorageError
from .data import Secret

PREFIXES = {"virtio": "vd", "scsi": "sd"}
CACHES = ("none", "writeback", "writethrough", "directsync", "unsafe")
IOS = ("native", "threads", "io_uring")
DISCARDS = ("unmap", "ignore")
SCOPES = ("live", "config")
ALIAS_PREFIX = "ua-"  # libvirt keeps an alias of the user's only with this prefix
GUEST_SERIAL = 20  # what virtio-blk has room for (VIRTIO_BLK_ID_BYTES)
MAX_SERIAL = 36  # what QEMU's scsi-hd has room for

_RATES = tuple(f"{kind}_{unit}_sec" for unit in ("bytes", "iops") for kind in ("total", "read", "write"))
IOTUNE_KEYS = _RATES + tuple(f"{rate}_max" for rate in _RATES) + ("size_iops_sec",) + tuple(f"{rate}_max_length" for rate in _RATES)

_SERIAL = re.compile(r"[A-Za-z0-9_-]{1,%d}" % MAX_SERIAL)
_ALIAS = re.compile(r"ua-[A-Za-z0-9_-]{1,60}")
# Wider than what our own targets are called: other makers' targets are attached too.
_IQN = re.compile(r"iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.:_-]+|(eui|naa)\.[0-9A-Fa-f]{16,32}")
_DEVICE = re.compile(r"(vd|sd)[a-z]{1,3}")
_IMAGE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){1,2}")  # nothing that means something in rbd:pool/namespace/image

Iotune = t.Tuple[t.Tuple[str, int], ...]
Portal = t.Tuple[str, int]


@dataclasses.dataclass(frozen=True)
class SecretKey:
    """A libvirt secret, and where it stands in the world: of `type` iscsi by its target's name, of `type` ceph by its UUID."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"the CHAP secret for target {self.name}" if self.type == "iscsi" else f"the Ceph secret {self.name}"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a disk's bytes are: a file, a block device, a LUN that QEMU itself logs in to, or an image of a Ceph cluster.

    `portals` are (ip, port), of monitors where `path` is an image, pool/image or pool/namespace/image. `config` is a
    configuration of Ceph for QEMU. `real_path` is the path of a file or device with symbolic links followed, where someone looked.
    """

    type: str
    path: t.Optional[str] = None
    protocol: t.Optional[str] = None
    target_iqn: t.Optional[str] = None
    lun: t.Optional[int] = None
    portals: t.Tuple[Portal, ...] = ()
    initiator: t.Optional[str] = None
    username: t.Optional[str] = None
    secret_uuid: t.Optional[str] = None
    config: t.Optional[str] = None
    real_path: t.Optional[str] = dataclasses.field(default=None, compare=False, metadata={"hidden": True})

    @property
    def identity(self) -> t.Tuple[t.Any, ...]:
        """What two sources have in common exactly when they are the same bytes."""
        if self.protocol == "iscsi":
            return ("iscsi", self.target_iqn, self.lun)
        return (self.protocol, self.real_path or self.path)

    @property
    def secret(self) -> t.Optional[SecretKey]:
        """The secret with which QEMU logs in, if it does."""
        return secret_of(self.target_iqn, self.secret_uuid)

    @property
    def alone(self) -> Source:
        """The source as a disk is made with it: QEMU's initiator takes one portal."""
        return dataclasses.replace(self, portals=self.portals[:1]) if self.protocol == "iscsi" else self

    def serves(self, wish: Source) -> bool:
        """Whether a connection made with this source is one the wish would have: through one of its portals, as its user.

        A monitor leads to all the others, so that one in common is enough.
        """
        if self.identity != wish.identity:
            return False
        told = [(getattr(wish, name), getattr(self, name)) for name in ("initiator", "username", "secret_uuid")]
        common = set(self.portals) & set(wish.portals) if self.protocol == "rbd" else set(self.portals) <= set(wish.portals)
        return bool(common) and all(asked in (None, found) for asked, found in told)

    def __str__(self) -> str:
        if self.protocol == "iscsi":
            return f"LUN {self.lun} of {self.target_iqn}"
        return f"image {self.path}" if self.protocol == "rbd" else str(self.path or "nothing")


def secret_of(target_iqn: t.Optional[str], secret_uuid: t.Optional[str]) -> t.Optional[SecretKey]:
    """The secret that a source with this target or this secret's UUID needs."""
    if target_iqn:
        return SecretKey("iscsi", target_iqn)
    return SecretKey("ceph", secret_uuid) if secret_uuid else None


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk as one of a domain's two definitions has it. None is what the definition leaves open."""

    device: str
    bus: str
    source: Source
    alias: t.Optional[str] = None
    serial: t.Optional[str] = None
    cache: t.Optional[str] = None
    io: t.Optional[str] = None
    discard: t.Optional[str] = None
    read_only: bool = False
    shareable: bool = False
    iotune: Iotune = ()
    format: t.Optional[str] = "raw"
    kind: str = "disk"

    @property
    def key(self) -> str:
        """What the live and the persistent copy of a disk have in common: libvirt keeps only aliases like ours in both."""
        return self.alias if self.alias and self.alias.startswith(ALIAS_PREFIX) else self.device


@dataclasses.dataclass(frozen=True)
class Record:
    """What we note of a disk in its domain's metadata: Nova's block_device_mapping, and the journal of the disk."""

    alias: str
    serial: t.Optional[str] = None
    device: t.Optional[str] = None
    bus: t.Optional[str] = None
    volume: t.Optional[str] = None
    attachment_id: t.Optional[str] = None
    target_iqn: t.Optional[str] = None
    lun: t.Optional[int] = None
    secret_uuid: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class DomainDisk:
    """A disk of a domain with both of its copies and what we noted.

    `password` is the value of the libvirt secret for the disk's source, `size_bytes` what QEMU shows the
    guest (None: the domain does not run, or nobody looked).
    """

    domain: str
    live: t.Optional[Disk] = None
    config: t.Optional[Disk] = None
    live_record: t.Optional[Record] = None
    config_record: t.Optional[Record] = None
    password: t.Optional[Secret] = None
    size_bytes: t.Optional[int] = dataclasses.field(default=None, compare=False)

    @property
    def disk(self) -> t.Optional[Disk]:
        return self.live or self.config

    @property
    def copies(self) -> t.Tuple[Disk, ...]:
        return tuple(disk for disk in (self.live, self.config) if disk)

    @property
    def record(self) -> t.Optional[Record]:
        return self.live_record or self.config_record

    @property
    def secrets(self) -> t.FrozenSet[SecretKey]:
        """The secrets that this disk needs, or that a stopped run noted it would need."""
        noted = [record for record in (self.live_record, self.config_record) if record]
        named = [disk.source.secret for disk in self.copies] + [secret_of(record.target_iqn, record.secret_uuid) for record in noted]
        return frozenset(key for key in named if key)


@dataclasses.dataclass(frozen=True)
class Domain:
    """A domain without its disks. One that is not persistent vanishes when it ends."""

    name: str
    uuid: str
    active: bool
    persistent: bool


@dataclasses.dataclass(frozen=True)
class DiskSecret:
    """A libvirt secret. `value` is None when it has none or hides it."""

    key: SecretKey
    value: t.Optional[Secret]
    ours: bool


@dataclasses.dataclass(frozen=True)
class Image:
    """What a look at a Ceph image found: its size, and who has it open or locked; or why it could not be looked at.

    `cluster` is the fsid of its cluster, as far as that answered.
    """

    size_bytes: t.Optional[int] = None
    holders: t.Tuple[str, ...] = ()
    error: t.Optional[StorageError] = None
    cluster: t.Optional[str] = None
    image_id: t.Optional[str] = None
    features: int = 0

    def others(self, client: t.Optional[str]) -> t.Tuple[str, ...]:
        """Who has it open or locked beside this client."""
        return tuple(holder for holder in self.holders if not holder.endswith(f"({client})"))


@dataclasses.dataclass(frozen=True)
class DomainKey:
    """Where a Domain stands in the world."""

    name: str


@dataclasses.dataclass(frozen=True)
class DiskKey:
    """Where a DomainDisk stands in the world; `name` is Disk.key."""

    domain: str
    name: str


@dataclasses.dataclass(frozen=True)
class ImageKey:
    """Where an Image stands in the world, when someone looked."""

    path: str


RBD_CONFIG = ("rbd config",)  # -> whether the host has our configuration for QEMU's connections to Ceph


def check_serial(serial: t.Optional[str]) -> t.Optional[str]:
    if serial is not None and not _SERIAL.fullmatch(serial):
        raise Invalid(f"{_short(serial)} can't be a disk's serial; use 1 to {MAX_SERIAL} letters, digits, '_' or '-', such as the volume's id")
    return serial


def check_alias(alias: t.Optional[str]) -> t.Optional[str]:
    if alias is not None and not _ALIAS.fullmatch(alias):
        raise Invalid(f"{_short(alias)} can't be a disk's alias; it must be ua- and 1 to 60 letters, digits, '_' or '-'")
    return alias


def check_iqn(name: t.Optional[str], what: str) -> str:
    if not isinstance(name, str) or not _IQN.fullmatch(name) or len(name) > 223:
        raise Invalid(f"{_short(name)} can't be the {what}; give an iSCSI name such as iqn.2026-01.org.example:name")
    return name


def check_image(path: t.Optional[str], what: str = "source.image") -> str:
    if not path or not _IMAGE.fullmatch(path):
        raise Invalid(f"{_short(path)} can't be the {what}; write pool/image or pool/namespace/image, of letters, digits, '.', '_' and '-'")
    return path


def check_uuid(text: t.Optional[str], what: str) -> t.Optional[str]:
    try:
        return str(uuid.UUID(text)) if text else None
    except ValueError as error:
        raise Invalid(f"{_short(text)} can't be the {what}; give a UUID") from error


def check_cephx_key(key: t.Optional[str], what: str) -> t.Optional[Secret]:
    """The key of a Ceph user as keyrings write it; it is never told."""
    try:
        return Secret(key) if key and base64.b64decode(key, validate=True) else None
    except ValueError as error:
        raise Invalid(f"{what} is no key of a Ceph user; give what `ceph auth get-key` prints") from error


def check_bus(device: t.Optional[str], bus: t.Optional[str]) -> t.Optional[str]:
    """The bus of a wish that names a device, a bus, both or neither."""
    if device is None:
        return bus
    if not _DEVICE.fullmatch(device):
        raise Invalid(f"{_short(device)} can't be a device; use one like vdb (virtio) or sdb (scsi), or leave it out for the next free one")
    found = next(name for name, prefix in PREFIXES.items() if device.startswith(prefix))
    if bus not in (None, found):
        raise Invalid(f"device {device} is not on the {bus} bus; leave out bus, or name a device that begins with {PREFIXES[t.cast(str, bus)]}")
    return found


def check_iotune(iotune: t.Optional[t.Dict[str, t.Optional[int]]]) -> t.Optional[Iotune]:
    """The limits of a wish without those that are none; raises Invalid where QEMU would refuse them."""
    if iotune is None:
        return None
    limits = {key: value for key, value in iotune.items() if value}
    for key in limits:
        _check_limit(key, limits)
    if "size_iops_sec" in limits and not any(rate in limits for rate in _RATES if "_iops_" in rate):
        raise Invalid("iotune.size_iops_sec needs an iops limit, such as iotune.total_iops_sec; give both")
    return tuple(sorted(limits.items()))


def _check_limit(key: str, limits: t.Dict[str, int]) -> None:
    if limits[key] < 0:
        raise Invalid(f"iotune.{key} is {limits[key]}; give 0 for no limit, or a positive number")
    for needed in (key[: -len(end)] for end in ("_max", "_length") if key.endswith(end)):
        if needed not in limits:
            raise Invalid(f"iotune.{key} needs iotune.{needed}; give both")
    for single in (key.replace("total", kind, 1) for kind in ("read", "write") if key.startswith("total")):
        if single in limits:
            raise Invalid(f"iotune has both {key} and {single}; give the total, or read and write")


def guest_serial(disk: Disk) -> t.Optional[str]:
    """What the guest can read of the serial."""
    return disk.serial[:GUEST_SERIAL] if disk.serial and disk.bus == "virtio" else disk.serial


def device_name(bus: str, index: int) -> str:
    """vda, vdb, … vdz, vdaa, …: the device of a bus at an index that counts from 0."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return PREFIXES[bus] + letters


def _short(text: t.Any) -> str:
    return repr(text if len(str(text)) <= 60 else str(text)[:57] + "...")
