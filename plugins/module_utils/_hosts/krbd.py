# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""This host's kernel as a client of Ceph clusters, through the files by which its driver rbd is told what to do.

Sources: Documentation/ABI/testing/sysfs-bus-rbd, drivers/block/rbd.c, net/ceph/ceph_common.c, add_key(2), keyrings(7), udev(7).

The tool `rbd` writes into the same files. Without it a host needs no ceph-common, the kernel's answer is a number instead of
a text, and nothing asks the cluster once more, without a limit in time, when the kernel has said no. The key goes from this
process to the kernel through a keyring that ends with its thread; what the driver shows of itself only names it.
"""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import errno
import os
import typing as t

from .._errors import Busy, Conflict, Failed, NotFound, Refused, StorageError, Unavailable
from .._model.data import Secret
from .._model.disk import Image, Source
from .._model.mapping import LINKS, KernelGround, LookKey, Mapping, MappingKey
from . import GROUND, MappingHost
from .apart import apart
from .ceph import Images
from .command import run
from .files import holds, publish
from .sysfs import Sysfs, flush, unflushed

LOCK = "/run/stackless-block-rbd.lock"
_BUS = "/sys/bus/rbd"
_RULE = "/run/udev/rules.d/60-stackless-block-rbd.rules"
_NAMED = 'KERNEL=="rbd[0-9]*", ENV{{DEVTYPE}}=="disk", SUBSYSTEMS=="rbd", ATTRS{{current_snap}}=="-", ATTRS{{pool_ns}}=="{ns}", SYMLINK+="{link}"\n'
_RULES = (
    "# Made by stackless.block: the kernel's numbers of RBD devices change with every boot, these names do not.\n"
    + _NAMED.format(ns="", link=LINKS[len("/dev/") :] + "/$attr{cluster_fsid}/$attr{pool}/$attr{name}")
    + _NAMED.format(ns="?*", link=LINKS[len("/dev/") :] + "/$attr{cluster_fsid}/$attr{pool}/$attr{pool_ns}/$attr{name}")
)
_DRIVER = "rbd"
_SHOWN = ("pool", "pool_ns", "name", "image_id", "current_snap", "cluster_fsid", "client_id")
_SECTOR = 512
_SECONDS = 10  # for each of the kernel's questions to a cluster that has answered us just now
_PATIENCE = 30.0  # for all of them together
_SECOND_PROTOCOL = 3300  # the port of monitors that the kernel speaks to only when it is told
_THREAD_KEYRING = -1
_LIBRARY = "libkeyutils.so.1"

World = t.Dict[t.Hashable, t.Any]

# What the kernel answers to a mapping, beside what a look at the image has told already.
_MEANINGS: t.Dict[int, t.Tuple[t.Type[StorageError], str]] = {
    errno.ETIMEDOUT: (Unavailable, "the kernel had no answer of its cluster in time; see with ceph -s which OSDs or monitors are down, and run again"),
    errno.EACCES: (Failed, "the kernel is not let in by its cluster as this user, or this task is not run as root; compare the key, or give become: true"),
    errno.ENOENT: (NotFound, "it has gone since it was looked at; run the same play again"),
    errno.EROFS: (Conflict, "someone has it mapped exclusively and does not give its lock away; see with rbd status who it is, and end that first"),
    errno.ENXIO: (Refused, "it has features that the kernel of this host does not know, which its log names; disable them, or use transport rbd"),
    errno.EINVAL: (Refused, "the kernel of this host can't map it like that, and its log says why; correct the wish, or use transport rbd"),
    errno.ESHUTDOWN: (Conflict, "its cluster has this host on its blocklist; see ceph osd blocklist ls, and take it off when it is well again"),
}
_MEANINGS[errno.EPERM] = _MEANINGS[errno.EACCES]


class RbdBus(Sysfs):
    """What the kernel shows of its RBD devices, and how it is told of them."""

    def mappings(self, closely: bool) -> t.Dict[MappingKey, Mapping]:
        """The devices of images, not those of snapshots. `closely` tells who holds them, which takes a look at every process."""
        found: t.Dict[MappingKey, Mapping] = {}
        for number in sorted(int(name) for name in self._list(f"{_BUS}/devices") if name.isdigit()):
            each = self._mapping(number)
            if each:
                known = found.setdefault(MappingKey(each.cluster, each.image), each)
                if known is not each:
                    found[MappingKey(each.cluster, each.image)] = dataclasses.replace(known, twin=number)
        holders = self.holders(*(each.name for each in found.values())) if closely and found else {}
        return {key: dataclasses.replace(each, holders=holders.get(each.name, ())) for key, each in found.items()}

    def _mapping(self, number: int) -> t.Optional[Mapping]:
        """One device, or None while it is half there, or when it is a snapshot's."""
        told = {name: self._read(f"{_BUS}/devices/{number}/{name}") for name in _SHOWN}
        size = self._read(f"/sys/class/block/rbd{number}/size")
        if told["current_snap"] != "-" or None in (told["cluster_fsid"], told["pool"], told["name"], size):
            return None
        mapping = Mapping(
            image="/".join(filter(None, (told["pool"], told["pool_ns"], told["name"]))),
            cluster=str(told["cluster_fsid"]),
            size_bytes=int(str(size)) * _SECTOR,
            read_only=self._read(f"/sys/class/block/rbd{number}/ro") == "1",
            exclusive="exclusive" in options_of(self._read(f"{_BUS}/devices/{number}/config_info")),
            image_id=told["image_id"],
            number=number,
            client=(told["client_id"] or "").replace("client", "client.", 1),
        )
        return dataclasses.replace(mapping, linked=self._leads(mapping.link, mapping.name))

    def _leads(self, link: str, name: str) -> bool:
        return os.path.realpath(self.root + link) == f"{self.root}/dev/{name}"

    def features(self) -> t.Optional[int]:
        """Those of images that the driver knows, None while it is not loaded."""
        shown = self._read(f"{_BUS}/supported_features")
        return int(shown, 0) if shown else None

    def is_loaded(self) -> bool:
        return os.path.isdir(self.root + _BUS)

    def door(self, name: str) -> str:
        """The file that takes `add` or `remove`: another one where all devices share their major number."""
        single = f"{self.root}{_BUS}/{name}_single_major"
        return single if os.path.exists(single) else f"{self.root}{_BUS}/{name}"

    def refresher(self, number: t.Optional[int]) -> str:
        return f"{self.root}{_BUS}/devices/{number}/refresh"


