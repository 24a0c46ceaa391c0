# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups by the real restic, of files and of images in a Ceph pool, in a directory and behind the S3 of a real radosgw."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._backups import restic as engine
from ansible_collections.stackless.block.plugins.module_utils._manage_backup import Backups
from ansible_collections.stackless.block.plugins.module_utils._model.backup import Backup, Keep, kept
from ansible_collections.stackless.block.plugins.module_utils._volumes import open_backend

from tests.contract.test_images import child_named
from tests.contract.test_reserve_race import call as call_inside
from tests.rig.pools import MANY, call, content, foretold, good, refusal, settled, snapshot, snapshots, volumes
from tests.rig.s3 import S3

GIB, MIB = 1 << 30, 1 << 20
PASSWORD = "not-a-secret-" + secrets.token_hex(4)

spawn = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def s3(ceph):
    with S3(ceph) as gateway:
        yield gateway


@pytest.fixture
def repository(request, tmp_path_factory):
    if getattr(request, "param", "directory") == "directory":
        place = {"location": str(tmp_path_factory.mktemp("backups") / "here")}
    else:
        place = request.getfixturevalue("s3").repository(f"r{time.monotonic_ns()}")
    return {**place, "password": PASSWORD, "create": True}


BOTH = pytest.mark.parametrize("pool,repository", [pytest.param("file", "directory", marks=pytest.mark.long), ("rbd", "s3")], indirect=True)
FILE = pytest.mark.parametrize("pool", ["file"], indirect=True)
FILE_FIRST = pytest.mark.parametrize("pool", ["file", pytest.param("rbd", marks=pytest.mark.long)], indirect=True)
RBD = pytest.mark.parametrize("pool", ["rbd"], indirect=True)


@pytest.fixture
def backup(pool, repository):
    """backup(pool, ...) as the other acts of tests/rig/pools.py."""

    def act(pool, check=False, name="monday", volume="db", **options):
        repo = {**repository, **options.pop("repo", {})}
        return call(pool, check=check, module="cinder_backup", repository=repo, volume=volume, name=name, **options)

    return act


def listed(repository, **options):
    from tests.rig.collection import run_module

    return good(run_module("cinder_backup_info", {"repository": repository, **options}))


def restic(repository, *words):
    """What restic itself says, as anybody would ask it."""
    own = {"RESTIC_REPOSITORY": repository["location"], "RESTIC_PASSWORD": PASSWORD, "TZ": "UTC"}
    keys = {"AWS_ACCESS_KEY_ID": repository.get("access_key", ""), "AWS_SECRET_ACCESS_KEY": repository.get("secret_key", "")}
    return subprocess.run(["restic", "--no-cache", *words], env={**os.environ, **own, **keys}, capture_output=True, check=True).stdout


def snapshots_in(repository):
    return json.loads(restic(repository, "snapshots", "--json", "--no-lock"))


def attach(pool, *actions, volume="db"):
    for action in actions or ("reserve", "complete"):
        good(call(pool, module="cinder_attachment", volume=volume, instance="web-1", host="c", action=action))


def held(pool, name):
    """How many bytes a volume has, and what they are."""
    backend = open_backend({"max_clone_depth": 5, **pool.backend})
    with backend.reading(backend.observe()[name]) as data:
        return data.size_bytes, content(data)


@BOTH
def test_a_full_one_and_three_that_cost_what_has_changed(pool, db, backup, repository):
    points, sizes = {}, []
    for number, name in enumerate(["sunday", "monday", "tuesday", "wednesday"]):
        pool.write(db["path"], os.urandom(MIB + 512), number * 200 * MIB + 1024)
        if number == 2:
            pool.write(db["path"], bytes(4 * MIB), 4 * MIB)
        taken = settled(pool, backup, name=name) if number == 3 else good(backup(pool, name=name))
        assert taken["changed"] and taken["volume_id"] == db["id"] and taken["size_gib"] == 1
        points[name] = held(pool, "db")
        sizes.append(json.loads(restic(repository, "stats", "--mode", "raw-data", "--json"))["total_size"])
    assert max(sizes[1] - sizes[0], sizes[2] - sizes[1], sizes[3] - sizes[2]) < 9 * MIB, "what is there already is not stored again"
    for name, (size, data) in points.items():
        made = good(backup(pool, name=name, state="restored", to=f"from-{name}"))
        assert held(pool, f"from-{name}") == (size, data) and made["size_bytes"] == size
    if pool.driver == "file":
        assert os.stat(made["path"]).st_blocks * 512 < 40 * MIB, "sparse stays sparse"
    assert [one["name"] for one in listed(repository, verify=True)["backups"] if one["verified"]] == list(points)
    whole = restic(repository, "dump", taken["id"] or snapshots_in(repository)[-1]["id"], f"volume-{db['id']}.raw")
    assert len(whole) == GIB and whole[600 * MIB : 602 * MIB] == pool.read(db["path"], 2 * MIB, 600 * MIB), "it can be had without us"
    assert volumes(pool)["db"]["status"] == "available" and not volumes(pool)["db"]["snapshots"]
    if pool.driver == "rbd":
        with pool.image(f"volume-{db['id']}", read_only=True) as image:
            assert not list(image.list_snaps())


