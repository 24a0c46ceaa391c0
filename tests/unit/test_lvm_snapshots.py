# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots, clones and reverted volumes in a volume group: what they hold, also after a kill, what room they take, and what is refused.

The laws stand in test_plan_snapshot.py; tests/lab/test_lvm_snapshots.py tells the same stories with the real LVM.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Failed, Refused
from ansible_collections.stackless.block.plugins.module_utils._model.image import ImageWish
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Snapshot
from ansible_collections.stackless.block.plugins.module_utils._plan_snapshot import SnapshotWish, plan_snapshot
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import Source, VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_tags import SNAPSHOT, tags_of

from .fake_lvm import FakeLvm, Killed, Lv
from .test_lvm import FRESH, ID, NAME, apply_steps, backend, holding, volume

MON = "5a4b0000-4444-4444-8555-666677778888"
TUE = "5a4b0000-4444-4444-8555-666677779999"
KEPT = f"_snapshot-{MON}"
NOW = "2026-01-31T23:00:00Z"
MONDAY = SnapshotWish("db", "monday", fresh_id=MON, now=NOW)
TUESDAY = dataclasses.replace(MONDAY, name="tuesday", fresh_id=TUE)
CLONE = VolumeWish("new", source=Source("db", "monday"), fresh_id=FRESH)
BACK = VolumeWish("db", revert_to="monday")
WRITERS = ("lvcreate", "lvremove", "lvextend", "lvchange", "lvrename", "zero", "copy", "convert")


class Image:
    """Stands in for an image that was inspected: qemu-img with tests/rig/lab's real devices is in tests/lab/test_lvm_snapshots.py."""

    virtual_bytes = GIB

    def __init__(self, lvm):
        self.lvm, self.options = lvm, None

    def convert(self, *target, kept=()):
        assert target[-1] == f"/proc/self/fd/{kept[0]}"
        self.options = target[:-1]
        self.lvm.passing("convert")
        lv = kept[0]
        if "--target-is-zero" in target:
            assert set(self.lvm.shows(lv)) == {"zero"}
        self.lvm._put(lv, 0, ["image", "image", *(["zero"] * 2)])


def look(subject):
    """As the resources do."""
    return {name: found.with_taken(subject.taken(found)) if found.snapshots else found for name, found in subject.observe().items()}


def planned(lvm, wish, **options):
    subject = backend(lvm, **options)
    plan = plan_snapshot if isinstance(wish, SnapshotWish) else plan_volume
    return plan(wish, look(subject), subject)


def done(lvm, *wishes, **options):
    for wish in wishes:
        apply_steps(planned(lvm, wish, **options).acts)


def db(lvm, allocation, **changes):
    return holding(lvm, volume(allocation=allocation, **changes))


def write(lvm, name, word):
    lv = lvm.lvs[name]
    lvm._put(lv, 0, [word] * len(lvm.shows(lv)))


def shown(lvm, name):
    return set(lvm.shows(lvm.lvs[name]))


both = pytest.mark.parametrize("allocation", ["thin", "thick"])


@both
def test_each_holds_what_it_should(allocation):
    lvm = FakeLvm()
    db(lvm, allocation).tags.add("backup")
    done(lvm, MONDAY)
    write(lvm, NAME, "later")
    done(lvm, CLONE, dataclasses.replace(CLONE, name="large", size_bytes=2 * GIB, fresh_id=FRESH.replace("8888", "9999")), allocation=allocation)
    assert shown(lvm, KEPT) == shown(lvm, f"volume-{FRESH}") == {"data"} and shown(lvm, NAME) == {"later"}
    assert lvm.shows(lvm.lvs[f"volume-{FRESH.replace('8888', '9999')}"]) == ["data"] * 4 + ["zero"] * 4
    done(lvm, VolumeWish("db", size_bytes=2 * GIB), BACK, allocation=allocation)
    assert lvm.shows(lvm.lvs[NAME]) == ["data"] * 4 + ["zero"] * 4 and shown(lvm, KEPT) == {"data"}
    assert lvm.lvs[NAME].active and "backup" in lvm.lvs[NAME].tags, "somebody's tag is gone"
    done(lvm, VolumeWish("db", present=False, cascade=True))
    assert "data" not in {lvm.data[extent] for extent in lvm.free()}, "the next owner of the space could read it"
    assert sorted(lvm.lvs) == ["thin", f"volume-{FRESH}", f"volume-{FRESH.replace('8888', '9999')}"]


