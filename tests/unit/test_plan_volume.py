# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes: the laws on every pair of state and wish, and the decisions one by one."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Invalid, NotFound, Refused, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Volume, check_name, check_size, status_of
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, known_volume, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes.file import FileBackend
from .volume_case import crashes_and_refusals, laws_hold


ID = "0b5e7a1c-2222-4222-8333-444455556666"
ATTACHED = Attachment(id="a1", instance="web-1", host="compute-1", status="attached")
RESERVED = dataclasses.replace(ATTACHED, status="reserved")


def volume(**changes) -> Volume:
    return Volume(**{"name": "db", "id": ID, "size_bytes": GIB, **changes})


# name: (record, bytes of data or None)
STATES = {
    "nothing": (None, None),
    "creating, no data": (volume(status="creating"), None),
    "creating, with data": (volume(status="creating"), GIB),
    "available": (volume(), GIB),
    "available 2": (volume(size_bytes=2 * GIB), 2 * GIB),
    "available, data short": (volume(size_bytes=2 * GIB), GIB),
    "available, data gone": (volume(), None),
    "extending, not grown": (volume(size_bytes=2 * GIB, status="extending"), GIB),
    "extending, grown": (volume(size_bytes=2 * GIB, status="extending"), 2 * GIB),
    "extending in use": (volume(size_bytes=2 * GIB, status="extending", attachments=(ATTACHED,)), GIB),
    "in use": (volume(status="in-use", attachments=(ATTACHED,)), GIB),
    "reserved": (volume(status="reserved", attachments=(RESERVED,)), GIB),
    "deleting, with data": (volume(status="deleting"), GIB),
    "deleting, data gone": (volume(status="deleting"), None),
    "error": (volume(status="error"), GIB),
}
WISHES = {
    "present": VolumeWish("db", fresh_id=ID),
    "1 GiB": VolumeWish("db", size_bytes=GIB, fresh_id=ID),
    "2 GiB": VolumeWish("db", size_bytes=2 * GIB, fresh_id=ID),
    "3 GiB, full": VolumeWish("db", size_bytes=3 * GIB, allocation="sparse", fresh_id=ID),
    "metadata": VolumeWish("db", size_bytes=2 * GIB, metadata=(("owner", "shop"),), fresh_id=ID),
    "multiattach": VolumeWish("db", multiattach=True, description="x", fresh_id=ID),
    "absent": VolumeWish("db", present=False),
    "absent, not wiped": VolumeWish("db", present=False, wipe=False),
}


def made(state: str) -> FileBackend:
    shutil.rmtree(made.root, ignore_errors=True)
    made.root.mkdir()
    backend = FileBackend(str(made.root))
    record, size = STATES[state]
    if record is not None:
        backend.swap(None, dataclasses.replace(record, path=backend.locate(ID)))
    if size is not None:
        backend.allocate(volume(size_bytes=size))
    return backend


def trace(backend: FileBackend) -> tuple:
    files = sorted(Path(backend.path).iterdir())
    return tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns, f.read_bytes() if f.suffix == ".json" else b"") for f in files)


@pytest.fixture(autouse=True)
def root(tmp_path):
    made.root = tmp_path / "pool"


def plan(state: str, wish: VolumeWish):
    backend = made(state)
    return plan_volume(wish, backend.observe(), backend)


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws(state, wish):
    laws_hold(made, state, WISHES[wish], trace)


def test_the_cases_hold_enough_crashes_and_refusals():
    crashes, refusals = crashes_and_refusals(made, STATES, WISHES.values())
    assert crashes > 40 and refusals > 25


@pytest.mark.parametrize(
    "state,wish,error,words",
    [
        ("nothing", "present", Invalid, "needs a size_gib"),
        ("available 2", "1 GiB", Refused, "can't shrink to 1 GiB"),
        ("available, data gone", "1 GiB", Refused, "is gone from"),
        ("in use", "absent", Refused, "web-1 on compute-1 (attached)"),
        ("reserved", "absent", Refused, "web-1 on compute-1 (reserved)"),
        ("reserved", "2 GiB", Conflict, "can't be extended now"),
        ("in use", "multiattach", Refused, "multiattach"),
        ("deleting, with data", "1 GiB", Conflict, "half deleted"),
        ("error", "2 GiB", Conflict, "is error"),
    ],
)
def test_refusals(state, wish, error, words):
    with pytest.raises(error) as refused:
        plan(state, WISHES[wish])
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "state,wish,steps",
    [
        ("nothing", "1 GiB", ["record volume db as creating", "allocate 1 GiB for volume db", "mark volume db available"]),
        ("creating, no data", "1 GiB", ["allocate 1 GiB for volume db", "mark volume db available"]),
        ("available", "1 GiB", []),
        ("available", "2 GiB", ["mark volume db extending", "grow volume db to 2 GiB", "mark volume db available"]),
        ("in use", "2 GiB", ["mark volume db extending", "grow volume db to 2 GiB", "mark volume db in-use"]),
        ("extending, not grown", "present", ["grow volume db to 2 GiB", "mark volume db available"]),
        ("available, data short", "2 GiB", ["grow the data of volume db to the recorded 2 GiB"]),
        ("available 2", "metadata", ["update metadata of volume db"]),
        ("nothing", "absent", []),
        (
            "available",
            "absent",
            ["mark volume db deleting", "wipe the data of volume db", "remove the data of volume db", "remove the record of volume db"],
        ),
        ("deleting, with data", "absent, not wiped", ["remove the data of volume db", "remove the record of volume db"]),
    ],
)
def test_steps(state, wish, steps):
    assert [step.name for step in plan(state, WISHES[wish]).acts] == steps


