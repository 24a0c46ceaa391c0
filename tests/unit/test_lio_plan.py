# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the target planner for a back end like LIO, whose record is a copy of what runs, and what only LIO can do."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Callable

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _manage_target
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Invalid, NotFound, Refused, StorageError
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.target import Acl, Lun, Portal, Session, check_username, lacking
from ansible_collections.stackless.block.plugins.module_utils._plan_target import LunWish, TargetWish, plan_target
from ansible_collections.stackless.block.plugins.module_utils._targets import Look
from tests.rig.fake_targets import FakeLio
from tests.unit.target_case import A, B, IQN, MIB, acl, given, laws_hold, more_than_refusals, names, plan, refused, run, starts_from, wish

STRANGER = "iqn.1991-05.com.microsoft:stranger"
DATA, MORE, FILE = "/dev/volumes/volume-1", "/dev/volumes/volume-2", "/srv/volume-3"
PORTAL, SECOND, SIXTH = Portal("192.0.2.10"), Portal("198.51.100.10", 3261), Portal("2001:db8::10")
DEPTH = (("default_cmdsn_depth", "128"),)

WISHES = {
    "nothing but the target": wish(),
    "one LUN, one initiator": wish(luns=(LunWish(None, DATA, "serial-1"),), portals=frozenset({PORTAL}), acls=(acl(A),)),
    "three LUNs, three portals": wish(
        luns=(LunWish(0, DATA), LunWish(1, MORE, read_only=True), LunWish(7, FILE, write_cache=True)),
        portals=frozenset({PORTAL, SECOND, SIXTH}),
        acls=(acl(A), acl(B, read_only=True)),
    ),
    "only B, all else purged": wish(luns=(LunWish(1, MORE),), acls=(acl(B),), purge_luns=True, purge_acls=True, purge_portals=True),
    "A denied": wish(acls=(acl(A, present=False),)),
    "A with a given pair": wish(acls=(given(A, "someone", "a password of A"),)),
    "A with another given pair, and mutual": wish(acls=(given(A, "anyone", "other password", "the target's own"),)),
    "both by the same name, one without CHAP": wish(acls=(given(A, "same", "a password"), acl(B, chap="none"))),
    "a renamed serial": wish(luns=(LunWish(0, DATA, "serial-2"),)),
    "no discard, an attribute": wish(luns=(LunWish(None, DATA, discard=False, attributes=(("emulate_caw", "0"),)),), attributes=DEPTH),
    "gone": wish(present=False),
}


def lose_luns(fake: FakeLio) -> None:
    """As a restore leaves a target whose volumes were not there yet."""
    change(fake, luns=(), acls=tuple(dataclasses.replace(one, mapped=True) for one in fake.live[IQN].acls))


def change(fake: FakeLio, **parts: Any) -> None:
    fake.live[IQN] = dataclasses.replace(fake.live[IQN], **parts)


def each_acl(fake: FakeLio, **parts: Any) -> None:
    change(fake, acls=tuple(dataclasses.replace(one, **parts) for one in fake.live[IQN].acls))


def foreign_parts(fake: FakeLio) -> None:
    live = fake.live[IQN]
    fake.sizes["/srv/foreign"] = MIB
    foreign = Lun(200, "/srv/foreign", "f", "naa.6001405f", MIB, bstype="fileio", discard=False)
    acls = (*live.acls, Acl(STRANGER, "their", Secret("theirs"), mapped=False))
    change(fake, luns=(*live.luns, foreign), acls=tuple(sorted(acls, key=lambda a: a.initiator)))
    change(fake, portals=live.portals | {Portal("203.0.113.1")}, addresses=frozenset({"everywhere"}))


def foreign_and_saved(fake: FakeLio) -> None:
    foreign_parts(fake)
    fake.save(fake.live[IQN])


DRIFTS: dict[str, Callable[[FakeLio], None]] = {
    "as it was left": lambda fake: None,
    "nothing restored": lambda fake: fake.live.clear(),
    "restored short": lose_luns,
    "never saved": lambda fake: fake.saved.clear(),
    "passwords changed": lambda fake: each_acl(fake, password=Secret("changed behind our back")),
    "ACLs half-made": lambda fake: each_acl(fake, username="", password=None, mutual_username=None, mutual_password=None, mapped=False),
    "ACLs open": lambda fake: each_acl(fake, username=None, password=None, mutual_username=None, mutual_password=None),
    "LUNs unmapped": lambda fake: each_acl(fake, mapped=False),
    "ACLs gone": lambda fake: change(fake, acls=()),
    "not enabled": lambda fake: change(fake, enabled=False),
    "portals gone": lambda fake: change(fake, portals=frozenset()),
    "data grown": lambda fake: fake.sizes.update({DATA: 3 * MIB, FILE: 5 * MIB}),
    "parts of others": foreign_parts,
    "parts of others, saved": foreign_and_saved,
}


