# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the volume planner say alike about every driver. `made` makes a back end in a state, by the state's name."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable

from ansible_collections.stackless.block.plugins.module_utils._errors import StorageError
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, plan_volume
from tests.unit import laws


def laws_hold(made: Callable[[str], Any], state: str, wish: VolumeWish, trace: Callable[[Any], Any]) -> None:
    laws.hold(
        laws.Subject(
            make=lambda: made(state),
            observe=lambda backend: dict(backend.observe()),
            plan=lambda backend, world: plan_volume(wish, world, backend),
            trace=trace,
        )
    )


def crashes_and_refusals(made: Callable[[str], Any], states: Iterable[str], wishes: Iterable[VolumeWish]) -> tuple[int, int]:
    """How many crash points and refusals the laws are tried on."""
    crashes = refusals = 0
    for state, wish in itertools.product(states, wishes):
        subject = made(state)
        try:
            crashes += max(0, len(plan_volume(wish, subject.observe(), subject).acts) - 1)
        except StorageError:
            refusals += 1
    return crashes, refusals
