# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots, clones and reverted volumes: the laws on every pair of state and wish, on a fake cluster, a fake volume group and in real directories."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Conflict, StorageError
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._model.image import ImageWish
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Snapshot, Volume, record_of, volume_from
from ansible_collections.stackless.block.plugins.module_utils._plan_attachment import AttachmentWish, plan_attachment
from ansible_collections.stackless.block.plugins.module_utils._plan_kept_image import Keeping, plan_with_kept
from ansible_collections.stackless.block.plugins.module_utils._plan_snapshot import SnapshotWish, plan_snapshot
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import Source, VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import Image, record_text, snapshot_name, volume_of
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_tags import SNAPSHOT, tags_of
from ansible_collections.stackless.block.plugins.module_utils._volumes.file import FileBackend
from ansible_collections.stackless.block.plugins.module_utils._volumes.lvm import LvmBackend
from ansible_collections.stackless.block.plugins.module_utils._volumes.rbd import RbdBackend

from . import laws
from .fake_lvm import FakeLvm
from .fake_rbd import FakeCluster

ID = "0b5e7a1c-2222-4222-8333-444455556666"
NEW = "0b5e7a1c-2222-4222-8333-444455557777"
MON = "5a4b0000-4444-4444-8555-666677778888"
ATTACHED = Attachment(id="a1", instance="web-1", host="compute-1", status="attached")
NOW = "2026-01-31T23:00:00Z"
MONDAY = Snapshot(id=MON, name="monday", size_bytes=GIB, created_at=NOW)
TAKING, DROPPING = dataclasses.replace(MONDAY, status="creating"), dataclasses.replace(MONDAY, status="deleting")


def volume(name="db", id=ID, **changes) -> Volume:
    return Volume(**{"name": name, "id": id, "size_bytes": GIB, "allocation": "thin", "path": f"rbd:volumes/volume-{id}", **changes})


class OfZeros:
    """Stands in for an image that was inspected; tests/contract/test_images.py has real ones."""

    virtual_bytes = GIB
    here = True
    version = "1"

    def convert(self, *target, kept=(), **_environment):
        if target[-1].startswith("/") and not kept:
            with open(target[-1], "wb") as handle:
                handle.truncate(GIB)


IMAGE = Source(image=ImageWish("/srv/images/disk", "raw"), file=OfZeros())
CLONE = volume("new", NEW, source_volid=ID, snapshot_id=MON)
FROM_IMAGE = volume("new", NEW, source_image="/srv/images/disk")
HALF_CLONE = dataclasses.replace(CLONE, status="creating")

