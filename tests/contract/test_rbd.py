# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver rbd on a real Ceph cluster: records, whose images they are, kills, watchers, full pools, and clusters that do not answer.

What it has in common with other drivers is in test_cinder_volume.py and test_reserve_race.py.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Unavailable
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Volumes, find_volumes
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_lineage import Lineage
from ansible_collections.stackless.block.plugins.module_utils._volumes.rbd import RbdBackend

from tests.contract.test_reserve_race import call as call_inside
from tests.rig.ceph import FEATURES, Ceph
from tests.rig.collection import collections_path
from tests.rig.pools import RbdPool, call, good, refusal

GIB = 1 << 30
OTHER = "volume-0b5e7a1c-2222-4222-8333-444455556666"  # as Cinder would name one of its own

RECORD = "stackless.record"  # what records are kept under for good

LOADED = (RbdBackend,)  # which a process that may not read the checkout needs

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def pool(ceph):
    return RbdPool(ceph)


def make_image(pool, name, size=GIB, **options):
    import rbd

    with pool.open() as io:
        rbd.RBD().create(io, name, size, old_format=False, features=FEATURES, **options)


# ---- the record


def test_the_record_is_image_meta_and_dies_with_the_image(pool):
    made = good(call(pool, name="db", size_gib=1))
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="compute-1", action="reserve", reason="größer"))
    with pool.image(f"volume-{made['id']}") as image:
        record = json.loads(image.metadata_get(RECORD))
        assert (record["name"], record["status"], record["attachments"][0]["instance"]) == ("db", "reserved", "web-1")
        assert [key for key, _value in image.metadata_list()] == [RECORD]
        key = image.id()
    for action in ("terminate", "release"):
        good(call(pool, module="cinder_attachment", volume="db", instance="web-1", action=action))
    good(call(pool, name="db", state="absent"))
    with pool.open() as io:
        assert not [one.key for one in io.list_objects() if key in one.key or made["id"] in one.key]