@pytest.mark.parametrize("source,target", [("thin", "thick"), ("thick", "thin")])
@pytest.mark.parametrize("wish", [CLONE, dataclasses.replace(CLONE, source=Source("db"))], ids=["snapshot", "volume"])
def test_from_one_allocation_to_the_other_is_a_copy(source, target, wish):
    lvm = FakeLvm()
    db(lvm, source)
    done(lvm, MONDAY)
    plan = planned(lvm, dataclasses.replace(wish, allocation=target, size_bytes=2 * GIB))
    assert "copy to new what it shares with its source" in [step.name for step in plan.acts]
    apply_steps(plan.acts)
    made = lvm.lvs[f"volume-{FRESH}"]
    assert lvm.shows(made) == ["data"] * 4 + ["zero"] * 4 and bool(made.pool) == (target == "thin")


STORIES = {
    "taken": ([], MONDAY),
    "dropped": ([MONDAY], dataclasses.replace(MONDAY, present=False)),
    "cloned": ([MONDAY], CLONE),
    "cloned and larger": ([MONDAY], dataclasses.replace(CLONE, size_bytes=2 * GIB)),
    "cloned from the volume": ([], dataclasses.replace(CLONE, source=Source("db"))),
    "reverted": ([MONDAY], BACK),
    "reverted and larger": ([MONDAY, VolumeWish("db", size_bytes=2 * GIB)], BACK),
    "gone with all": ([MONDAY, TUESDAY], VolumeWish("db", present=False, cascade=True)),
}


def killed(lvm, wish, at, **options):
    """Whether a run was: before the so manieth of its writes."""
    writes = itertools.count()

    def dying(command):
        if command in WRITERS and next(writes) == at:
            raise Killed

    lvm.passing = dying
    try:
        done(lvm, wish, **options)
    except Killed:
        return True
    finally:
        lvm.passing = lambda command: None
    return False


@both
@pytest.mark.parametrize("story", STORIES)
def test_killed_before_any_write_the_next_run_finishes(story, allocation):
    """Also those in the middle of a step."""
    before, wish = STORIES[story]

    def world():
        lvm = FakeLvm()
        db(lvm, allocation).tags.add("backup")
        done(lvm, *before, allocation=allocation)
        if "reverted" in story:
            write(lvm, NAME, "later")
        return lvm

    for at in itertools.count():
        lvm, whole = world(), world()
        was_killed = killed(lvm, wish, at, allocation=allocation)
        assert len([name for name in backend(lvm).observe() if name == "db"]) == (story != "gone with all" or was_killed)
        assert backend(lvm).warnings == ()
        done(lvm, wish, allocation=allocation)
        done(whole, wish, allocation=allocation)
        assert states(lvm) == states(whole)
        assert not planned(lvm, wish, allocation=allocation).acts if wish.present else True
        if not was_killed:
            break
    assert at > 1, "the kills missed"


def states(lvm):
    return {name: (lv.size, sorted(lv.tags), lv.pool, lvm.shows(lv), lv.active) for name, lv in lvm.lvs.items() if name != "thin"}


@pytest.mark.parametrize("at", range(2, 7))
def test_a_half_reverted_volume_can_be_deleted_as_well(at):
    lvm = FakeLvm()
    db(lvm, "thin")
    done(lvm, MONDAY)
    assert killed(lvm, BACK, at)
    assert [found.path for found in backend(lvm).observe().values()] == [f"/dev/volumes/{NAME}"]
    done(lvm, VolumeWish("db", present=False, cascade=True))
    assert set(lvm.lvs) == {"thin"}


def test_what_a_killed_run_left_aside_counts_only_beside_its_volume():
    lvm = FakeLvm()
    db(lvm, "thin")
    lvm.lvs[f"_old-{ID}"] = lvm.lvs.pop(NAME)
    subject = backend(lvm)
    assert "is not volume-<id> any more" in subject.observe()["db"].flaw, "it is all there is, and no run of ours leaves it so"


@both
def test_a_volume_that_somebody_has_open_is_not_reverted(allocation, monkeypatch):
    monkeypatch.setattr("ansible_collections.stackless.block.plugins.module_utils._volumes._block.who_has", lambda path: "the target")
    lvm = FakeLvm()
    db(lvm, allocation)
    done(lvm, MONDAY)
    plan = planned(lvm, BACK)
    lvm.lvs[NAME].open = True
    with pytest.raises(Refused, match="volume db can't be reverted: it is in use by the target on the storage host; end that first"):
        planned(lvm, BACK)
    with pytest.raises((Failed, Refused), match="in use"):  # also when he came after the look
        apply_steps(plan.acts)
    assert shown(lvm, NAME) == {"data"} and set(lvm.lvs) == {"thin", NAME, KEPT}


HELD = {"status": "in-use", "attachments": (Attachment(id="a1", instance="web-1", host="c", status="attached"),)}


