# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes that are kept of images, so that later volumes of an image are clones: pure decisions, as Cinder's image-volume cache makes them.

A kept volume is a volume like others, with a name made of the image and its version, and with the time when it was used last in its record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from ._errors import StorageError
from ._model.volume import GIB, MAKING, Volume
from ._plan_volume import Source, VolumeWish, plan_volume
from ._reconcile import Plan, Step, World
from ._volumes import VolumeBackend

_HOUR = len("2026-01-31T23")  # of a time in ISO 8601


@dataclasses.dataclass(frozen=True)
class Keeping:
    """How many volumes of images may be kept, and of how many bytes together (None: of any). `now`: UTC, ISO 8601."""

    most: int = 0
    most_bytes: t.Optional[int] = None
    now: str = ""
    fresh_id: str = ""


def plan_with_kept(want: VolumeWish, keep: Keeping, world: World, backend: VolumeBackend) -> t.Tuple[Plan, World]:
    """The plan for a volume, by way of a kept volume of its image where that may be; and what it changes in the world besides."""
    name = _kept_name(want, keep, world, backend)
    if not name or not _serves(world.get(name), want):
        return plan_volume(want, world, backend), {}
    source, kept = t.cast(Source, want.source), world.get(name)
    room, gone = _room(want, keep, world, backend) if kept is None else ((), {})
    there: World = {**world, **gone}
    keeping = plan_volume(_kept_wish(name, want, keep, kept), there, backend)
    used, noting = _noted(_whole(keeping.after), keep, backend)
    cloning = plan_volume(dataclasses.replace(want, source=Source(volume=name, image=source.image)), {**there, name: used}, backend)
    undo = tuple(dataclasses.replace(step, name=f"take back what is half made of volume {name}") for step in keeping.undo)
    return dataclasses.replace(cloning, steps=(*room, *keeping.steps, *noting, *cloning.steps), undo=(*cloning.undo, *undo)), {**gone, name: used}


def _kept_wish(name: str, want: VolumeWish, keep: Keeping, kept: t.Optional[Volume]) -> VolumeWish:
    """As large as the image needs or, while nobody knows that, as the first volume that is made from it."""
    source = t.cast(Source, want.source)
    known = kept is not None or (source.file is not None and source.file.here)
    return VolumeWish(name, size_bytes=None if known else want.size_bytes, source=source, fresh_id=keep.fresh_id, kept_at=keep.now)


def _kept_name(want: VolumeWish, keep: Keeping, world: World, backend: VolumeBackend) -> str:
    """The name of the kept volume for a volume that is to be made, told by image and version; empty where none may be kept."""
    source, have = want.source, world.get(want.name)
    if not (keep.most and source and source.file and source.file.version) or have is not None:
        return ""
    image = t.cast(t.Any, source.image)
    return "image-" + hashlib.sha256(f"{image.format}\n{source.file.version}".encode()).hexdigest()[:24]


def _serves(kept: t.Optional[Volume], want: VolumeWish) -> bool:
    """Whether a kept volume may be made, finished or cloned: not when it is somebody else's, half gone, or was made for a larger volume."""
    if kept is None:
        return True
    whole = kept.status in MAKING or (kept.status == "available" and kept.data_bytes is not None)
    return whole and kept.kept_at is not None and not kept.flaw and kept.size_bytes <= (want.size_bytes or kept.size_bytes)


def _whole(volume: t.Optional[Volume]) -> Volume:
    """As what comes after the steps sees it."""
    made = t.cast(Volume, volume)
    return dataclasses.replace(made, data_bytes=max(made.data_bytes or 0, made.size_bytes))


def _noted(kept: Volume, keep: Keeping, backend: VolumeBackend) -> t.Tuple[Volume, t.Tuple[Step, ...]]:
    """That a kept volume was used, by the hour: whoever clones it at the same moment must find its record as it was."""
    if kept.kept_at and kept.kept_at[:_HOUR] >= keep.now[:_HOUR]:
        return kept, ()
    used = dataclasses.replace(kept, kept_at=keep.now)
    return used, (Step(f"note that volume {kept.name} was used", backend.swap, (kept, used)),)


def _room(want: VolumeWish, keep: Keeping, world: World, backend: VolumeBackend) -> t.Tuple[t.Tuple[Step, ...], World]:
    """Removes what was not used for the longest time, until there is room for one more; what can't go stays."""
    kept = sorted((one for one in world.values() if isinstance(one, Volume) and one.kept_at is not None), key=lambda one: str(one.kept_at))
    held, number = sum(one.size_bytes for one in kept) + (want.size_bytes or GIB), len(kept) + 1
    steps: t.Tuple[Step, ...] = ()
    gone: World = {}
    for one in kept:
        if number <= keep.most and (keep.most_bytes is None or held <= keep.most_bytes):
            break
        try:
            steps += plan_volume(VolumeWish(one.name, present=False, cascade=True, clones="trash"), {**world, **gone}, backend).acts
        except StorageError:
            continue
        gone[one.name] = None
        held, number = held - one.size_bytes, number - 1
    return steps, gone
