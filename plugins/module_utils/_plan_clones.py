# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What is done about clones of something that goes: pure decisions."""

from __future__ import annotations

import typing as t

from ._reconcile import Step, World
from ._volumes import Clone, VolumeBackend


def shared_by(clones: t.Sequence[Clone], world: World, backend: VolumeBackend, kept: str) -> t.List[Clone]:
    """Those clones that still share data when it is this item's turn: earlier ones of a list may delete them, or keep them for their own clones."""
    there = {volume.id for volume in world.values() if volume is not None}

    def shares(clone: Clone) -> bool:
        if clone.volume is None or clone.volume.id in there:
            return True
        return kept == "trash" and any(map(shares, backend.clones(clone.volume)))

    return sorted(filter(shares, clones), key=str)


def sharing(clones: t.Sequence[Clone]) -> str:
    """Why something with clones can't be removed, and what can be done about them."""
    names = ", ".join(map(str, clones))
    return f"clones share its data: {names}; delete them first, give them a copy with clones=flatten, or keep the data for them with clones=trash"


def separation(clones: t.Sequence[Clone], backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """What gives clones their own copy."""
    return tuple(Step(f"copy to {clone} what it shares with its source", backend.separate, (clone,)) for clone in clones)