# name: the record, whether the snapshot's data is there, and the volume that was made from it
STATES = {
    "nothing": (None, False, None),
    "plain": (volume(), False, None),
    "held": (volume(status="in-use", attachments=(ATTACHED,)), False, None),
    "taking": (volume(snapshots=(TAKING,)), False, None),
    "nearly taken": (volume(snapshots=(TAKING,)), True, None),
    "taken": (volume(snapshots=(MONDAY,)), True, None),
    "taken, data gone": (volume(snapshots=(MONDAY,)), False, None),
    "taken and held": (volume(status="in-use", attachments=(ATTACHED,), snapshots=(MONDAY,)), True, None),
    "dropping": (volume(snapshots=(DROPPING,)), True, None),
    "nearly dropped": (volume(snapshots=(DROPPING,)), False, None),
    "reverting": (volume(status="reverting", snapshots=(MONDAY,)), True, None),
    "reverted": (volume(snapshots=(MONDAY,), reverted_to=MON), True, None),
    "grown": (volume(size_bytes=2 * GIB, snapshots=(MONDAY,)), True, None),
    "deleting": (volume(status="deleting", snapshots=(MONDAY,)), True, None),
    "half cloned": (volume(snapshots=(MONDAY,)), True, HALF_CLONE),
    "cloned": (volume(snapshots=(MONDAY,)), True, CLONE),
    "dropping, cloned": (volume(snapshots=(DROPPING,)), True, CLONE),
    "half made from an image": (volume(), False, dataclasses.replace(FROM_IMAGE, status="downloading")),
    "made from an image": (volume(), False, FROM_IMAGE),
    "damaged": (volume(snapshots=(MONDAY,), status=7), True, None),
}
SNAPSHOT_WISHES = {
    "taken": SnapshotWish("db", "monday", fresh_id=MON, now=NOW),
    "described": SnapshotWish("db", "monday", description="before", metadata=(("a", "b"),), fresh_id=MON, now=NOW),
    "taken by force": SnapshotWish("db", "monday", force=True, fresh_id=MON, now=NOW),
    "absent": SnapshotWish("db", "monday", present=False),
    "absent, flat": SnapshotWish("db", "monday", present=False, clones="flatten"),
    "absent, trash": SnapshotWish("db", "monday", present=False, clones="trash"),
}
VOLUME_WISHES = {
    "from the snapshot": VolumeWish("new", source=Source("db", "monday"), fresh_id=NEW),
    "larger": VolumeWish("new", size_bytes=2 * GIB, source=Source("db", "monday"), fresh_id=NEW),
    "from the volume": VolumeWish("new", source=Source("db"), fresh_id=NEW),
    "by force": VolumeWish("new", source=Source("db", force=True), fresh_id=NEW),
    "from an image": VolumeWish("new", source=IMAGE, fresh_id=NEW),
    "larger than its image": VolumeWish("new", size_bytes=2 * GIB, source=IMAGE, fresh_id=NEW),
    "reverted": VolumeWish("db", revert_to="monday", description="old again"),
    "larger source": VolumeWish("db", size_bytes=2 * GIB, fresh_id=ID),
    "absent": VolumeWish("db", present=False),
    "with all": VolumeWish("db", present=False, cascade=True),
    "with all, flat": VolumeWish("db", present=False, cascade=True, clones="flatten"),
    "with all, trash": VolumeWish("db", present=False, cascade=True, clones="trash"),
    "clone absent": VolumeWish("new", present=False),
}


def made(state: str, depth: int = 5) -> RbdBackend:
    record, there, clone = STATES[state]
    cluster = FakeCluster()
    if record is not None:
        cluster.found["k"] = Image(f"volume-{ID}", "k", record.size_bytes, record_text(record, "k"))
        cluster.snaps["k"] = {snapshot_name(MON): 1} if there else {}
    if clone is not None:
        cluster.found["c"] = Image(f"volume-{NEW}", "c", clone.size_bytes, record_text(clone, "c"))
        if clone.source_volid:
            cluster.parents["c"] = ("k", 1)
            cluster.hidden["k"] = set()
    backend = RbdBackend({"pool": "volumes", "max_clone_depth": depth}, open_cluster=lambda place: cluster)
    backend.fake = cluster
    return backend


def observe(backend):
    """As the resources look: whether the snapshots are there as well."""
    return {name: found.with_taken(backend.taken(found) or set()) if found.snapshots else found for name, found in backend.observe().items()}


def trace(backend):
    fake = backend.fake
    return fake.writes, repr([sorted(fake.found.items()), fake.noted, fake.snaps, fake.hidden, fake.parents, sorted(fake.trash.items())])


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, SNAPSHOT_WISHES)))
def test_laws_of_snapshots(state, wish):
    laws.hold(laws.Subject(lambda: made(state), observe, lambda backend, world: plan_snapshot(SNAPSHOT_WISHES[wish], world, backend), trace))


@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, VOLUME_WISHES)))
def test_laws_of_volumes(state, wish, depth):
    laws.hold(laws.Subject(lambda: made(state, depth), observe, lambda backend, world: plan_volume(VOLUME_WISHES[wish], world, backend), trace))


