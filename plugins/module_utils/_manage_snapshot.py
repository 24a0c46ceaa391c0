# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Snapshots as resources of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import typing as t
import uuid

from ._manage_volume import OnBackend, metadata_of, text_of, utc_now
from ._model.volume import Snapshot, Volume, check_name, record_of
from ._plan_snapshot import SnapshotWish, plan_snapshot
from ._reconcile import Plan, World
from ._volumes import open_backend


class Snapshots(OnBackend):
    plural = "snapshots"

    def want(self, item: t.Dict[str, t.Any]) -> SnapshotWish:
        volume, name = check_name(item.get("volume")), check_name(item.get("name"), "snapshot")
        return SnapshotWish(
            volume=volume,
            name=name,
            present=item.get("state") != "absent",
            description=text_of(name, "description", item),
            metadata=metadata_of(name, item.get("metadata")),
            force=bool(item.get("force")),
            clones=item.get("clones") or "refuse",
            fresh_id=str(uuid.uuid4()),
            now=utc_now(),
        )

    def with_snapshots(self, want: SnapshotWish) -> t.Tuple[str, ...]:
        return (want.volume,)

    def plan(self, want: SnapshotWish, world: World) -> Plan:
        return self.warned(plan_snapshot(want, world, self.backend))

    def settled(self, plan: Plan, world: World) -> bool:
        """Another item of the list may have moved on the same volume: only this item's snapshot is looked at."""
        have, wanted = (_snapshot_of(plan, volume) for volume in (world.get(plan.key), plan.after))
        return have == wanted and (have is None or have.taken is not False)

    def show(self, plan: Plan, state: t.Optional[Volume]) -> t.Dict[str, t.Any]:
        snapshot = _snapshot_of(plan, state)
        shown = snapshot_result(state, snapshot) if state and snapshot else {"status": "deleted"}
        return {**shown, "record": record_of(state) if state else None}

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return {key: item.get(key) for key in ("volume", "name")}


def find_snapshots(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The snapshots of a backend, ordered by volume and time, or those of exactly the given volumes."""
    backend = open_backend(options["backend"])
    found = backend.observe()
    names = found if options.get("volumes") is None else set(options["volumes"]) & set(found)
    volumes = [found[name] for name in sorted(names)]
    snapshots = [snapshot_result(volume, snapshot) for volume in volumes for snapshot in sorted(volume.snapshots, key=lambda one: one.created_at)]
    return {"snapshots": snapshots, "warnings": list(backend.warnings)}


def snapshot_result(volume: Volume, snapshot: Snapshot) -> t.Dict[str, t.Any]:
    """A snapshot as a module returns it."""
    names = ("name", "id", "status", "size_bytes", "created_at", "description")
    shown = {name: getattr(snapshot, name) for name in names}
    return {"volume": volume.name, "volume_id": volume.id, **shown, "size_gib": snapshot.size_bytes >> 30, "metadata": dict(snapshot.metadata)}


def _snapshot_of(plan: Plan, volume: t.Optional[Volume]) -> t.Optional[Snapshot]:
    """The snapshot that a plan is about; its label names it, and names hold no spaces."""
    return volume.snapshot(plan.label.split(" ")[1]) if volume else None