@FILE
def test_a_backup_from_first_to_last(pool, backup, repository):
    good(call(pool, name="db", size_gib=2, volume_type="ssd", description="größe, 100%", metadata={"a,b": "c=d"}))
    made = settled(pool, backup, description="by, hand")
    assert made["steps"][0] == "mark volume db backing-up" and made["steps"][-1] == "mark volume db as it was before"
    (found,) = listed(repository)["backups"]
    assert (found["volume"], found["name"], found["description"], found["size_gib"]) == ("db", "monday", "by, hand", 2)
    assert found["id"] == snapshots_in(repository)[0]["id"] == made["id"] and found["created_at"].endswith("Z")
    assert "another description" in refusal(foretold(pool, backup, description="other"))
    good(call(pool, name="db", new_name="dbx"))
    assert not good(backup(pool, volume="dbx"))["changed"], "it belongs to the volume, whatever its name"
    good(call(pool, name="dbx", state="absent"))
    assert not good(backup(pool))["changed"]
    back = settled(pool, backup, state="restored")
    record = volumes(pool)["db"]["record"]
    assert (record["volume_type"], record["description"], record["metadata"]) == ("ssd", "größe, 100%", {"a,b": "c=d"})
    assert back["size_gib"] == 2 and record["source_backup"] == found["id"] and back["steps"][0] == "record volume db as restoring-backup"
    assert "of another volume of that name" in refusal(foretold(pool, backup))
    gone = settled(pool, backup, state="absent")
    assert gone["status"] == "deleted" and listed(repository)["backups"] == [] and snapshots_in(repository) == []


