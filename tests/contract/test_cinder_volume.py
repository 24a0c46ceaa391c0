# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes through their modules, on a real file system and in a real Ceph pool: check mode, lists, bad input, and pools that do not serve."""

from __future__ import annotations

import os
import subprocess

import pytest

GIB = 1 << 30


@pytest.fixture
def call(run_module, pool):
    def run(check=False, module="cinder_volume", **options):
        answer = run_module(module, {"backend": pool.backend, **options}, check=check)
        assert "Traceback" not in str(answer)
        return answer

    return run


def test_a_life(call, pool):
    empty = pool.traces()
    predicted = call(check=True, name="db", size_gib=1)
    assert predicted["changed"] and pool.traces() == empty
    made = call(name="db", size_gib=1)
    assert made["steps"] == predicted["steps"] and made["status"] == "available"
    assert pool.size_of(made["path"]) == GIB and pool.volumes() == [made["id"]]

    before = pool.traces()
    assert not call(name="db", size_gib=1)["changed"] and not call(check=True, name="db", size_gib=1)["changed"]
    predicted = call(check=True, name="db", size_gib=2)
    assert pool.traces() == before
    grown = call(name="db", size_gib=2)
    assert grown["steps"] == predicted["steps"] and grown["diff"] == predicted["diff"]
    assert (pool.size_of(grown["path"]), grown["id"]) == (2 * GIB, made["id"])

    before = pool.traces()
    predicted = call(check=True, name="db", state="absent")
    assert pool.traces() == before
    gone = call(name="db", state="absent")
    assert gone["steps"] == predicted["steps"] and gone["diff"] == predicted["diff"]
    assert gone["status"] == "deleted" and pool.volumes() == []
    assert not call(name="db", state="absent")["changed"]
    assert call(name="db", size_gib=1)["id"] != made["id"], "a new volume must not be taken for the old one"


def test_what_is_said_of_a_volume_is_found_again(call):
    said = {"volume_type": "ssd", "description": "größe = a & b #!", "metadata": {"owner": "shop ü", "empty": ""}, "multiattach": True}
    made = call(name="db", size_gib=1, **said)
    found = call(module="cinder_volume_info", names=["db", "gone"])["volumes"]
    assert [{key: volume[key] for key in said} for volume in found] == [said] and found[0]["record"] == made["record"]
    assert not call(name="db", size_gib=1, **said)["changed"]
    assert call(name="db", metadata={"a": "b"}, multiattach=False)["record"]["metadata"] == {"a": "b"}


def test_many_at_once(call, pool):
    volumes = [{"name": f"v{number}", "size_gib": 1 + number % 3} for number in range(20)]
    predicted = call(check=True, volumes=volumes)
    made = call(volumes=[*volumes, {"name": "none"}])
    assert predicted["steps"] == made["steps"] and made["failed"] and "1 of 21 failed: volume none" in made["msg"]
    assert [volume["size_gib"] for volume in call(module="cinder_volume_info")["volumes"]] == [v["size_gib"] for v in sorted(volumes, key=lambda v: v["name"])]
    assert not call(volumes=volumes)["changed"]
    call(volumes=volumes, state="absent")
    assert pool.volumes() == []