def test_how_to_reach_it(pool):
    good(call(pool, name="db", size_gib=1))
    predicted = call(pool, check=True, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve")
    reserved = good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    name = f"{pool.ceph.pool}/{pool.namespace}/volume-{reserved['volume_id']}"
    assert reserved["path"] == f"rbd:{name}" and predicted["connection_info"] == reserved["connection_info"]
    assert reserved["connection_info"]["driver_volume_type"] == "rbd"
    told = reserved["connection_info"]["data"]
    assert (told["name"], told["hosts"], told["ports"], told["auth_username"]) == (name, [pool.ceph.ip], ["6789"], "cinder")


def test_features_and_data_pool(pool):
    pool.ceph.make_pool("data")
    backend = {"features": ["layering", "exclusive-lock"], "data_pool": "data"}
    made = good(call(pool, backend=backend, volumes=[{"name": "db"}, {"name": "shared", "multiattach": True}], size_gib=1))
    usual = good(call(pool, name="usual", size_gib=1))
    features = {}
    for volume in [*made["results"], usual]:
        with pool.image(f"volume-{volume['id']}", read_only=True) as image:
            features[volume["name"]] = image.features()
    separate = 128  # the bit that says data-pool
    assert features == {"db": 1 + 4 + separate, "shared": 1 + separate, "usual": FEATURES}
    good(call(pool, name="usual", multiattach=True))
    with pool.image(f"volume-{usual['id']}", read_only=True) as image:
        assert image.features() & 4 == 0, "two writers would take the lock from one another"
    before = pool.traces()
    for check in (True, False):
        assert "correct backend.data_pool" in refusal(call(pool, check=check, backend={"data_pool": "none"}, name="x", size_gib=1))
        assert "backend.features is ['fast']" in refusal(call(pool, check=check, backend={"features": ["fast"]}, name="x", size_gib=1))
    assert pool.traces() == before


# ---- whose it is


def test_images_of_others_are_left_alone(pool):
    import rbd

    made = good(call(pool, name="db", size_gib=1))
    ours = f"volume-{made['id']}"
    make_image(pool, OTHER)
    make_image(pool, "db")
    with pool.open() as io, rbd.Image(io, ours) as image:
        image.copy(io, "copy")  # takes the record along
        image.create_snap("s1")
        image.protect_snap("s1")
        rbd.RBD().clone(io, ours, "s1", io, "clone", features=FEATURES)
        with rbd.Image(io, "copy", read_only=True) as copy:
            assert copy.metadata_get(RECORD) == image.metadata_get(RECORD)
        with rbd.Image(io, "clone") as clone:
            clone.flatten()
        image.unprotect_snap("s1")
        image.remove_snap("s1")
    before = traces_of(pool, OTHER, "db", "copy", "clone")
    assert [volume["id"] for volume in call(pool, module="cinder_volume_info")["volumes"]] == [made["id"]]
    good(call(pool, name="db", size_gib=2, new_name="log"))
    good(call(pool, name="log", state="absent"))
    assert call(pool, module="cinder_volume_info")["volumes"] == []
    again = good(call(pool, name="db", size_gib=1))
    assert again["changed"] and pool.images() == sorted([OTHER, "db", "copy", "clone", f"volume-{again['id']}"])
    assert traces_of(pool, OTHER, "db", "copy", "clone") == before


def traces_of(pool, *names):
    """The objects of these images with their versions."""
    keys = []
    for name in names:
        with pool.image(name, read_only=True) as image:
            keys += [image.id(), f"rbd_id.{name}"]
    found = [(name, version) for name, version in pool.traces() if any(name == key or f".{key}" in name for key in keys)]
    assert len(found) >= 2 * len(names)
    return found


@pytest.mark.parametrize(
    "record,words",
    [("{", "can't be relied upon"), ('{"name": "db"}', "can't be relied upon"), ("", "can't be relied upon"), ({"description": "ü"}, "not ASCII")],
)
def test_a_record_that_was_edited_badly_is_told(pool, record, words):
    made = good(call(pool, volumes=[{"name": "db"}, {"name": "log"}], size_gib=1))
    with pool.image(f"volume-{made['results'][0]['id']}") as image:
        whole = json.loads(image.metadata_get(RECORD))
        image.metadata_set(RECORD, record if isinstance(record, str) else json.dumps({**whole, **record}, ensure_ascii=False))
        found = call(pool, module="cinder_volume_info")
        assert words in str(found["warnings"]) and "rbd image-meta set" in str(found["warnings"]) and len(found["volumes"]) == 2
        before = pool.traces()
        if record not in ("{", ""):  # it still tells its name
            assert "the record of volume db is damaged" in refusal(call(pool, name="db", state="absent"))
        assert pool.traces() == before
        good(call(pool, name="log", size_gib=2))
        image.metadata_set(RECORD, json.dumps({**whole, "description": "by hand"}, indent=2))
    assert good(call(pool, name="db", size_gib=2))["description"] == "by hand"


def test_an_image_whose_record_was_taken_away_is_somebody_elses(pool):
    made = good(call(pool, name="db", size_gib=1))
    with pool.image(f"volume-{made['id']}") as image:
        image.metadata_remove(RECORD)
    before = pool.traces()
    assert not call(pool, name="db", state="absent")["changed"] and pool.traces() == before


# ---- what must not be deleted


def watch(conf, pool, namespace, name, opened):
    """Has an image open until it is killed, as a guest would."""
    import rados
    import rbd

    with rados.Rados(conffile=conf, rados_id="cinder") as cluster:
        io = cluster.open_ioctx(pool)
        io.set_namespace(namespace)
        with rbd.Image(io, name) as image:
            image.write(b"guest", 0)
            opened.set()
            time.sleep(600)


@contextlib.contextmanager
def watched(pool, name):
    opened = spawn.Event()
    guest = spawn.Process(target=watch, args=(str(pool.ceph.conf), pool.ceph.pool, pool.namespace, name, opened))
    guest.start()
    try:
        assert opened.wait(30)
        yield guest
    finally:
        guest.kill()
        guest.join(10)


def test_an_open_image_is_not_deleted_and_who_has_it_is_told(pool):
    made = good(call(pool, name="db", size_gib=1))
    with watched(pool, f"volume-{made['id']}") as guest:
        before = pool.traces()
        began = time.monotonic()
        told = refusal(call(pool, name="db", state="absent", timeout=2))
        assert "volume db can't be deleted, its image is open at 127." in told and "(client." in told and "end that" in told
        assert 2 <= time.monotonic() - began < 8
        assert pool.traces() == before, "a deletion that can't be done has not begun"
        good(call(pool, name="db", size_gib=2))  # growing it while it is in use is fine
        guest.kill()  # like a host that dies: its watch ends by itself within 30 s, and is waited for
        began = time.monotonic()
        good(call(pool, name="db", state="absent"))
        assert 5 < time.monotonic() - began < 45
    assert pool.images() == []


def test_a_guest_that_fell_silent_is_fenced_by_the_lock_that_it_still_has(pool):
    """Its OSD gives up on it after 30 s. When it wakes up it would go on to write, if nobody has taken its lock by then."""
    made = good(call(pool, name="db", size_gib=1))
    attachment = {"module": "cinder_attachment", "volume": "db", "instance": "web-1"}
    good(call(pool, **attachment, host="compute-1", action="reserve"))
    with watched(pool, f"volume-{made['id']}") as guest, pool.image(f"volume-{made['id']}", read_only=True) as image:
        os.kill(guest.pid, signal.SIGSTOP)
        pool.ceph.wait_until(lambda: not list(image.watchers_list()), "it is still a watcher")
        fenced = good(call(pool, **attachment, action="fence"))
        assert len(fenced["steps"]) == 2 and fenced["steps"][0].startswith("keep 127.") and fenced["status"] == "detached"
        assert good(call(pool, **attachment, action="fence"))["steps"] == []


# ---- kills


WRITES = ("create", "swap_record", "note", "resize", "remove", "take", "drop", "clone", "flatten", "revert", "retire", "sweep")


def killed_after(write, resource, backend, options):
    """A run that is killed right after so many writes to the cluster; lives to its end when there are not so many."""
    left = [write]

    def counted(plain):
        def act(self, *arguments, **named):
            done = plain(self, *arguments, **named)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return act

    for name in WRITES:
        setattr(Lineage, name, counted(getattr(Lineage, name)))
    answer = call_inside(resource, backend=backend, **{resource.plural: None}, **options)
    assert not answer["failed"], answer["msg"]


STORIES = {
    "made": ({}, {"name": "db", "size_gib": 1}, 5),
    "grown and renamed": ({"name": "db", "size_gib": 1}, {"name": "db", "new_name": "log", "size_gib": 2}, 5),
    "deleted": ({"name": "db", "size_gib": 1}, {"name": "db", "state": "absent"}, 4),
}


@pytest.mark.parametrize("story", STORIES)
def test_killed_after_every_write_the_next_run_finishes(ceph, story):
    before, options, least = STORIES[story]
    kills = 0
    for write in range(1, 12):
        pool = RbdPool(ceph)
        if before:
            good(call(pool, **before))
        # names stay locked for three times the timeout of who was killed
        run = spawn.Process(target=killed_after, args=(write, Volumes, {**pool.backend, "timeout": 1}, options))
        run.start()
        run.join(60)
        assert run.exitcode in (0, -signal.SIGKILL), f"write {write}"
        kills += run.exitcode != 0
        predicted = call(pool, check=True, **options)
        answer = good(call(pool, **options))
        assert answer["steps"] == predicted["steps"]
        assert not call(pool, **options)["changed"]
        found = call(pool, module="cinder_volume_info")
        wanted = [] if story == "deleted" else [(options.get("new_name", "db"), "available", options["size_gib"])]
        assert [(v["name"], v["status"], v["size_gib"]) for v in found["volumes"]] == wanted and not found.get("warnings")
        assert pool.images() == [f"volume-{volume['id']}" for volume in found["volumes"]], f"something is left after write {write}"
        assert [pool.size_of(volume["path"]) for volume in found["volumes"]] == [size * GIB for _name, _status, size in wanted]
        if run.exitcode == 0:
            break
    assert kills >= least


def remove_volume(backend):
    call_inside(Volumes, backend=backend, volumes=None, name="db", state="absent")


def test_killed_in_the_middle_of_a_removal_the_next_run_finishes(pool):
    import rados

    for _attempt in range(6):
        made = good(call(pool, name="db", size_gib=1))
        with pool.image(f"volume-{made['id']}") as image:
            data = f"{image.block_name_prefix()}.{0:016x}"
            for number in range(256):
                image.write(b"x", number << 22)
        run = spawn.Process(target=remove_volume, args=(pool.backend,))
        run.start()
        with pool.open() as io, contextlib.suppress(rados.ObjectNotFound):
            for _look in range(100_000):
                io.stat(data)
        run.kill()
        run.join(10)
        found = call(pool, module="cinder_volume_info")["volumes"]
        if found:
            assert [volume["status"] for volume in found] == ["deleting"]
            assert "half deleted by an earlier run" in refusal(call(pool, name="db", size_gib=1))
        good(call(pool, name="db", state="absent"))
        assert pool.images() == [] and not call(pool, name="db", state="absent")["changed"]
        if found:
            return
    raise AssertionError("no kill met the removal")


def test_killed_when_the_header_was_gone_the_next_run_finishes(pool):
    """The record goes with the header, which Ceph removes before the image's last traces."""
    made = good(call(pool, name="db", size_gib=1))
    with pool.image(f"volume-{made['id']}", read_only=True) as image:
        header = f"rbd_header.{image.id()}"
    run = spawn.Process(target=killed_after, args=(2, Volumes, pool.backend, {"name": "db", "state": "absent"}))
    run.start()
    run.join(60)
    assert run.exitcode == -signal.SIGKILL
    with pool.open() as io:
        io.remove_object(header)
    assert [(v["name"], v["status"]) for v in call(pool, module="cinder_volume_info")["volumes"]] == [("db", "deleting")]
    assert good(call(pool, name="db", state="absent"))["steps"] == ["remove volume db"]
    assert pool.images() == [] and not call(pool, name="db", state="absent")["changed"]


# ---- space


@pytest.fixture(scope="module")
def counting():
    """A cluster with a manager, which counts."""
    with Ceph(manager=True) as ceph:
        pool = RbdPool(ceph, "")
        ceph.wait_until(lambda: call(pool, module="cinder_pool_info")["total_gib"], "the manager counts nothing")
        yield pool


def test_capacity(counting):
    make_image(counting, OTHER, 3 * GIB)
    good(call(counting, name="db", size_gib=4))
    found = good(call(counting, module="cinder_pool_info"))
    assert 1.5 < found["free_gib"] <= found["total_gib"] <= 2 and found["pool"] == "pool volumes"
    assert (found["allocated_gib"], found["provisioned_gib"], found["max_over_subscription_ratio"]) == (4, 7, 20)
    assert found["virtual_free_gib"] == pytest.approx(20 * found["total_gib"] - 7, abs=0.2)
    assert "has promised" in str(found["advice"])
    told = refusal(call(counting, name="big", size_gib=1000))
    assert "volume big can't be made: pool volumes of 1.9 GiB would have 1007 GiB promised, more than 20 times what it holds" in told
    assert refusal(call(counting, check=True, name="big", size_gib=1000)) == told
    good(call(counting, backend={"max_over_subscription_ratio": 1000}, name="big", size_gib=1000))
    good(call(counting, volumes=[{"name": "big"}, {"name": "db"}], state="absent"))


def test_capacity_without_a_manager_is_unknown_and_not_zero(pool):
    good(call(pool, name="db", size_gib=4))
    before = pool.traces()
    found = good(call(pool, module="cinder_pool_info"))
    assert {found[key] for key in ("total_gib", "free_gib", "virtual_free_gib", "over_subscription_ratio")} == {None}
    assert found["allocated_gib"] == 4 and "have a ceph-mgr running" in str(found["advice"])
    assert pool.traces() == before


def test_a_full_pool(counting):
    ceph = counting.ceph
    good(call(counting, name="old", size_gib=1))
    good(call(counting, name="older", size_gib=1))
    good(call(counting, name="source", size_gib=1))
    good(call(counting, name="clone", source={"volume": "source"}))
    good(call(counting, name="older", state="absent"))
    ceph.command({"prefix": "osd pool set-quota", "pool": "volumes", "field": "max_objects", "val": "1"})
    try:
        ceph.wait_until(lambda: "full_quota" in ceph.command({"prefix": "osd pool ls", "detail": "detail"}), "the pool is not full")
        for check in (False, True):
            told = refusal(call(counting, check=check, name="new", size_gib=1))
            assert told == (
                "volume new can't be made: pool volumes is full: it has reached its quota; "
                "raise that (ceph osd pool set-quota), or delete volumes"
            )
            assert "volume old can't be extended: pool volumes is full" in refusal(call(counting, check=check, name="old", size_gib=2))
            told = refusal(call(counting, check=check, name="source", state="absent", clones="flatten"))
            assert "volume source can't be deleted: pool volumes is full" in told
        assert "full" in str(call(counting, module="cinder_pool_info")["advice"])
        good(call(counting, module="cinder_attachment", volume="old", instance="w", host="c", action="reserve"))
        for action in ("terminate", "release"):
            good(call(counting, module="cinder_attachment", volume="old", instance="w", action=action))
        good(call(counting, name="old", state="absent"))
    finally:
        ceph.command({"prefix": "osd pool set-quota", "pool": "volumes", "field": "max_objects", "val": "0"})
        ceph.wait_until(lambda: "full_quota" not in ceph.command({"prefix": "osd pool ls", "detail": "detail"}), "the pool is full for ever")


# ---- who does not answer


def in_time(pool, seconds, **options):
    began = time.monotonic()
    told = refusal(call(pool, name="db", size_gib=1, **options))
    assert time.monotonic() - began < seconds
    return told


def test_a_wrong_key_an_unknown_user_and_keys_that_are_missing(pool, tmp_path):
    ceph = pool.ceph
    other = tmp_path / "keyring"
    other.write_text("".join(f"[client.{name}]\n\tkey = AQBPLvBlAAAAABAAtZ4C0V6lUdDkPuYlL8mVKw==\n" for name in ("cinder", "eve")))
    for user in ("cinder", "eve"):
        told = in_time(pool, 4, backend={"keyring": str(other), "user": user})
        assert f"refuses client.{user}: it does not know it or has another key; compare `ceph auth get client.{user}` with {other}" in told
        assert ceph.ip in told
    for backend in ({"user": "nobody"}, {"keyring": "/does/not/exist"}):
        told = in_time(pool, 4, backend=backend)
        assert f"there is no key of client.{backend.get('user', 'cinder')} for the Ceph cluster of" in told and "backend.keyring" in told
    other.write_text("nonsense")
    told = in_time(pool, 4, backend={"keyring": str(other)})
    assert f"there is no key of client.cinder for the Ceph cluster of [v2:{ceph.ip}:3300,v1:{ceph.ip}:6789] in {other}" in told


def look_as_nobody(backend, told):
    os.setgid(65534)
    os.setuid(65534)
    try:
        find_volumes({"backend": backend})
    except Unavailable as refused:
        told.put(str(refused))


def test_a_key_that_this_task_may_not_read(pool):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        keyring = Path(shutil.copy(pool.ceph.directory / "client.cinder.keyring", place))
        assert keyring.stat().st_mode & 0o077 == 0
        told = spawn.Queue()
        look = spawn.Process(target=look_as_nobody, args=({**pool.backend, "conf": shutil.copy(pool.ceph.conf, place), "keyring": str(keyring)}, told))
        look.start()
        assert f"the key of client.cinder in {keyring} can't be read; let this task's user read it" in told.get(timeout=30)
        look.join(10)


def test_a_user_who_may_not(pool):
    reader = user_of(pool.ceph, "reader", "profile rbd-read-only")
    told = in_time(pool, 8, backend=reader)
    assert "does not let client.reader do that; grant it beside what it has (ceph auth caps, with mon 'profile rbd' osd" in told
    assert f"'profile rbd pool=volumes namespace={pool.namespace}'" in told


def test_a_user_who_may_in_his_namespace_alone(pool):
    tenant = user_of(pool.ceph, f"tenant-{pool.namespace}", f"profile rbd pool=volumes namespace={pool.namespace}")
    for options in ({"size_gib": 1}, {"size_gib": 2, "new_name": "log"}, {"name": "log", "state": "absent"}):
        assert good(call(pool, backend=tenant, **{"name": "db", **options}))["changed"]
    assert "does not let client.tenant" in in_time(RbdPool(pool.ceph), 8, backend=tenant)


def user_of(ceph, name, caps):
    """The options of a backend for a new user with these capabilities."""
    (made,) = json.loads(ceph.command({"prefix": "auth get-or-create", "entity": f"client.{name}", "caps": ["mon", "profile rbd", "osd", caps]}))
    keyring = ceph.directory / f"client.{name}.keyring"
    keyring.write_text(f"[client.{name}]\n\tkey = {made['key']}\n")
    return {"user": name, "keyring": str(keyring)}


def test_places_that_are_not_there(pool, tmp_path):
    assert "there is no pool none in the Ceph cluster of" in in_time(pool, 4, backend={"pool": "none"})
    assert "there is no namespace none in pool volumes of the Ceph cluster" in in_time(pool, 4, backend={"namespace": "none"})
    conf = tmp_path / "ceph.conf"
    assert f"the Ceph configuration {conf} can't be read: No such file or directory; bring it here" in in_time(pool, 4, backend={"conf": str(conf)})
    conf.write_text("[global\nnonsense")
    assert f"the Ceph configuration {conf} can't be understood" in in_time(pool, 4, backend={"conf": str(conf)})
    conf.write_text("[global]\n")
    assert f"the Ceph configuration {conf} names no monitors; give mon_host there" in in_time(pool, 4, backend={"conf": str(conf)})


@pytest.fixture
def mortal():
    """A cluster that may be harmed."""
    with Ceph("bluestore", size=1 << 30) as ceph:
        pool = RbdPool(ceph, "")
        good(call(pool, name="db", size_gib=1))
        yield pool


BRIEF = {"timeout": 2}


def test_a_monitor_and_an_osd_that_do_not_answer(mortal):
    ceph = mortal.ceph
    before = mortal.images()
    for harm, heal in ((ceph.kill, ceph.launch), (ceph.pause, ceph.resume)):
        harm("mon")
        told = in_time(mortal, 8, backend=BRIEF)
        assert f"the Ceph cluster of [v2:{ceph.ip}:3300,v1:{ceph.ip}:6789] does not answer client.cinder within 2 s; check that its monitors run" in told
        heal("mon")
        ceph.wait_until(lambda: not call(mortal, name="db", size_gib=1).get("failed"), "the monitor does not come back")
        harm("osd")
        for options in ({"name": "db", "size_gib": 2}, {"name": "new", "size_gib": 1}, {"name": "db", "state": "absent"}):
            told = refusal_in_time(mortal, 8, **options)
            assert "did not answer within 2 s: see with ceph -s which OSDs or monitors are down, and run again" in told and ceph.ip in told
        heal("osd")
        ceph.wait_until(lambda: not call(mortal, name="db", size_gib=1).get("failed"), "the OSD does not come back")
    assert mortal.images() == before and good(call(mortal, name="db", size_gib=2))["changed"]


def refusal_in_time(pool, seconds, **options):
    began = time.monotonic()
    told = refusal(call(pool, backend=BRIEF, **options))
    assert time.monotonic() - began < seconds
    return told


@pytest.mark.parametrize("library", ["rados", "rbd"])
def test_a_missing_library_is_named(pool, tmp_path, library):
    (tmp_path / f"{library}.py").write_text("raise ImportError('no library')")
    told = refusal(call(pool, name="db", size_gib=1, env={"PYTHONPATH": f"{tmp_path}:{collections_path()}"}))
    assert told == "the Python libraries rados and rbd are missing on this host; install the packages python3-rados and python3-rbd"


# ---- secrets


def test_the_key_is_seen_nowhere(pool):
    secret = next(line.split("= ")[1] for line in (pool.ceph.directory / "client.cinder.keyring").read_text().splitlines() if "key = " in line)
    seen, stop = set(), threading.Event()
    watcher = threading.Thread(target=watch_arguments, args=(seen, stop))
    watcher.start()
    try:
        answers = [call(pool, check=check, **options) for options in STORIES["made"][1:2] + STORIES["grown and renamed"][1:2] for check in (True, False)]
        answers += [call(pool, module=module) for module in ("cinder_pool_info", "cinder_volume_info")]
        answers += [call(pool, module="cinder_attachment", volume="log", instance="w", host="c", action="reserve")]
    finally:
        stop.set()
        watcher.join(10)
    assert len(secret) == 40 and all(good(answer) and secret not in str(answer) for answer in answers)
    assert any("cinder_volume" in line for line in seen) and not [line for line in seen if secret in line]


def watch_arguments(seen, stop):
    while not stop.is_set():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))


def test_a_key_that_everybody_can_read_is_told(pool):
    keyring = pool.ceph.directory / "client.cinder.keyring"  # the one that the configuration names
    assert good(call(pool, name="db", size_gib=1)).get("warnings") is None
    keyring.chmod(0o644)
    try:
        told = f"everybody on this host can read the key in {keyring}"
        assert told in str(good(call(pool, module="cinder_pool_info"))["advice"])
        assert told in str(good(call(pool, name="db", size_gib=1))["warnings"])
    finally:
        keyring.chmod(0o600)
