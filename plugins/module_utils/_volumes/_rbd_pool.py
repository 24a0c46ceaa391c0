# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What a cluster's monitors tell of a pool: how full it is, what it has left, and where the monitors are. Pure.

The answers are those of `ceph osd pool ls detail`, `ceph df`, `ceph osd pool get-quota` and `ceph mon dump` as JSON.
"""

from __future__ import annotations

import typing as t

from .._model.volume import GIB

Answer = t.Any


def full(pools: t.Optional[Answer], name: str) -> t.Optional[str]:
    """Why a pool takes nothing more, or None. A full pool lets writers wait for ever instead of failing."""
    flags = next((pool["flags_names"].split(",") for pool in pools or () if pool["pool_name"] == name), [])
    if "full_quota" in flags:
        return f"pool {name} is full: it has reached its quota; raise that (ceph osd pool set-quota), or delete volumes"
    if "full" in flags:
        return f"pool {name} is full: its OSDs are; add some, or delete volumes (ceph health detail says more)"
    return None


def space(df: t.Optional[Answer], quota: t.Optional[Answer], name: str) -> t.Tuple[t.Optional[int], t.Optional[int]]:
    """(total, free) bytes of a pool, as Cinder's driver counts them; None where nobody knows.

    Without a manager the monitors answer with zeros. The total is what the pool holds and what it could still take.
    """
    if not df or not df["stats"]["total_bytes"]:
        return None, None
    stats = next((pool["stats"] for pool in df["pools"] if pool["name"] == name), None)
    if stats is None:
        return None, None
    limit, free = (quota or {}).get("quota_max_bytes") or 0, stats["max_avail"]
    if limit:
        free = max(0, min(free, limit - stats["stored"]))
    return free + stats["stored"], free


def oversubscribed(what: str, total: t.Optional[int], promised: int, ratio: float) -> t.Optional[str]:
    """Why this much may not be promised of a pool of `total` bytes (None: unknown), or None."""
    if total is None or promised <= total * ratio:
        return None
    return (
        f"{what} of {total / GIB:.4g} GiB would have {promised / GIB:.6g} GiB promised, more than {ratio:g} times what it holds; "
        "add OSDs, delete volumes, or raise backend.max_over_subscription_ratio"
    )


def overfull(what: str, total: t.Optional[int], free: t.Optional[int], limit: float) -> t.Optional[str]:
    """Why nothing more may be promised of a pool that is nearly full already, or None."""
    used = 100.0 - 100.0 * free / total if total and free is not None else 0.0
    if used < limit:
        return None
    return (
        f"{what} has {used:.1f} % of its space used, with a limit of {limit:g} %: when it is full, the writes of every volume in it "
        "wait for ever; add OSDs, delete volumes, or raise backend.max_pool_used_percent"
    )


def addresses(dump: Answer) -> t.List[t.Tuple[str, str]]:
    """(host, port) of every monitor, of Ceph's first protocol where it speaks that, as libvirt and Cinder expect."""
    return [_address(monitor["public_addrs"]["addrvec"]) for monitor in dump["mons"]]


def _address(offered: t.Sequence[t.Dict[str, t.Any]]) -> t.Tuple[str, str]:
    first = min(offered, key=lambda one: str(one["type"]))
    host, _colon, port = first["addr"].rpartition(":")
    return host.strip("[]"), port