class Krbd(MappingHost):
    """Holders are looked for until the last step is done: to see whether the steps came true takes none."""

    rule = _RULE

    def __init__(self, bus: t.Optional[RbdBus] = None) -> None:
        self.bus = bus or RbdBus()
        self._images = Images(options="")
        self._seen: t.Dict[LookKey, Image] = {}
        self._done = False

    # ---- looking

    def observe(self, looks: t.Sequence[t.Tuple[Source, t.Optional[Secret]]]) -> World:
        """The world: Mappings, GROUND, and the Images of these sources as they were when they were first asked for."""
        for source, key in looks:
            there = LookKey(str(source.path), source.portals)
            self._seen[there] = self._seen.get(there) or self._images.look(source, key)
        return {GROUND: self._ground(), **self._seen, **self.bus.mappings(closely=not self._done)}

    def _ground(self) -> KernelGround:
        loaded = self.bus.is_loaded()
        return KernelGround(loaded or _has_driver(), loaded, _has_library(), holds(_RULE, _RULES), self.bus.features())

    def done(self) -> None:
        """Nothing more will be done that needs to know who holds a device."""
        self._done = True

    # ---- what is done

    def load(self) -> None:
        said = run(["modprobe", _DRIVER, "single_major=Y"], _PATIENCE)
        if said.status:
            raise Failed(f"the kernel's driver rbd can't be loaded: {' '.join(said.text.split())[:200]}; look at the kernel's log")

    def write_rule(self) -> None:
        """It is gone after a boot, as the devices are."""
        publish(_RULE, _RULES)
        said = run(["udevadm", "control", "--reload"], _PATIENCE)
        if said.status:
            raise Failed(f"udev does not take {_RULE}: {' '.join(said.text.split())[:200]}; check that systemd-udevd runs")

    def map(self, wish: Mapping, source: Source, key: t.Optional[Secret], shared: bool) -> None:
        if not shared:
            self._images.check_alone(source, key)
        try:
            apart(_PATIENCE, _add, self.bus.door("add"), line_of(wish, source), f"client.{source.username}", key)
        except OSError as error:
            kind, why = _MEANINGS.get(error.errno or 0, (Failed, f"{error.strerror}; look at the kernel's log"))
            raise kind(f"image {wish.image} can't be mapped: {why}") from error

    def refresh(self, mapping: Mapping) -> None:
        try:
            apart(_PATIENCE, _tell, self.bus.refresher(mapping.number), "1")
        except OSError as error:
            raise Failed(f"the kernel can't look at the size of {mapping.name} again: {error.strerror}; see with ceph -s, and run again") from error

    def announce(self, mapping: Mapping) -> None:
        self.bus.announce(mapping.name)

    def flush(self, mapping: Mapping) -> None:
        try:
            apart(_PATIENCE, flush, f"{self.bus.root}/dev/{mapping.name}")
        except TimeoutError as error:
            why = f"its cluster has not taken what the kernel holds back for {mapping.name} within {_PATIENCE:g} s"
            raise Unavailable(f"image {mapping.image} stays mapped: {why}; see with ceph -s which OSDs are down, and run again") from error
        except OSError as error:
            raise unflushed(mapping.name, error) from error

    def unmap(self, wish: Mapping) -> None:
        """The number is looked up again: the device that has it by now may be another image's."""
        have = self.bus.mappings(closely=False).get(MappingKey(wish.cluster, wish.image))
        if have is None or wish.number not in (None, have.number):
            return
        try:
            apart(_PATIENCE, _tell, self.bus.door("remove"), str(have.number))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._mapped_still(have, error) from error

    def _mapped_still(self, have: Mapping, error: OSError) -> StorageError:
        what = f"image {have.image} ({have.name}) can't be unmapped"
        if error.errno == errno.EBUSY:
            holders = ", ".join(map(str, self.bus.holders(have.name)[have.name])) or "somebody who lets go just now"
            return Busy(f"{what}: it is in use by {holders}; let it go there first")
        if error.errno == errno.ETIMEDOUT:
            return Unavailable(f"{what}: its cluster does not answer; see with ceph -s which OSDs or monitors are down, and run again")
        return Failed(f"{what}: {error.strerror}; run the task as root, and look at the kernel's log")


