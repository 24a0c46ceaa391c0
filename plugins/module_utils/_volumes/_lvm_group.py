# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""A volume group as one report of LVM shows it: its logical volumes, the volumes among them, and the room it has. Pure.

The letters of vg_attr and lv_attr are those of vgs(8) and lvs(8).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import typing as t

from .._model.pool import Pool, ThinFill
from .._model.volume import GIB, Volume
from ._lvm_tags import SNAPSHOT, name_in, own, volume_of

# One `lvm fullreport` tells all of a volume group; reports that nobody asked for are kept to one field.
REPORT = (
    "--configreport", "vg", "-o", "vg_name,vg_size,vg_free,vg_extent_size,vg_attr,vg_mda_free",
    "--configreport", "lv", "-o", "lv_name,lv_size,lv_tags,lv_attr,lv_layout,pool_lv,data_percent,metadata_percent",
    "--configreport", "pv", "-o", "pv_name",
    "--configreport", "seg", "-o", "lv_name",
    "--configreport", "pvseg", "-o", "pvseg_start",
)  # fmt: skip

_VOLUME = re.compile(r"volume-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_ASIDE = re.compile(r"_(?:new|old)-([0-9a-f-]{36})")
_LEAST_RECORDS = 32 << 10  # bytes of LVM's own metadata that stay free for changes of records: an attachment takes about one KiB for a while


@dataclasses.dataclass(frozen=True)
class LogicalVolume:
    """One logical volume. `thin_pool` is set for thin ones; the percents are those of a thin pool, or a thin one, that is active."""

    name: str
    size_bytes: int
    tags: t.FrozenSet[str] = frozenset()
    layout: t.FrozenSet[str] = frozenset()
    thin_pool: t.Optional[str] = None
    active: bool = True
    open: bool = False
    zeroing: bool = False
    health: str = "-"
    data_percent: t.Optional[float] = None
    metadata_percent: t.Optional[float] = None

    @property
    def is_thin_pool(self) -> bool:
        return {"thin", "pool"} <= self.layout

    @property
    def is_snapshot(self) -> bool:
        return SNAPSHOT in self.tags

    @property
    def allocation(self) -> str:
        return "thin" if self.thin_pool else "thick"


@dataclasses.dataclass(frozen=True)
class Group:
    """A volume group with its logical volumes, hidden ones left out. `record_bytes` is what LVM's own metadata may still grow by."""

    name: str
    size_bytes: int
    free_bytes: int
    extent_bytes: int
    attributes: str
    record_bytes: int
    volumes: t.Tuple[LogicalVolume, ...] = ()

    @functools.cached_property
    def by_name(self) -> t.Dict[str, LogicalVolume]:
        return {lv.name: lv for lv in self.volumes}

    def named(self, name: str) -> t.Optional[LogicalVolume]:
        return self.by_name.get(name)

    def promised(self, thin_pool: str) -> int:
        """The bytes of all thin volumes in a pool, whoever made them. Nobody writes to our snapshots, which keep no more than was written before."""
        return sum(lv.size_bytes for lv in self.volumes if lv.thin_pool == thin_pool and not lv.is_snapshot)

    def holding(self, volume_id: str) -> t.Optional[LogicalVolume]:
        """The logical volume that has a volume's data: `_new` where a run was killed just before that got the volume's name."""
        return self.named(f"volume-{volume_id}") or self.named(f"_new-{volume_id}")

    def is_aside(self, lv: LogicalVolume) -> bool:
        """Whether it is what a run that reverted a volume, and was killed, left beside that."""
        found = _ASIDE.fullmatch(lv.name)
        return found is not None and self.holding(found.group(1)) not in (None, lv)


def group_from(report: str) -> t.Optional[Group]:
    """The volume group in the JSON of `lvm fullreport`, None when it holds none. Raises ValueError or KeyError."""
    found = [part for part in json.loads(report)["report"] if part.get("vg")]
    if not found:
        return None
    vg = found[0]["vg"][0]
    volumes = tuple(_logical_volume(row) for row in found[0].get("lv", []))
    sizes = [_bytes(vg[key]) for key in ("vg_size", "vg_free", "vg_extent_size")]
    return Group(vg["vg_name"], *sizes, vg["vg_attr"], _bytes(vg["vg_mda_free"]), volumes)


def _logical_volume(row: t.Dict[str, str]) -> LogicalVolume:
    attributes = row["lv_attr"].ljust(10, "-")
    return LogicalVolume(
        name=row["lv_name"],
        size_bytes=_bytes(row["lv_size"]),
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        layout=frozenset(row["lv_layout"].split(",")),
        thin_pool=row["pool_lv"] or None,
        active=attributes[4] not in "-hX",
        open=attributes[5] == "o",
        zeroing=attributes[7] == "z",
        health="c" if attributes[4] in "cC" else attributes[8],
        data_percent=_percent(row["data_percent"]),
        metadata_percent=_percent(row["metadata_percent"]),
    )


def _bytes(text: str) -> int:
    return int(text.rstrip("B"))


def _percent(text: str) -> t.Optional[float]:
    return float(text) if text else None


def volumes_in(group: Group, where: str) -> t.Tuple[t.Dict[str, Volume], t.List[str]]:
    """The volumes of the group by name, and what is wrong with records that can't be read whole.

    A logical volume without a tag of a record is somebody else's, whatever its name.
    """
    volumes: t.Dict[str, Volume] = {}
    wrong = []
    for lv in group.volumes:
        if not own(lv.tags) or group.is_aside(lv):
            continue
        volume = _volume(lv, where)
        twin = volumes.get(volume.name)
        if twin is not None:
            volume = dataclasses.replace(volume, flaw=f"{twin.path} and {volume.path} both carry its name; correct the tags of one")
        if volume.flaw:
            wrong.append(f"the record of volume {volume.name} is damaged: {volume.flaw}")
        if volume.name:
            volumes[volume.name] = volume
    return volumes, wrong


def _volume(lv: LogicalVolume, where: str) -> Volume:
    """The volume of a logical volume with a record; where that is damaged, what can be told of it, with the flaw."""
    name = lv.name.replace("_new-", "volume-", 1)  # as it is about to be called
    path = f"{where}/{name}"
    found = _VOLUME.fullmatch(name)
    identity = found.group(1) if found else ""
    seen = {"id": identity, "path": path, "data_bytes": lv.size_bytes, "active": lv.active, "allocation": lv.allocation}
    try:
        if not found:
            raise ValueError("its name is not volume-<id> any more")
        return volume_of(lv.tags, **seen)
    except ValueError as error:
        flaw = f"{path}: {error}; correct it with lvrename or lvchange --deltag, --addtag"
        return Volume(name=name_in(lv.tags) or f"of {path}", size_bytes=lv.size_bytes, status="error", flaw=flaw, **seen)


def unusable(group: Group) -> t.Optional[str]:
    """Why nothing in the group can be changed, or None."""
    what = f"volume group {group.name}"
    if group.attributes[0] != "w":
        return f"{what} is read-only; make it writable with vgchange --permission rw or find out why it is not"
    if group.attributes[2] == "x":
        return f"{what} is exported; bring it back with vgimport"
    if group.attributes[3] == "p":
        return f"{what} lacks some of its physical volumes; bring them back (pvs tells which)"
    if GIB % group.extent_bytes:
        return f"{what} has extents of {group.extent_bytes} bytes, which do not divide a GiB; choose another volume group"
    return None


def full_of_records(group: Group) -> t.Optional[str]:
    """Why no volume or snapshot more can be recorded in the group, or None."""
    if group.record_bytes >= _LEAST_RECORDS:
        return None
    return (
        f"volume group {group.name} has {group.record_bytes >> 10} KiB left for LVM's own metadata, where records are kept, and {_LEAST_RECORDS >> 10} "
        "must stay free; delete snapshots or volumes, or use a volume group whose physical volumes have more (pvcreate --metadatasize)"
    )


def lacks_space(group: Group, size_bytes: int, added: int) -> t.Optional[str]:
    """Why a thick volume does not fit when others were promised `added` bytes besides what is seen, or None."""
    free = group.free_bytes - added
    if size_bytes <= free:
        return None
    besides = " besides what this run has promised already" if added > 0 else ""
    return (
        f"volume group {group.name} has {_gib(max(0, free))} GiB free{besides}, {_gib(size_bytes)} GiB are needed; "
        "extend it (vgextend), delete volumes, or use another backend"
    )


def unfit(group: Group, name: str) -> t.Optional[str]:
    """Why this thin pool can't take volumes, or None."""
    pool, what = group.named(name), f"thin pool {group.name}/{name}"
    if pool is None or not pool.is_thin_pool:
        return f"there is no {what}; make it with lvcreate --type thin-pool, or correct backend.thin_pool"
    if not pool.zeroing:
        return f"{what} does not zero new blocks, so that volumes would show old bytes of others; turn it on with lvchange --zero y {group.name}/{name}"
    if pool.health in "FDMcX":
        return f"{what} is out of order ({_HEALTH.get(pool.health, 'see lvs')}); repair or extend it first (lvs, lvconvert --repair, lvextend)"
    if not pool.active:
        return f"{what} is not active; activate it with lvchange -ay {group.name}/{name}"
    return None


_HEALTH = {"F": "failed", "D": "out of data space", "M": "its metadata is read-only", "c": "it needs a check", "X": "unknown"}


def overfull(group: Group, name: str, limit: float) -> t.Optional[str]:
    """Why nothing more may be promised of this thin pool: it is nearly full already; or None."""
    pool = t.cast(LogicalVolume, group.named(name))
    for what, percent in (("data", pool.data_percent), ("metadata", pool.metadata_percent)):
        if (percent or 0.0) >= limit:
            return (
                f"thin pool {group.name}/{name} has {percent:.1f} % of its {what} used, with a limit of {limit:g} %: when it is full, the writes "
                "of every volume in it fail; extend it (lvextend), delete volumes, or raise backend.max_pool_used_percent"
            )
    return None


def growth(group: Group, lv: LogicalVolume) -> t.Optional[str]:
    """What a thin volume may take more than is free, once its data is shared and then written anew; None where it fits."""
    pool = t.cast(LogicalVolume, group.named(t.cast(str, lv.thin_pool)))
    most = int(lv.size_bytes * (100.0 if lv.data_percent is None else lv.data_percent) / 100.0)
    if most <= _free(pool):
        return None
    return (
        f"thin pool {group.name}/{pool.name} has {_gib(_free(pool))} GiB free, and would need up to {_gib(most)} GiB when all that is shared is written anew"
    )


def oversubscribed(group: Group, name: str, size_bytes: int, added: int, ratio: float) -> t.Optional[str]:
    """Why this much may not be promised besides what is, or None."""
    pool = t.cast(LogicalVolume, group.named(name))
    promised = group.promised(name) + added + size_bytes
    if promised <= pool.size_bytes * ratio:
        return None
    return (
        f"thin pool {group.name}/{name} of {_gib(pool.size_bytes)} GiB would have {_gib(promised)} GiB promised, more than {ratio:g} times what it holds; "
        "extend it (lvextend), delete volumes, or raise backend.max_over_subscription_ratio"
    )


def pool_of(group: Group, thin_pool: t.Optional[str], allocated: int, ratio: float, grows_itself: bool) -> Pool:
    """The figures of the group, or of a thin pool in it; `allocated` is what our own volumes were promised there."""
    pool = group.named(thin_pool) if thin_pool else None
    if pool is None:
        given = group.size_bytes - group.free_bytes
        return Pool(f"volume group {group.name}", "thick", group.size_bytes, group.free_bytes, allocated, given)
    fill = ThinFill(pool.data_percent or 0.0, pool.metadata_percent or 0.0, grows_itself)
    where = f"thin pool {group.name}/{pool.name}"
    return Pool(where, "thin", pool.size_bytes, _free(pool), allocated, group.promised(pool.name), ratio, fill)


def _free(pool: LogicalVolume) -> int:
    """The bytes of a thin pool that nothing was written to."""
    return int(pool.size_bytes * (100.0 - (pool.data_percent or 0.0)) / 100.0)


def _gib(size: int) -> str:
    return f"{round(size / GIB, 2):g}"