def test_only_what_is_there_at_once_is_taken_from_a_volume_that_is_held():
    for allocation, target, refused in (("thin", "thin", False), ("thin", "thick", True), ("thick", "thin", True), ("thick", "thick", True)):
        lvm = FakeLvm()
        db(lvm, allocation, **HELD)
        wishes = [dataclasses.replace(CLONE, source=Source("db", force=True), allocation=target)]
        wishes += [dataclasses.replace(MONDAY, force=True)] if target == "thin" else []
        for wish in wishes:
            if refused and (isinstance(wish, VolumeWish) or allocation == "thick"):
                with pytest.raises(Refused, match="who may be writing: /dev/volumes copies it, which takes time; detach it first"):
                    planned(lvm, wish)
            else:
                done(lvm, wish)


def test_a_volume_that_is_being_copied_is_kept_for_that():
    lvm = FakeLvm()
    db(lvm, "thick")
    assert killed(lvm, MONDAY, 2)
    with pytest.raises(Conflict, match="can't be deleted while it is copied to snapshot monday"):
        planned(lvm, VolumeWish("db", present=False, cascade=True))
    lvm = FakeLvm()
    db(lvm, "thin")
    assert killed(lvm, MONDAY, 1)
    assert planned(lvm, VolumeWish("db", present=False, cascade=True)).acts


@both
def test_a_snapshot_is_no_volume_whatever_its_tags(allocation):
    lvm = FakeLvm()
    db(lvm, allocation)
    done(lvm, MONDAY)
    assert lvm.lvs[KEPT].tags == {SNAPSHOT} and list(backend(lvm).observe()) == ["db"] and lvm.lvs[KEPT].active == (allocation == "thick")


def test_what_others_call_like_ours_is_left_alone():
    lvm = FakeLvm()
    db(lvm, "thin")
    done(lvm, MONDAY)
    for name in (f"_old-{ID}", f"_new-{ID}", f"growth-{ID}"):
        lvm.lvs[name] = Lv([], GIB, {"theirs"}, pool="thin", layout="thin,sparse", words=["theirs"] * 4)
    lvm.lvs[KEPT].tags = {"theirs"}
    assert [one.taken for one in look(backend(lvm))["db"].snapshots] == [False]
    done(lvm, VolumeWish("db", present=False, cascade=True))
    assert sorted(lvm.lvs) == sorted(["thin", KEPT, f"_old-{ID}", f"_new-{ID}", f"growth-{ID}"])


def test_a_clone_is_activated_at_boot_like_other_volumes():
    lvm = FakeLvm()
    db(lvm, "thin")
    done(lvm, MONDAY, CLONE)
    made = [command for command in lvm.commands if command[:3] == ("lvcreate", "--yes", "--snapshot")]
    assert [command[3:5] for command in made] == [("--setactivationskip", "y"), ("--setactivationskip", "n")]


class TestImages:
    def wish(self, lvm, **more):
        return VolumeWish("new", size_bytes=2 * GIB, source=Source(image=ImageWish("/srv/disk", "raw"), file=Image(lvm)), fresh_id=FRESH, **more)

    @both
    @pytest.mark.parametrize("at", range(6))
    def test_beyond_an_image_there_are_zeros_also_after_a_kill(self, allocation, at):
        lvm = FakeLvm()
        killed(lvm, self.wish(lvm, allocation=allocation), at)
        if f"volume-{FRESH}" in lvm.lvs:
            write(lvm, f"volume-{FRESH}", "half")
        wish = self.wish(lvm, allocation=allocation)
        done(lvm, wish)
        words = lvm.shows(lvm.lvs[f"volume-{FRESH}"])
        assert words == (["image"] * 2 + ["zero"] * 6 if wish.source.file.options else ["half"] * 8)

    def test_a_thin_volume_stays_thin(self):
        for allocation in ("thin", "thick"):
            lvm = FakeLvm()
            wish = self.wish(lvm, allocation=allocation)
            done(lvm, wish)
            assert wish.source.file.options == (("-n", "--target-is-zero", "-O", "raw") if allocation == "thin" else ("-n", "-O", "raw"))
            assert (("zero",) in lvm.commands) == (allocation == "thick")