@RBD
def test_a_volume_is_made_what_it_was(pool, db, backup):
    good(backup(pool))
    pool.write(db["path"], b"b" * MANY, 100 * MIB)
    told = refusal(foretold(pool, backup, state="restored"))
    assert "it is there and holds something else; name another one with to, or have its data overwritten with overwrite=true" in told
    good(call(pool, name="db", size_gib=2))
    pool.write(db["path"], b"b" * 4096, 2 * GIB - 4096)
    attach(pool, "reserve")
    assert "it is held by web-1 on c" in refusal(foretold(pool, backup, state="restored", overwrite=True))
    attach(pool, "terminate", "release")
    back = settled(pool, backup, state="restored", overwrite=True)
    assert back["steps"][0] == "mark volume db restoring-backup" and back["id"] == db["id"]
    assert held(pool, "db") == (2 * GIB, {number: b"a" * 4096 for number in range(MANY // 4096)})
    attach(pool, "reserve", "terminate", "release")
    assert good(backup(pool, state="restored", overwrite=True, check=True))["changed"], "somebody may have written to it"
    small = good(call(pool, name="small", size_gib=1))
    good(backup(pool, volume="db", name="larger"))
    assert "extend it first" in refusal(foretold(pool, backup, name="larger", state="restored", to="small", overwrite=True))
    assert pool.size_of(small["path"]) == GIB


@FILE
def test_what_is_made_from_a_backup_is_never_overwritten_unasked(pool, db, backup):
    good(backup(pool))
    good(backup(pool, state="restored", to="new"))
    attach(pool, "reserve", "terminate", "release", volume="new")
    pool.write(volumes(pool)["new"]["path"], b"guest")
    assert not good(backup(pool, state="restored", to="new"))["changed"] and pool.read(volumes(pool)["new"]["path"], 5) == b"guest"
    assert good(backup(pool, state="restored", to="new", overwrite=True))["changed"] and pool.read(volumes(pool)["new"]["path"], 5) == b"aaaaa"


@RBD
def test_while_an_instance_holds_it(pool, db, backup):
    attach(pool)
    assert "or take it as it is at that moment with force=true" in refusal(foretold(pool, backup))
    made = settled(pool, backup, force=True)
    assert made["steps"][1] == "take a snapshot of volume db to read from" and volumes(pool)["db"]["status"] == "in-use"
    good(backup(pool, state="restored", to="new"))
    assert held(pool, "new") == held(pool, "db")


@FILE_FIRST
def test_from_a_snapshot_while_an_instance_writes_on(pool, db, backup):
    good(snapshot(pool, name="night"))
    attach(pool)
    was = held(pool, "db")
    pool.write(db["path"], b"b" * MIB, 200 * MIB)
    made = settled(pool, backup, snapshot="night")
    assert made["steps"][1].startswith("write backup monday") and volumes(pool)["db"]["status"] == "in-use" and made["snapshot"] == "night"
    assert [one["status"] for one in snapshots(pool)] == ["available"] and made["created_at"] == snapshots(pool)[0]["created_at"]
    good(backup(pool, state="restored", to="new"))
    assert held(pool, "new") == was != held(pool, "db")
    good(snapshot(pool, name="night", state="absent"))
    assert not good(backup(pool, snapshot="night"))["changed"]
    assert "volume db has no snapshot night" in refusal(foretold(pool, backup, name="tuesday", snapshot="night"))
    if pool.driver == "file":
        attach(pool, "begin_detaching", "terminate", "release")
        good(snapshot(pool, name="night"))
        assert "was not taken from this snapshot night" in refusal(foretold(pool, backup, snapshot="night")), "it is another one"
        os.unlink(Path(pool.path, f"snapshot-{snapshots(pool)[0]['id']}"))
        assert "the data of snapshot night of volume db is gone" in refusal(foretold(pool, backup, name="tuesday", snapshot="night"))


@FILE
def test_many_at_once_and_what_stays_of_them(pool, repository):
    good(call(pool, volumes=[{"name": "db"}, {"name": "log"}], size_gib=1))
    options = {"module": "cinder_backup", "repository": repository}
    made = settled(pool, call, **options, name="a", backups=[{"volume": "db"}, {"volume": "log"}, {"volume": "db", "name": "b"}])
    assert [(one["volume"], one["name"]) for one in made["results"]] == [("db", "a"), ("log", "a"), ("db", "b")] and made["results"][0]["status"] == "available"
    failing = call(pool, **options, backups=[{"volume": "gone", "name": "d"}, {"volume": "db", "name": "d"}])
    assert "there is no volume gone at" in refusal(failing) and [one["failed"] for one in failing["results"]] == [True, False]
    pruned = settled(pool, call, **options, state="pruned", keep={"last": 1}, backups=[{"volume": "db"}, {"volume": "log"}])
    assert pruned["steps"] == ["delete the backups a, b of volume db"] and [one["names"] for one in pruned["results"]] == [["d"], ["a"]]
    assert [(one["volume"], one["name"]) for one in listed(repository)["backups"]] == [("db", "d"), ("log", "a")]
    assert listed(repository, volumes=["log", "lo"])["backups"][0]["volume"] == "log" and len(snapshots_in(repository)) == 2


@FILE
def test_a_check_builds_upon_the_checks_before_it(pool, db, backup):
    told = good(backup(pool, check=True))
    thinned = good(backup(pool, check=True, name=None, state="pruned", keep={"last": 1}, assume=told["results"]))
    assert thinned["names"] == ["monday"] and good(backup(pool, check=True, name="monday", assume=told["results"]))["changed"] is False


@FILE
@pytest.mark.long
def test_what_stays_is_what_restic_would_keep(pool, db, repository, tmp_path):
    restic(repository, "init")
    (tmp_path / "f").write_text("f")  # too many of whole volumes would take long
    times = [f"20{year}-{month:02}-{day:02} {hour:02}:30:00" for year in (25, 26) for month, day in ((1, 4), (1, 5), (12, 31)) for hour in (0, 23)]
    for time_ in times:
        restic(repository, "backup", "--time", time_, str(tmp_path / "f"), "--host", "h")
    backups = [Backup(str(number), "db", "i", 1, time_.replace(" ", "T") + "Z") for number, time_ in enumerate(times)]
    for rules in ({"last": 2}, {"hourly": 3, "yearly": 2}, {"daily": 2, "last": 1}, {"weekly": 3}, {"weekly": 2, "monthly": 3, "yearly": 1}):
        words = [word for rule, count in rules.items() for word in (f"--keep-{rule}", str(count))]
        (said,) = json.loads(restic(repository, "forget", "--dry-run", "--json", "--group-by", "host", *words))
        assert [one.created_at for one in kept(backups, Keep(**rules))] == [f"{one['time'][:19]}Z" for one in said["keep"]], rules


@FILE
def test_refusals_and_what_can_go_wrong(pool, db, backup, repository):
    assert f"there is no repository at {repository['location']}" in refusal(foretold(pool, backup, repo={"create": False}))
    assert "there is no backup monday of volume db" in refusal(foretold(pool, backup, state="restored"))
    assert not good(backup(pool, state="absent"))["changed"]
    good(backup(pool))
    for options, words in (
        ({"repo": {"password": "another"}}, "the password of the repository at"),
        ({"repo": {"password": None}}, "give either repository.password or repository.password_file"),
        ({"repo": {"location": "relative"}}, "repository.location is 'relative'"),
        ({"repo": {"location": "s3:https://me:secret@host/bucket/x"}}, "without a user in it"),
        ({"name": "a/b"}, "can't be a backup's name"),
        ({"volume": "gone", "name": "new"}, "there is no volume gone at"),
        ({"name": "tuesday", "state": "restored"}, "there is no backup tuesday of volume db at"),
        ({"keep": {"last": 1}}, "with state=pruned"),
        ({"state": "pruned", "keep": {"last": 0}}, "give how many stay"),
    ):
        assert words in refusal(backup(pool, **options)), options
    assert [one["name"] for one in listed(repository)["backups"]] == ["monday"] and volumes(pool)["db"]["status"] == "available"


@pytest.mark.parametrize("pool,repository", [("file", "s3")], indirect=True)
def test_what_s3_refuses(pool, db, backup, repository):
    assert "there is no repository at s3:http://" in refusal(backup(pool, repo={"create": False}))
    assert "signature" in refusal(backup(pool, repo={"secret_key": "wrong"})) and volumes(pool)["db"]["status"] == "available"


@FILE
def test_nothing_secret_is_seen(pool, db, backup, repository, tmp_path_factory):
    spied = tmp_path_factory.mktemp("spied")
    (spied / "restic").write_text(f'#!/bin/sh\necho "$@" >>{spied}/argv\nexec {shutil.which("restic")} "$@"\n')
    (spied / "restic").chmod(0o755)
    answer = backup(pool, repo={"access_key": "AKID", "secret_key": "SEKRIT"}, env={"PATH": f"{spied}:{os.environ['PATH']}"})
    seen = json.dumps(good(answer)) + (spied / "argv").read_text() + json.dumps(listed(repository))
    assert "backup --stdin" in seen and not [secret for secret in (PASSWORD, "SEKRIT") if secret in seen]
    secret = tmp_path_factory.mktemp("secret") / "file"
    secret.write_text(PASSWORD + "\n")
    assert not good(backup(pool, repo={"password": None, "password_file": str(secret)}))["changed"]


@FILE
def test_without_restic_it_is_said_what_to_install(pool, db, repository, monkeypatch):
    monkeypatch.setattr(engine, "_RESTIC", "restic-that-is-not-there")
    answer = call_inside(Backups, backend=pool.backend, repository=repository, backups=None, volume="db", name="monday")
    assert answer["msg"] == "restic is not installed on this host; install the package restic (0.14 or newer)" and volumes(pool)["db"]["status"] == "available"


@FILE
def test_a_damaged_one_is_told_and_not_restored(pool, db, backup, repository):
    pool.write(db["path"], os.urandom(20 * MIB), 300 * MIB)
    good(backup(pool))
    packs = sorted((path for path in Path(repository["location"], "data").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    packs[-1].chmod(0o600)
    with packs[-1].open("r+b") as pack:
        pack.seek(packs[-1].stat().st_size // 2)
        pack.write(b"damage" * 100)
    told = listed(repository, verify=True)
    assert told["backups"][0]["verified"] is False and "restic can't give backup monday of volume db back" in told["backups"][0]["flaw"]
    answer = backup(pool, state="restored", to="new")
    assert "restic can't give backup monday of volume db back" in refusal(answer) and answer["steps"][-1] == "remove volume new again"
    assert sorted(volumes(pool)) == ["db"]
    assert "restic can't give" in refusal(backup(pool, state="restored", overwrite=True)) and volumes(pool)["db"]["status"] == "restoring-backup"


# ---- what gets in the way


def stopping(hook, backend, repository, options, begun, go_on):
    """A run that stops in the middle of its data, and is killed there when it is not told to go on."""
    plain, count = getattr(engine, hook), []

    def slow(*arguments):
        count.append(1)
        if len(count) == 3:
            begun.set()
            if not go_on.wait(60):
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    setattr(engine, hook, slow)
    answer = call_inside(Backups, backend=backend, repository=repository, backups=None, **options)
    raise SystemExit(7 if answer["failed"] else 0)


@contextlib.contextmanager
def stopped(hook, pool, repository, **options):
    begun, go_on = spawn.Event(), spawn.Event()
    run = spawn.Process(target=stopping, args=(hook, pool.backend, repository, {"volume": "db", "name": "monday", **options}, begun, go_on))
    run.start()
    child = None
    try:
        assert begun.wait(60)
        child = child_named(run.pid, "restic")
        yield run, go_on
    finally:
        run.kill()
        run.join(10)
    for _look in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        time.sleep(0.05)
    raise AssertionError("its restic is still there")


@FILE_FIRST
def test_killed_while_it_is_taken(pool, db, backup, repository):
    good(backup(pool, name="old"))
    with stopped("_send_zeros", pool, repository):
        assert volumes(pool)["db"]["status"] == "backing-up" and volumes(pool)["db"]["record"]["backup"]["name"] == "monday"
        being = "backup monday of it is being taken; let the run that is at it end, run it again if it was killed"
        for act, options in ((call, {"name": "db", "state": "absent"}), (call, {"name": "db", "size_gib": 2}), (backup, {"name": "tuesday"})):
            assert being in refusal(foretold(pool, act, **options)) or "while it is copied to backup monday" in refusal(act(pool, **options))
        assert "is already locked by PID" in refusal(backup(pool, name="old", state="absent", timeout=1))
        if pool.driver == "file":
            told = refusal(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
            assert "volume db can't be reserved for web-1 while it is copied to backup monday" in told
        else:
            attach(pool)
            pool.write(db["path"], b"b" * MANY)
        good(call(pool, name="db", description="the record may change meanwhile"))
    assert volumes(pool)["db"]["status"] == "backing-up" and [one["name"] for one in listed(repository)["backups"]] == ["old"]
    settled(pool, backup)
    assert volumes(pool)["db"]["status"] == {"file": "available", "rbd": "in-use"}[pool.driver] and volumes(pool)["db"]["record"]["backup"] is None
    good(backup(pool, state="restored", to="new"))
    assert held(pool, "new") == (GIB, {number: b"a" * 4096 for number in range(MANY // 4096)}), "it is what it was when it was begun"
    assert len(snapshots_in(repository)) == 2 and nothing_beside(pool, db)
    assert good(backup(pool, name="old", state="absent"))["changed"], "what the killed run had locked is free"


def nothing_beside(pool, db):
    if pool.driver == "file":
        return not [name for name in os.listdir(pool.path) if not name.startswith("volume-")]
    with pool.image(f"volume-{db['id']}", read_only=True) as image:
        return not list(image.list_snaps())


@FILE_FIRST
def test_a_killed_one_is_given_up_for_one_of_another_name(pool, db, backup, repository):
    with stopped("_send_zeros", pool, repository):
        pass
    taken = settled(pool, backup, name="tuesday")
    assert taken["steps"][0] == "give up backup monday of volume db, whose run was killed"
    assert [one["name"] for one in listed(repository)["backups"]] == ["tuesday"] and volumes(pool)["db"]["status"] == "available"
    assert nothing_beside(pool, db) and not os.path.exists(f"/run/stackless-block-at-{db['id']}")


@RBD
@pytest.mark.long
def test_killed_and_given_up(pool, db, backup, repository):
    with stopped("_send_zeros", pool, repository):
        pass
    gone = settled(pool, backup, state="absent")
    assert gone["steps"][-1] == "mark volume db as it was before" and volumes(pool)["db"]["status"] == "available"
    assert snapshots_in(repository) == [] and nothing_beside(pool, db)


@FILE
def test_a_run_that_was_overtaken_leaves_no_backup(pool, db, backup, repository):
    """Its connection was lost, and the volume was given to somebody before it got to its end."""
    with stopped("_send_zeros", pool, repository) as (run, go_on):
        good(backup(pool, state="absent"))
        attach(pool)
        pool.write(db["path"], b"guest", 8 * MIB)
        go_on.set()
        run.join(60)
        assert run.exitcode == 7
    assert snapshots_in(repository) == [] and volumes(pool)["db"]["status"] == "in-use"


def committed(backend, repository, begun, go_on):
    """A run that stops when restic has kept its backup, and before it says so in the volume's record."""
    plain = engine.Restic.keep

    def keep(self, one, data):
        kept_one = plain(self, one, data)
        begun.set()
        assert go_on.wait(60)
        return kept_one

    engine.Restic.keep = keep
    answer = call_inside(Backups, backend=backend, repository=repository, backups=None, volume="db", name="monday")
    os._exit(7 if answer["failed"] else 0)


@FILE
def test_the_same_play_run_again_says_so_for_the_first(pool, db, backup, repository):
    begun, go_on = spawn.Event(), spawn.Event()
    first = spawn.Process(target=committed, args=(pool.backend, repository, begun, go_on))
    first.start()
    assert begun.wait(60)
    again = good(backup(pool))
    assert again["steps"] == ["mark volume db as it was before"]
    go_on.set()
    first.join(60)
    assert first.exitcode == 0 and [one["id"] for one in snapshots_in(repository)] == [again["id"]]


@FILE
@pytest.mark.long
def test_a_run_that_was_overtaken_leaves_no_backup_though_others_are_at_the_repository(pool, db, backup, repository):
    with stopped("_send_zeros", pool, repository) as (run, go_on):
        good(backup(pool, state="absent"))
        attach(pool)
        pool.write(db["path"], b"guest", 8 * MIB)
        own = {"RESTIC_REPOSITORY": repository["location"], "RESTIC_PASSWORD": repository["password"]}
        words = ["restic", "--no-cache", "backup", "--stdin", "--host", "another"]
        with subprocess.Popen(words, env={**os.environ, **own}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as other:
            time.sleep(3)
            go_on.set()
            run.join(60)
            other.stdin.close()
        assert run.exitcode == 7
    assert listed(repository)["backups"] == [] and volumes(pool)["db"]["status"] == "in-use"


@FILE_FIRST
def test_killed_while_it_is_restored(pool, db, backup, repository):
    good(backup(pool))
    pool.write(db["path"], b"b" * MANY, 300 * MIB)
    for options in ({"to": "new"}, {"overwrite": True}):
        name = options.get("to", "db")
        with stopped("_filled", pool, repository, state="restored", **options):
            assert volumes(pool)[name]["status"] == "restoring-backup"
            reserve = call(pool, module="cinder_attachment", volume=name, instance="web-1", host="c", action="reserve")
            assert f"volume {name} is restoring-backup" in refusal(reserve)
        assert f"volume {name} is half restored from a backup by an earlier run" in refusal(foretold(pool, call, name=name, size_gib=1))
        settled(pool, backup, state="restored", **options)
        assert held(pool, name) == (GIB, {number: b"a" * 4096 for number in range(MANY // 4096)}) and nothing_beside(pool, db)
    with stopped("_filled", pool, repository, state="restored", to="other"):
        pass
    settled(pool, call, name="other", state="absent")
    assert sorted(volumes(pool)) == ["db", "new"]


def dying(verb, backend, repository, options):
    """A run that is killed while its restic does something."""
    plain = engine.Restic._said

    def said(self, words):
        if words[0] == verb:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return plain(self, words)

    engine.Restic._said = said
    call_inside(Backups, backend=backend, repository=repository, backups=None, volume="db", **options)


@FILE
@pytest.mark.long
def test_killed_while_it_deletes_or_makes_the_repository(pool, db, backup, repository):
    for verb, options in (("init", {"name": "monday"}), ("forget", {"name": "monday", "state": "absent"}), ("prune", {"name": "tuesday", "state": "absent"})):
        run = spawn.Process(target=dying, args=(verb, pool.backend, repository, options))
        run.start()
        run.join(60)
        assert run.exitcode == -signal.SIGKILL
        good(backup(pool, **options))
        assert not good(backup(pool, **options))["changed"]
        good(backup(pool, name="tuesday"))
    assert [one["name"] for one in listed(repository, verify=True)["backups"] if one["verified"]] == ["tuesday"]
