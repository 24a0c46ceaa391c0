# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of volumes, made by the real qemu-img on a real file system and from a real Ceph pool."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Failed
from ansible_collections.stackless.block.plugins.module_utils._hosts.files import part_of
from ansible_collections.stackless.block.plugins.module_utils._images import Files
from ansible_collections.stackless.block.plugins.module_utils._manage_image import Images
from ansible_collections.stackless.block.plugins.module_utils._model.image import Exported

from tests.contract.test_images import child_named
from tests.contract.test_reserve_race import call as call_inside
from tests.rig.images import MIB, qemu_img
from tests.rig.pools import MANY, call, foretold, good, refusal, settled, snapshot, snapshots, volumes

GIB = 1 << 30
BIG = 48 * MIB

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def export(pool, path, check=False, volume="db", format="raw", **options):
    return call(pool, check=check, module="cinder_image", **{"path": str(path), "volume": volume, "format": format, "get_checksum": False, **options})


def made(pool, path, **options):
    return settled(pool, lambda pool, check=False: export(pool, path, check, **options))


def content(path, format, tmp, size=MANY + MIB):
    """What a guest would see at the beginning."""
    with open(raw_of(path, format, tmp), "rb") as disk:
        assert os.fstat(disk.fileno()).st_size == GIB
        return disk.read(size)


def raw_of(path, format, tmp):
    if format == "raw":
        return path
    qemu_img("convert", "-f", format, "-O", "raw", path, tmp / "content")
    return tmp / "content"


def hold(pool, action="reserve"):
    return good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action=action))