def options_of(config: t.Optional[str]) -> t.FrozenSet[str]:
    """What a device was mapped with, of what the driver shows of it: monitors, options, pool, image, snapshot."""
    words = (config or "").split(" ")
    return frozenset(words[1].split(",")) if len(words) > 1 else frozenset()


def line_of(wish: Mapping, source: Source) -> str:
    """What the driver is told to map an image, each with a client of its own, so that what befalls one leaves the others alone."""
    pool, _slash, rest = wish.image.partition("/")
    namespace, _slash, name = rest.rpartition("/")
    first = [portal for portal in source.portals if portal[1] != _SECOND_PROTOCOL]
    monitors = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in first or source.portals]
    user = f"client.{source.username}"
    options = [f"name={source.username}", f"key={user}", "noshare", f"mount_timeout={_SECONDS}", f"lock_timeout={_SECONDS}"]
    options += [f"_pool_ns={namespace}"] if namespace else []
    options += [] if first else ["ms_mode=prefer-crc"]
    options += ["ro" if wish.read_only else "rw"] + (["exclusive"] if wish.exclusive else [])
    return " ".join([",".join(monitors), ",".join(options), pool, name, "-"])


def _add(door: str, line: str, name: str, key: Secret) -> None:
    """Leaves the key where the kernel looks for it, and has the image mapped. For a process of its own, which takes both along."""
    payload = base64.b64decode(key.reveal())
    if _library().add_key(b"ceph", name.encode("ascii"), payload, len(payload), _THREAD_KEYRING) < 0:
        raise OSError(ctypes.get_errno(), "add_key")
    _tell(door, line)


def _tell(path: str, text: str) -> None:
    """In one write, as the kernel takes it."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode("ascii"))
    finally:
        os.close(handle)


def _library() -> t.Any:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    library.add_key.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32]
    return library


def _has_library() -> bool:
    try:
        return bool(_library())
    except OSError:
        return False


def _has_driver() -> bool:
    """Whether the driver could be loaded."""
    try:
        return run(["modprobe", "--dry-run", "--quiet", _DRIVER], _PATIENCE).status == 0
    except StorageError:
        return False
