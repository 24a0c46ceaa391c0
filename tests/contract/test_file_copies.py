# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver file copies: sparse, while others go on, and not while somebody may be writing; killed in the middle, the next run finishes."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess

import pytest
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Volumes
from ansible_collections.stackless.block.plugins.module_utils._volumes import _sparse
from ansible_collections.stackless.block.plugins.module_utils._volumes import file as driver

from tests.contract.test_reserve_race import call as call_inside
from tests.rig.pools import MANY, DirectoryPool, call, foretold, good, refusal, settled, snapshot, volumes

FAR = 700 << 20
MONDAY = {"volume": "db", "name": "monday"}
CLONE = {"name": "new", "source": {"volume": "db"}}

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def pool(tmp_path):
    return DirectoryPool(tmp_path)


def reserve(pool, action="reserve"):
    return call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action=action)


def blocks(path):
    return os.stat(path).st_blocks


def test_copies_stay_sparse(pool, db):
    pool.write(db["path"], b"far", FAR)
    taken = good(snapshot(pool))
    made = good(call(pool, name="new", size_gib=2, source={"volume": "db", "snapshot": "monday"}))
    kept = str(pool.path / f"snapshot-{taken['id']}")
    assert os.stat(kept).st_mode & 0o777 == 0o600 and os.stat(kept).st_size == 1 << 30
    for path in (kept, made["path"]):
        assert blocks(path) <= blocks(db["path"]) + 64
        assert (pool.read(path, MANY), pool.read(path, 3, FAR), pool.read(path, 4096, FAR // 2)) == (b"a" * MANY, b"far", bytes(4096))
    assert good(call(pool, name="new", revert_to="gone", state="absent"))["changed"]


def test_a_file_system_that_can_not_copy_ranges(pool, db, monkeypatch):
    def cannot(*_arguments):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    pool.write(db["path"], b"far", FAR)
    _sparse.copy(db["path"], str(pool.path / "copy"))
    assert pool.read(pool.path / "copy", 1 << 30) == pool.read(db["path"], 1 << 30) and blocks(pool.path / "copy") <= blocks(db["path"]) + 64


def test_a_volume_that_somebody_may_be_writing_to_is_not_copied(pool, db):
    good(reserve(pool))
    why = f"while volume db is held by web-1 on c (reserved), who may be writing: {pool.path} copies it, which takes time; detach it first"
    for act, options in ((snapshot, {"force": True}), (snapshot, {}), (call, {"name": "new", "source": {"volume": "db", "force": True}})):
        assert why in refusal(foretold(pool, act, **options))


def stopping(resource, backend, options, begun, go_on):
    """A run that stops in the middle of its copy; killed there when it is not told to go on."""
    plain, count = _sparse._copied, []

    def slow(*arguments):
        count.append(1)
        if len(count) == 3:
            begun.set()
            if not go_on.wait(60):
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    _sparse._CHUNK, _sparse._copied = 1 << 20, slow
    answer = call_inside(resource, backend=backend, **{resource.plural: None}, **options)
    assert not answer["failed"], answer["msg"]


@contextlib.contextmanager
def stopped(pool, resource, **options):
    begun, go_on = spawn.Event(), spawn.Event()
    run = spawn.Process(target=stopping, args=(resource, pool.backend, options, begun, go_on))
    run.start()
    try:
        assert begun.wait(30)
        yield run, go_on
    finally:
        run.kill()
        run.join(10)


STORIES = {
    "taken": ([], Snapshots, MONDAY, "snapshot monday"),
    "cloned": ([], Volumes, CLONE, "volume new"),
    "from a snapshot": ([MONDAY], Volumes, {"name": "new", "source": {"volume": "db", "snapshot": "monday"}}, None),
    "reverted": ([MONDAY], Volumes, {"name": "db", "revert_to": "monday"}, None),
}


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("story", STORIES)
def test_while_it_copies(pool, db, story, killed):
    before, resource, options, copied_to = STORIES[story]
    for one in before:
        good(snapshot(pool, **one))
    module = "cinder_snapshot" if resource is Snapshots else "cinder_volume"
    with stopped(pool, resource, **options) as (run, go_on):
        good(call(pool, name="other", size_gib=1))  # the pool is not held up
        if copied_to:
            busy = f"while it is copied to {copied_to}; let the run that is at it end, or run it again if it was killed"
            assert f"volume db can't be reserved for web-1 {busy}" in refusal(foretold(pool, lambda pool, check=False: call(
                pool, check=check, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve")))  # fmt: skip
            assert f"volume db can't be deleted {busy}" in refusal(foretold(pool, call, name="db", state="absent"))
        if story == "from a snapshot":
            assert "can't be deleted while it is copied to volume new" in refusal(foretold(pool, snapshot, state="absent"))
        if story == "reverted":
            assert "volume db is reverting" in refusal(reserve(pool))
        if not killed:
            go_on.set()
            run.join(30)
            assert run.exitcode == 0
    settled(pool, call, module=module, **options)
    assert not [name for name in pool.volumes() if ".part-" in name]
    assert all(pool.read(volume["path"], MANY) == b"a" * MANY for name, volume in volumes(pool).items() if name != "other")
    good(reserve(pool))
    good(reserve(pool, "terminate"))
    good(reserve(pool, "release"))


@pytest.mark.parametrize("story", STORIES)
def test_a_run_that_was_overtaken_in_its_copy_changes_nothing(pool, db, story):
    """Its connection was lost, the play was run again, and the volume given to somebody before the first one got to its end."""
    before, resource, options, _copied_to = STORIES[story]
    for one in before:
        good(snapshot(pool, **one))
    module = "cinder_snapshot" if resource is Snapshots else "cinder_volume"
    with stopped(pool, resource, **options) as (run, go_on):
        good(call(pool, module=module, **options))
        good(reserve(pool))
        for volume in volumes(pool).values():
            pool.write(volume["path"], b"guest" * 100)
        go_on.set()
        run.join(30)
        assert run.exitcode == 1, "it says that somebody was faster"
    assert not [name for name in pool.volumes() if ".part-" in name]
    assert all(pool.read(volume["path"], 5) == b"guest" for volume in volumes(pool).values())
    if story == "taken":
        good(call(pool, name="old", source={"volume": "db", "snapshot": "monday"}))
        assert pool.read(volumes(pool)["old"]["path"], MANY) == b"a" * MANY


def doing(backend, hook, options, begun, go_on):
    """A run on a list that stops where `hook` says."""
    stop_at(hook, begun, go_on)
    answer = call_inside(Volumes, backend=backend, **options)
    raise SystemExit(7 if answer["failed"] else 0)


def stop_at(hook, begun, go_on):
    count = []
    module, name, which = HOOKS[hook]
    plain = getattr(module, name)

    def slow(*arguments):
        count.append(1)
        if len(count) == which:
            begun.set()
            go_on.wait(60)
        return plain(*arguments)

    _sparse._CHUNK = 1 << 20
    setattr(module, name, slow)


HOOKS = {"wiping": (driver, "_zero", 1), "copying": (_sparse, "_copied", 3)}


@contextlib.contextmanager
def stopped_list(pool, hook, **options):
    begun, go_on = spawn.Event(), spawn.Event()
    run = spawn.Process(target=doing, args=(pool.backend, hook, options, begun, go_on))
    run.start()
    try:
        assert begun.wait(30)
        yield run, go_on
    finally:
        run.kill()
        run.join(10)


@pytest.fixture
def other(pool):
    made = good(call(pool, name="other", size_gib=1))
    pool.write(made["path"], b"o" * MANY)
    return made


def test_a_list_looks_again_when_others_had_a_turn_and_does_not_delete_what_is_copied_by_now(pool, db, other):
    with stopped_list(pool, "wiping", volumes=[{"name": "other"}, {"name": "db"}], state="absent") as (deletion, go_on):
        with stopped(pool, Volumes, **CLONE) as (copy, finish):
            go_on.set()
            deletion.join(30)
            finish.set()
            copy.join(30)
    assert (deletion.exitcode, copy.exitcode) == (7, 0) and sorted(volumes(pool)) == ["db", "new"]
    assert pool.read(volumes(pool)["new"]["path"], MANY) == b"a" * MANY


def test_a_list_does_not_copy_what_was_given_to_somebody_meanwhile(pool, db, other):
    wishes = [{"name": "n1", "source": {"volume": "other"}}, {"name": "n2", "source": {"volume": "db"}}]
    with stopped_list(pool, "copying", volumes=wishes) as (run, go_on):
        good(reserve(pool))
        go_on.set()
        run.join(30)
    assert run.exitcode == 7 and sorted(volumes(pool)) == ["db", "n1", "other"]


def test_what_is_done_is_not_doubted_because_somebody_has_it_by_now(pool, db, other):
    wishes = [{"name": "n1", "size_gib": 1}, {"name": "n2", "source": {"volume": "db"}}]
    with stopped_list(pool, "copying", volumes=wishes) as (run, go_on):
        good(call(pool, module="cinder_attachment", volume="n1", instance="web-1", host="c", action="reserve"))
        go_on.set()
        run.join(30)
    assert run.exitcode == 0


def test_what_is_copied_is_neither_deleted_with_all_its_snapshots_nor_extended(pool, db):
    good(snapshot(pool))
    with stopped(pool, Volumes, name="new", source={"volume": "db", "snapshot": "monday"}):
        assert "while it is copied to volume new" in refusal(foretold(pool, call, name="db", state="absent", cascade=True))
    good(call(pool, name="new", state="absent"))
    with stopped(pool, Volumes, **CLONE):
        assert "can't be extended while it is copied to volume new" in refusal(foretold(pool, call, name="db", size_gib=2))


def test_a_full_volume_stays_full(pool):
    made = good(call(pool, name="db", size_gib=1, allocation="full"))
    before = blocks(made["path"])
    good(snapshot(pool))
    settled(pool, call, name="db", revert_to="monday")
    assert blocks(made["path"]) >= before


@pytest.mark.parametrize("resource,options", [(Snapshots, MONDAY), (Volumes, CLONE)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_is_taken_back(pool, db, monkeypatch, resource, options, number):
    def broken(*_arguments):
        raise OSError(number, os.strerror(number))

    before = sorted(pool.volumes())
    monkeypatch.setattr(os, "lseek" if number == errno.EIO else "copy_file_range", broken)
    answer = call_inside(resource, backend=pool.backend, **{resource.plural: None}, **options)
    monkeypatch.undo()
    assert os.strerror(number) in answer["msg"] and answer["steps"][-1].endswith("again") and sorted(pool.volumes()) == before
    good(reserve(pool))


@pytest.fixture
def sharing(tmp_path):
    """A pool on a file system whose files can share blocks."""
    disk = tmp_path / "disk"
    with disk.open("wb") as handle:
        handle.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    place = tmp_path / "xfs"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    try:
        yield DirectoryPool(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_blocks_that_files_share_are_not_overwritten(sharing):
    pool = sharing
    made = good(call(pool, name="db", size_gib=1))
    for piece in range(20):
        pool.write(made["path"], b"a" * (10 << 20), piece * (10 << 20))
    os.sync()
    taken = good(snapshot(pool))
    pool.write(str(pool.path / f"snapshot-{taken['id']}"), b"s" * 8192, 4096)
    free = os.statvfs(pool.path).f_bavail
    handle = os.open(pool.path / f"snapshot-{taken['id']}", os.O_RDONLY)
    try:
        assert list(_sparse.unshared(handle)) == [(4096, 12288)]
    finally:
        os.close(handle)
    good(snapshot(pool, state="absent"))
    assert os.statvfs(pool.path).f_bavail >= free and pool.read(made["path"], 1 << 20, 100 << 20) == b"a" * (1 << 20)
    good(call(pool, name="db", state="absent"))
    assert pool.volumes() == []


def test_a_part_that_a_killed_run_left_goes_with_its_volume(pool, db):
    with stopped(pool, Volumes, **CLONE) as (run, _go_on):
        run.kill()
    assert [name for name in pool.volumes() if ".part-" in name]
    settled(pool, call, name="new", state="absent")
    settled(pool, call, name="db", state="absent")
    assert pool.volumes() == []
