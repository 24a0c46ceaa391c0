# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What is done about clones of something that goes: pure decisions."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Refused
from ._model.volume import Snapshot, Volume
from ._reconcile import Step, World
from ._volumes import Clone, VolumeBackend


def checked_clones(what: str, volume: Volume, snapshot: t.Optional[Snapshot], world: World, backend: VolumeBackend, kept: str) -> t.List[Clone]:
    """What shares data with something that shall go, once it is said what becomes of that; Refused where it is not, or can't be done."""
    clones = shared_by(volume, snapshot, world, backend, kept)
    if clones and kept == "refuse":
        names = ", ".join(map(str, clones))
        raise Refused(
            f"{what}: clones share its data: {names}; delete them first, give them a copy with clones=flatten, or keep the data for them with clones=trash"
        )
    if clones and kept == "flatten":
        _check_separable(what, volume, clones, world, backend)
    return clones


def shared_by(volume: Volume, snapshot: t.Optional[Snapshot], world: World, backend: VolumeBackend, kept: str) -> t.List[Clone]:
    """What shares data with a volume, or one snapshot of it, when it is this item's turn.

    Earlier items of a list may delete clones, or keep them for their own clones, and make others that only a check knows of.
    """
    there = {one.id: one for one in world.values() if one is not None}
    named = {one.path: one for one in there.values()}
    found = [dataclasses.replace(clone, volume=clone.volume or named.get(clone.path)) for clone in backend.clones(volume, snapshot)]
    foretold = [one for one in there.values() if one.source_volid == volume.id and backend.taken(one) is None]

    def shares(clone: Clone) -> bool:
        if clone.volume is None or clone.volume.id in there:
            return True
        return kept == "trash" and any(map(shares, backend.clones(clone.volume)))

    made = [Clone(one.path or "", (), one) for one in foretold if snapshot is None or one.snapshot_id == snapshot.id]
    return sorted([*filter(shares, found), *made], key=str)


def _check_separable(what: str, volume: Volume, clones: t.Sequence[Clone], world: World, backend: VolumeBackend) -> None:
    """Refuses to begin what copying to clones could not end."""
    bound = [str(clone) for clone in clones if clone.bound]
    if bound:
        names = ", ".join(bound)
        raise Refused(f"{what}: the snapshots of clone {names} would go on sharing its data; delete those first, or keep the data for it with clones=trash")
    refusal = backend.missing(volume, [one for one in world.values() if one is not None and one is not volume])
    if refusal:
        raise Refused(f"{what}: {refusal}")


def separation(clones: t.Sequence[Clone], backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What gives clones their own copy."""
    return tuple(Step(f"copy to {clone} what it shares with its source", backend.separate, (clone,)) for clone in clones)