@pytest.mark.parametrize("format,compress", [("raw", False), ("qcow2", True)])
def test_an_image_of_a_volume_and_a_volume_of_that(quick, pool, db, folder, tmp_path_factory, format, compress):
    path = folder / f"db.{format}"
    before = pool.traces()
    answer = made(pool, path, format=format, compress=compress, get_checksum=True)
    assert answer["steps"] == ["mark volume db uploading", f"write volume db to image {path}", "leave volume db as it was"]
    assert volumes(pool)["db"]["status"] == "available" and (pool.driver == "rbd" or [one[:2] for one in pool.traces()] == [one[:2] for one in before])
    assert content(path, format, tmp_path_factory.mktemp("raw")) == b"a" * MANY + bytes(MIB)
    assert path.stat().st_blocks * 512 < (MANY // 4 if compress else MANY + MIB), "what holds no data takes no space"
    assert sorted(entry.name for entry in folder.iterdir()) == [f"db.{format}", f"db.{format}.json"]
    assert {entry.stat().st_mode & 0o777 for entry in folder.iterdir()} == {0o600}
    assert answer["size_bytes"] == path.stat().st_size
    source = {"image": str(path), "format": format, "checksum": answer["checksum"]}  # which is compared
    again = good(call(pool, name="again", source=source))
    assert pool.read(again["path"], MANY) == b"a" * MANY and again["size_gib"] == 1
    assert settled(pool, lambda pool, check=False: call(pool, check=check, module="cinder_image", path=str(path), state="absent"))["status"] == "deleted"
    assert list(folder.iterdir()) == []


def test_of_a_snapshot_and_many_in_one_task(quick, pool, db, folder):
    good(snapshot(pool))
    pool.write(db["path"], b"b" * MANY)
    items = [{"path": str(folder / "old"), "snapshot": "monday"}, {"path": str(folder / "new"), "format": "qcow2"}, {"path": "relative"}]
    options = {"module": "cinder_image", "images": items, "volume": "db", "format": "raw", "get_checksum": False}
    answer = foretold(pool, lambda pool, check=False: call(pool, check=check, **{**options, "images": items[:2]}))
    assert not good(call(pool, **{**options, "images": items[:2]}))["changed"]
    old, new = answer["results"]
    assert (old["snapshot"], new["snapshot"], new["checksum"]) == ("monday", None, None) and old["snapshot_id"] == snapshots(pool)[0]["id"]
    assert content(folder / "old", "raw", folder, MANY) == b"a" * MANY and content(folder / "new", "qcow2", folder, MANY) == b"b" * MANY
    failing = call(pool, **options)
    assert [result["failed"] for result in failing["results"]] == [False, False, True] and snapshots(pool)[0]["status"] == "available"


def test_what_is_not_done(quick, pool, db, folder):
    (folder / "foreign").write_bytes(b"precious")
    path = folder / "db"
    good(export(pool, path))
    for words, options in (
        ("is there and is no image that was made here: there is no note", {"path": folder / "foreign"}),
        ("there is no directory ", {"path": folder / "gone" / "db"}),
        ("is there, made of volume db", {"path": path, "format": "qcow2"}),
        ("can't be compressed, as it is raw", {"path": folder / "x", "compress": True}),
        ("there is no volume gone at", {"path": folder / "x", "volume": "gone"}),
        ("has no snapshot sunday", {"path": folder / "x", "snapshot": "sunday"}),
    ):
        assert words in refusal(foretold(pool, lambda pool, check=False, **more: export(pool, check=check, **more), **options))
    assert "is wished without a format" in refusal(call(pool, module="cinder_image", path=str(folder / "x"), volume="db"))
    absent = {"module": "cinder_image", "path": str(folder / "foreign"), "state": "absent"}
    assert "is no image that was made here" in refusal(call(pool, **absent)) and (folder / "foreign").read_bytes() == b"precious"
    with path.open("ab") as image:
        image.write(b"more")
    assert f"it is no file of {GIB} bytes, as the note beside it says" in refusal(export(pool, path))
    good(call(pool, name="db", state="absent"))
    if pool.driver == "file":
        slash = {"path": f"{pool.path}/"}
        assert "can't stand among the volumes" in refusal(export(pool, pool.path / "volume-x"))
        assert "can't stand among the volumes" in refusal(export(pool, pool.path / "volume-x", backend=slash))


def test_what_came_meanwhile_is_not_replaced(folder):
    path = folder / "db"
    image = Exported(str(path), "db", "v1", "raw", MIB, "2026-01-31T23:00:00Z")
    for there, words in ((b"precious", "somebody else put a file there meanwhile"), (None, "No such file")):
        part = folder / "part"
        part.write_bytes(b"ours")
        if there is None:
            path.unlink()
            part.unlink()
        else:
            path.write_bytes(there)
        with pytest.raises(Failed, match=words):
            Files().keep(image, str(part), False)
        assert sorted(os.listdir(folder)) == (["db"] if there else [])
    writing = part_of(str(path))
    Path(writing).write_bytes(b"half")
    Files().remove(str(path))
    assert os.listdir(folder) == [], "nor does one that was given up go on"


def test_of_a_volume_that_is_held(quick, pool, db, folder):
    hold(pool)
    assert "who may be writing" in refusal(foretold(pool, lambda pool, check=False: export(pool, folder / "db", check)))
    if pool.driver == "file":
        return
    answer = made(pool, folder / "db", force=True)
    assert content(folder / "db", "raw", folder, MANY) == b"a" * MANY and snapshots(pool) == [] and volumes(pool)["db"]["status"] == "reserved"
    with pool.image(f"volume-{db['id']}") as opened:
        assert list(opened.list_snaps()) == []
    name = answer["steps"][0].split()[2]
    assert answer["steps"] == [
        f"record snapshot {name} of volume db as creating",
        f"take snapshot {name} of volume db",
        f"mark snapshot {name} of volume db uploading",
        f"write volume db to image {folder / 'db'}",
        "leave volume db as it was",
    ]


def test_without_room_it_is_taken_back(quick, pool, db, folder):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    try:
        told = export(pool, folder / "db")
        assert "qemu-img says: " in refusal(told) and "No space left" in told["msg"] and "/100%" not in told["msg"]
        assert told["steps"][-1] == "leave volume db as it was" and list(folder.iterdir()) == [] and volumes(pool)["db"]["status"] == "available"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---- while it goes on


@pytest.fixture
def big(pool):
    """A volume with data that takes a while."""
    answer = good(call(pool, name="db", size_gib=1))
    data = os.urandom(MIB)
    for at in range(0, BIG, MIB):
        pool.write(answer["path"], data, at)
    return data


def run_apart(backend, options):
    call_inside(Images, backend=backend, images=None, **options)


@contextlib.contextmanager
def begun(pool, path, **options):
    """A run, and its qemu-img, which is stopped when it has written something."""
    run = spawn.Process(target=run_apart, args=(pool.backend, {"path": str(path), "volume": "db", "format": "qcow2", "compress": True, **options}))
    run.start()
    try:
        writer = child_named(run.pid, "qemu-img")
        for _look in range(4000):
            if any(part.stat().st_size > MIB for part in path.parent.glob(".*.part-*")):
                break
            time.sleep(0.002)
        os.kill(writer, signal.SIGSTOP)
        yield run, writer
    finally:
        run.kill()
        run.join(10)


def is_gone(pid):
    """Whether a process ends by itself, and not here."""
    for _look in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.parametrize("pool,held", [("file", False), ("rbd", False), ("rbd", True)], indirect=["pool"])
def test_killed_while_it_writes(quick, pool, big, folder, held):
    path, options = folder / "db", {"force": True} if held else {}
    if held:
        hold(pool)
    with begun(pool, path, **options) as (run, writer):
        command = Path(f"/proc/{writer}/cmdline").read_bytes()
        assert b"\0-f\0raw\0" in command and (pool.driver == "file" or pool.ceph.key("client.cinder").encode() not in command)
        found = volumes(pool)["db"]
        if held:
            assert [one["status"] for one in found["snapshots"]] == ["uploading"] and found["status"] == "reserved"
        else:
            assert found["status"] == "uploading" and 0 < found["progress"] < 100
            told = refusal(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
            assert "volume db is uploading; run the play that was at it to its end first" in told
            assert f"while the volume is uploading to {path}" in refusal(export(pool, folder / "other"))
        assert sorted(entry.suffix for entry in folder.iterdir()) == [f".part-{run.pid}"], "nothing has the name of an image yet"
    assert is_gone(writer), "somebody is left who writes"
    again = settled(pool, lambda pool, check=False: export(pool, path, check, format="qcow2", compress=True, **options))
    assert again["steps"] == [f"write volume db to image {path}", "leave volume db as it was"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["db", "db.json"] and snapshots(pool) == []
    assert volumes(pool)["db"]["status"] == ("reserved" if held else "available") and volumes(pool)["db"]["progress"] is None
    assert content(path, "qcow2", folder, BIG) == big * (BIG // MIB) and json.loads((folder / "db.json").read_text())["volume_id"] == found["id"]


@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_what_nobody_wants_any_more_is_given_back(quick, pool, big, folder):
    with begun(pool, folder / "db"):
        pass
    answer = settled(pool, lambda pool, check=False: call(pool, check=check, module="cinder_image", path=str(folder / "db"), state="absent"))
    assert answer["steps"] == [f"remove image {folder / 'db'}", "leave volume db as it was"]
    assert volumes(pool)["db"]["status"] == "available" and list(folder.iterdir()) == []
    hold(pool)
