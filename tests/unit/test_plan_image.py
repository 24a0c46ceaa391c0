# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of volumes: the laws on every pair of state and wish, on a fake cluster and in real directories; the files are a dictionary."""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, StorageError
from ansible_collections.stackless.block.plugins.module_utils._model.image import Exported, ExportedFiles
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB
from ansible_collections.stackless.block.plugins.module_utils._plan_attachment import AttachmentWish, plan_attachment
from ansible_collections.stackless.block.plugins.module_utils._plan_image import ExportWish, _passing_name, plan_image
from ansible_collections.stackless.block.plugins.module_utils._plan_snapshot import SnapshotWish, plan_snapshot
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import Image, record_text, snapshot_name
from ansible_collections.stackless.block.plugins.module_utils._volumes.file import FileBackend
from ansible_collections.stackless.block.plugins.module_utils._volumes.rbd import RbdBackend

from . import laws
from .fake_rbd import FakeCluster
from .test_plan_snapshot import ATTACHED, ID, MON, MONDAY, NEW, NOW, observe, trace, volume
from .test_plan_snapshot import files as traces_of_files

PATH, OTHER = "/srv/images/db.qcow2", "/srv/images/other.qcow2"
PASSING = dataclasses.replace(MONDAY, id=NEW, name=_passing_name(PATH), status="uploading", uploading_to=PATH)
MADE = Exported(PATH, "db", ID, "qcow2", GIB, NOW)
HELD = {"status": "in-use", "attachments": (ATTACHED,)}

# name: the record, the ids of the snapshots whose data is there, and the file
STATES = {
    "nothing": (None, (), None),
    "plain": (volume(), (), None),
    "held": (volume(**HELD), (), None),
    "uploading": (volume(status="uploading", uploading_to=PATH), (), None),
    "uploading elsewhere": (volume(status="uploading", uploading_to=OTHER), (), None),
    "reverting": (volume(status="reverting"), (), None),
    "made": (volume(), (), MADE),
    "made, and left": (volume(status="uploading", uploading_to=PATH), (), MADE),
    "made, and its volume gone": (None, (), MADE),
    "made of another": (volume(), (), dataclasses.replace(MADE, volume_id=NEW)),
    "somebody's": (volume(), (), dataclasses.replace(MADE, flaw="there is no note of what it is beside it")),
    "taken": (volume(snapshots=(MONDAY,)), (MON,), None),
    "taken and held": (volume(snapshots=(MONDAY,), **HELD), (MON,), None),
    "snapshot uploading": (volume(snapshots=(dataclasses.replace(MONDAY, status="uploading", uploading_to=PATH),)), (MON,), None),
    "snapshot elsewhere": (volume(snapshots=(dataclasses.replace(MONDAY, status="uploading", uploading_to=OTHER),)), (MON,), None),
    "passing, begun": (volume(snapshots=(dataclasses.replace(PASSING, status="creating"),), **HELD), (), None),
    "passing": (volume(snapshots=(PASSING,), **HELD), (NEW,), None),
    "passing, not held any more": (volume(snapshots=(PASSING,)), (NEW,), None),
    "passing, gone": (volume(snapshots=(PASSING,), **HELD), (), None),
    "passing, made": (volume(snapshots=(PASSING,), **HELD), (NEW,), MADE),
}
WISHES = {
    "made": ExportWish(PATH, volume="db", format="qcow2", fresh_id=NEW, now=NOW),
    "by force": ExportWish(PATH, volume="db", format="qcow2", force=True, fresh_id=NEW, now=NOW),
    "of the snapshot": ExportWish(PATH, volume="db", snapshot="monday", format="qcow2", fresh_id=NEW, now=NOW),
    "compressed": ExportWish(PATH, volume="db", format="qcow2", compress=True, fresh_id=NEW, now=NOW),
    "absent": ExportWish(PATH, present=False),
}


class InMemory(ExportedFiles):
    """tests/contract/test_volume_images.py has real ones."""

    def __init__(self, *images):
        self.images = {image.path: image for image in images if image}
        self.parts = set()

    def write(self, image, source):
        assert source.name
        self.parts.add(image.path)
        return image.path

    def forget(self, part):
        self.parts.discard(part)

    def keep(self, image, part, checksum):
        self.parts.remove(part)
        self.images[image.path] = image

    def remove(self, path):
        self.images.pop(path, None)


def in_ceph(state):
    record, there, image = STATES[state]
    cluster = FakeCluster()
    if record is not None:
        cluster.found["k"] = Image(f"volume-{ID}", "k", record.size_bytes, record_text(record, "k"))
        cluster.snaps["k"] = {snapshot_name(id): number for number, id in enumerate(there)}
    backend = RbdBackend({"pool": "volumes"}, open_cluster=lambda place: cluster)
    backend.fake, backend.files = cluster, InMemory(image)
    return backend


@pytest.fixture
def in_files(tmp_path):
    def make(state):
        record, there, image = STATES[state]
        path = tmp_path / "volumes"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        backend = FileBackend(str(path))
        backend.files = InMemory(image)
        if record is not None:
            backend.swap(None, dataclasses.replace(record, allocation="sparse", path=backend.locate(record.id)))
            backend.allocate(record)
            for snapshot in record.snapshots:
                if snapshot.id in there:
                    backend.take(backend.observe()["db"], snapshot)
        return backend

    return make


