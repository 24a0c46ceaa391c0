# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the target planner, on every pair of a start and a wish, and its refusals."""

from __future__ import annotations

import copy
import dataclasses
from typing import Callable

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Invalid, NotFound, Refused, StorageError
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret, as_data, secrets_in
from ansible_collections.stackless.block.plugins.module_utils._model.target import Lun, Portal, Session, own_serial
from ansible_collections.stackless.block.plugins.module_utils._plan_target import AclWish, LunWish, TargetWish, plan_target
from tests.rig.fake_targets import Daemon, FakeTargets
from tests.unit.target_case import (
    A, B, IQN, MIB, OTHER,
    acl, attempt, given, laws_hold, look_of, more_than_refusals, names, plan, refused, run, starts_from, wish,
)  # fmt: skip

DATA, MORE = "/srv/volume-1", "/srv/volume-2"
PORTAL, SECOND = Portal("127.0.0.1", 3260), Portal("127.0.0.2", 3261)

WISHES = {
    "nothing but the target": wish(),
    "one LUN, one initiator": wish(luns=(LunWish(1, DATA, "serial-1"),), portals=frozenset({PORTAL}), acls=(acl(A),)),
    "two of each": wish(luns=(LunWish(1, DATA), LunWish(2, MORE, read_only=True)), portals=frozenset({PORTAL, SECOND}), acls=(acl(A), acl(B))),
    "only B, all else purged": wish(luns=(LunWish(2, MORE),), acls=(acl(B),), purge_luns=True, purge_acls=True),
    "A denied": wish(acls=(acl(A, present=False),)),
    "A with a given pair": wish(acls=(given(A, "someone", "a password of A"),)),
    "A with another given pair": wish(acls=(given(A, "anyone", "other password"),)),
    "the same name, a new password": wish(acls=(given(A, "someone", "a new password"),)),
    "mutual": wish(acls=(given(A, "someone", "a password of A", "the target's own"),)),
    "no CHAP, alone": wish(acls=(acl(A, chap="none"),), purge_acls=True),
    "a renamed serial": wish(luns=(LunWish(1, DATA, "serial-2", write_cache=False),)),
    "gone": wish(present=False),
}


def change_password(fake: FakeTargets) -> None:
    for name in fake.targets[IQN].accounts:
        fake.passwords[name] = Secret("changed behind our back")


def lose_serials(fake: FakeTargets) -> None:
    luns = fake.targets[IQN].luns
    luns.update({number: dataclasses.replace(lun, serial=None, wwid=None) for number, lun in luns.items()})


def lose_record(fake: FakeTargets) -> None:
    """What runs is nobody's any more: the record is gone, and the accounts are of an earlier one."""
    fake.saved.clear()
    fake.passwords = {f"lost-{name}": secret for name, secret in fake.passwords.items()}
    for daemon in fake.targets.values():
        daemon.accounts = [f"lost-{name}" for name in daemon.accounts]
        daemon.outgoing = daemon.outgoing and f"lost-{daemon.outgoing}"


def foreign_parts(fake: FakeTargets) -> None:
    daemon = fake.targets[IQN]
    fake.passwords["foreign"] = Secret("someone else's")
    daemon.accounts.append("foreign")
    daemon.doors.append("iqn.1991-05.com.microsoft:foreign")
    daemon.addresses.add("ALL")
    daemon.luns[7] = Lun(7, "/srv/foreign", bstype="rdwr")
    fake.sizes["/srv/foreign"] = MIB


DRIFTS: dict[str, Callable[[FakeTargets], None]] = {
    "as it was left": lambda fake: None,
    "the daemon restarted": lambda fake: fake.restart(),
    "the saved form was lost": lose_record,
    "passwords changed": change_password,
    "accounts gone": lambda fake: (fake.targets[IQN].accounts.clear(), fake.passwords.clear()),
    "the outgoing account gone": lambda fake: setattr(fake.targets[IQN], "outgoing", None),
    "doors shut": lambda fake: fake.targets[IQN].doors.clear(),
    "a door of another": foreign_parts,
    "data grown": lambda fake: fake.sizes.update({DATA: 3 * MIB}),
    "LUNs gone": lambda fake: fake.targets[IQN].luns.clear(),
    "a LUN without serial": lose_serials,
    "a portal gone": lambda fake: fake.portals.clear(),
}


def empty() -> FakeTargets:
    return FakeTargets({DATA: MIB, MORE: 2 * MIB})


STARTS = starts_from(empty, WISHES, DRIFTS)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("want", WISHES.values(), ids=WISHES)
def test_laws(start: FakeTargets, want: TargetWish) -> None:
    laws_hold(start, want)


