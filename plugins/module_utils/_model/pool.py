# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Pools: how much they hold, what of it is promised, and what a person should know before it runs out.

The words are Cinder's: allocated is what its volumes were promised, provisioned is all that was promised of the
pool, by whomever, and over-subscription is provisioned over total (cinder/scheduler/filters/capacity_filter.py, 29.0.0).
"""

from __future__ import annotations

import dataclasses
import typing as t

from .volume import GIB

_NEARLY_FULL = 80.0  # percent from which a person should act; lvmthin(7) calls for it long before 100


@dataclasses.dataclass(frozen=True)
class ThinFill:
    """How full a thin pool is, in percent of its data and of its metadata, and whether LVM grows it by itself."""

    data_percent: float
    metadata_percent: float
    grows_itself: bool = False


@dataclasses.dataclass(frozen=True)
class Pool:
    """One pool; `free_bytes` is what is not written or, where space is taken at once, not given away yet.

    What a pool holds and has left is None where nobody knows it.
    """

    where: str
    allocation: str
    total_bytes: t.Optional[int]
    free_bytes: t.Optional[int]
    allocated_bytes: int
    provisioned_bytes: int
    max_over_subscription_ratio: t.Optional[float] = None
    thin: t.Optional[ThinFill] = None

    @property
    def ratio(self) -> float:
        return self.provisioned_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def virtual_free_bytes(self) -> t.Optional[int]:
        """What may still be promised."""
        if self.max_over_subscription_ratio is None or self.total_bytes is None:
            return self.free_bytes
        return max(0, int(self.total_bytes * self.max_over_subscription_ratio) - self.provisioned_bytes)


def pool_advice(pool: Pool) -> t.List[str]:
    """What should be done before the pool runs out, one sentence each."""
    return [*_unknown(pool), *_nearly_full(pool), *_promised_too_much(pool)]


def _unknown(pool: Pool) -> t.Iterator[str]:
    if pool.total_bytes is None:
        yield f"nobody knows what {pool.where} holds and has left, so that nothing is refused for want of space; have a ceph-mgr running"


def _nearly_full(pool: Pool) -> t.Iterator[str]:
    fills = [("data", pool.thin.data_percent), ("metadata", pool.thin.metadata_percent)] if pool.thin else []
    if not pool.thin and pool.total_bytes and pool.free_bytes is not None:
        fills = [("space", 100.0 - 100.0 * pool.free_bytes / pool.total_bytes)]
    for what, percent in fills:
        if percent >= _NEARLY_FULL:
            yield f"{pool.where} has {percent:.1f} % of its {what} used; extend it, or move volumes away, before writes begin to fail"


def _promised_too_much(pool: Pool) -> t.Iterator[str]:
    if pool.ratio <= 1 or (pool.thin and pool.thin.grows_itself):
        return
    grow = "; watch it, or let LVM extend it (activation/thin_pool_autoextend_threshold below 100)" if pool.thin else "; watch it"
    yield f"{pool.where} has promised {pool.ratio:.1f} times what it holds and does not grow by itself{grow}"


def pool_result(pool: Pool, advice: t.Sequence[str]) -> t.Dict[str, t.Any]:
    """A pool as a module returns it, sizes in GiB."""
    return {
        "pool": pool.where,
        "allocation": pool.allocation,
        "total_gib": _gib(pool.total_bytes),
        "free_gib": _gib(pool.free_bytes),
        "allocated_gib": _gib(pool.allocated_bytes),
        "provisioned_gib": _gib(pool.provisioned_bytes),
        "virtual_free_gib": _gib(pool.virtual_free_bytes),
        "over_subscription_ratio": None if pool.total_bytes is None else round(pool.ratio, 2),
        "max_over_subscription_ratio": pool.max_over_subscription_ratio,
        "data_percent": pool.thin.data_percent if pool.thin else None,
        "metadata_percent": pool.thin.metadata_percent if pool.thin else None,
        "advice": [*advice, *pool_advice(pool)],
    }


def _gib(size: t.Optional[int]) -> t.Optional[float]:
    return None if size is None else round(size / GIB, 2)
