# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots and clones on a real Ceph cluster: who may be writing, chains, what has clones, the trash, kills. What other drivers have in common
with it is in test_snapshots.py."""

from __future__ import annotations

import json
import multiprocessing
import signal

import pytest
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Volumes

from tests.contract.test_rbd import killed_after, watched
from tests.rig.pools import MANY, RbdPool, call, foretold, good, refusal, settled, snapshot, snapshots, volumes

GIB = 1 << 30

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def pool(ceph):
    return RbdPool(ceph)


def test_an_instance_that_may_be_writing(pool, db):
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    held = "held by web-1 on c (reserved), who may be writing; detach it first, or take it as it is at that moment with"
    assert f"volume db is {held} force=true" in refusal(foretold(pool, snapshot))
    assert f"volume db is {held} source.force=true" in refusal(foretold(pool, call, name="new", source={"volume": "db"}))
    with watched(pool, f"volume-{db['id']}"):
        settled(pool, snapshot, force=True)
        made = settled(pool, call, name="new", source={"volume": "db", "force": True})
    assert pool.read(made["path"], MANY) == b"guest" + b"a" * (MANY - 5)
    assert volumes(pool)["db"]["status"] == "reserved"


def test_snapshots_of_others_keep_a_volume(pool, db):
    with pool.image(f"volume-{db['id']}") as image:
        image.create_snap("backup-tool")
    settled(pool, snapshot)
    told = refusal(foretold(pool, call, name="db", state="absent", cascade=True, clones="trash"))
    assert "its image has snapshots that were not made by cinder_snapshot: backup-tool; remove that first" in told
    assert "data of snapshot monday of volume db is gone" in refusal(without_its_data(pool, db, lambda: foretold(pool, snapshot)))
    settled(pool, snapshot, state="absent")


def without_its_data(pool, db, act):
    with pool.image(f"volume-{db['id']}") as image:
        image.remove_snap(f"snapshot-{snapshots(pool)[0]['id']}")
    return act()


def of_users(pool, volume):
    """The names of the snapshots that a person sees in an image."""
    with pool.image(f"volume-{volume['id']}", read_only=True) as image:
        return [one["name"] for one in image.list_snaps() if one["namespace"] == 0]


def test_what_a_clone_is_made_of(pool, db):
    good(snapshot(pool))
    made = good(call(pool, name="shared", source={"volume": "db", "snapshot": "monday"}, multiattach=True))
    with pool.image(f"volume-{made['id']}", read_only=True) as image:
        assert image.features() & 4 == 0, "two writers would take the lock from one another"
        assert [key for key, _value in image.metadata_list()] == ["stackless.record"]
    good(call(pool, name="new", source={"volume": "db"}))
    assert of_users(pool, db) == [f"snapshot-{snapshots(pool)[0]['id']}"], "what the clone was made from is not needed any more"


def test_an_open_image_is_not_reverted(pool, db):
    good(snapshot(pool))
    with watched(pool, f"volume-{db['id']}"):
        before = pool.traces()
        told = refusal(call(pool, name="db", revert_to="monday", timeout=2))
        assert "volume db can't be reverted, its image is open at 127." in told and pool.traces() == before


def parents(pool, volume):
    """How many images a volume's image descends from."""
    import rbd

    name, count = f"volume-{volume['id']}", 0
    while True:
        with pool.image(name, read_only=True) as image:
            try:
                name = image.get_parent_image_spec()["image_name"]
            except rbd.ImageNotFound:
                return count
        count += 1


def test_a_chain_of_clones_does_not_get_too_long(pool, db):
    chain = [{"name": f"v{number}", "source": {"volume": f"v{number - 1}" if number else "db"}} for number in range(8)]
    made = settled(pool, call, volumes=chain)
    assert [step for step in made["steps"] if "copy" in step] == ["copy to v5 what it shares with its source"]
    assert [parents(pool, volume) for volume in made["results"]] == [1, 2, 3, 4, 5, 0, 1, 2]
    assert pool.read(made["results"][-1]["path"], MANY) == b"a" * MANY
    alone = settled(pool, call, name="alone", source={"volume": "v0"}, backend={"max_clone_depth": 0})
    assert parents(pool, alone) == 0 and "copy to alone what it shares with its source" in alone["steps"]
    settled(pool, call, volumes=[{"name": wish["name"]} for wish in reversed(chain)], state="absent")
    settled(pool, call, volumes=[{"name": "alone"}, {"name": "db"}], state="absent")
    assert pool.images() == []


# ---- what has clones


