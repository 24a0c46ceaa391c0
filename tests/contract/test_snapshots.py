# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots, volumes made from others, and reverted volumes through their modules, on a real file system and in a real Ceph pool.

tests/lab/test_lvm_snapshots.py runs the same in a volume group.
"""

from __future__ import annotations

import pytest

from tests.rig.pools import MANY, call, foretold, good, refusal, settled, snapshot, snapshots, volumes

GIB = 1 << 30


def test_a_snapshot_from_first_to_last(pool, db):
    taken = settled(pool, snapshot, description="größe", metadata={"by": "hand"})
    pool.write(db["path"], b"b" * MANY)
    shown = {key: taken[key] for key in ("volume", "name", "id", "status", "size_gib", "description", "metadata", "volume_id")}
    wanted = {"volume": "db", "name": "monday", "status": "available", "size_gib": 1, "description": "größe", "metadata": {"by": "hand"}}
    assert shown == {**wanted, "id": taken["id"], "volume_id": db["id"]} and taken["created_at"].endswith("Z")
    assert [{key: found[key] for key in shown} for found in snapshots(pool)] == [shown] and snapshots(pool, volumes=["log"]) == []
    assert [one["name"] for one in volumes(pool)["db"]["snapshots"]] == ["monday"]
    assert settled(pool, snapshot, description="other")["steps"] == ["update snapshot monday of volume db"]
    assert "it has snapshots: monday; delete them first, or with it by cascade=true" in refusal(foretold(pool, call, name="db", state="absent"))
    assert settled(pool, snapshot, state="absent")["status"] == "deleted"
    assert snapshots(pool) == [] and pool.read(db["path"], MANY) == b"b" * MANY
    settled(pool, call, name="db", state="absent")
    assert pool.volumes() == []


def test_many_at_once(pool):
    good(call(pool, volumes=[{"name": "db"}, {"name": "log"}], size_gib=1))
    wishes = [{"volume": volume, "name": name} for volume in ("db", "log") for name in ("a", "b", "a.b")][:5]
    options = {"module": "cinder_snapshot", "snapshots": wishes}
    made = settled(pool, call, **options)
    assert [(one["volume"], one["name"], one["changed"]) for one in made["results"]] == [(w["volume"], w["name"], True) for w in wishes]
    failing = call(pool, module="cinder_snapshot", state="absent", snapshots=[*wishes[:2], {"volume": "db", "name": "a b"}])
    assert "1 of 3 failed: 'a b' can't be a snapshot's name" in failing["msg"]
    assert [(one["volume"], one["name"]) for one in snapshots(pool)] == [("db", "a.b"), ("log", "a"), ("log", "b")]
    settled(pool, call, volumes=[{"name": "db"}, {"name": "log"}], state="absent", cascade=True)
    assert pool.volumes() == []


@pytest.mark.parametrize(
    "options,words",
    [
        ({"volume": "gone"}, "there is no volume gone at "),
        ({"name": None}, "can't be a snapshot's name"),
        ({"name": "a/b"}, "can't be a snapshot's name"),
        ({"description": "two\nlines"}, "printable characters"),
    ],
)
def test_bad_input(pool, db, options, words):
    answer = foretold(pool, snapshot, **options) if "name" not in options else foretold(pool, call, module="cinder_snapshot", volume="db", **options)
    assert words in refusal(answer)


def test_what_is_not_there_is_not_deleted(pool, db):
    assert not settled(pool, snapshot, state="absent")["changed"]
    told = snapshot(pool, volume="gone", state="absent")
    assert not told["changed"] and "there is no volume gone" in str(told["warnings"])


# ---- volumes from others


def test_a_volume_from_a_snapshot(pool, db):
    good(snapshot(pool))
    pool.write(db["path"], b"b" * MANY)
    source = {"volume": "db", "snapshot": "monday"}
    made = settled(pool, call, name="new", size_gib=3, source=source)
    assert made["steps"][0] == "record volume new as creating, from snapshot monday of volume db"
    assert (made["source_volid"], made["snapshot_id"], made["size_gib"]) == (db["id"], snapshots(pool)[0]["id"], 3)
    assert pool.size_of(made["path"]) == 3 * GIB and pool.read(made["path"], MANY) == b"a" * MANY
    assert pool.read(made["path"], 4096, GIB) == bytes(4096)
    pool.write(made["path"], b"c" * MANY)
    assert pool.read(db["path"], MANY) == b"b" * MANY
    again = settled(pool, call, name="usual", source=source)
    assert again["size_gib"] == 1 and pool.read(again["path"], MANY) == b"a" * MANY


def test_a_volume_from_a_volume(pool, db):
    made = settled(pool, call, name="new", source={"volume": "db"})
    assert made["steps"][0] == "record volume new as creating, from volume db"
    assert pool.read(made["path"], MANY) == b"a" * MANY and (made["source_volid"], made["snapshot_id"]) == (db["id"], None)
    pool.write(db["path"], b"b" * MANY)
    assert pool.read(made["path"], MANY) == b"a" * MANY
    assert snapshots(pool) == [] and not call(pool, name="db", size_gib=1)["changed"]


def test_sources_that_do_not_serve(pool, db):
    good(snapshot(pool))
    good(call(pool, name="big", size_gib=2))
    good(call(pool, name="new", source={"volume": "db"}))
    for options, words in (
        ({"name": "x", "source": {"volume": "gone"}}, "there is no volume gone at"),
        ({"name": "x", "source": {"volume": "db", "snapshot": "sunday"}}, "volume db has no snapshot sunday; take it first, or choose one of: monday"),
        ({"name": "x", "size_gib": 1, "source": {"volume": "big"}}, "volume x can't have 1 GiB, as volume big needs 2; make it at least as large"),
        ({"name": "db", "source": {"volume": "db"}}, "can't be made from itself"),
        ({"name": "new", "source": {"volume": "big"}}, "volume new is there and was not made from volume big"),
        ({"name": "new", "source": {"volume": "db", "snapshot": "monday"}}, "was not made from snapshot monday of volume db"),
    ):
        assert words in refusal(foretold(pool, call, **options))
    assert not good(call(pool, name="new", source={"volume": "long-gone"}))["changed"]


# ---- back to what it was


def test_a_reverted_volume(pool, db):
    good(snapshot(pool))
    pool.write(db["path"], b"b" * MANY)
    good(call(pool, name="db", size_gib=2))
    pool.write(db["path"], b"b" * 4096, GIB)
    back = settled(pool, call, name="db", revert_to="monday")
    assert back["steps"] == [
        "mark volume db reverting",
        "revert volume db to snapshot monday",
        "allocate 2 GiB for volume db",
        "mark volume db available",
    ]
    assert pool.read(db["path"], MANY) == b"a" * MANY and pool.size_of(db["path"]) == 2 * GIB
    assert pool.read(db["path"], 4096, GIB) == bytes(4096), "what was beyond its end is gone"
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    told = refusal(foretold(pool, call, name="db", revert_to="monday"))
    assert "volume db is reserved and can't be reverted; it is held by web-1 on c (reserved); detach it first" in told
    for action in ("terminate", "release"):
        good(call(pool, module="cinder_attachment", volume="db", instance="web-1", action=action))
    assert settled(pool, call, name="db", revert_to="monday")["changed"], "somebody may have written to it"
    settled(pool, snapshot, state="absent")
    assert volumes(pool)["db"]["record"]["reverted_to"] is None


def test_what_can_not_be_reverted(pool, db):
    good(snapshot(pool))
    for options, words in (
        ({"name": "db", "revert_to": "sunday"}, "volume db has no snapshot sunday"),
        ({"name": "gone", "revert_to": "monday", "size_gib": 1}, "there is no volume gone at"),
        ({"name": "db", "revert_to": "monday", "size_gib": 2}, "can't be reverted and extended at once; do that in two tasks"),
    ):
        assert words in refusal(foretold(pool, call, **options))
