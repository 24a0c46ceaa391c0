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
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing as t

from .._errors import Failed, Invalid, NotFound, Unavailable
from .._model.pool import Pool
from .._model.volume import Volume
from . import VolumeBackend, overtaken
from . import _block, _lvm_group as groups
from ._lvm_group import REPORT, Group, LogicalVolume
from ._lvm_host import run, scans_volumes, settings
from ._lvm_tags import GROWTH, own, tags_of

_NAME = re.compile(r"(?!-|\.{1,2}$)[A-Za-z0-9+_.-]{1,127}")  # lvm(8), VALID NAMES
_CLEAN = ("--zero", "y", "--wipesignatures", "y", "--size")  # old signatures go before udev could act on them
_LOCK = "/run/stackless-block-lvm-{}.lock"  # not /run/lock, where everybody may make files


class LvmBackend(VolumeBackend):
    """A volume group, with or without a thin pool in it; both must be there."""

    record_in_data = True

    def __init__(self, options: t.Dict[str, t.Any], lvm: t.Callable[..., str] = run, zero: t.Callable[[str, int, int], None] = _block.zero) -> None:
        self.lvm, self.zero = lvm, zero
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
        pool, added = self._pool_of(volume), self._added(volume, others)
        if pool is None:
            return groups.lacks_space(group, size, added)
        return groups.unfit(group, pool) or groups.overfull(group, pool, self.limit) or groups.oversubscribed(group, pool, size, added, self.ratio)

    def _added(self, volume: Volume, others: t.Sequence[Volume]) -> int:
        """What the others in the same pool take more, as they shall be, than what the last look saw; deleted ones take less."""
        pool = self._pool_of(volume)
        kept = {volume.id, *(other.id for other in others)}
        freed = sum(v.data_bytes or 0 for v in self._found.values() if v.id not in kept and self._pool_of(v) == pool)
        return sum(self._takes(other) for other in others if self._pool_of(other) == pool) - freed

    def _takes(self, volume: Volume) -> int:
        """How much more a volume as it shall be takes than what the last look saw of it."""
        lv = self._now().named(os.path.basename(volume.path or ""))
        return max(0, volume.size_bytes - (lv.size_bytes if lv else 0))

    def _pool_of(self, volume: Volume) -> t.Optional[str]:
        """The thin pool where a volume is, or would be made; None for a thick one."""
        lv = self._now().named(os.path.basename(volume.path or ""))
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
        lv = self._now().named(_lv(volume))
        return _block.who_has(self.locate(volume.id)) if lv is not None and lv.open else None

    def needs_wipe(self, volume: Volume) -> bool:
        return volume.allocation == "thick"

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

    def _record(self, volume: Volume) -> t.Optional[Volume]:
        """The volume with the record that this run knows of it."""
        lv = self._known.get(_lv(volume))
        known = dataclasses.replace(self._now(), volumes=(lv,) if lv else ())
        return groups.volumes_in(known, self.where)[0].get(volume.name)

    def _make(self, volume: Volume) -> None:
        name, tags = _lv(volume), tags_of(volume)
        if volume.allocation == "thin":
            place = ["--type", "thin", "--thinpool", str(self.thin_pool), "--virtualsize"]
        else:
            place = list(_CLEAN)
        self.lvm("lvcreate", "--yes", *place, f"{volume.size_bytes}b", "--name", name, *_each("--addtag", tags), self.group)
        thin_pool = self.thin_pool if volume.allocation == "thin" else None
        self._known[name] = LogicalVolume(name, volume.size_bytes, frozenset(tags), thin_pool=thin_pool)

    def _retag(self, before: Volume, after: Volume) -> None:
        lv = self._known[_lv(before)]
        now, then = own(lv.tags), frozenset(tags_of(after))
        changes = [*_each("--deltag", sorted(now - then)), *_each("--addtag", sorted(then - now))]
        if changes and " changed" not in self._selected("lvchange", changes, before):
            seen = self._look().named(lv.name)
            if seen is None or own(seen.tags) != then:
                raise overtaken(before)
        self._known[lv.name] = dataclasses.replace(lv, tags=lv.tags - now | then)

    def _remove(self, volume: Volume) -> None:
        self._drop(_growth(volume))
        said = self._selected("lvremove", ["--yes", "--force"], volume)
        if " removed" not in said and self._look().named(_lv(volume)) is not None:
            raise overtaken(volume)
        del self._known[_lv(volume)]

    def _selected(self, command: str, arguments: t.Sequence[str], volume: Volume) -> str:
        """Runs a command on a logical volume that does nothing when its record is not this any more; returns what LVM says.

        What LVM says of what it did is only taken for a yes; a caller who misses that looks again.
        """
        try:
            return self.lvm(command, *arguments, "--select", _being(self._known[_lv(volume)].tags), f"{self.group}/{_lv(volume)}")
        except Failed as error:
            if "Failed to find" in str(error):
                raise overtaken(volume) from error
            raise

    # ---- the data ----

    def allocate(self, volume: Volume) -> None:
        lv = self._active(volume)
        if lv.thin_pool or volume.status == "creating":
            self._extend(volume, lv)
        elif lv.size_bytes < volume.size_bytes:
            self._extend(volume, lv, *self._zeroed(volume, volume.size_bytes - lv.size_bytes))
        if volume.status == "creating" and not lv.thin_pool:
            self._zero(self.locate(volume.id), self._known[lv.name].size_bytes)

    def _extend(self, volume: Volume, lv: LogicalVolume, *places: str) -> None:
        if lv.size_bytes < volume.size_bytes:
            self.lvm("lvextend", "--yes", "--size", f"{volume.size_bytes}b", f"{self.group}/{lv.name}", *places)
            self._known[lv.name] = dataclasses.replace(lv, size_bytes=volume.size_bytes)

    def _zeroed(self, volume: Volume, size_bytes: int) -> t.List[str]:
        """Places in the volume group that hold zeros: taken for a logical volume of their own, zeroed, and given free again."""
        name = _growth(volume)
        self._drop(name)
        self.lvm("lvcreate", "--yes", *_CLEAN, f"{size_bytes}b", "--name", name, "--addtag", GROWTH, self.group)
        self._known[name] = LogicalVolume(name, size_bytes, frozenset((GROWTH,)))
        self._zero(f"{self.where}/{name}", size_bytes)
        report = self.lvm("lvs", "--reportformat", "json", "-o", "seg_pe_ranges", f"{self.group}/{name}")
        self._drop(name)
        return " ".join(row["seg_pe_ranges"] for row in json.loads(report)["report"][0]["lv"]).split()

    def _drop(self, name: str) -> None:
        if name in self._known:
            # Discarded space may come back with old bytes: it has to stay as it was zeroed.
            keep = ["--config", "devices/issue_discards=0"]
            self.lvm("lvremove", "--yes", "--force", *keep, "--select", _having(GROWTH), f"{self.group}/{name}")
            del self._known[name]

    def wipe(self, volume: Volume) -> None:
        self._zero(self.locate(volume.id), self._active(volume).size_bytes)

    def _zero(self, path: str, size_bytes: int) -> None:
        """Takes minutes. Nobody needs to wait for it: the device is open for this run alone, and its volume's status says why."""
        with self.pause():
            self.zero(path, 0, size_bytes)

    def activate(self, volume: Volume) -> None:
        name = _lv(volume)
        self.lvm("lvchange", "--activate", "y", "--ignoreactivationskip", f"{self.group}/{name}")
        self._known[name] = dataclasses.replace(self._known[name], active=True)

    def _active(self, volume: Volume) -> LogicalVolume:
        self._now()
        if _lv(volume) not in self._known:
            raise overtaken(volume)
        if not self._known[_lv(volume)].active:
            self.activate(volume)
        return self._known[_lv(volume)]


def _lv(volume: Volume) -> str:
    return f"volume-{volume.id}"


def _growth(volume: Volume) -> str:
    return f"growth-{volume.id}"


def _checked(option: str, name: t.Optional[str]) -> str:
    if not name or not _NAME.fullmatch(name):
        what = "the name of a volume group" if option == "pool" else "the name of a thin pool in it, without the volume group"
        raise Invalid(f"backend.{option} is {name!r}; the lvm driver needs {what}: letters, digits, '+', '_', '.' or '-'")
    return name


def _each(option: str, values: t.Iterable[str]) -> t.List[str]:
    return [word for value in values for word in (option, value)]


def _having(tag: str) -> str:
    """LVM's selection of what has this tag, besides others (lvmreport(7))."""
    return f'lv_tags={{"{tag}"}}'


def _being(tags: t.Iterable[str]) -> str:
    """LVM's selection of what has these tags and no other ones."""
    return "lv_tags=[" + " && ".join(f'"{tag}"' for tag in sorted(tags)) + "]"