def test_renaming(call, pool):
    call(volumes=[{"name": "db"}, {"name": "taken"}], size_gib=1)
    before = pool.traces()
    predicted = call(check=True, name="db", new_name="db-old", size_gib=2)
    assert pool.traces() == before
    renamed = call(name="db", new_name="db-old", size_gib=2)
    assert (renamed["steps"], renamed["record"]["name"], renamed["size_gib"]) == (predicted["steps"], "db-old", 2)
    assert not call(name="db", new_name="db-old", size_gib=2)["changed"]
    assert "there is another volume of that name" in call(name="db-old", new_name="taken")["msg"]
    assert "neither a volume gone to rename nor" in call(name="gone", new_name="away", size_gib=1)["msg"]
    assert "can't be a volume's name" in call(name="db-old", new_name="a b")["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_volume_says_itself_how_it_takes_its_space(call, pool, check):
    assert call(name="db", size_gib=1)["allocation"] == pool.allocation
    before = pool.traces()
    assert f"can't have allocation={pool.other}" in call(check=check, name="log", size_gib=1, allocation=pool.other)["msg"]
    assert pool.traces() == before


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_a_volume_keeps_its_way_of_taking_space(call, pool, check):
    call(name="db", size_gib=1)
    before = pool.traces()
    assert "db is sparse and can't become full" in call(check=check, name="db", allocation="full")["msg"]
    assert pool.traces() == before


@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_the_pool(call, pool):
    call(volumes=[{"name": "a"}, {"name": "b"}], size_gib=4096)
    before = pool.traces()
    found = call(module="cinder_pool_info")
    disk = os.statvfs(pool.path)
    assert found["total_gib"] == round(disk.f_blocks * disk.f_frsize / GIB, 2) and found["allocated_gib"] == found["provisioned_gib"] == 8192
    assert f"{pool.path} has promised" in str(found["advice"]) and found["data_percent"] is None
    assert pool.traces() == before


@pytest.mark.parametrize("check", [False, True])
def test_a_volume_never_shrinks(call, pool, check):
    call(name="db", size_gib=2)
    before = pool.traces()
    answer = call(check=check, name="db", size_gib=1)
    assert answer["failed"] and answer["msg"] == "volume db has 2 GiB and can't shrink to 1 GiB; make a smaller one and copy the data"
    assert pool.traces() == before


def test_names_are_matched_whole(call, pool):
    call(volumes=[{"name": "volume-1"}, {"name": "volume-10"}], size_gib=1)
    call(name="volume-1", state="absent")
    assert len(pool.volumes()) == 1
    assert not call(name="volume-10", size_gib=1)["changed"]


@pytest.mark.parametrize(
    "options,words",
    [
        ({"name": "a b", "size_gib": 1}, "can't be a volume's name"),
        ({"name": 'a"b', "size_gib": 1}, "can't be a volume's name"),
        ({"name": "a/b", "size_gib": 1}, "can't be a volume's name"),
        ({"name": "größe", "size_gib": 1}, "can't be a volume's name"),
        ({"name": "x" * 300, "size_gib": 1}, "can't be a volume's name"),
        ({"name": "db"}, "needs a size_gib"),
        ({"name": "db", "size_gib": 0}, "give a whole number of GiB from 1"),
        ({"name": "db", "size_gib": -5}, "give a whole number of GiB from 1"),
        ({"name": "db", "size_gib": 1, "description": "two\nlines"}, "printable characters"),
        ({"name": "db", "size_gib": 1, "metadata": {"k": "v" * 300}}, "one plain value"),
        ({"name": "db", "size_gib": 1, "metadata": {"k": {"nested": 1}}}, "one plain value"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_bad_input(call, pool, options, words, check):
    before = pool.traces()
    answer = call(check=check, **options)
    assert answer["failed"] and words in answer["msg"] and "\n" not in answer["msg"]
    assert pool.traces() == before


@pytest.mark.parametrize(
    "backend,words",
    [
        ({"driver": "file", "path": "/does/not/exist"}, "create it, or mount its file system"),
        ({"driver": "file", "path": "/etc/passwd"}, "is no directory"),
        ({"driver": "file"}, "needs the absolute path"),
        ({"driver": "file", "path": "/tmp", "allocation": "thick"}, "the file driver has sparse and full"),
        ({"driver": "lvm"}, "needs the name of a volume group"),
        ({"driver": "lvm", "pool": "no-such-group"}, "on this host; "),
        ({"driver": "rbd"}, "needs the name of a pool"),
        ({"driver": "rbd", "pool": "volumes", "conf": "/does/not/exist"}, "the Ceph configuration /does/not/exist can't be read"),
    ],
)
def test_bad_backends(run_module, backend, words):
    answer = run_module("cinder_volume", {"backend": backend, "name": "db", "size_gib": 1})
    assert answer["failed"] and words in answer["msg"]


@pytest.fixture
def read_only(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_a_read_only_directory_is_told_before_anything_is_tried(read_only, call, check):
    answer = call(check=check, name="db", size_gib=1)
    assert answer["failed"] and "is read-only; mount it writable" in answer["msg"]


def test_a_full_file_system_is_told_and_the_next_run_finishes(run_module, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)], check=True)
    try:
        options = {"backend": {"driver": "file", "path": str(tmp_path), "allocation": "full"}, "name": "db", "size_gib": 1}
        answer = run_module("cinder_volume", options)
        assert answer["failed"] and "are needed; free some space or use another backend" in answer["msg"]
        assert list(tmp_path.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=1100m", str(tmp_path)], check=True)
        assert not run_module("cinder_volume", options)["failed"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