# What was chosen and never saved is forgotten when a run is killed while it makes the LUN anew.
FORGOTTEN = ("no discard, an attribute", "never saved")


def empty() -> FakeLio:
    return FakeLio({DATA: MIB, MORE: 2 * MIB, FILE: 4 * MIB})


def ready(name: str = "one LUN, one initiator") -> FakeLio:
    fake = empty()
    run(plan(fake, WISHES[name]).steps)
    return fake


STARTS = starts_from(empty, WISHES, DRIFTS, without=[FORGOTTEN])


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("want", WISHES.values(), ids=WISHES)
def test_laws(start: FakeLio, want: TargetWish) -> None:
    laws_hold(start, want)


def test_the_laws_are_tried_on_more_than_refusals() -> None:
    assert more_than_refusals(STARTS, WISHES)


def test_the_way_in_opens_the_doors_last_and_saves_after_all() -> None:
    assert names(plan(empty(), WISHES["one LUN, one initiator"])) == [
        f"create target {IQN}",
        f"listen at portal {PORTAL}",
        f"add LUN 0 ({DATA}) to {IQN}",
        f"admit {A} to {IQN}",
        f"enable target {IQN}",
        f"save target {IQN}",
    ]


def test_the_number_of_a_lun_may_stay_open() -> None:
    assert plan(empty(), wish(luns=(LunWish(None, DATA),))).after.live.luns[0].lun == 0
    fake = ready("three LUNs, three portals")
    by_path = plan(fake, wish(luns=(LunWish(None, FILE, discard=False),)))
    assert by_path.after.live.lun(7).discard is False and by_path.after.live.lun(0).discard is True
    serial = fake.live[IQN].lun(1).serial
    assert plan(fake, wish(luns=(LunWish(None, serial=serial, discard=False),))).after.live.lun(1).discard is False


def test_what_a_restore_left_out_is_told_and_comes_back_as_it_was() -> None:
    fake = ready("three LUNs, three portals")
    whole = copy.deepcopy(fake)
    lose_luns(fake)
    change(fake, portals=frozenset({PORTAL}), acls=fake.live[IQN].acls[:1])
    export = fake.observe([Look(IQN)])[IQN]
    assert lacking(export) == [f"LUN 0 ({DATA})", f"LUN 1 ({MORE})", f"LUN 7 ({FILE})", f"initiator {B}", f"portal {SECOND}", f"portal {SIXTH}"]
    run(plan(fake, wish()).steps)
    assert fake.live == whole.live and fake.saved == whole.saved
    fake.live.clear()
    assert lacking(fake.observe([Look(IQN)])[IQN]) == [f"target {IQN}"]


def test_what_a_restore_left_out_is_never_saved_over_while_its_data_is_away() -> None:
    fake = ready()
    lose_luns(fake)
    del fake.sizes[DATA]
    before = fake.snapshot()
    for want in (wish(), wish(acls=(acl(B),)), WISHES["A denied"]):
        with pytest.raises(NotFound, match=f"no file or block device {DATA} for LUN 0"):
            plan(fake, want)
    assert fake.snapshot() == before


def test_a_volume_grows_under_its_users_and_a_file_does_not() -> None:
    fake = ready("three LUNs, three portals")
    fake.sessions[IQN] = (Session(A, "192.0.2.20"),)
    fake.sizes[DATA] = 3 * MIB
    planned = plan(fake, wish())
    assert planned.steps == () and planned.after.live.lun(0).size_bytes == 3 * MIB
    grown = {**fake.observe([Look(IQN)]), ("backing", DATA): 5 * MIB}  # as a task before predicts it
    assert plan_target(wish(), grown, fake).after.live.lun(0).size_bytes == 5 * MIB
    fake.sizes[FILE] = 8 * MIB
    with pytest.raises(Refused, match="LUN 7 of .* has to be made anew because of its size_bytes"):
        plan(fake, wish())


