# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws every planner keeps, whatever it plans.

1. Planning writes nothing.   2. The steps lead exactly to `after`.   3. A second plan is empty.
4. Killed after any step, a new plan leads to the same `after`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

from ansible_collections.stackless.block.plugins.module_utils._errors import StorageError
from ansible_collections.stackless.block.plugins.module_utils._reconcile import Plan, World


@dataclasses.dataclass
class Subject:
    """One world that can be made anew as often as a law needs it."""

    make: Callable[[], Any]  # a fresh backend in the state of the case
    observe: Callable[[Any], World]
    plan: Callable[[Any, World], Plan]
    trace: Callable[[Any], Hashable]  # everything that a write would change


def hold(subject: Subject) -> int:
    """Checks all laws on one case; returns the number of crash points tried, or -1 for a refusal."""
    backend = subject.make()
    before = subject.trace(backend)
    try:
        plan = subject.plan(backend, subject.observe(backend))
    except StorageError as refusal:
        assert subject.trace(backend) == before, "a refusal wrote something"
        assert len(str(refusal)) > 20
        return -1
    assert subject.trace(backend) == before, "planning wrote something"
    _settles(subject, backend, plan, plan.after)
    for crash in range(1, len(plan.acts)):
        _survives(subject, crash, plan.after)
    return len(plan.acts)


def _settles(subject: Subject, backend: Any, plan: Plan, after: Any) -> None:
    for step in plan.acts:
        step.act(*step.args)
    world = subject.observe(backend)
    assert world.get(plan.key) == after, "the steps lead elsewhere"
    settled = subject.trace(backend)
    again = subject.plan(backend, world)
    assert not again.acts, f"a second plan still wants to {[s.name for s in again.acts]}"
    assert subject.trace(backend) == settled


def _survives(subject: Subject, crash: int, after: Any) -> None:
    backend = subject.make()
    plan = subject.plan(backend, subject.observe(backend))
    for step in plan.acts[:crash]:
        step.act(*step.args)
    resumed = subject.plan(backend, subject.observe(backend))
    assert resumed.acts, f"nothing left to do after the crash at step {crash} of {[s.name for s in plan.acts]}"
    _settles(subject, backend, resumed, after)
