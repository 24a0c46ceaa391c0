# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the target planner say alike about every back end: wishes, plans, laws and refusals."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import StorageError
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._plan_target import AclWish, TargetWish, plan_target
from ansible_collections.stackless.block.plugins.module_utils._reconcile import Plan
from ansible_collections.stackless.block.plugins.module_utils._targets import Look, LunLook
from tests.unit.laws import Subject, hold

IQN, OTHER = "iqn.2026-01.org.example:volume-1", "iqn.2026-01.org.example:volume-10"
A, B = "iqn.1993-08.org.debian:01:a", "iqn.1993-08.org.debian:01:b"
MIB = 1 << 20


def acl(initiator: str, **wish: Any) -> AclWish:
    tail = initiator[-1]
    return AclWish(initiator, fresh=(f"fresh-{tail}", Secret(f"made for {tail}")), **wish)


def given(initiator: str, username: str, password: str, mutual: str | None = None, **wish: Any) -> AclWish:
    pair = {"mutual_username": "target", "mutual_password": Secret(mutual)} if mutual else {}
    return acl(initiator, chap="given", username=username, password=Secret(password), **pair, **wish)


def wish(**parts: Any) -> TargetWish:
    return TargetWish(IQN, **parts)


def look_of(want: TargetWish) -> Look:
    luns = tuple(LunLook(lun.lun, lun.path, lun.serial, frozenset(dict(lun.attributes))) for lun in want.luns if lun.attributes)
    paths = frozenset(lun.path for lun in want.luns if lun.path)
    return Look(want.iqn, want.portals, paths, frozenset(a.initiator for a in want.acls), frozenset(dict(want.attributes)), luns)


def plan(fake: Any, want: TargetWish) -> Plan:
    return plan_target(want, fake.observe([look_of(want)]), fake)


def attempt(fake: Any, want: TargetWish) -> Plan | None:
    try:
        return plan(fake, want)
    except StorageError:
        return None


def run(steps: Any) -> None:
    for step in steps:
        step.act(*step.args)


def names(planned: Plan) -> list[str]:
    return [step.name for step in planned.steps]


def starts_from(empty: Callable[[], Any], wishes: dict[str, TargetWish], drifts: dict[str, Callable[[Any], Any]], without: Any = ()) -> list[Any]:
    """Worlds as wishes leave them, with every drift that can befall them, and one world with nothing."""
    found = [pytest.param(empty(), id="nothing")]
    for name, want in wishes.items():
        for drift, befall in drifts.items() if want.present else ():
            if (name, drift) in without:
                continue
            fake = empty()
            run(plan(fake, want).steps)
            befall(fake)
            found.append(pytest.param(fake, id=f"{name}, {drift}"))
    return found


def laws_hold(start: Any, want: TargetWish) -> None:
    hold(
        Subject(
            make=lambda: copy.deepcopy(start),
            observe=lambda fake: fake.observe([look_of(want)]),
            plan=lambda fake, world: plan_target(want, world, fake),
            trace=type(start).snapshot,
        )
    )


def more_than_refusals(starts: list[Any], wishes: dict[str, TargetWish]) -> bool:
    planned = [attempt(param.values[0], want) for param in starts for want in wishes.values()]
    return sum(plan is not None for plan in planned) > 0.8 * len(planned)


def refused(fake: Any, want: TargetWish, kind: type[StorageError], words: str) -> None:
    before = fake.snapshot()
    with pytest.raises(kind) as caught:
        plan(fake, want)
    assert words in str(caught.value)
    assert fake.snapshot() == before