class TestRoom:
    def test_thin_snapshots_are_promised_nothing_and_a_full_pool_is_told_with_what_may_come(self):
        lvm = FakeLvm(pool_extents=4)
        db(lvm, "thin")
        for number in range(30):
            done(lvm, dataclasses.replace(MONDAY, name=f"s{number}", fresh_id=f"{MON[:-2]}{number:02}"))
        assert backend(lvm).capacity().provisioned_bytes == GIB
        lvm.pool["data_percent"] = "96.00"
        with pytest.raises(Refused) as refused:
            planned(lvm, MONDAY)
        assert "snapshot monday of volume db can't be taken: thin pool volumes/thin has 96.0 % of its data used, with a limit of 95 %" in str(refused.value)
        assert "; thin pool volumes/thin has 0.04 GiB free, and would need up to 1 GiB when all that is shared is written anew" in str(refused.value)
        assert planned(lvm, dataclasses.replace(MONDAY, name="s1", description="x")).acts and planned(lvm, VolumeWish("db", present=False, cascade=True)).acts

    def test_what_may_not_fit_later_is_a_warning(self):
        lvm = FakeLvm(pool_extents=4)
        db(lvm, "thin")
        lvm.pool["data_percent"] = "60.00"
        clone = dataclasses.replace(CLONE, source=Source("db"))
        for wish in (MONDAY, clone):
            (warning,) = planned(lvm, wish).warnings
            assert warning == "thin pool volumes/thin has 0.4 GiB free, and would need up to 1 GiB when all that is shared is written anew"
        assert planned(lvm, dataclasses.replace(clone, allocation="thick"), max_over_subscription_ratio=9.0).warnings == ()
        lvm.lvs[NAME].words = ["data", "zero", "zero", "zero"]
        assert planned(lvm, MONDAY).warnings == ()

    def test_thick_snapshots_take_their_whole_size(self):
        lvm = FakeLvm(extents=12, pool_extents=0)
        db(lvm, "thick")
        subject = backend(lvm, thin_pool=None)
        world = look(subject)
        told = []
        for number in range(3):  # as in a list, in check mode
            wish = dataclasses.replace(MONDAY, name=f"s{number}", fresh_id=f"{MON[:-2]}{number:02}")
            try:
                plan = plan_snapshot(wish, world, subject)
                world[plan.key] = plan.after
            except Refused as refusal:
                told.append(str(refusal))
        (refusal,) = told
        assert "snapshot s2 of volume db can't be taken: volume group volumes has 0 GiB free besides what this run has promised already, 1 GiB are" in refusal
        done(lvm, MONDAY, TUESDAY, thin_pool=None)
        with pytest.raises(Refused, match="has 0 GiB free, 1 GiB are needed"):
            planned(lvm, dataclasses.replace(MONDAY, name="wednesday"), thin_pool=None)
        subject = backend(lvm, thin_pool=None)
        world = look(subject)
        world["db"] = world["db"].without_snapshot("tuesday")
        assert plan_snapshot(dataclasses.replace(MONDAY, name="wednesday"), world, subject).acts, "what this run deletes is free again"

    @both
    def test_a_record_that_is_as_long_as_an_argument_may_be_takes_no_more(self, allocation):
        lvm = FakeLvm()
        tags = db(lvm, allocation).tags
        tags.update(f"{number:04}{'x' * 1000}" for number in range(115))
        assert planned(lvm, MONDAY).acts
        tags.update(f"{number:04}{'x' * 1000}" for number in range(115, 125))
        with pytest.raises(Refused, match="the record of volume db is as long as LVM's commands can take; delete snapshots of it"):
            planned(lvm, MONDAY)

    @both
    def test_records_that_would_not_fit_are_refused(self, allocation):
        lvm = FakeLvm()
        db(lvm, allocation)
        lvm.mda_free = str(31 << 10)
        for wish in (MONDAY, VolumeWish("new", size_bytes=GIB, fresh_id=FRESH, allocation=allocation)):
            with pytest.raises(Refused, match="volume group volumes has 31 KiB left for LVM's own metadata, where records are kept, and 32 must stay free"):
                planned(lvm, wish)
        assert planned(lvm, VolumeWish("db", size_bytes=2 * GIB)).acts and planned(lvm, VolumeWish("db", present=False)).acts


def test_the_record_of_a_hundred_snapshots_is_one_value():
    lvm = FakeLvm()
    many = tuple(Snapshot(f"{MON[:-3]}{number:03}", f"night-{number}", GIB, NOW, metadata=(("a=b", "c&d"),)) for number in range(100))
    have = volume(allocation="thin", snapshots=many, source_volid=FRESH, snapshot_id=TUE, reverted_to=many[0].id)
    holding(lvm, have)
    assert backend(lvm).observe() == {"db": have}
    subject = backend(lvm)
    subject.observe()
    subject.swap(have, have.without_snapshot("night-0"))
    assert backend(lvm).observe() == {"db": have.without_snapshot("night-0")}
    with pytest.raises(Conflict, match="changed by someone else"):
        backend(lvm).swap(have, None)
    assert all(len(tag) < 1024 for tag in tags_of(have))
