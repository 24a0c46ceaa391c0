# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes as logical volumes of one volume group, each with its record in its own tags.

volume-<id> is data and record in one: both are made by one lvcreate and go with one lvremove. A record changes by one
lvchange that selects the tags as they were, so that it does nothing when somebody was faster.

No volume ever shows what was there before it. A thin pool zeroes the blocks that it gives (checked). A thick volume is
zeroed before it becomes available, and grows by space that was zeroed before it joined: zeroing a volume's end while
somebody uses it could meet what they have just written there.

_snapshot-<id> (Cinder's name; LVM keeps "snapshot" for itself) is what a snapshot kept. Of a thin volume it is a thin
snapshot, taken at one instant, which shares blocks with the volume and its clones and depends on none of them. Of a thick
volume it is a whole copy. LVM's own snapshots of thick volumes would be there at once, but they slow every write down, keep
the volume from growing, and are lost when they are full or the volume is: no place for data that somebody relies upon.

A thin volume is reverted by a new snapshot of the snapshot, _new-<id>, that takes its place and name, with a copy of the
record in its tags; the volume as it was waits as _old-<id> to be removed. Whichever of them is left by a run that was
killed, exactly one counts as the volume. LVM's own merge would use up the snapshot, and can't go back to an older one after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import typing as t

from .._errors import Conflict, Failed, Invalid, NotFound, Unavailable
from .._model.image import Inspected, QemuSource
from .._model.pool import Pool
from .._model.volume import Snapshot, Volume
from . import Readable, VolumeBackend, overtaken
from . import _block, _lvm_group as groups
from ._lvm_group import REPORT, Group, LogicalVolume
from ._lvm_host import run, scans_volumes, settings
from ._lvm_tags import GROWTH, SNAPSHOT, is_ours, own, tags_of

_NAME = re.compile(r"(?!-|\.{1,2}$)[A-Za-z0-9+_.-]{1,127}")  # lvm(8), VALID NAMES
_CLEAN = ("--zero", "y", "--wipesignatures", "y", "--size")  # old signatures go before udev could act on them
_MIB = 1 << 20
_LONGEST = 120 << 10  # bytes of one argument
_LOCK = "/run/stackless-block-lvm-{}.lock"  # not /run/lock, where everybody may make files


class LvmBackend(VolumeBackend):
    """A volume group, with or without a thin pool in it; both must be there."""

    record_in_data = True

    def __init__(self, options: t.Dict[str, t.Any], lvm: t.Callable[..., str] = run, disk: t.Any = _block) -> None:
        self.lvm, self.disk = lvm, disk
        self.group = _checked("pool", options.get("pool"))
        thin_pool = options.get("thin_pool")
        self.thin_pool = None if thin_pool is None else _checked("thin_pool", thin_pool)
        self.allocations = ("thin", "thick") if self.thin_pool else ("thick",)
        self.allocation = options.get("allocation") or self.allocations[0]
        if self.allocation not in self.allocations:
            raise Invalid(f"backend.allocation is {self.allocation!r}; the lvm driver has {' and '.join(self.allocations)} here")
        self.ratio = options.get("max_over_subscription_ratio") or 20.0
        self.limit = options.get("max_pool_used_percent") or 95.0
        self.where = f"/dev/{self.group}"
        self.lock_path = _LOCK.format(self.group)
        self._seen: t.Optional[Group] = None  # the last look, which `missing` counts from
        self._found: t.Dict[str, Volume] = {}  # the volumes it found
        self._known: t.Dict[str, LogicalVolume] = {}  # every logical volume, with what this run has changed since
        self._fresh: t.Set[str] = set()  # thin ones that this run has made, and nobody has written to

    # ---- looking ----

    def observe(self) -> t.Dict[str, Volume]:
        self._seen = self._look()
        self._known = {lv.name: lv for lv in self._seen.volumes}
        self._found, wrong = groups.volumes_in(self._seen, self.where)
        self.warnings = tuple(wrong)
        return dict(self._found)

    def _look(self) -> Group:
        try:
            group = groups.group_from(self.lvm("fullreport", "--reportformat", "json", "--units", "b", "--nosuffix", *REPORT, self.group))
        except (ValueError, KeyError) as error:
            raise Unavailable(f"what LVM tells of volume group {self.group} can't be understood: {error!r}; look with vgs and lvs") from error
        except Failed as error:
            if "not found" not in str(error):
                raise
            group = None
        if group is None:
            raise NotFound(f"there is no volume group {self.group} on this host; make it with vgcreate, or correct backend.pool")
        return group

    def _now(self) -> Group:
        if self._seen is None:
            self.observe()
        return t.cast(Group, self._seen)

    def missing(self, volume: t.Optional[Volume] = None, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        group = self._now()
        wrong = groups.unusable(group)
        size = self._takes(volume) if volume else 0
        if wrong or not volume or not size:
            return wrong
        wrong = None if group.holding(volume.id) else groups.full_of_records(group)
        return wrong or self._no_space(volume, size, others)

    def _no_space(self, volume: Volume, size: int, others: t.Sequence[Volume]) -> t.Optional[str]:
        group, pool, added = self._now(), self._pool_of(volume), self._added(volume, others)
        if pool is None:
            return groups.lacks_space(group, size, added)
        return self._unfit(pool) or groups.oversubscribed(group, pool, size, added, self.ratio)

    def _unfit(self, pool: str) -> t.Optional[str]:
        """Why nothing more is put into this thin pool, or None."""
        return groups.unfit(self._now(), pool) or groups.overfull(self._now(), pool, self.limit)

    def crowded(self, volume: Volume, others: t.Sequence[Volume] = ()) -> t.Optional[str]:
        group, pool = self._now(), self._pool_of(volume)
        wrong = groups.full_of_records(group) or self._too_long(volume)
        if wrong or pool is None:
            return wrong or groups.lacks_space(group, volume.size_bytes, self._added(volume, others))
        said = filter(None, [self._unfit(pool), self.outlook(volume)])
        return "; ".join(said) if self._unfit(pool) else None

    def _too_long(self, volume: Volume) -> t.Optional[str]:
        """A swap names all tags in one argument, of which execve(2) takes no more than 128 KiB."""
        lv = self._now().holding(volume.id)
        too_long = lv is not None and len(_being(lv.tags)) > _LONGEST
        return f"the record of volume {volume.name} is as long as LVM's commands can take; delete snapshots of it" if too_long else None

    def outlook(self, volume: Volume) -> t.Optional[str]:
        group = self._now()
        lv = group.holding(volume.id)
        return groups.growth(group, lv) if lv and lv.thin_pool and not groups.unfit(group, lv.thin_pool) else None

    def _added(self, volume: Volume, others: t.Sequence[Volume]) -> int:
        """What the others in the same pool, and all snapshots, take more, as they shall be, than what the last look saw; what is deleted takes less."""
        pool = self._pool_of(volume)
        mates = [other for other in (volume, *others) if self._pool_of(other) == pool]
        kept = {name for mate in mates for name in (f"volume-{mate.id}", *map(_kept, mate.snapshots))}
        freed = sum(lv.size_bytes for lv in self._ours(pool) if lv.name not in kept)
        return sum(map(self._takes, mates[1:])) + sum(map(self._snapshots_take, mates)) - freed

    def _ours(self, pool: t.Optional[str]) -> t.Iterator[LogicalVolume]:
        """What the last look saw of volumes in a pool, and of thick snapshots: thin ones take nothing by themselves."""
        names = {f"volume-{v.id}" for v in self._found.values()} | {_kept(s) for v in self._found.values() if v.allocation == "thick" for s in v.snapshots}
        return (lv for lv in self._now().volumes if lv.name in names and lv.thin_pool == pool)

    def _takes(self, volume: Volume) -> int:
        """How much more a volume as it shall be takes than what the last look saw of it."""
        lv = self._now().holding(volume.id)
        return max(0, volume.size_bytes - (lv.size_bytes if lv else 0))

    def _snapshots_take(self, volume: Volume) -> int:
        """How much more the snapshots of a thick volume take than what the last look saw."""
        return sum(s.size_bytes for s in volume.snapshots if volume.allocation == "thick" and self._now().named(_kept(s)) is None)

    def _pool_of(self, volume: Volume) -> t.Optional[str]:
        """The thin pool where a volume is, or would be made; None for a thick one."""
        lv = self._now().holding(volume.id)
        return lv.thin_pool if lv else self.thin_pool if volume.allocation == "thin" else None

    def capacity(self) -> Pool:
        volumes = self.observe().values()
        group = self._now()
        wrong = groups.unfit(group, self.thin_pool) if self.thin_pool else None
        if wrong and not group.named(t.cast(str, self.thin_pool)):
            raise NotFound(wrong)
        self.warnings += tuple(filter(None, (groups.unusable(group), wrong)))
        allocated = sum(v.size_bytes for v in volumes if v.allocation == self.allocations[0])
        grows = settings(self.lvm).get("thin_pool_autoextend_threshold", 100) < 100
        return groups.pool_of(group, self.thin_pool, allocated, self.ratio, grows)

    def advice(self) -> t.Tuple[str, ...]:
        if not scans_volumes(settings(self.lvm), self.group):
            return ()
        return (
            f"LVM on this host looks for volume groups inside the volumes of {self.group}: a guest's could be activated here, and damaged; "
            f'set devices/scan_lvs=0 in lvm.conf, or devices/global_filter=["r|^/dev/{self.group}/|"]',
        )

    def holder(self, volume: Volume) -> t.Optional[str]:
        lv = self._now().holding(volume.id)
        return _block.who_has(self.locate(volume.id)) if lv is not None and lv.open else None

    def needs_wipe(self, volume: Volume) -> bool:
        return volume.allocation == "thick"

    def taken(self, volume: Volume) -> t.Optional[t.Set[str]]:
        kept = (*volume.snapshots, *filter(None, [volume.backup]))
        return {snapshot.id for snapshot in kept if self._data_of(snapshot)}

    def instant(self, volume: Volume, allocation: t.Optional[str] = None) -> bool:
        return "thick" not in (volume.allocation, allocation)

    def copies(self, volume: Volume, source: t.Optional[Volume]) -> bool:
        """A thin volume of a thin one is there at once; the source of any other one is kept until the copy is made."""
        return volume.allocation == "thick" or (source is not None and source.allocation == "thick")

    def locate(self, volume_id: str) -> str:
        return f"{self.where}/volume-{volume_id}"

    # ---- the record ----

    def swap(self, before: t.Optional[Volume], after: t.Optional[Volume]) -> None:
        self._now()
        if before is None:
            return self._make(t.cast(Volume, after))
        if self._record(before) != before:
            raise overtaken(before)
        if after is None:
            return self._remove(before)
        return self._retag(before, after)

    def _lv(self, volume: Volume) -> t.Optional[LogicalVolume]:
        """The logical volume with the volume's data, as this run knows it."""
        return self._known.get(f"volume-{volume.id}") or self._known.get(f"_new-{volume.id}")

    def _have(self, volume: Volume) -> LogicalVolume:
        lv = self._lv(volume)
        if lv is None:
            raise overtaken(volume)
        return lv

    def _record(self, volume: Volume) -> t.Optional[Volume]:
        """The volume with the record that this run knows of it."""
        lv = self._lv(volume)
        known = dataclasses.replace(self._now(), volumes=(lv,) if lv else ())
        return groups.volumes_in(known, self.where)[0].get(volume.name)

    def _data_of(self, snapshot: Snapshot) -> t.Optional[LogicalVolume]:
        lv = self._known.get(_kept(snapshot))
        return lv if lv and lv.is_snapshot else None

    def _make(self, volume: Volume) -> None:
        name, tags = f"volume-{volume.id}", tags_of(volume)
        origin = self._origin(volume) if volume.source_volid else None
        if origin is not None and origin.thin_pool and volume.allocation == "thin":
            return self._share(origin, name, tags, active=True)
        return self._create(name, volume.size_bytes, tags, self.thin_pool if volume.allocation == "thin" else None)

    def _create(self, name: str, size_bytes: int, tags: t.Sequence[str], thin_pool: t.Optional[str] = None) -> None:
        """Makes a logical volume. A thin one is all zeros, a thick one shows what was there before."""
        place = ["--type", "thin", "--thinpool", thin_pool, "--virtualsize"] if thin_pool else _CLEAN
        self.lvm("lvcreate", "--yes", *place, f"{size_bytes}b", "--name", name, *_each("--addtag", tags), self.group)
        self._known[name] = LogicalVolume(name, size_bytes, frozenset(tags), thin_pool=thin_pool)
        self._fresh.update([name] if thin_pool else [])

    def _share(self, origin: LogicalVolume, name: str, tags: t.Iterable[str], active: bool) -> None:
        """Makes a thin snapshot. LVM activates one by itself, also at boot, only without its mark to skip that."""
        skip = ["--setactivationskip", "n", "--activate", "y"] if active else ["--setactivationskip", "y"]
        self.lvm("lvcreate", "--yes", "--snapshot", *skip, "--name", name, *_each("--addtag", sorted(tags)), f"{self.group}/{origin.name}")
        self._known[name] = dataclasses.replace(origin, name=name, tags=frozenset(tags), active=active, open=False)

    def _origin(self, volume: Volume) -> LogicalVolume:
        """What a volume is made from."""
        name = f"_snapshot-{volume.snapshot_id}" if volume.snapshot_id else f"volume-{volume.source_volid}"
        if name not in self._known:
            raise Conflict(f"the source of volume {volume.name} was removed by someone else meanwhile; choose another one")
        return self._known[name]

    def _retag(self, before: Volume, after: Volume) -> None:
        lv = self._have(before)
        now, then = own(lv.tags), frozenset(tags_of(after))
        changes = [*_each("--deltag", sorted(now - then)), *_each("--addtag", sorted(then - now))]
        if changes and " changed" not in self._selected("lvchange", changes, before):
            seen = self._look().named(lv.name)
            if seen is None or own(seen.tags) != then:
                raise overtaken(before)
        self._known[lv.name] = dataclasses.replace(lv, tags=lv.tags - now | then)

    def _remove(self, volume: Volume) -> None:
        lv = self._have(volume)
        for left in ("growth", "_new", "_old"):
            self._drop(f"{left}-{volume.id}" if lv.name != f"{left}-{volume.id}" else "")
        said = self._selected("lvremove", ["--yes", "--force"], volume)
        if " removed" not in said and self._look().named(lv.name) is not None:
            raise overtaken(volume)
        del self._known[lv.name]

    def _selected(self, command: str, arguments: t.Sequence[str], volume: Volume) -> str:
        """Runs a command on a logical volume that does nothing when its record is not this any more; returns what LVM says.

        What LVM says of what it did is only taken for a yes; a caller who misses that looks again.
        """
        lv = self._have(volume)
        try:
            return self.lvm(command, *arguments, "--select", _being(lv.tags), f"{self.group}/{lv.name}")
        except Failed as error:
            if "Failed to find" in str(error):
                raise overtaken(volume) from error
            raise

    # ---- the data ----

    def allocate(self, volume: Volume) -> None:
        lv = self._active(volume)
        holds_nothing = volume.status == "creating" and not (volume.source_volid or volume.source_image)
        if lv.thin_pool or holds_nothing:
            self._extend(volume, lv)
        elif lv.size_bytes < volume.size_bytes:
            self._extend(volume, lv, *self._zeroed(volume, volume.size_bytes - lv.size_bytes))
        if holds_nothing and not lv.thin_pool:
            self._zero(self._known[lv.name])

    def _extend(self, volume: Volume, lv: LogicalVolume, *places: str) -> None:
        if lv.size_bytes < volume.size_bytes:
            self.lvm("lvextend", "--yes", "--size", f"{volume.size_bytes}b", f"{self.group}/{lv.name}", *places)
            self._known[lv.name] = dataclasses.replace(lv, size_bytes=volume.size_bytes)

    def _zeroed(self, volume: Volume, size_bytes: int) -> t.List[str]:
        """Places in the volume group that hold zeros: taken for a logical volume of their own, zeroed, and given free again."""
        name = f"growth-{volume.id}"
        self._drop(name)
        self._create(name, size_bytes, [GROWTH])
        self._zero(self._known[name])
        report = self.lvm("lvs", "--reportformat", "json", "-o", "seg_pe_ranges", f"{self.group}/{name}")
        self._drop(name)
        return " ".join(row["seg_pe_ranges"] for row in json.loads(report)["report"][0]["lv"]).split()

    def _drop(self, name: str) -> None:
        """Removes what stands beside a volume, where it is there and ours."""
        if name in self._known and is_ours(self._known[name].tags):
            # Discarded space may come back with old bytes: it has to stay as it was zeroed.
            keep = ["--config", "devices/issue_discards=0"]
            self.lvm("lvremove", "--yes", "--force", *keep, "--select", _being(self._known[name].tags), f"{self.group}/{name}")
            del self._known[name]

    def copy(self, volume: Volume) -> None:
        origin = self._origin(volume)
        self._copy(self._activated(origin), self._active(volume))

    def fill(self, volume: Volume, image: Inspected) -> None:
        lv = self._active(volume)
        with self._alone(lv) as handle:
            if lv.thin_pool is None:  # before the image: its end need not be the end of a block
                self.disk.zero(handle, image.virtual_bytes // _MIB * _MIB, lv.size_bytes)
            self._empty(lv, handle)
            zeros = ["--target-is-zero"] if lv.thin_pool else []
            image.convert("-n", *zeros, "-O", "raw", f"/proc/self/fd/{handle}", kept=(handle,))

    def qemu_source(self, volume: Volume, snapshot: t.Optional[Snapshot]) -> QemuSource:
        return QemuSource(self._readable(volume, snapshot))

    def reading(self, volume: Volume, snapshot: t.Optional[Snapshot] = None) -> t.ContextManager[Readable]:
        return self.disk.reading(self._readable(volume, snapshot))

    def _readable(self, volume: Volume, snapshot: t.Optional[Snapshot]) -> str:
        """The device with the data of a volume, or of a snapshot of it."""
        self._now()
        lv = self._data_of(snapshot) if snapshot else self._active(volume)
        if lv is None:
            raise overtaken(volume)
        return f"{self.where}/{self._activated(lv).name}"

    def write(self, volume: Volume, pieces: t.Iterator[t.Tuple[int, bytes]]) -> None:
        lv = self._active(volume)
        with self._alone(lv) as handle:
            self._empty(lv, handle)
            self.disk.write(handle, lv.size_bytes, pieces, emptied=lv.thin_pool is not None)

    def _empty(self, lv: LogicalVolume, handle: int) -> None:
        """Makes a thin volume all zeros, unless it is already."""
        if lv.thin_pool and lv.name not in self._fresh:
            self.disk.empty(handle, lv.size_bytes)
        self._fresh.discard(lv.name)

    def take(self, volume: Volume, snapshot: Snapshot) -> None:
        lv, name = self._active(volume), _kept(snapshot)
        if name not in self._known and lv.thin_pool:
            return self._share(lv, name, [SNAPSHOT], active=False)
        if name not in self._known:
            self._create(name, lv.size_bytes, [SNAPSHOT])
        return None if lv.thin_pool else self._copy(lv, self._activated(self._known[name]))

    def drop(self, volume: Volume, snapshot: Snapshot, wipe: bool) -> None:
        lv = self._data_of(snapshot)
        if lv is not None and wipe and lv.thin_pool is None:
            self._zero(self._activated(lv))
        self._drop(_kept(snapshot))

    def revert(self, volume: Volume, snapshot: Snapshot) -> None:
        lv, kept = self._active(volume), self._data_of(snapshot)
        if kept is None:
            raise overtaken(volume)
        if lv.thin_pool is None:
            return self._copy(self._activated(kept), lv)
        new, old = f"_new-{volume.id}", f"_old-{volume.id}"
        self._drop(new)
        self._drop(old)
        self._deactivate(lv)
        self._share(kept, new, lv.tags, active=True)
        self._rename(lv.name, old)
        self._rename(new, lv.name)
        return self._drop(old)

    def wipe(self, volume: Volume) -> None:
        self._zero(self._active(volume))

    def _zero(self, lv: LogicalVolume) -> None:
        with self._alone(lv) as handle:
            self.disk.zero(handle, 0, lv.size_bytes)

    def _copy(self, source: LogicalVolume, lv: LogicalVolume) -> None:
        with self._alone(lv) as handle:
            self.disk.copy(f"{self.where}/{source.name}", handle, source.size_bytes, lv.thin_pool is not None)
            if lv.thin_pool is None:
                self.disk.zero(handle, source.size_bytes, lv.size_bytes)
        self._fresh.discard(lv.name)

    @contextlib.contextmanager
    def _alone(self, lv: LogicalVolume) -> t.Iterator[int]:
        """Gives others a turn while it is entered, which takes minutes. The device is open for this run alone, and its volume's status says why."""
        with self.disk.alone(f"{self.where}/{lv.name}") as handle, self.pause():
            yield handle

    def activate(self, volume: Volume) -> None:
        lv = self._have(volume)
        if lv.name == f"_new-{volume.id}":
            self._rename(lv.name, f"volume-{volume.id}")
        self._activated(self._have(volume))

    def _activated(self, lv: LogicalVolume) -> LogicalVolume:
        if not lv.active:
            self.lvm("lvchange", "--activate", "y", "--ignoreactivationskip", f"{self.group}/{lv.name}")
            self._known[lv.name] = dataclasses.replace(lv, active=True)
        return self._known[lv.name]

    def _deactivate(self, lv: LogicalVolume) -> None:
        """Failed when somebody has it open."""
        self.lvm("lvchange", "--activate", "n", f"{self.group}/{lv.name}")
        self._known[lv.name] = dataclasses.replace(lv, active=False)

    def _rename(self, old: str, new: str) -> None:
        self.lvm("lvrename", self.group, old, new)
        self._known[new] = dataclasses.replace(self._known.pop(old), name=new)

    def _active(self, volume: Volume) -> LogicalVolume:
        self._now()
        self.activate(volume)
        return self._have(volume)


def _kept(snapshot: Snapshot) -> str:
    """The name of what a snapshot kept."""
    return f"_snapshot-{snapshot.id}"


def _checked(option: str, name: t.Optional[str]) -> str:
    if not name or not _NAME.fullmatch(name):
        what = "the name of a volume group" if option == "pool" else "the name of a thin pool in it, without the volume group"
        raise Invalid(f"backend.{option} is {name!r}; the lvm driver needs {what}: letters, digits, '+', '_', '.' or '-'")
    return name


def _each(option: str, values: t.Iterable[str]) -> t.List[str]:
    return [word for value in values for word in (option, value)]


def _being(tags: t.Iterable[str]) -> str:
    """LVM's selection of what has these tags and no other ones (lvmreport(7))."""
    return "lv_tags=[" + " && ".join(f'"{tag}"' for tag in sorted(tags)) + "]"