def test_a_volume_with_clones_is_not_deleted_unless_it_is_said_how(pool, db):
    good(call(pool, volumes=[{"name": "one"}, {"name": "two"}], source={"volume": "db"}))
    told = refusal(foretold(pool, call, name="db", state="absent"))
    assert told == (
        "volume db can't be deleted: clones share its data: one, two; delete them first, give them a copy with clones=flatten, "
        "or keep the data for them with clones=trash"
    )
    good(call(pool, name="two", state="absent"))
    gone = settled(pool, call, name="db", state="absent", clones="flatten")
    assert "copy to one what it shares with its source" in gone["steps"]
    assert pool.volumes() == [volumes(pool)["one"]["id"]] and pool.read(volumes(pool)["one"]["path"], MANY) == b"a" * MANY


def test_what_is_in_the_trash_goes_with_its_last_clone(pool, db):
    one = good(call(pool, name="one", source={"volume": "db"}))
    two = good(call(pool, name="two", source={"volume": "one"}))
    gone = settled(pool, call, name="db", state="absent", clones="trash")
    assert gone["steps"][-1] == "move volume db to the trash until its clones are gone"
    settled(pool, call, name="one", state="absent", clones="trash")
    assert pool.images() == sorted([f"(volume-{db['id']})", f"(volume-{one['id']})", f"volume-{two['id']}"]) and list(volumes(pool)) == ["two"]
    again = settled(pool, call, name="db", size_gib=1)
    assert pool.read(again["path"], MANY) == bytes(MANY), "a volume of the same name is another one"
    assert pool.read(two["path"], MANY) == b"a" * MANY
    settled(pool, call, name="two", state="absent")
    assert pool.images() == [f"volume-{again['id']}"]


def test_the_trash_of_others_is_left_alone(pool, db):
    import rbd

    other, copy = (f"volume-0b5e7a1c-2222-4222-8333-44445555666{number}" for number in (6, 7))
    with pool.open() as io:
        with rbd.Image(io, f"volume-{db['id']}", read_only=True) as image:
            image.copy(io, copy)  # with our record in it
        with rbd.Image(io, copy) as image:
            image.metadata_set("stackless.record", json.dumps({**json.loads(image.metadata_get("stackless.record")), "status": "deleting"}))
        rbd.RBD().create(io, other, GIB, old_format=False, features=61)
        rbd.RBD().trash_move(io, other, 0)
        rbd.RBD().trash_move(io, copy, 0)
    good(call(pool, name="db", state="absent"))
    assert pool.images() == [f"({other})", f"({copy})"]


def test_a_snapshot_with_clones(pool, db):
    for name, clones, copies in (("mon", "trash", 0), ("tue", "flatten", 1)):
        good(snapshot(pool, name=name))
        made = good(call(pool, name=f"of-{name}", source={"volume": "db", "snapshot": name}))
        assert f"clones share its data: of-{name}; delete them first" in refusal(foretold(pool, snapshot, name=name, state="absent"))
        gone = settled(pool, snapshot, name=name, state="absent", clones=clones)
        assert len([step for step in gone["steps"] if step == f"copy to of-{name} what it shares with its source"]) == copies
        assert pool.read(made["path"], MANY) == b"a" * MANY
    assert "clones share its data: of-mon;" in refusal(foretold(pool, call, name="db", state="absent"))
    settled(pool, call, volumes=[{"name": "of-mon"}, {"name": "db"}], state="absent")
    assert len(pool.images()) == 1


def test_clones_in_the_trash_and_of_others_are_named(pool, db):
    import rbd

    pool.ceph.make_pool("elsewhere")
    monday = good(snapshot(pool))
    one = good(call(pool, name="one", source={"volume": "db"}))
    good(call(pool, name="two", source={"volume": "one"}))
    good(call(pool, name="one", state="absent", clones="trash"))
    name = f"snapshot-{monday['id']}"
    with pool.ceph.pool_of("elsewhere") as there:
        rbd.RBD().namespace_create(there, pool.namespace)
    with pool.open() as io, pool.ceph.pool_of("elsewhere", pool.namespace) as there, rbd.Image(io, f"volume-{db['id']}") as image:
        image.protect_snap(name)
        rbd.RBD().clone(io, f"volume-{db['id']}", name, there, "theirs", features=61)
    where = f"rbd:{pool.ceph.pool}/{pool.namespace}/volume-{one['id']} in the trash"
    assert f"clones share its data: rbd:elsewhere/{pool.namespace}/theirs, {where};" in refusal(foretold(pool, call, name="db", state="absent", cascade=True))
    assert "has clones of Ceph's first format, which it can't be taken from" in refusal(snapshot(pool, state="absent", clones="trash"))
    settled(pool, snapshot, state="absent", clones="flatten")
    settled(pool, call, name="db", state="absent", clones="flatten")
    settled(pool, call, name="two", state="absent")
    assert pool.images() == []