def world_of(backend):
    return {**observe(backend), ("image", PATH): backend.files.images.get(PATH)}


def planned(wish):
    return lambda backend, world: plan_image(WISHES[wish], world, backend, backend.files)


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws_of_images(state, wish):
    laws.hold(laws.Subject(lambda: in_ceph(state), world_of, planned(wish), lambda backend: (*trace(backend), repr(backend.files.images))))


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws_of_images_in_files(in_files, state, wish):
    laws.hold(laws.Subject(lambda: in_files(state), world_of, planned(wish), lambda backend: (*traces_of_files(backend), repr(backend.files.images))))


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_the_volume_is_left_as_it_was(state, wish):
    """At the end, and when it fails and is taken back at any step."""
    backend = in_ceph(state)
    try:
        steps = len(plan_image(WISHES[wish], world_of(backend), backend, backend.files).acts)
    except StorageError:
        return
    for until in range(steps + 1):
        backend = in_ceph(state)
        plan = plan_image(WISHES[wish], world_of(backend), backend, backend.files)
        for step in plan.acts[:until]:
            step.act(*step.args)
        for step in plan.undo if until < steps else ():
            step.act(*step.args)
        for found in backend.observe().values():
            left = [found.uploading_to, *(one.uploading_to for one in found.snapshots)]
            assert PATH not in left or (not plan.undo and until < steps)
            assert left != [None] or found.status == (STATES[state][0].status if found.attachments or found.status == "reverting" else "available")


@pytest.mark.parametrize(
    "state,wish,words",
    [
        ("held", "made", "while volume db is held by web-1 on compute-1 .attached., who may be writing; detach it first, or .* with force=true"),
        ("nothing", "made", "there is no volume db at rbd:volumes"),
        ("uploading elsewhere", "made", f"while the volume is uploading to {OTHER}; run the play that was at it to its end first"),
        ("snapshot elsewhere", "of the snapshot", f"while it is uploading to {OTHER}; run the play"),
        ("reverting", "made", "while the volume is reverting; run the play"),
        ("made of another", "made", f"{PATH} is there, made of volume db .{NEW}. as qcow2; remove it with state=absent to make it anew"),
        ("made", "compressed", "is there, made of volume db"),
        ("somebody's", "absent", "is there and is no image that was made here: there is no note"),
        ("plain", "of the snapshot", "volume db has no snapshot monday"),
    ],
)
def test_what_is_refused(state, wish, words):
    backend = in_ceph(state)
    with pytest.raises(StorageError, match=words):
        plan_image(WISHES[wish], world_of(backend), backend, backend.files)


def test_a_snapshot_that_is_gone_is_taken_again():
    names = [step.name for step in plan_image(WISHES["made"], world_of(in_ceph("passing, gone")), in_ceph("passing, gone"), InMemory()).acts]
    assert names[:2] == [f"record snapshot {PASSING.name} of volume db as creating", f"take snapshot {PASSING.name} of volume db"]
    names = [step.name for step in plan_image(WISHES["made"], world_of(in_ceph("passing")), in_ceph("passing"), InMemory()).acts]
    assert names == [f"write volume db to image {PATH}", "leave volume db as it was"]


def test_what_takes_time_is_not_forced(in_files):
    backend = in_files("held")
    with pytest.raises(StorageError, match="copies it, which takes time; detach it first"):
        plan_image(WISHES["by force"], world_of(backend), backend, backend.files)


def test_nobody_gets_or_loses_what_is_being_read():
    backend = in_ceph("uploading")
    for plan, wish in (
        (plan_attachment, AttachmentWish("db", "web-1", "reserve", host="c", fresh_id="a")),
        (plan_volume, VolumeWish("db", present=False)),
        (plan_volume, VolumeWish("db", size_bytes=2 * GIB)),
        (plan_snapshot, SnapshotWish("db", "monday", fresh_id=MON, now=NOW)),
    ):
        with pytest.raises(StorageError, match="uploading"):
            plan(wish, observe(backend), backend)
    backend = in_ceph("snapshot uploading")
    with pytest.raises(Conflict, match=f"can't be deleted while it is written to {PATH}"):
        plan_snapshot(SnapshotWish("db", "monday", present=False), observe(backend), backend)
    with pytest.raises(StorageError, match=f"its snapshot monday is written to {PATH}"):
        plan_volume(VolumeWish("db", present=False, cascade=True), observe(backend), backend)


def test_what_comes_too_late_is_thrown_away():
    backend = in_ceph("plain")
    plan = plan_image(WISHES["made"], world_of(backend), backend, backend.files)
    mark, write, _leave = plan.acts
    mark.act(*mark.args)
    for step in plan.undo:  # as another run ends it
        step.act(*step.args)
    with pytest.raises(Conflict, match="was changed by someone else meanwhile"):
        write.act(*write.args)
    assert not backend.files.images and not backend.files.parts