def test_the_cases_hold_enough_crashes_and_refusals():
    crashes = refusals = 0
    for wishes, plan in ((SNAPSHOT_WISHES, plan_snapshot), (VOLUME_WISHES, plan_volume)):
        for state, wish in itertools.product(STATES, wishes):
            backend = made(state)
            try:
                crashes += max(0, len(plan(wishes[wish], observe(backend), backend).acts) - 1)
            except StorageError:
                refusals += 1
    assert crashes > 150 and refusals > 80


@pytest.fixture
def in_files(tmp_path):
    """Makes a directory in a state, always the same one."""

    def make(state):
        record, there, clone = STATES[state]
        path = tmp_path / "volumes"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        backend = FileBackend(str(path))
        for one in filter(None, (record, clone)):
            backend.swap(None, dataclasses.replace(one, allocation="sparse", path=backend.locate(one.id)))
            backend.allocate(one)
        if there:
            backend.take(backend.observe()["db"], MONDAY)
        return backend

    return make


def files(backend):
    found = sorted(Path(backend.path).iterdir())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns, path.read_text() if path.suffix == ".json" else "") for path in found)


@pytest.mark.parametrize("state", [state for state in STATES if state != "damaged"])
@pytest.mark.parametrize("wish", [*SNAPSHOT_WISHES, *(f"volume {name}" for name in VOLUME_WISHES)])
def test_laws_of_copies(in_files, state, wish):
    laws.hold(laws.Subject(lambda: in_files(state), observe, planner(wish), files))


def planner(wish):
    """Plans a wish by its name, of a volume where it begins with that word."""

    def plan(backend, world):
        if wish in SNAPSHOT_WISHES:
            return plan_snapshot(SNAPSHOT_WISHES[wish], world, backend)
        return plan_volume(VOLUME_WISHES[wish[7:]], world, backend)

    return plan


def in_group(state, allocation="thin"):
    """A volume group in a state."""
    record, there, clone = STATES[state]
    lvm = FakeLvm()
    backend = LvmBackend({"pool": "volumes", "thin_pool": "thin", "allocation": allocation}, lvm=lvm, disk=lvm)
    backend.fake = lvm
    backend.observe()
    for one in filter(None, (record, clone)):
        backend._create(f"volume-{one.id}", one.size_bytes, tags_of(one), "thin" if allocation == "thin" else None)
    if there:
        backend._create(f"_snapshot-{MON}", GIB, [SNAPSHOT], "thin" if allocation == "thin" else None)
    return backend


KEPT = volume("image-" + hashlib.sha256(b"raw\n1").hexdigest()[:24], ID, source_image="/srv/images/disk", kept_at=NOW)
OLD = volume("image-old", MON, source_image="/srv/images/old", kept_at="2026-01-01T00:00:00Z")
KEPT_STATES = {
    "nothing": (),
    "kept": (KEPT,),
    "kept long ago": (dataclasses.replace(KEPT, kept_at="2026-01-31T22:59:59Z"),),
    "half kept": (dataclasses.replace(KEPT, status="downloading"),),
    "half gone": (dataclasses.replace(KEPT, status="deleting"),),
    "another's": (dataclasses.replace(KEPT, kept_at=None, source_image=None),),
    "another is kept": (OLD,),
    "another is held": (dataclasses.replace(OLD, status="in-use", attachments=(ATTACHED,)),),
    "another is half gone": (dataclasses.replace(OLD, status="deleting"),),
    "half cloned": (KEPT, volume("new", NEW, status="creating", source_volid=ID, source_image="/srv/images/disk")),
    "half filled": (volume("new", NEW, status="downloading", source_image="/srv/images/disk"),),
    "cloned": (KEPT, volume("new", NEW, source_volid=ID, source_image="/srv/images/disk")),
}


def keeping(backend, states, wish="from an image", most=1):
    keep = Keeping(most, None, NOW, ID)
    return plan_with_kept(VOLUME_WISHES[wish], keep, states, backend)