@pytest.mark.parametrize("clones", ["refuse", "trash"])
def test_a_list_that_takes_the_clones_along(pool, db, clones):
    chain = [{"name": "one", "source": {"volume": "db"}}, {"name": "two", "source": {"volume": "one"}}]
    good(call(pool, volumes=chain))
    settled(pool, call, volumes=[{"name": name} for name in ("two", "one", "db")], state="absent", clones=clones)
    assert pool.images() == []
    good(call(pool, name="db", size_gib=1))
    good(call(pool, volumes=chain))
    kept = settled(pool, call, volumes=[{"name": "one"}, {"name": "db"}], state="absent", clones="trash")
    assert [step for step in kept["steps"] if "trash" in step] == [f"move volume {name} to the trash until its clones are gone" for name in ("one", "db")]
    settled(pool, call, name="two", state="absent")
    assert pool.images() == []


def test_a_list_that_gives_clones_their_own_data(pool, db):
    good(call(pool, volumes=[{"name": "one", "source": {"volume": "db"}}, {"name": "two", "source": {"volume": "one"}}]))
    gone = settled(pool, call, volumes=[{"name": "one"}, {"name": "db"}], state="absent", clones="flatten")
    assert [step for step in gone["steps"] if "copy" in step] == ["copy to two what it shares with its source"]
    assert pool.read(volumes(pool)["two"]["path"], MANY) == b"a" * MANY and len(pool.images()) == 1


# ---- kills

MONDAY = {"module": "cinder_snapshot", "volume": "db", "name": "monday"}
CLONE = {"name": "new", "source": {"volume": "db"}}

# what is there before; what is killed; how often at least; which images there are when it has been run again, and which snapshots
STORIES = {
    "taken": ([], MONDAY, 3, ["db"], ["monday"]),
    "dropped": ([MONDAY], {**MONDAY, "state": "absent"}, 3, ["db"], []),
    "cloned": ([], CLONE, 7, ["db", "new"], []),
    "cloned and copied": ([], {**CLONE, "backend": {"max_clone_depth": 0}}, 8, ["db", "new"], []),
    "from a snapshot": ([MONDAY], {"name": "new", "size_gib": 2, "source": {"volume": "db", "snapshot": "monday"}}, 6, ["db", "new"], ["monday"]),
    "reverted": ([MONDAY, {"name": "db", "size_gib": 2}], {"name": "db", "revert_to": "monday"}, 4, ["db"], ["monday"]),
    "deleted with all": ([MONDAY, CLONE], {"name": "db", "state": "absent", "cascade": True, "clones": "trash"}, 3, ["(db)", "new"], []),
    "deleted flat": ([MONDAY, CLONE], {"name": "db", "state": "absent", "cascade": True, "clones": "flatten"}, 6, ["new"], []),
    "deleted last": ([CLONE, {"name": "db", "state": "absent", "clones": "trash"}], {"name": "new", "state": "absent"}, 5, [], []),
}


# variants of others, and long: for the campaign
LONG = ("cloned and copied", "from a snapshot", "deleted flat", "deleted last")


@pytest.mark.parametrize("story", [pytest.param(story, marks=[pytest.mark.long] if story in LONG else []) for story in STORIES])
def test_killed_after_every_write_the_next_run_finishes(ceph, story):
    before, options, least, images, taken = STORIES[story]
    resource = Snapshots if options.get("module") == "cinder_snapshot" else Volumes
    inside = {key: value for key, value in options.items() if key not in ("module", "backend")}
    kills = 0
    for write in range(1, 20):
        pool = RbdPool(ceph)
        db = good(call(pool, name="db", size_gib=1))
        pool.write(db["path"], b"a" * MANY)
        for one in before:
            good(call(pool, **one))
        # names stay locked for three times the timeout of who was killed
        run = spawn.Process(target=killed_after, args=(write, resource, {**pool.backend, **options.get("backend", {}), "timeout": 1}, inside))
        run.start()
        run.join(60)
        assert run.exitcode in (0, -signal.SIGKILL), f"write {write}"
        kills += run.exitcode != 0
        settled(pool, call, **options)
        check_all(pool, db, images, taken, f"after write {write}")
        if run.exitcode == 0:
            break
    assert kills >= least


def check_all(pool, db, images, taken, when):
    found = volumes(pool)
    assert {volume["status"] for volume in found.values()} <= {"available"}, when
    names = {volume["id"]: name for name, volume in found.items()} | {db["id"]: "db"}
    there = [image.replace("volume-", "") for image in pool.images()]
    assert sorted(image.replace(image.strip("()"), names[image.strip("()")]) for image in there) == images, when
    assert [one["name"] for one in snapshots(pool)] == taken, when
    for volume in found.values():
        assert of_users(pool, volume) == [f"snapshot-{one['id']}" for one in volume["snapshots"]], when
        assert pool.read(volume["path"], MANY) == b"a" * MANY and pool.size_of(volume["path"]) == volume["size_bytes"], when