def test_the_laws_are_tried_on_more_than_refusals() -> None:
    assert more_than_refusals(STARTS, WISHES)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("want", WISHES.values(), ids=WISHES)
def test_no_account_is_left_over_wherever_a_run_was_killed(start: FakeTargets, want: TargetWish) -> None:
    planned = attempt(start, want)
    for crash in range(len(planned.steps) + 1 if planned else 0):
        fake = copy.deepcopy(start)
        run(plan(fake, want).steps[:crash])
        run(plan(fake, want).steps)
        bound = {name for daemon in fake.targets.values() for name in [*daemon.accounts, daemon.outgoing] if name}
        saved = planned_names(fake)
        unknown = set(start.passwords) - planned_names(start)
        assert set(fake.passwords) <= bound | unknown and bound <= saved | unknown


def planned_names(start: FakeTargets) -> set[str]:
    """The accounts that the saved form knows of."""
    return {name for target in start.saved.values() for acl in target.acls for name in (acl.username, acl.mutual_username) if name}


def ready(name: str = "one LUN, one initiator") -> FakeTargets:
    fake = empty()
    run(plan(fake, WISHES[name]).steps)
    return fake


def test_the_way_in_saves_first_and_opens_the_door_last() -> None:
    steps = names(plan(empty(), WISHES["two of each"]))
    assert steps[0] == f"save target {IQN}" and steps[1] == f"create target {IQN}"
    assert steps[-2:] == [f"admit {A} to {IQN}", f"admit {B} to {IQN}"]
    assert "listen at portal 127.0.0.2:3261" in steps and "listen at portal 127.0.0.1:3260" not in steps


def test_a_denied_initiator_loses_its_door_before_its_account_and_the_others_keep_theirs() -> None:
    fake = ready("two of each")
    steps = names(plan(fake, WISHES["A denied"]))
    assert steps == [f"deny {A} at {IQN}", f"remove CHAP account fresh-a from {IQN}", f"save target {IQN} without what is gone"]
    run(plan(fake, WISHES["A denied"]).steps)
    assert fake.targets[IQN].doors == [B] and fake.targets[IQN].accounts == ["fresh-b"]


def test_a_rotation_adds_the_new_account_before_the_old_one_goes() -> None:
    fake = ready()
    steps = names(plan(fake, WISHES["A with a given pair"]))
    assert steps.index(f"set the CHAP secret of {A} at {IQN}") < steps.index(f"remove CHAP account fresh-a from {IQN}")


def test_a_second_run_keeps_the_generated_pair_though_another_one_was_made_for_it() -> None:
    fake = ready()
    again = wish(acls=(AclWish(A, fresh=("other", Secret("another random"))),))
    assert plan(fake, again).steps == ()


def test_a_changed_password_is_seen_and_the_saved_one_is_set_again() -> None:
    fake = ready()
    change_password(fake)
    planned = plan(fake, WISHES["one LUN, one initiator"])
    assert names(planned) == [f"set the CHAP secret of {A} at {IQN}"]
    assert planned.before.live.acl(A).password is None
    run(planned.steps)
    assert fake.passwords["fresh-a"] == Secret("made for a")


def test_a_portal_that_two_targets_wish_is_added_once() -> None:
    fake = empty()
    wants = [TargetWish(iqn, portals=frozenset({SECOND})) for iqn in (IQN, OTHER)]
    world = fake.observe([look_of(want) for want in wants])
    first = plan_target(wants[0], world, fake)
    world[IQN] = first.after
    second = plan_target(wants[1], world, fake)
    assert names(first).count(f"listen at portal {SECOND}") == 1 and f"listen at portal {SECOND}" not in names(second)


def test_a_lun_without_serial_gets_its_own() -> None:
    planned = plan(empty(), WISHES["two of each"])
    assert planned.after.live.lun(1).serial == own_serial(IQN, 1) != own_serial(IQN, 2) != own_serial(OTHER, 2)


def test_what_others_put_there_stays_and_is_told_of() -> None:
    fake = ready()
    foreign_parts(fake)
    planned = plan(fake, WISHES["one LUN, one initiator"])
    assert planned.steps == ()
    assert "ALL" in planned.warnings[0] and "purge_acls" in planned.warnings[0]
    purged = plan(fake, WISHES["only B, all else purged"])
    run(purged.steps)
    assert fake.targets[IQN].addresses == set() and fake.targets[IQN].doors == [B] and list(fake.targets[IQN].luns) == [2]


def in_use(by: str = A) -> FakeTargets:
    fake = ready("two of each")
    fake.targets[IQN].sessions.append(Session(by, "192.0.2.20"))
    return fake