@pytest.fixture
def with_kept(tmp_path):
    """Makes a directory with these volumes, always the same one."""

    def make(state):
        path = tmp_path / "volumes"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        backend = FileBackend(str(path))
        for one in KEPT_STATES[state]:
            backend.swap(None, dataclasses.replace(one, allocation="sparse", path=backend.locate(one.id)))
            if one.status not in ("creating", "downloading"):
                backend.allocate(one)
        return backend

    return make


@pytest.mark.parametrize("wish", ["from an image", "larger than its image"])
@pytest.mark.parametrize("state", KEPT_STATES)
def test_laws_of_kept_images(with_kept, state, wish):
    laws.hold(laws.Subject(lambda: with_kept(state), observe, lambda backend, world: keeping(backend, world, wish)[0], files))


def test_what_is_kept_and_what_goes_for_it(with_kept):
    def names(state, **more):
        backend = with_kept(state)
        return [step.name for step in keeping(backend, observe(backend), **more)[0].acts]

    first = [
        f"record volume {KEPT.name} as downloading, from image /srv/images/disk",
        f"write image /srv/images/disk to volume {KEPT.name}",
        f"allocate 1 GiB for volume {KEPT.name}",
        f"mark volume {KEPT.name} available",
    ]
    clone = [
        f"record volume new as creating, from image /srv/images/disk, kept as volume {KEPT.name}",
        "copy to new what it shares with its source",
        "allocate 1 GiB for volume new",
        "mark volume new available",
    ]
    gone = [f"{act} volume image-old" for act in ("wipe the data of", "remove the data of", "remove the record of")]
    gone.insert(0, "mark volume image-old deleting")
    assert names("nothing") == first + clone and names("kept") == clone and names("half kept") == first[1:] + clone
    assert names("kept long ago") == [f"note that volume {KEPT.name} was used", *clone]
    assert names("another is kept") == gone + first + clone and names("another is kept", most=2) == first + clone
    assert names("another is held") == first + clone, "what can't go stays"
    assert names("another is half gone") == gone[1:] + first + clone
    for state in ("another's", "half gone"):
        assert names(state)[0] == "record volume new as downloading, from image /srv/images/disk", "it is made from the image itself"
    assert names("nothing", most=0)[0] == "record volume new as downloading, from image /srv/images/disk"


def test_nobody_gets_what_is_kept(with_kept):
    backend = with_kept("kept")
    with pytest.raises(StorageError, match="is kept of image /srv/images/disk, for volumes that are made from that; choose another name"):
        plan_volume(VolumeWish(KEPT.name, size_bytes=2 * GIB), observe(backend), backend)
    with pytest.raises(StorageError, match="is kept of image /srv/images/disk and given to nobody"):
        plan_attachment(AttachmentWish(KEPT.name, "web-1", "reserve", host="c", fresh_id="a"), observe(backend), backend)
    assert plan_volume(VolumeWish(KEPT.name, present=False), observe(backend), backend).after is None


@pytest.mark.parametrize("allocation", ["thin", "thick"])
@pytest.mark.parametrize("state,wish", list(itertools.product([*STATES][:-1], [*SNAPSHOT_WISHES, *(f"volume {name}" for name in VOLUME_WISHES)])))
def test_laws_of_logical_volumes(state, wish, allocation):
    laws.hold(laws.Subject(lambda: in_group(state, allocation), observe, planner(wish), lambda backend: (backend.fake.seqno, repr(backend.fake.lvs))))


@pytest.mark.parametrize("driver", ["rbd", "file", "lvm"])
def test_a_volume_whose_image_can_not_be_written_is_removed_again_unless_somebody_made_more_of_it(in_files, driver):
    make = {"rbd": made, "file": in_files, "lvm": in_group}[driver]
    for step, left in ((0, []), (1, []), (2, []), (None, ["new"])):
        backend = make("nothing")
        plan = plan_volume(VOLUME_WISHES["from an image"], {}, backend)
        for one in plan.steps[:step]:
            one.act(*one.args)
        for one in plan.undo:
            one.act(*one.args)
        assert list(observe(backend)) == left
    assert plan_volume(VolumeWish("new", size_bytes=GIB, fresh_id=NEW), {}, make("nothing")).undo == (), "the next run finishes that"


