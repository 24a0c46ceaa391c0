# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in a volume group: the laws on a fake LVM, what each command costs, and what a volume may never show."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import pytest
from ansible_collections.stackless.block.plugins.module_utils import _plan_attachment as attachments
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Failed, Invalid, NotFound, Refused, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.pool import pool_advice
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Volume
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes import _lvm_host
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_group import group_from
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_host import parse_settings, rejects, scans_volumes
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_tags import GROWTH, tags_of
from ansible_collections.stackless.block.plugins.module_utils._volumes.lvm import LvmBackend

from .fake_lvm import EXTENT, FakeLvm, Killed, Lv
from .volume_case import crashes_and_refusals, laws_hold

ID = "0b5e7a1c-2222-4222-8333-444455556666"
OTHER = "0b5e7a1c-2222-4222-8333-444455557777"
FRESH = "0b5e7a1c-2222-4222-8333-444455558888"
NAME = f"volume-{ID}"
ATTACHED = Attachment(id="a1", instance="web-1", host="compute-1", status="attached")


def volume(name="db", id=ID, **changes) -> Volume:
    made = Volume(**{"name": name, "id": id, "size_bytes": GIB, "allocation": "thick", "path": f"/dev/volumes/volume-{id}", **changes})
    return made


def backend(lvm: FakeLvm, **options) -> LvmBackend:
    made = LvmBackend({"pool": "volumes", "thin_pool": "thin", **options}, lvm=lvm, disk=lvm)
    made.fake = lvm
    return made


