# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The hosts that run domains, are initiators, or are where long work is done: what a planner may ask of one."""

from __future__ import annotations

import contextlib
import typing as t

from .._model.data import Secret
from .._model.disk import Disk, Iotune, Record, SecretKey, Source
from .._model.mapping import Mapping
from .._model.session import Device, NodeRecord
from .._model.target import Portal

Scopes = t.Sequence[str]  # of "live" and "config"
Portals = t.Tuple[Portal, ...]

GROUND = ("ground",)  # where a world has what the host itself is able to do

# Keys of an initiator's world beside the targets' names, which hold Connections.


def silence(portal: Portal) -> t.Tuple[str, Portal]:
    """The key under which stands why a portal can't be reached; not in the world: it answers, or nobody asked."""
    return ("silence", portal)


def found_portals(iqn: str) -> t.Tuple[str, str]:
    """The key of the portals that discovery found of a target, each with its portal group, or of the error it ended with."""
    return ("portals", iqn)


class DiskHost:
    """The verbs of a host with domains. Every verb may be repeated after a crash without harm."""

    where = ""
    rbd_config: t.Optional[str] = None  # a file with our configuration for QEMU's connections to Ceph, where QEMU may read it

    def write_record(self, domain: str, record: Record, scopes: Scopes) -> None:
        """Notes a disk in the domain's metadata, in place of an earlier note of the same alias."""
        raise NotImplementedError

    def drop_record(self, domain: str, alias: str, scopes: Scopes) -> None:
        """Takes the note of an alias out of the metadata."""
        raise NotImplementedError

    def set_secret(self, key: SecretKey, value: Secret) -> None:
        """Makes a secret, or gives it another value."""
        raise NotImplementedError

    def drop_secret(self, key: SecretKey) -> None:
        raise NotImplementedError

    def write_rbd_config(self) -> None:
        """Makes the file `rbd_config`, or brings it to what it shall be."""
        raise NotImplementedError

    def attach(self, domain: str, disk: Disk, scopes: Scopes) -> None:
        """Gives the domain a disk, in all scopes at once or not at all."""
        raise NotImplementedError

    def update(self, domain: str, disk: Disk) -> None:
        """Brings the persistent copy of a disk to these attributes; takes effect when the domain starts."""
        raise NotImplementedError

    def limit(self, domain: str, device: str, iotune: Iotune) -> None:
        """Gives the live copy these limits and no others."""
        raise NotImplementedError

    def resize(self, domain: str, device: str, size_bytes: int) -> None:
        """Tells the running guest that its disk has grown."""
        raise NotImplementedError

    def detach(self, domain: str, name: str) -> None:
        """Removes the persistent copy of the disk with this Disk.key."""
        raise NotImplementedError

    def unplug(self, domain: str, name: str) -> None:
        """Asks the running guest to let go of the disk with this Disk.key; whether it does shows later."""
        raise NotImplementedError


class InitiatorHost:
    """The verbs of a host that logs in. Every verb may be repeated after a crash without harm.

    Those that say so only gather: `flush` does them for all targets at once, ends sessions first, then logs in, scans
    and makes maps. What becomes of a login shows later.
    """

    def write_record(self, record: NodeRecord) -> None:
        """Writes a node record, readable by root only, in one atomic change."""
        raise NotImplementedError

    def drop_record(self, iqn: str, portal: Portal, iface: str) -> None:
        """Removes a node record."""
        raise NotImplementedError

    def log_in(self, iqn: str, portals: Portals, iface: str, every: bool) -> None:
        """Makes sessions by the node records: at every portal, or at the first that lets this host in. Gathers."""
        raise NotImplementedError

    def log_out(self, iqn: str, portals: Portals) -> None:
        """Ends the sessions at these portals, but none that still has a device. Gathers."""
        raise NotImplementedError

    def scan(self, iqn: str, lun: int) -> None:
        """Looks for this LUN through the sessions that do not have it. Gathers."""
        raise NotImplementedError

    def make_map(self, iqn: str, lun: int) -> None:
        """Has multipathd make a map of the devices of this LUN. Gathers."""
        raise NotImplementedError

    def take_away(self, iqn: str, lun: int, portals: Portals) -> None:
        """Deletes the devices of a LUN that this run has scanned for, unless someone holds them."""
        raise NotImplementedError

    def claim(self, wwid: str) -> None:
        """Tells multipathd to make a map of devices with this WWID even of one path."""
        raise NotImplementedError

    def unclaim(self, wwid: str) -> None:
        raise NotImplementedError

    def drop_map(self, wwid: str) -> None:
        """Writes out what a map holds back, and removes it."""
        raise NotImplementedError

    def resize_map(self, wwid: str) -> None:
        """Has a map take over the size of its paths."""
        raise NotImplementedError

    def rescan(self, device: Device) -> None:
        """Has the kernel look at a device's size again."""
        raise NotImplementedError

    def announce(self, name: str) -> None:
        """Has udev look at a block device again and make its links."""
        raise NotImplementedError

    def flush_buffers(self, device: Device) -> None:
        """Writes out what the kernel holds back for a device."""
        raise NotImplementedError

    def delete(self, device: Device) -> None:
        """Takes a SCSI device from the kernel."""
        raise NotImplementedError


class MappingHost:
    """The verbs of a host whose kernel is a client of Ceph clusters. Every verb may be repeated after a crash without harm."""

    rule = ""  # the file by which udev names the devices

    def load(self) -> None:
        """Loads the kernel's driver."""
        raise NotImplementedError

    def write_rule(self) -> None:
        """Has udev name the devices by what they are."""
        raise NotImplementedError

    def map(self, wish: Mapping, source: Source, key: t.Optional[Secret], shared: bool) -> None:
        """Makes an image a device. Busy while somebody else has it open, unless it is shared."""
        raise NotImplementedError

    def refresh(self, mapping: Mapping) -> None:
        """Has the kernel look at the size of an image again."""
        raise NotImplementedError

    def announce(self, mapping: Mapping) -> None:
        """Has udev look at a device again and make its link."""
        raise NotImplementedError

    def flush(self, mapping: Mapping) -> None:
        """Writes out what the kernel holds back for a device."""
        raise NotImplementedError

    def unmap(self, wish: Mapping) -> None:
        """Takes the device of this image of this cluster away. Busy while somebody has it open."""
        raise NotImplementedError


class QuiesceHost:
    """The verbs of a host that can keep its domains from writing. Every verb may be repeated after a crash without harm."""

    where = ""

    def quiesce(self, domain: str, way: str, at_most: int) -> None:
        """Freezes the file systems of a domain, or pauses it (Hold.way), until `release` or for so many seconds."""
        raise NotImplementedError

    def release(self, domain: str) -> None:
        """Tells what holds the domain to let go; does so itself where that was killed."""
        raise NotImplementedError


class Workplace:
    """Where runs show that they are at a volume for long, so that a killed one can be told from a slow one. Nowhere, unless a host says otherwise."""

    name = ""

    def at_work(self, volume_id: str) -> t.ContextManager[None]:
        """Shows it for as long as this process lives, or the block lasts."""
        return contextlib.nullcontext()

    def anybody(self, volume_id: str) -> bool:
        """Whether somebody here is at work on a volume."""
        raise NotImplementedError