def grown() -> FakeTargets:
    fake = in_use()
    fake.sizes[DATA] = 3 * MIB
    return fake


def with_foreign_account() -> FakeTargets:
    fake = ready()
    fake.targets[OTHER] = Daemon(accounts=["taken"])
    fake.passwords["taken"] = Secret("someone else's")
    fake.passwords["unbound"] = Secret("someone else's")
    return fake


def with_foreign_mutual() -> FakeTargets:
    fake = ready("mutual")
    lose_record(fake)
    return fake


def with_open_foreigner() -> FakeTargets:
    fake = ready()
    fake.targets[IQN].doors.append("iqn.2026-01.org.example:foreigner")
    return fake


REFUSALS = [
    ("deny a logged-in initiator", in_use, WISHES["A denied"], Refused, f"{A} is logged in at {IQN}"),
    ("remove a target in use", in_use, WISHES["gone"], Refused, f"in use by {A} (192.0.2.20)"),
    ("remove a LUN in use", in_use, wish(purge_luns=True), Refused, "LUN 1 of"),
    ("another serial in use", in_use, wish(luns=(LunWish(1, DATA, "other"),)), Refused, "has to be made anew because of its serial"),
    ("grown in use", grown, wish(), Refused, "size_bytes (1048576 instead of 3145728)"),
    ("no data", empty, wish(luns=(LunWish(1, "/srv/none"),)), NotFound, "no file or block device /srv/none for LUN 1"),
    ("no path", empty, wish(luns=(LunWish(1),)), Invalid, "needs a path"),
    ("a taken number", ready, wish(luns=(LunWish(1, MORE),)), Refused, f"LUN 1 of {IQN} is taken by {DATA}"),
    ("data twice", empty, wish(luns=(LunWish(1, DATA), LunWish(2, DATA))), Invalid, f"would share {DATA}"),
    ("an unknown bstype", empty, wish(luns=(LunWish(1, DATA, bstype="rbd"),)), Invalid, "choose one of rdwr, aio"),
    ("CHAP for some only", ready, wish(acls=(acl(B, chap="none"),)), Refused, "asks all initiators for CHAP or none"),
    ("two mutual pairs", empty, wish(acls=(given(A, "a", "pa", "one"), given(B, "b", "pb", "two"))), Refused, "one mutual pair only, not 2"),
    ("mutual equal to incoming", empty, wish(acls=(given(A, "a", "same", "same"),)), Invalid, "equals the password"),
    ("mutual without password", empty, wish(acls=(acl(A, mutual_username="m"),)), Invalid, "comes without a mutual_password"),
    ("a username twice", empty, wish(acls=(given(A, "same", "pa"), given(B, "same", "pb"))), Conflict, "stands twice in the acls"),
    ("a username of another target", with_foreign_account, wish(acls=(given(A, "taken", "pa"),)), Conflict, "username taken is already an account"),
    ("a username of nobody", with_foreign_account, wish(acls=(given(A, "unbound", "pa"),)), Conflict, "username unbound is already an account"),
    ("a mutual pair of someone else", with_foreign_mutual, WISHES["mutual"], Refused, "already proves itself as lost-target"),
    ("purged portals", empty, wish(purge_portals=True), Refused, "would close 127.0.0.1:3260"),
    ("a foreign door without CHAP", with_open_foreigner, WISHES["A denied"], Refused, "left without any CHAP account"),
]


@pytest.mark.parametrize(("start", "want", "kind", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_refusals(start: Callable[[], FakeTargets], want: TargetWish, kind: type[StorageError], words: str) -> None:
    refused(start(), want, kind, words)


def test_a_session_of_another_initiator_does_not_keep_a_door_open() -> None:
    fake = in_use(by=B)
    run(plan(fake, WISHES["A denied"]).steps)
    assert fake.targets[IQN].doors == [B]


def test_a_lun_half_made_by_a_killed_run_is_finished_though_others_are_logged_in() -> None:
    fake = in_use()
    lun = fake.targets[IQN].luns[2]
    fake.targets[IQN].luns[2] = dataclasses.replace(lun, serial=None, wwid=None, read_only=False)
    planned = plan(fake, WISHES["two of each"])
    assert names(planned) == [f"give LUN 2 of {IQN} its serial"]
    run(planned.steps)
    assert fake.targets[IQN].luns[2] == lun


def test_no_step_and_no_diff_tells_a_secret() -> None:
    planned = plan(empty(), WISHES["mutual"])
    hidden = [secret.reveal() for secret in secrets_in(planned.after)]
    assert len(hidden) == 2
    told = repr(planned.steps) + repr(as_data(planned.after)) + repr(planned)
    assert not [secret for secret in hidden if secret in told]