def test_what_changes_in_place_changes_under_a_session() -> None:
    fake = ready()
    fake.sessions[IQN] = (Session(A, "192.0.2.20"),)
    luns = (LunWish(None, DATA, discard=False, attributes=(("emulate_caw", "0"),)),)
    want = wish(luns=luns, attributes=DEPTH, acls=(given(A, "rotated", "a new password", read_only=True),))
    assert names(plan(fake, want)) == [
        f"set discard=False, emulate_caw=0 of LUN 0 of {IQN}",
        f"map the LUNs of {IQN} to {A}",
        f"set default_cmdsn_depth=128 of {IQN}",
        f"save target {IQN}",
    ]
    run(plan(fake, want).steps)
    assert fake.live[IQN].acl(A).password == Secret("a new password") and fake.live[IQN].acl(A).read_only


def test_the_parts_of_others_stay_until_they_are_purged() -> None:
    fake = ready()
    foreign_and_saved(fake)
    planned = plan(fake, WISHES["one LUN, one initiator"])
    assert planned.steps == () and "everywhere" in planned.warnings[0]
    run(plan(fake, WISHES["only B, all else purged"]).steps)
    live = fake.live[IQN]
    assert ([a.initiator for a in live.acls], live.addresses, live.portals, [lun.lun for lun in live.luns]) == ([B], frozenset(), frozenset(), [1])


def test_the_parts_of_others_stay_though_nobody_saved_them_and_are_saved_along() -> None:
    fake = ready()
    foreign_parts(fake)
    before = fake.live[IQN]
    planned = plan(fake, WISHES["one LUN, one initiator"])
    assert names(planned) == [f"save target {IQN}"]
    run(planned.steps)
    assert fake.live[IQN] == before and fake.saved[IQN].portals == before.portals


@pytest.mark.parametrize("name", ["0blzKjmZ", "0Xcafe"])
def test_a_name_that_reads_as_a_number_is_never_made_nor_taken_and_gives_way_where_it_was_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = ready()
    each_acl(fake, username=name)
    fake.save(fake.live[IQN])
    run(plan(fake, WISHES["one LUN, one initiator"]).steps)
    assert fake.live[IQN].acl(A).username == fake.saved[IQN].acl(A).username == "fresh-a"
    with pytest.raises(Invalid, match="takes it for a number"):
        check_username(name, "username")
    letters = iter(name * 9)
    monkeypatch.setattr(_manage_target.secrets, "choice", lambda alphabet: next(letter for letter in letters if letter in alphabet))
    assert not _manage_target._fresh_username().startswith("0")


def in_use(by: str = A) -> FakeLio:
    fake = ready("three LUNs, three portals")
    fake.sessions[IQN] = (Session(by, "192.0.2.20"),)
    return fake


def held() -> FakeLio:
    fake = empty()
    fake.held[DATA] = "the backstore block/disk1 of someone else"
    return fake


REFUSALS = [
    ("deny a logged-in initiator", in_use, WISHES["A denied"], Refused, f"{A} is logged in at {IQN}"),
    ("remove a target in use", in_use, WISHES["gone"], Refused, f"in use by {A} (192.0.2.20)"),
    ("remove a LUN in use", in_use, wish(purge_luns=True), Refused, "LUN 0 of"),
    ("another serial in use", in_use, wish(luns=(LunWish(0, DATA, "other"),)), Refused, "has to be made anew because of its serial"),
    ("close a portal in use", in_use, wish(purge_portals=True, portals=frozenset({PORTAL})), Refused, f"would close {SECOND}, {SIXTH}"),
    ("data of someone else", held, wish(luns=(LunWish(None, DATA),)), Conflict, f"{DATA} for LUN 0 of {IQN} is already the backstore block/disk1"),
    ("a number too high", empty, wish(luns=(LunWish(256, DATA),)), Invalid, "choose a number from 0 to 255"),
    ("two LUNs without number", empty, wish(luns=(LunWish(None, DATA), LunWish(None, MORE))), Invalid, "LUN 0 stands twice"),
    ("the cache of a device", empty, wish(luns=(LunWish(0, DATA, write_cache=False),)), Invalid, "can't have write_cache False"),
    ("a file as a device", empty, wish(luns=(LunWish(0, FILE, bstype="block"),)), Invalid, "can't have bstype block"),
    ("an attribute with an option", empty, wish(attributes=(("authentication", "0"),)), Invalid, "follows from other options"),
    ("read-only without LUN", empty, wish(acls=(acl(A, read_only=True),)), Invalid, "before there is a LUN"),
]


@pytest.mark.parametrize(("start", "want", "kind", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_refusals(start: Callable[[], FakeLio], want: TargetWish, kind: type[StorageError], words: str) -> None:
    refused(start(), want, kind, words)