def steps(state, wish, plan=plan_volume, **options):
    backend = made(state, **options)
    return [step.name for step in plan(wish, observe(backend), backend).acts]


def test_a_reserved_volume_is_not_what_it_was_reverted_to_any_more():
    backend = made("reverted")
    assert steps("reverted", VolumeWish("db", revert_to="monday")) == []
    reserve = AttachmentWish("db", "web-1", "reserve", host="c", fresh_id="a")
    assert plan_attachment(reserve, observe(backend), backend).after.reverted_to is None


@pytest.mark.parametrize("state", ["reverting", "deleting"])
def test_nobody_gets_a_volume_that_is_half_reverted(state):
    backend = made(state)
    with pytest.raises(StorageError, match=f"volume db is {state}; run the play that was at it to its end first"):
        plan_attachment(AttachmentWish("db", "web-1", "reserve", host="c", fresh_id="a"), observe(backend), backend)


def test_a_clone_that_would_be_one_too_many_gets_its_own_copy():
    wish = VolumeWish("new", source=Source("db", "monday"), fresh_id=NEW)
    assert "copy to new what it shares with its source" in steps("taken", wish, depth=0)
    assert "copy to new what it shares with its source" not in steps("taken", wish, depth=1)
    assert "copy to new what it shares with its source" in steps("half cloned", wish, depth=0)


@pytest.mark.parametrize("wish", ["with all", "with all, trash"])
def test_a_deletion_that_comes_too_late_does_nothing(wish):
    backend = made("cloned" if "trash" in wish else "taken")
    plan = plan_volume(VOLUME_WISHES[wish], observe(backend), backend)
    for step in plan.acts[:-1]:
        step.act(*step.args)
    found = backend.fake.found["k"]
    backend.fake.found["k"] = dataclasses.replace(found, record=found.record.replace("deleting", "error"))
    with pytest.raises(Conflict, match="was changed by someone else meanwhile"):
        plan.acts[-1].act(*plan.acts[-1].args)
    assert "k" in backend.fake.found


@pytest.mark.parametrize("state,wish", [("taken", "reverted"), ("nothing", "from an image")])
def test_nothing_is_written_to_an_image_that_somebody_has_open(state, wish):
    backend = made(state)
    plan = plan_volume(VOLUME_WISHES[wish], observe(backend), backend)
    first, second = plan.acts[:2]
    first.act(*first.args)
    name = next(image.name for image in backend.fake.found.values())
    backend.fake.opened[name] = ["192.0.2.7 (client.1)"]
    with pytest.raises(Busy, match="its image is open at 192.0.2.7"):
        second.act(*second.args)


def test_a_snapshot_is_there_when_its_data_is():
    backend = made("taken")
    plan = plan_snapshot(SNAPSHOT_WISHES["taken"], observe(backend), backend)
    settled = Snapshots.settled
    assert settled(None, plan, {"db": volume(snapshots=(MONDAY,))}) and settled(None, plan, observe(backend))
    assert not settled(None, plan, {"db": volume(snapshots=(dataclasses.replace(MONDAY, taken=False),))})
    assert not settled(None, plan, {"db": volume(snapshots=(TAKING,))}) and not settled(None, plan, {"db": volume()})
    gone = plan_snapshot(SNAPSHOT_WISHES["absent"], observe(backend), backend)
    assert settled(None, gone, {"db": volume()}) and not settled(None, gone, observe(backend))


def test_a_record_holds_all_of_a_snapshot():
    whole = volume(snapshots=(dataclasses.replace(MONDAY, description="größe", metadata=(("a", "b"),), taken=True),), source_volid=NEW, reverted_to=MON)
    assert volume_from(record_of(whole)) == whole
    text = record_text(whole, "k")
    assert volume_of(Image(f"volume-{ID}", "k", GIB, text), "rbd:volumes") == whole and text.isascii() and "taken" not in text