def holding(lvm: FakeLvm, record: Volume, size: int | None = None, **changes) -> Lv:
    """A logical volume with this record, its data all in use."""
    size = record.size_bytes if size is None else size
    thin = record.allocation == "thin"
    kind = {"pool": "thin", "layout": "thin,sparse", "words": ["data"] * (size // EXTENT)} if thin else {"extents": lvm._take(size // EXTENT)}
    lv = Lv(size=size, tags=set(tags_of(record)), **kind, **changes)
    lvm.lvs[f"volume-{record.id}"] = lv
    for extent in lv.extents:
        lvm.data[extent] = "data"
    return lv


# name: (record, size of the logical volume, more of it)
STATES = {
    "nothing": None,
    **{
        f"{name}, {allocation}": (volume(allocation=allocation, **record), size, more)
        for allocation in ("thick", "thin")
        for name, record, size, more in [
            ("creating", {"status": "creating"}, GIB, {}),
            ("creating, inactive", {"status": "creating"}, GIB, {"active": False}),
            ("available", {}, GIB, {}),
            ("inactive", {}, GIB, {"active": False}),
            ("short", {"size_bytes": 2 * GIB}, GIB, {}),
            ("available 2", {"size_bytes": 2 * GIB}, 2 * GIB, {}),
            ("extending", {"size_bytes": 2 * GIB, "status": "extending"}, GIB, {}),
            ("extended", {"size_bytes": 2 * GIB, "status": "extending"}, 2 * GIB, {}),
            ("in use", {"status": "in-use", "attachments": (ATTACHED,)}, GIB, {"open": True}),
            ("extending in use", {"size_bytes": 2 * GIB, "status": "extending", "attachments": (ATTACHED,)}, GIB, {"open": True}),
            ("deleting", {"status": "deleting"}, GIB, {}),
            ("open", {}, GIB, {"open": True}),
            ("error", {"status": "error"}, GIB, {}),
        ]
    },
}
WISHES = {
    "present": VolumeWish("db"),
    "1 GiB": VolumeWish("db", size_bytes=GIB, fresh_id=ID),
    "1 GiB thick": VolumeWish("db", size_bytes=GIB, allocation="thick", fresh_id=ID),
    "2 GiB": VolumeWish("db", size_bytes=2 * GIB, fresh_id=ID),
    "renamed": VolumeWish("db", new_name="db-old"),
    "renamed and larger": VolumeWish("db", new_name="db-old", size_bytes=2 * GIB),
    "described": VolumeWish("db", description="a = b & c", metadata=(("owner", "shop"),)),
    "absent": VolumeWish("db", present=False),
    "absent, not wiped": VolumeWish("db", present=False, wipe=False),
}


def made(state: str) -> LvmBackend:
    lvm = FakeLvm()
    lvm.lvs[f"volume-{OTHER}"] = Lv(lvm._take(4), GIB, {"somebody"})  # Cinder's own are named so too
    if STATES[state]:
        record, size, more = STATES[state]
        holding(lvm, record, size, **more).tags.add("backup")
    return backend(lvm)


def trace(backend: LvmBackend) -> tuple:
    return backend.fake.seqno, tuple(backend.fake.data), repr(sorted(backend.fake.lvs.items()))


@pytest.fixture(autouse=True)
def holders(monkeypatch):
    monkeypatch.setattr("ansible_collections.stackless.block.plugins.module_utils._volumes._block.who_has", lambda path: "the target")


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws(state, wish):
    laws_hold(made, state, WISHES[wish], trace)


def test_the_cases_hold_enough_crashes_and_refusals():
    crashes, refusals = crashes_and_refusals(made, STATES, WISHES.values())
    assert crashes > 70 and refusals > 60


def apply(subject: LvmBackend, wish: VolumeWish):
    plan = plan_volume(wish, subject.observe(), subject)
    apply_steps(plan.acts)
    return plan


def apply_steps(steps):
    for step in steps:
        step.act(*step.args)


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_no_volume_shows_what_was_there_before_and_others_are_left_alone(state, wish):
    subject = made(state)
    lvm = subject.fake
    data = list(lvm.lvs[NAME].extents) if NAME in lvm.lvs else []
    kept = repr(lvm.lvs[f"volume-{OTHER}"])
    try:
        plan = apply(subject, WISHES[wish])
    except Refused as refusal:
        plan = None
        assert len(str(refusal)) > 20
    except (Conflict, Invalid, NotFound):
        plan = None
    assert repr(lvm.lvs[f"volume-{OTHER}"]) == kept and lvm.lvs["thin"].tags == set()
    lv = lvm.lvs.get(NAME)
    if lv and plan and not lv.pool:
        assert "old" not in [lvm.data[extent] for extent in lv.extents]
    if lv and state != "nothing" and STATES[state][0].status != "creating":
        assert [lvm.data[extent] for extent in data] == ["data"] * len(data), "data of the volume is gone"
        assert "backup" in lv.tags, "a tag of somebody else is gone"
    if plan and plan.after is None and WISHES[wish].wipe:
        assert "data" not in [lvm.data[extent] for extent in data]
    assert not [name for name in lvm.lvs if name.startswith("growth-")]


@pytest.mark.parametrize("kill", range(20))
def test_killed_between_two_commands_the_next_run_finishes(kill):
    """Growing takes several commands in one step: killed before any of them."""
    lvm = FakeLvm()
    lvm.discards = True
    holding(lvm, volume())
    writes = iter(range(100))

    def dying(command):
        if command in ("lvcreate", "lvremove", "lvextend", "lvchange", "zero") and next(writes) == kill:
            raise Killed

    lvm.passing = dying
    subject = LvmBackend({"pool": "volumes"}, lvm=lvm, disk=lvm)
    try:
        apply(subject, WISHES["2 GiB"])
    except Killed:
        pass
    lvm.passing = lambda command: None
    apply(backend(lvm), WISHES["2 GiB"])
    lv = lvm.lvs[NAME]
    assert [lvm.data[extent] for extent in lv.extents] == ["data"] * 4 + ["zero"] * 4
    assert backend(lvm).observe() == {"db": volume(size_bytes=2 * GIB)}
    assert set(lvm.lvs) == {"thin", NAME}


@pytest.mark.parametrize("allocation", ["thin", "thick"])
@pytest.mark.parametrize("killed_before", [False, True])
def test_an_attached_volume_that_can_not_grow_stays_as_it_was(monkeypatch, allocation, killed_before):
    """As with a physical volume that is closed for new extents: the space is there, and LVM refuses."""
    lvm = FakeLvm()
    have = volume(allocation=allocation, attachments=(ATTACHED,), status="in-use")
    holding(lvm, dataclasses.replace(have, size_bytes=2 * GIB, status="extending") if killed_before else have, GIB)
    subject = backend(lvm)
    plan = plan_volume(WISHES["2 GiB"], subject.observe(), subject)
    for command in ("lvcreate", "lvextend"):
        monkeypatch.setattr(lvm, command, lambda arguments: failing(), raising=False)
    with pytest.raises(Failed):
        apply_steps(plan.acts)
    apply_steps(plan.undo)
    assert backend(lvm).observe() == {"db": have}


def failing():
    raise Failed("lvextend failed: Insufficient suitable allocatable extents")


@pytest.mark.parametrize("wish,state", [("absent", "available"), ("2 GiB", "available"), ("2 GiB", "creating")])
def test_others_get_at_the_volume_group_while_a_volume_is_zeroed(wish, state):
    lvm, held = FakeLvm(), []
    holding(lvm, volume(status=state))
    subject = backend(lvm)

    @contextlib.contextmanager
    def pause():
        held.append("free")
        yield
        held.append("held")

    subject.pause = pause
    lvm.passing = lambda command: held.append(command) if command == "zero" else None
    apply(subject, WISHES[wish])
    assert held == ["free", "zero", "held"]


def test_a_volume_whose_data_has_grown_is_not_put_back():
    lvm = FakeLvm()
    holding(lvm, volume(status="available"))
    subject = backend(lvm)
    plan = plan_volume(WISHES["2 GiB"], subject.observe(), subject)
    apply_steps(plan.acts[:-1])
    with pytest.raises(Conflict, match="run the same play again"):
        apply_steps(plan.undo)
    apply(backend(lvm), WISHES["2 GiB"])
    assert backend(lvm).observe() == {"db": volume(size_bytes=2 * GIB)}


def test_what_a_killed_growth_left_goes_with_the_volume():
    lvm = FakeLvm()
    holding(lvm, volume(status="error_extending"))
    lvm.lvs[f"growth-{ID}"] = Lv(lvm._take(4), GIB, {GROWTH})
    apply(backend(lvm), WISHES["absent"])
    assert set(lvm.lvs) == {"thin"}


@pytest.mark.parametrize("allocation,commands", [("thin", ["lvcreate", "lvchange"]), ("thick", ["lvcreate", "zero", "lvchange"])])
def test_a_new_volume_costs_two_commands(allocation, commands):
    subject = backend(FakeLvm())
    world = subject.observe()
    for number in range(5):
        subject.fake.commands.clear()
        plan = plan_volume(VolumeWish(f"db-{number}", size_bytes=GIB, allocation=allocation, fresh_id=f"{ID[:-1]}{number}"), world, subject)
        for step in plan.acts:
            step.act(*step.args)
        world[plan.key] = plan.after
        assert [command[0] for command in subject.fake.commands] == commands


class TestTheRecord:
    @pytest.fixture(params=[True, False], ids=["told", "not told"])
    def subject(self, request):
        lvm = FakeLvm()
        lvm.talks = request.param
        holding(lvm, volume())
        return backend(lvm)

    def test_changes_when_it_is_what_it_was(self, subject):
        have = subject.observe()["db"]
        after = dataclasses.replace(have, status="error", description="x")
        subject.swap(have, after)
        assert subject.observe() == {"db": after}

    @pytest.mark.parametrize("after", ["changed", "removed"])
    def test_is_left_alone_when_someone_was_faster(self, subject, after):
        have = subject.observe()["db"]
        theirs = dataclasses.replace(have, status="reserved")
        lv = subject.fake.lvs[NAME]
        subject.fake.before_write = lambda: setattr(lv, "tags", set(tags_of(theirs)))
        seqno = subject.fake.seqno
        with pytest.raises(Conflict, match="volume db was changed by someone else meanwhile"):
            subject.swap(have, dataclasses.replace(have, status="error") if after == "changed" else None)
        assert subject.fake.seqno == seqno

    def test_is_a_conflict_when_the_volume_is_gone(self, subject):
        have = subject.observe()["db"]
        del subject.fake.lvs[NAME]
        with pytest.raises(Conflict, match="changed by someone else"):
            subject.swap(have, dataclasses.replace(have, status="error"))

    def test_of_a_plan_that_is_old_is_a_conflict(self, subject):
        have = subject.observe()["db"]
        subject.swap(have, dataclasses.replace(have, status="error"))
        with pytest.raises(Conflict):
            subject.swap(have, dataclasses.replace(have, status="deleting"))

    def test_that_is_made_and_changed_without_a_look_between(self, subject):
        fresh = volume("new", FRESH, status="creating")
        subject.swap(None, fresh)
        subject.allocate(fresh)
        subject.swap(fresh, dataclasses.replace(fresh, status="available"))
        assert subject.observe()["new"].status == "available"


class TestDamage:
    def test_two_of_one_name_are_told_and_left_alone(self):
        lvm = FakeLvm()
        holding(lvm, volume())
        holding(lvm, volume(id=OTHER))
        holding(lvm, volume("log", FRESH))
        subject = backend(lvm)
        world = subject.observe()
        assert set(world) == {"db", "log"} and world["log"].flaw is None
        assert subject.warnings and "both carry its name" in subject.warnings[0]
        for wish in ("present", "1 GiB", "absent", "renamed"):
            with pytest.raises(Conflict, match=f"the record of volume db is damaged: /dev/volumes/volume-{ID} and .*{OTHER} both"):
                plan_volume(WISHES[wish], world, subject)
        reserve = attachments.AttachmentWish("db", "web-1", "reserve", host="c")
        with pytest.raises(Conflict, match="is damaged"):
            attachments.plan_attachment(reserve, world, subject)
        assert plan_volume(VolumeWish("log", size_bytes=2 * GIB), world, subject).steps

    @pytest.mark.parametrize(
        "tags,words",
        [
            ({"stackless.status=available", "stackless.status=in-use"}, "two tags stackless.status"),
            ({"stackless.size_bytes=x"}, "can't be read"),
            ({"stackless.attachment.0=foo"}, "can't be read"),
        ],
    )
    def test_tags_set_by_hand_are_told(self, tags, words):
        lvm = FakeLvm()
        lv = holding(lvm, volume())
        lv.tags = {tag for tag in lv.tags if tag.split("=")[0] not in {t.split("=")[0] for t in tags}} | tags
        subject = backend(lvm)
        world = subject.observe()
        assert world["db"].status == "error" and words in subject.warnings[0]
        with pytest.raises(Conflict, match=words):
            plan_volume(WISHES["absent"], world, subject)

    def test_a_record_without_a_name_is_told(self):
        lvm = FakeLvm()
        holding(lvm, volume()).tags.remove("stackless.name=db")
        subject = backend(lvm)
        assert "db" not in subject.observe() and "has no tag stackless.name" in subject.warnings[0]

    @pytest.mark.parametrize("moved", ["moved", "volume-1", NAME + "0", NAME.upper()])
    def test_a_renamed_logical_volume_is_told_and_its_name_is_not_given_again(self, moved):
        lvm = FakeLvm()
        holding(lvm, volume())
        lvm.lvs[moved] = lvm.lvs.pop(NAME)
        subject = backend(lvm)
        with pytest.raises(Conflict, match="is not volume-<id> any more"):
            plan_volume(WISHES["1 GiB"], subject.observe(), subject)

    def test_what_is_no_volume_is_none(self):
        lvm = FakeLvm()
        lvm.lvs[NAME] = Lv(lvm._take(4), GIB, {"stackless", "name=db", GROWTH})
        subject = backend(lvm)
        assert subject.observe() == {} and subject.warnings == ()


class TestRoom:
    def refusal(self, lvm, world=None, size=GIB, allocation="thick", **options):
        subject = backend(lvm, **options)
        seen = subject.observe()
        with pytest.raises(Refused) as refused:
            plan_volume(VolumeWish("new", size_bytes=size, allocation=allocation, fresh_id=FRESH), {**seen, **(world or {})}, subject)
        return str(refused.value)

    def test_a_full_volume_group_is_told_with_what_is_free(self):
        lvm = FakeLvm(extents=24, pool_extents=16)
        assert self.refusal(lvm, size=3 * GIB) == (
            "volume new can't be made: volume group volumes has 2 GiB free, 3 GiB are needed; extend it (vgextend), delete volumes, or use another backend"
        )

    def test_what_this_run_has_promised_is_counted(self):
        lvm = FakeLvm(extents=24, pool_extents=16)
        promised = {"a": volume("a", OTHER), "b": volume("b", ID)}
        assert "has 0 GiB free besides what this run has promised already, 1 GiB are needed" in self.refusal(lvm, promised)

    def test_what_is_promised_of_another_pool_is_not_counted(self):
        lvm = FakeLvm(extents=24, pool_extents=16)
        subject = backend(lvm)
        world = {**subject.observe(), "a": volume("a", OTHER, size_bytes=8 * GIB, allocation="thin")}
        assert plan_volume(VolumeWish("new", size_bytes=2 * GIB, allocation="thick", fresh_id=FRESH), world, subject).steps

    def test_what_this_run_deletes_is_free_again(self):
        lvm = FakeLvm(extents=4, pool_extents=0)
        holding(lvm, volume())
        subject = backend(lvm, thin_pool=None)
        world = subject.observe()
        wish = VolumeWish("new", size_bytes=GIB, fresh_id=FRESH)
        with pytest.raises(Refused):
            plan_volume(wish, world, subject)
        assert plan_volume(wish, {**world, "db": None}, subject).steps

    def test_a_volume_that_does_not_fit_is_not_grown(self):
        lvm = FakeLvm(extents=7, pool_extents=0)
        holding(lvm, volume())
        subject = backend(lvm, thin_pool=None)
        with pytest.raises(Refused, match="volume db can't be extended: .* 0.75 GiB free, 1 GiB are needed"):
            plan_volume(WISHES["2 GiB"], subject.observe(), subject)

    @pytest.mark.parametrize("what", ["data", "metadata"])
    def test_a_thin_pool_that_is_nearly_full_takes_nothing_more(self, what):
        lvm = FakeLvm()
        lvm.pool[f"{what}_percent"] = "95.00"
        holding(lvm, volume(allocation="thin"))
        said = self.refusal(lvm, allocation="thin")
        assert f"thin pool volumes/thin has 95.0 % of its {what} used, with a limit of 95 %" in said and "writes of every volume" in said
        subject = backend(lvm)
        with pytest.raises(Refused, match="can't be extended: thin pool"):
            plan_volume(WISHES["2 GiB"], subject.observe(), subject)
        assert plan_volume(WISHES["described"], subject.observe(), subject).steps
        assert plan_volume(WISHES["absent"], subject.observe(), subject).steps
        assert plan_volume(WISHES["2 GiB"], subject.observe(), backend(lvm, max_pool_used_percent=99.0)).steps

    def test_promises_end_at_the_ratio(self):
        lvm = FakeLvm(pool_extents=4)
        holding(lvm, volume(allocation="thin"))
        said = self.refusal(lvm, size=2 * GIB, allocation="thin", max_over_subscription_ratio=2.0)
        assert "thin pool volumes/thin of 1 GiB would have 3 GiB promised, more than 2 times what it holds" in said
        subject = backend(lvm, max_over_subscription_ratio=2.0)
        assert plan_volume(VolumeWish("new", size_bytes=GIB, fresh_id=FRESH), subject.observe(), subject).steps

    @pytest.mark.parametrize(
        "attr,words",
        [
            ("twi-aot---", "does not zero new blocks"),
            ("twi-aotzD-", "out of data space"),
            ("twi-aotzM-", "metadata is read-only"),
            ("twi-cotz--", "needs a check"),
            ("twi---tz--", "is not active"),
        ],
    )
    def test_a_thin_pool_that_is_not_fit_takes_nothing(self, attr, words):
        lvm = FakeLvm()
        lvm.pool["attr"] = attr
        assert words in self.refusal(lvm, allocation="thin")

    def test_a_thin_pool_is_looked_for_by_its_whole_name(self):
        lvm = FakeLvm()
        lvm.lvs["thin-2"] = lvm.lvs.pop("thin")
        assert "there is no thin pool volumes/thin; make it with lvcreate" in self.refusal(lvm, allocation="thin")
        lvm.lvs["thin"] = Lv(lvm._take(1), EXTENT)
        assert "there is no thin pool" in self.refusal(lvm, allocation="thin")

    @pytest.mark.parametrize("attr,words", [("rz--n-", "is read-only"), ("wzx-n-", "vgimport"), ("wz-pn-", "lacks some of its physical volumes")])
    @pytest.mark.parametrize("wish", ["1 GiB", "absent"])
    def test_a_volume_group_that_can_not_change_is_told(self, attr, words, wish):
        lvm = FakeLvm()
        lvm.vg_attr = attr
        if wish == "absent":
            holding(lvm, volume())
        subject = backend(lvm)
        with pytest.raises(Refused, match=words):
            plan_volume(WISHES[wish], subject.observe(), subject)

    def test_a_volume_in_use_on_the_storage_host_is_not_deleted(self):
        subject = made("open, thick")
        with pytest.raises(Refused, match="volume db can't be deleted: it is in use by the target on the storage host"):
            plan_volume(WISHES["absent"], subject.observe(), subject)


class TestOptions:
    @pytest.mark.parametrize("pool", [None, "", "a b", "-a", "..", "a/b", "a;b", "x" * 128, "größe"])
    def test_bad_names_of_volume_groups(self, pool):
        with pytest.raises(Invalid, match="backend.pool is .* needs the name of a volume group"):
            LvmBackend({"pool": pool})

    @pytest.mark.parametrize("thin_pool", ["", "volumes/thin", "a b"])
    def test_bad_names_of_thin_pools(self, thin_pool):
        with pytest.raises(Invalid, match="backend.thin_pool is .* without the volume group"):
            LvmBackend({"pool": "volumes", "thin_pool": thin_pool})

    def test_names_with_hyphens_are_not_doubled(self):
        assert LvmBackend({"pool": "cinder-volumes"}).locate(ID) == f"/dev/cinder-volumes/volume-{ID}"

    def test_a_missing_volume_group_is_told(self):
        with pytest.raises(NotFound, match="there is no volume group nosuch on this host; make it with vgcreate"):
            LvmBackend({"pool": "nosuch"}, lvm=FakeLvm()).observe()

    def test_a_report_that_says_something_else_is_told(self):
        with pytest.raises(Unavailable, match="can't be understood"):
            LvmBackend({"pool": "volumes"}, lvm=lambda *arguments: '{"report": [{"vg": [{}]}]}').observe()

    def test_a_volume_keeps_its_allocation(self):
        subject = made("available, thin")
        with pytest.raises(Refused, match="volume db is thin and can't become thick"):
            plan_volume(WISHES["1 GiB thick"], subject.observe(), subject)

    def test_no_thin_volume_without_a_thin_pool(self):
        subject = backend(FakeLvm(), thin_pool=None)
        with pytest.raises(Invalid, match="can't have allocation=thin at /dev/volumes; choose thick"):
            plan_volume(VolumeWish("db", size_bytes=GIB, allocation="thin"), {}, subject)

    def test_a_default_allocation_that_the_pool_has_not_is_refused(self):
        with pytest.raises(Invalid, match="backend.allocation"):
            LvmBackend({"pool": "volumes", "allocation": "sparse"})


class TestRenaming:
    def test_done_already(self):
        subject = made("available, thin")
        apply(subject, WISHES["renamed"])
        assert not plan_volume(WISHES["renamed"], subject.observe(), subject).acts

    def test_a_taken_name_is_refused(self):
        world = {"db": volume(), "db-old": volume("db-old", OTHER)}
        with pytest.raises(Conflict, match="can't be renamed to db-old: there is another volume"):
            plan_volume(WISHES["renamed"], world, backend(FakeLvm()))

    def test_nothing_to_rename(self):
        with pytest.raises(NotFound, match="neither a volume db to rename nor a volume db-old"):
            plan_volume(WISHES["renamed"], {}, backend(FakeLvm()))


@pytest.mark.parametrize("action,active", [("reserve", True), ("initialize", True), ("begin_detaching", False), ("terminate", False)])
def test_a_volume_is_activated_when_an_attachment_needs_it(action, active):
    lvm = FakeLvm()
    held = dataclasses.replace(ATTACHED, status="reserved")
    holding(lvm, volume(status="reserved", attachments=(held,)), active=False)
    subject = backend(lvm)
    plan = attachments.plan_attachment(attachments.AttachmentWish("db", "web-1", action, host="compute-1"), subject.observe(), subject)
    assert ("activate volume db" in [step.name for step in plan.acts]) == active
    for step in plan.acts:
        step.act(*step.args)
    assert lvm.lvs[NAME].active == active and subject.observe()["db"] == plan.after


def test_a_volume_that_shall_be_present_is_activated():
    subject = made("inactive, thick")
    assert [step.name for step in apply(subject, WISHES["1 GiB"]).acts] == ["activate volume db"]
    assert subject.fake.lvs[NAME].active


class TestPool:
    def test_a_thin_pool(self):
        lvm = FakeLvm(pool_extents=8)
        lvm.pool["data_percent"] = "85.00"
        holding(lvm, volume(allocation="thin", size_bytes=2 * GIB))
        lvm.lvs["foreign"] = Lv([], GIB, pool="thin", layout="thin,sparse", words=["zero"] * 4)
        holding(lvm, volume("thick", OTHER, size_bytes=2 * GIB))
        pool = backend(lvm).capacity()
        assert (pool.where, pool.total_bytes, pool.allocated_bytes, pool.provisioned_bytes) == ("thin pool volumes/thin", 2 * GIB, 2 * GIB, 3 * GIB)
        assert pool.virtual_free_bytes == 37 * GIB and round(pool.free_bytes / GIB, 2) == 0.3
        nearly, promised = pool_advice(pool)
        assert nearly.startswith("thin pool volumes/thin has 85.0 % of its data used") and "has promised 1.5 times what it holds" in promised
        lvm.settings = lvm.settings.replace("threshold=100", "threshold=80")
        assert [nearly] == pool_advice(backend(lvm).capacity())

    def test_a_volume_group(self):
        lvm = FakeLvm(extents=16, pool_extents=0)
        holding(lvm, volume())
        lvm.lvs["foreign"] = Lv(lvm._take(4), GIB)
        pool = backend(lvm, thin_pool=None).capacity()
        assert (pool.total_bytes, pool.free_bytes, pool.allocated_bytes, pool.provisioned_bytes) == (4 * GIB, 2 * GIB, GIB, 2 * GIB)
        assert pool.virtual_free_bytes == 2 * GIB and pool_advice(pool) == []

    def test_a_thin_pool_that_is_not_there(self):
        with pytest.raises(NotFound, match="there is no thin pool volumes/thin"):
            backend(FakeLvm(pool_extents=0)).capacity()


FILTERS = [
    (["a|.*|"], False),
    (["r|^/dev/my-vg/|", "r|^/dev/mapper/my--vg-|", "r|^/dev/dm-|", "r|^/dev/disk/|"], True),
    (["r|^/dev/my-vg/|"], True),
    (["r|^/dev/my-vg/|", "a|.*|"], False),
    (["r|^/dev/my/|"], False),
    (["a|^/dev/sda|", "r|.*|"], True),
    (["a|^/dev/mapper/|", "r|.*|"], False),
    (["r/.*/"], True),
    (["r|[|"], False),
]


@pytest.mark.parametrize("patterns,kept_out", FILTERS)
def test_filters(patterns, kept_out):
    config = {"scan_lvs": 1, "use_devicesfile": 0, "global_filter": ["a|.*|"], "filter": ["a|.*|"]}
    assert scans_volumes({**config, "global_filter": patterns}, "my-vg") is not kept_out
    assert scans_volumes({**config, "filter": patterns}, "my-vg") is not kept_out
    assert not scans_volumes({**config, "scan_lvs": 0, "global_filter": patterns}, "my-vg")
    del config["scan_lvs"]
    assert scans_volumes({**config, "global_filter": patterns}, "my-vg") is not kept_out


def test_a_devices_file_keeps_lvm_out_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(_lvm_host, "_DEVICES_FILES", str(tmp_path))
    config = {"scan_lvs": 1, "use_devicesfile": 1, "devicesfile": "mine.devices"}
    assert scans_volumes(config, "volumes")
    (tmp_path / "mine.devices").touch()
    assert not scans_volumes(config, "volumes")
    assert scans_volumes({**config, "use_devicesfile": 0}, "volumes")


def test_a_filter_goes_by_the_first_pattern_of_each_name():
    assert rejects(["r|^/dev/b|", "a|^/dev/a|"], ["/dev/b"])
    assert not rejects(["r|^/dev/b|", "a|^/dev/a|"], ["/dev/b", "/dev/a"])
    assert not rejects([], ["/dev/a"])


def test_advice_when_guests_volume_groups_would_be_seen():
    lvm = FakeLvm()
    assert backend(lvm).advice() == ()
    lvm.settings = lvm.settings.replace("scan_lvs=0", "scan_lvs=1")
    (advice,) = backend(lvm).advice()
    assert "inside the volumes of volumes" in advice and "set devices/scan_lvs=0" in advice


def test_settings_as_lvmconfig_prints_them():
    text = 'devices {\n\tscan_lvs=0\n\tuse_devicesfile=1\n\tdevicesfile="system.devices"\n\tglobal_filter=["r|^/dev/x|","a|.*|"]\n}\n'
    text += "activation {\n\tthin_pool_autoextend_threshold=70\n}\n"
    assert parse_settings(text) == {
        "scan_lvs": 0,
        "use_devicesfile": 1,
        "devicesfile": "system.devices",
        "global_filter": ["r|^/dev/x|", "a|.*|"],
        "thin_pool_autoextend_threshold": 70,
    }


class TestCommands:
    @pytest.fixture
    def program(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_lvm_host, "_PATHS", str(tmp_path))
        monkeypatch.setattr(_lvm_host.os, "geteuid", lambda: 0)

        def write(script):
            (tmp_path / "lvm").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "lvm").chmod(0o755)

        return write

    def test_a_missing_package_is_named(self, program):
        with pytest.raises(Unavailable, match="install the package lvm2"):
            _lvm_host.run("lvs")

    def test_lvms_own_words_are_passed_on(self, program):
        program('echo "  WARNING: something" >&2; echo "  Pool nosuch not found." >&2; echo more >&2; exit 5')
        with pytest.raises(Failed, match="^lvcreate failed: Pool nosuch not found$"):
            _lvm_host.run("lvcreate")

    def test_arguments_are_passed_as_they_are_and_warnings_are_no_output(self, program):
        program('echo "$LC_ALL $# $1"; echo "  WARNING: something" >&2')
        assert _lvm_host.run("lvs", "a b;c") == "C 2 lvs\n"

    def test_without_root(self, program, monkeypatch):
        program("exit 0")
        monkeypatch.setattr(_lvm_host.os, "geteuid", lambda: 1000)
        with pytest.raises(Unavailable, match="LVM needs root"):
            _lvm_host.run("lvs")

    def test_a_command_that_does_not_end(self, program, monkeypatch):
        program("exec /bin/sleep 5")
        monkeypatch.setattr(_lvm_host, "_ENOUGH", 0.2)
        with pytest.raises(Failed, match="did not end within 0.2 s"):
            _lvm_host.run("lvremove")


REPORT = """
  {"report": [{"vg": [{"vg_name":"volumes", "vg_size":"8585740288", "vg_free":"6362759168", "vg_extent_size":"4194304", "vg_attr":"wz--n-",
    "vg_mda_free":"519168"}]
   ,"pv": [{"pv_name":"/dev/vdb"}]
   ,"lv": [
    {"lv_name":"thin", "lv_size":"2147483648", "lv_tags":"", "lv_attr":"twi-aotz--",
     "lv_layout":"thin,pool", "pool_lv":"", "data_percent":"0.00", "metadata_percent":"11.13"},
    {"lv_name":"volume-a", "lv_size":"67108864", "lv_tags":"stackless.name=db,x#1=a&b=c!20+d", "lv_attr":"-wi-ao----",
     "lv_layout":"linear", "pool_lv":"", "data_percent":"", "metadata_percent":""},
    {"lv_name":"volume-t", "lv_size":"1073741824", "lv_tags":"", "lv_attr":"Vwi---tz--",
     "lv_layout":"thin,sparse", "pool_lv":"thin", "data_percent":"", "metadata_percent":""}
   ]}]}
"""


def test_a_report_as_lvm_prints_it():
    group = group_from(REPORT)
    pool, linear, thin = group.volumes
    assert (group.size_bytes, group.free_bytes, group.extent_bytes, group.record_bytes) == (8585740288, 6362759168, 4 << 20, 519168)
    assert pool.is_thin_pool and pool.zeroing and pool.metadata_percent == 11.13 and pool.active
    assert linear.tags == {"stackless.name=db", "x#1=a&b=c!20+d"} and linear.open and linear.allocation == "thick"
    assert (thin.thin_pool, thin.active, thin.open, thin.data_percent) == ("thin", False, False, None)
    assert group_from('{"report": [{"lv": []}]}') is None