@pytest.mark.parametrize("name", ["a", "db-data", "A.b_c-1", "x" * 127, "0"])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", [None, "", " ", "a b", "a'b", 'a"b', "a/b", "../x", "-x", ".x", "größe", "x" * 128, "x" * 300, "a\n", "a\0", "${x}"])
def test_bad_names(name):
    with pytest.raises(Invalid, match="can't be a volume's name; use 1 to 127") as refused:
        check_name(name)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("size", [0, -1, 1 << 40])
def test_bad_sizes(size):
    with pytest.raises(Invalid, match="whole number of GiB"):
        check_size("db", size)


def test_a_name_is_never_a_prefix():
    world = {"volume-10": volume(name="volume-10")}
    with pytest.raises(NotFound, match="there is no volume volume-1 at .*volume-10"):
        known_volume("volume-1", world, "/pool")


@pytest.mark.parametrize(
    "statuses,status",
    [((), "available"), (("reserved",), "reserved"), (("reserved", "attached"), "in-use"), (("detaching", "attached"), "in-use"),
     (("attaching", "detaching"), "attaching"), (("detached",), "detaching")],
)  # fmt: skip
def test_status_follows_from_attachments(statuses, status):
    assert status_of([dataclasses.replace(ATTACHED, id=str(n), status=s) for n, s in enumerate(statuses)]) == status


class TestFileBackend:
    def test_a_record_swapped_by_someone_else_is_a_conflict(self, tmp_path):
        backend = FileBackend(str(tmp_path))
        first = volume(path=backend.locate(ID))
        backend.swap(None, first)
        with pytest.raises(Conflict, match="changed by someone else"):
            backend.swap(None, first)
        with pytest.raises(Conflict):
            backend.swap(dataclasses.replace(first, status="error"), first)
        assert list(backend.observe().values()) == [first]

    def test_files_are_private(self, tmp_path):
        backend = FileBackend(str(tmp_path))
        backend.swap(None, volume(path=backend.locate(ID)))
        backend.allocate(volume())
        assert {os.stat(f).st_mode & 0o777 for f in tmp_path.iterdir()} == {0o600}

    def test_full_allocation_takes_its_blocks(self, tmp_path):
        backend = FileBackend(str(tmp_path), "full")
        backend.allocate(volume(size_bytes=8 << 20, allocation="full"))
        assert os.stat(backend.locate(ID)).st_blocks * 512 >= 8 << 20

    def test_wipe_overwrites_data_and_keeps_holes(self, tmp_path):
        backend = FileBackend(str(tmp_path))
        backend.allocate(volume())
        with open(backend.locate(ID), "r+b") as handle:
            handle.seek(512 << 20)
            handle.write(b"secret" * 1000)
        backend.wipe(volume())
        with open(backend.locate(ID), "rb") as handle:
            handle.seek(512 << 20)
            assert handle.read(6000) == bytes(6000)
        assert os.stat(backend.locate(ID)).st_blocks * 512 < 64 << 20
        assert os.stat(backend.locate(ID)).st_size == GIB

    def test_a_broken_record_is_named(self, tmp_path):
        (tmp_path / f"volume-{ID}.json").write_text("{")
        with pytest.raises(Unavailable, match=f"volume-{ID}.json can't be read"):
            FileBackend(str(tmp_path)).observe()

    @pytest.mark.parametrize("path,error", [(None, Invalid), ("relative", Invalid), ("/does/not/exist", Unavailable)])
    def test_a_bad_directory_is_refused(self, path, error):
        with pytest.raises(error, match="director"):
            FileBackend(path)

    def test_too_little_space_is_refused_for_full_allocation(self, tmp_path):
        huge = volume(size_bytes=1 << 60, allocation="full")
        assert "free some space" in FileBackend(str(tmp_path), "full").missing(huge)
        assert FileBackend(str(tmp_path)).missing(volume(size_bytes=1 << 60)) is None
