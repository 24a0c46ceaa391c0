# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What the kernel says of iSCSI sessions, their disks, and of who holds those; and the few files by which it is told something.

Sources: Documentation/ABI/testing/sysfs-block, the kernel's scsi_transport_iscsi.c and scsi_sysfs.c; seen on Linux 6.1.
The kernel keeps the VPD pages of a disk from when it was found, so that a disk that is dead still has its serial and WWID.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import stat
import typing as t

from .._errors import Failed
from .._model.session import RUNNING, Connection, Device, Holder, Map, Session, device_wwid, ordered, portal_at
from .._model.target import Portal
from .inquiry import identity, parse_serial

_BLKFLSBUF = 0x1261
_SECTOR = 512
# They open every disk to look after it, and let go when it goes.
_CARETAKERS = ("multipathd", "multipath", "systemd-udevd", "(udev-worker)", "udevd")
_LINKS = ("/dev/disk/by-id", "/dev/disk/by-path")

Holders = t.Dict[int, t.Set[Holder]]  # by device number


@dataclasses.dataclass
class Block:
    """A block device with all that is built on it: its partitions, and what holds those or itself."""

    name: str
    number: int
    above: t.Tuple[str, ...]


class Sysfs:
    """`root` is where the machine's files are; another one than / is for tests."""

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")

    # ---- sessions and their disks

    def connections(self, iqns: t.Container[str], closely: bool) -> t.Dict[str, Connection]:
        """Sessions, devices and maps by target.

        `closely` also asks the devices who they are, and tells who holds them, which takes a look at every process.
        """
        found = self.sessions(iqns)
        if not found:
            return {}
        links, maps = self._links(), self._maps()
        devices = {iqn: [device for s in sessions for device in self._devices(s, links)] for iqn, sessions in found.items()}
        if closely:
            devices = {iqn: [self._asked(device) for device in each] for iqn, each in devices.items()}
        names = {device.name for each in devices.values() for device in each if device.name}
        mapped = [each for each in maps if each.devices & names]
        mapped = [dataclasses.replace(each, links=links.get(str(each.device), ())) for each in mapped]
        holders = self._holders(names | {str(each.device) for each in mapped}, {str(each.device) for each in maps}) if closely else {}
        return {iqn: _connection(found[iqn], devices[iqn], mapped, holders) for iqn in found}

    def sessions(self, iqns: t.Container[str]) -> t.Dict[str, t.List[Session]]:
        """The sessions with these targets, which is far less to read than what they lead to."""
        found: t.Dict[str, t.List[Session]] = {}
        for name, iqn in self._sessions():
            session = self._session(name) if iqn in iqns else None
            if session:
                found.setdefault(iqn, []).append(session)
        return found

    def shows(self, session: Session, lun: int) -> bool:
        """Whether the kernel has found this LUN through a session."""
        return os.path.exists(f"{self.root}/sys/class/scsi_device/{session.host}:0:0:{lun}")

    def targets(self) -> t.Set[str]:
        return {iqn for _name, iqn in self._sessions()}

    def _sessions(self) -> t.Iterator[t.Tuple[str, str]]:
        """The kernel's names of all sessions, each with its target."""
        for name in self._list("/sys/class/iscsi_session"):
            iqn = self._read(f"/sys/class/iscsi_session/{name}/targetname")
            if iqn:
                yield name, iqn

    def _session(self, name: str) -> t.Optional[Session]:
        """One session, or None while the kernel has not finished to make it, or to end it."""
        sid = int(name[len("session") :])
        host = next((part for part in os.path.realpath(f"{self.root}/sys/class/iscsi_session/{name}").split("/") if part.startswith("host")), "")
        portal = self._portal(f"/sys/class/iscsi_connection/connection{sid}:0")
        if not portal or not host:
            return None
        state = self._read(f"/sys/class/iscsi_session/{name}/state") or "unknown"
        iface = self._read(f"/sys/class/iscsi_session/{name}/ifacename") or "default"
        return Session(portal, iface, state, sid, int(host[4:]))

    def _portal(self, connection: str) -> t.Optional[Portal]:
        """Where a connection goes to. `persistent_address` is as it stands in the record, `address` what that name led to."""
        for kind in ("persistent_", ""):
            with contextlib.suppress(ValueError):
                return portal_at(self._read(f"{connection}/{kind}address") or "", self._read(f"{connection}/{kind}port") or "")
        return None

    def _devices(self, session: Session, links: t.Dict[str, t.Tuple[str, ...]]) -> t.Iterator[Device]:
        base = f"/sys/class/iscsi_session/session{session.sid}/device"
        for target in self._list(base):
            for hctl in self._list(f"{base}/{target}") if target.startswith("target") else ():
                if hctl.count(":") == 3 and (self._read(f"{base}/{target}/{hctl}/type") or "0") == "0":
                    yield self._device(session, hctl, f"{base}/{target}/{hctl}", links)

    def _device(self, session: Session, hctl: str, path: str, links: t.Dict[str, t.Tuple[str, ...]]) -> Device:
        name = next(iter(self._list(f"{path}/block")), None)
        size = self._read(f"/sys/class/block/{name}/size") if name else None
        return Device(
            lun=int(hctl.rsplit(":", 1)[1]),
            portal=session.portal,
            serial=parse_serial(self._bytes(f"{path}/vpd_pg80")),
            wwid=(self._read(f"{path}/wwid") or "").lower() or None,
            size_bytes=int(size) * _SECTOR if size else None,
            name=name if size else None,
            hctl=hctl,
            state=self._read(f"{path}/state") or "unknown",
            links=links.get(str(name), ()),
        )

    def _asked(self, device: Device) -> Device:
        """The device with what it says to be now, if it answers. Its users still take it for what the kernel found."""
        told = identity(f"{self.root}/dev/{device.name}") if device.name and device.state == RUNNING else None
        if told is None:
            return device
        if told.serial != device.serial:
            return dataclasses.replace(device, exchanged=f"serial {told.serial or 'none'}")
        # a WWID of a kind that only the kernel knows to read says nothing
        return device if told.wwid in (None, device.wwid) else dataclasses.replace(device, exchanged=f"wwid {told.wwid}")

    def _maps(self) -> t.List[Map]:
        found = []
        for device in self._list("/sys/block"):
            uuid = self._read(f"/sys/block/{device}/dm/uuid") if device.startswith("dm-") else None
            if uuid and uuid.startswith("mpath-"):
                size = int(self._read(f"/sys/block/{device}/size") or 0) * _SECTOR
                name = self._read(f"/sys/block/{device}/dm/name")
                found.append(Map(device_wwid(uuid[len("mpath-") :]), size, name, device, frozenset(self._list(f"/sys/block/{device}/slaves"))))
        return found

    def map(self, wwid: str) -> t.Optional[Map]:
        """The map of this WWID."""
        return next((each for each in self._maps() if each.wwid == wwid), None)

    def any_running(self, names: t.Iterable[str]) -> bool:
        """Whether one of these disks takes I/O."""
        return any(self._read(f"/sys/class/block/{name}/device/state") == "running" for name in names)

    def portal_group(self, session: Session) -> int:
        return int(self._read(f"/sys/class/iscsi_session/session{session.sid}/tpgt") or 1)

    def _links(self) -> t.Dict[str, t.Tuple[str, ...]]:
        """The links of udev by the name of the device they lead to."""
        found: t.Dict[str, t.List[str]] = {}
        for folder in _LINKS:
            for name in self._list(folder):
                with contextlib.suppress(OSError):
                    target = os.path.basename(os.readlink(f"{self.root}{folder}/{name}"))
                    found.setdefault(target, []).append(f"{folder}/{name}")
        return {target: tuple(sorted(names)) for target, names in found.items()}

    # ---- who holds them

    def holders(self, *names: str) -> t.Dict[str, t.Tuple[Holder, ...]]:
        """Who holds block devices, by their kernel names."""
        return self._holders(set(names), set())

    def _holders(self, names: t.Set[str], maps: t.Set[str]) -> t.Dict[str, t.Tuple[Holder, ...]]:
        """Who holds these block devices, directly or through what is built on them; a multipath map is no holder of its paths."""
        trees = {name: self._tree(name, maps) for name in names}
        numbers = {block.number for tree in trees.values() for block in tree}
        users: Holders = {}
        for number, holder in [*self._mounts(), *self._swaps(), *self._loops(), *self._processes(numbers)]:
            users.setdefault(number, set()).add(holder)
        found = {}
        for name, tree in trees.items():
            mine = {holder for block in tree for holder in users.get(block.number, ())}
            mine |= {Holder("device", self._title(above)) for block in tree for above in block.above}
            found[name] = tuple(sorted(mine, key=str)) or self._claimed(name)
        return found

    def _tree(self, name: str, maps: t.Set[str]) -> t.List[Block]:
        """A device, its partitions, and the maps of a map's partitions (kpartx): what goes when it goes."""
        number = self._number(name)
        if number is None:
            return []
        above = [each for each in self._list(f"/sys/class/block/{name}/holders") if each not in maps]
        parts = [each for each in above if (self._read(f"/sys/class/block/{each}/dm/uuid") or "").startswith("part")]
        inside = [each for each in self._list(f"/sys/class/block/{name}") if each.startswith(name)]
        tree = [Block(name, number, tuple(each for each in above if each not in parts))]
        return tree + [block for each in parts + inside for block in self._tree(each, maps)]

    def _claimed(self, name: str) -> t.Tuple[Holder, ...]:
        """Holders that show nowhere, such as a mount in another namespace: the kernel lets nobody else have the device alone."""
        if self._list(f"/sys/class/block/{name}/holders"):
            return ()
        try:
            os.close(os.open(f"{self.root}/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            return (Holder("device", "that has it for itself"),) if error.errno == errno.EBUSY else ()
        return ()

    def _mounts(self) -> t.Iterator[t.Tuple[int, Holder]]:
        for line in (self._read("/proc/self/mountinfo") or "").splitlines():
            words = line.split(" ")
            major, minor = words[2].split(":")
            yield os.makedev(int(major), int(minor)), Holder("mount", words[4])

    def _swaps(self) -> t.Iterator[t.Tuple[int, Holder]]:
        for line in (self._read("/proc/swaps") or "").splitlines()[1:]:
            name = line.split(" ")[0].split("\t")[0]
            with contextlib.suppress(OSError):
                yield os.stat(self.root + name).st_rdev, Holder("swap", name)

    def _loops(self) -> t.Iterator[t.Tuple[int, Holder]]:
        for name in self._list("/sys/block"):
            backing = self._read(f"/sys/block/{name}/loop/backing_file") if name.startswith("loop") else None
            if backing:
                with contextlib.suppress(OSError):
                    yield os.stat(self.root + backing).st_rdev, Holder("device", name)

    def _processes(self, numbers: t.Set[int]) -> t.Iterator[t.Tuple[int, Holder]]:
        """Processes that have one of these devices open."""
        others = [pid for pid in self._list("/proc") if pid.isdigit() and pid != str(os.getpid())]
        for pid in others:
            opened = {self._opened(f"/proc/{pid}/fd/{handle}") for handle in self._list(f"/proc/{pid}/fd")} & numbers
            if opened and self._read(f"/proc/{pid}/comm") not in _CARETAKERS:
                yield from ((number, self._process(pid)) for number in opened)

    def _opened(self, handle: str) -> int:
        """The number of the block device behind a handle, else 0. Only links into /dev are followed: others may hang (NFS)."""
        with contextlib.suppress(OSError):
            if os.readlink(self.root + handle).startswith("/dev/"):
                found = os.stat(self.root + handle)
                return found.st_rdev if stat.S_ISBLK(found.st_mode) else 0
        return 0

    def _process(self, pid: str) -> Holder:
        words = (self._read(f"/proc/{pid}/cmdline") or "").split("\0")
        domain = parse_domain(words)
        if domain:
            return Holder("domain", domain, int(pid))
        return Holder("process", self._read(f"/proc/{pid}/comm") or "?", int(pid))

    def _title(self, name: str) -> str:
        """What a person calls a block device: the name of a mapping, or that of the kernel."""
        return self._read(f"/sys/class/block/{name}/dm/name") or name

    def _number(self, name: str) -> t.Optional[int]:
        text = self._read(f"/sys/class/block/{name}/dev")
        if text is None:
            return None
        major, minor = text.split(":")
        return os.makedev(int(major), int(minor))

    # ---- what the kernel is told

    def scan(self, session: Session, lun: int) -> None:
        """Looks for one LUN through one session; the bus and target of an iSCSI host are always 0."""
        self._write(f"/sys/class/scsi_host/host{session.host}/scan", f"0 0 {lun}", "scan for a LUN")

    def rescan(self, device: Device) -> None:
        self._write(f"/sys/class/scsi_device/{device.hctl}/device/rescan", "1", f"look at the size of {device.name} again")

    def announce(self, name: str) -> None:
        self._write(f"/sys/class/block/{name}/uevent", "change", f"have udev look at {name} again")

    def delete(self, device: Device) -> None:
        self._write(f"/sys/class/scsi_device/{device.hctl}/device/delete", "1", f"delete the SCSI device {device.hctl}")

    def flush_buffers(self, name: str) -> None:
        try:
            flush(f"{self.root}/dev/{name}")
        except OSError as error:
            raise unflushed(name, error) from error

    # ---- files

    def _write(self, path: str, text: str, what: str) -> None:
        try:
            with open(self.root + path, "w", encoding="ascii") as handle:
                handle.write(text)
        except FileNotFoundError:
            return  # gone already, which is seen afterwards
        except OSError as error:
            raise Failed(f"to {what} failed: {os.strerror(error.errno or 0)} ({path}); look at the kernel log") from error

    def _list(self, path: str) -> t.List[str]:
        try:
            return sorted(os.listdir(self.root + path))
        except OSError:
            return []

    def _bytes(self, path: str) -> bytes:
        try:
            with open(self.root + path, "rb") as handle:
                return handle.read()
        except OSError:
            return b""

    def _read(self, path: str) -> t.Optional[str]:
        """The text of a file without what ends it, or None where there is none."""
        return self._bytes(path).decode("utf-8", "replace").rstrip("\n ") or None


def _connection(sessions: t.List[Session], devices: t.List[Device], maps: t.List[Map], holders: t.Dict[str, t.Tuple[Holder, ...]]) -> Connection:
    names = {device.name for device in devices}
    held = tuple(dataclasses.replace(device, holders=holders.get(str(device.name), ())) for device in devices)
    above = tuple(dataclasses.replace(each, holders=holders.get(str(each.device), ())) for each in maps if each.devices & names)
    return ordered(Connection(sessions=tuple(sessions), devices=held, maps=above))


def flush(path: str) -> None:
    """Writes out what the kernel holds back for a block device, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
            fcntl.ioctl(handle, _BLKFLSBUF, 0)
        finally:
            os.close(handle)


def unflushed(name: str, error: OSError) -> Failed:
    why = os.strerror(error.errno or 0)
    return Failed(f"the buffers of {name} can't be flushed: {why}; what was written may be lost, look at the kernel log")


def parse_domain(words: t.Sequence[str]) -> t.Optional[str]:
    """The name of the domain that a QEMU of libvirt runs (`-name guest=NAME,…`); its commas are doubled."""
    if "-name" not in words or "qemu" not in words[0]:
        return None
    after = words[words.index("-name") + 1 :]
    first = after[0].replace(",,", "\0").split(",")[0].replace("\0", ",") if after else ""
    return first[len("guest=") :] if first.startswith("guest=") else first or None
