# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots, clones, reverted volumes and images in a volume group, on the real LVM: bytes, kills, room, and somebody who writes meanwhile."""

from __future__ import annotations

import pytest

from tests.contract import test_snapshots as same
from tests.lab.test_lvm import KILLER, inside, is_zero, leave_old_bytes, letters, pattern
from tests.rig.lab.volume_group import LvmPool, image
from tests.rig.pools import call, foretold, good, refusal, settled, snapshot, snapshots, volumes

pytestmark = pytest.mark.long  # test_lvm_story.py, in `make test`, tells it in short

globals().update({name: one for name, one in vars(same).items() if name.startswith("test_")})  # what holds for files and for Ceph holds here

thin = pytest.mark.parametrize("pool", ["thin"], indirect=True)
thick = pytest.mark.parametrize("pool", ["thick"], indirect=True)


def path_of(pool, name):
    return volumes(pool)[name]["path"]


# ---- bytes


@thick
def test_no_old_byte_is_readable(pool):
    """Nor is what a snapshot or a volume held, once they are gone."""
    host = pool.host
    leave_old_bytes(host, 7500)
    made = good(call(pool, name="db", size_gib=1))
    pattern(host, made["path"], "S", 512)
    good(snapshot(pool))
    for name, source in (("new", {"volume": "db", "snapshot": "monday"}), ("copy", {"volume": "db"})):
        path = good(call(pool, name=name, size_gib=2, source=source))["path"]
        assert letters(host, path, 0, 1024) == "S" and is_zero(host, path, 1, 2)
        good(call(pool, name=name, state="absent"))
    path = good(call(pool, name="disk", size_gib=2, **image(host)))["path"]
    assert letters(host, path, 0, 1024) == "i" and is_zero(host, path, 1, 2)
    good(call(pool, name="disk", state="absent"))
    good(call(pool, name="db", state="absent", cascade=True))
    disk = host.run("pvs --noheadings -o pv_name").strip()
    assert "S" not in letters(host, disk, 1, 8190)


@thin
def test_a_thin_volume_from_an_image_takes_what_the_image_holds(pool):
    path = settled(pool, call, name="disk", size_gib=2, **image(pool.host))["path"]
    assert 2.2 < percent(pool, path) < 2.6, "48 of 2048 MiB"
    assert is_zero(pool.host, path, 1, 2)


def percent(pool, path):
    return float(pool.host.run(f"lvs --noheadings -o data_percent {path}"))


@thin
def test_what_a_killed_run_wrote_of_another_image_is_gone(pool):
    host = pool.host
    wish = {"name": "disk", "size_gib": 1, **image(host, "x", 64)}
    told = inside(host, KILLER + f"print(json.dumps(attempt(1, {wish!r})))\n")
    path = path_of(pool, "disk")
    assert told == -9 and letters(host, path, 0, 64) == "x"
    image(host, "i", 16)
    good(call(pool, **wish))
    assert letters(host, path, 0, 1024) == "i" and 1.4 < percent(pool, path) < 1.8, "16 of 1024 MiB"


def test_from_one_allocation_to_the_other(storage_host):
    pool = LvmPool(storage_host)
    try:
        for kind, other in (("thin", "thick"), ("thick", "thin")):
            made = good(call(pool, name="db", size_gib=1, allocation=kind))
            pattern(pool.host, made["path"], "a", 100)
            good(snapshot(pool))
            for name, source in (("new", {"volume": "db", "snapshot": "monday"}), ("copy", {"volume": "db"})):
                path = settled(pool, call, name=name, size_gib=1, allocation=other, source=source)["path"]
                assert letters(pool.host, path, 0, 1024) == "a"
                if other == "thin":
                    assert 0.3 < percent(pool, path) < 0.5, "4 of 1024 MiB"
            good(call(pool, volumes=[{"name": "db"}, {"name": "new"}, {"name": "copy"}], state="absent", cascade=True))
    finally:
        pool.clear()


# ---- somebody is there

WRITER = """
import mmap, os, struct, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
room = mmap.mmap(-1, 4096)
for number in range(1, 1 << 40):
    room[:8] = struct.pack("Q", number)
    for place in (0, 512 << 20):  # first here, then there
        os.pwritev(handle, [room], place)
"""


@thin
def test_a_snapshot_and_a_clone_catch_one_moment_of_a_volume_that_is_written_to(pool, db):
    """Of two places that are written to one after the other, the second never knows more than the first."""
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    assert "take it as it is at that moment with force=true" in refusal(foretold(pool, snapshot))
    pool.host.run("cat > /root/writer.py", input=WRITER)
    pid = pool.host.run(f"python3 /root/writer.py {db['path']} >/dev/null 2>&1 & echo $!").strip()
    try:
        pairs = []
        for number in range(4):
            good(snapshot(pool, name=f"s{number}", force=True))
            good(call(pool, name=f"c{number}", source={"volume": "db", "force": True}))
            good(call(pool, name=f"v{number}", source={"volume": "db", "snapshot": f"s{number}"}))
            for name in (f"v{number}", f"c{number}"):
                path = path_of(pool, name)
                pairs.append([int.from_bytes(pool.read(path, 8, place), "little") for place in (0, 512 << 20)])
        pool.host.run(f"kill -0 {pid}")
    finally:
        pool.host.run(f"kill {pid}")
    assert all(0 <= first - second <= 1 for first, second in pairs) and pairs == sorted(pairs) and pairs[0][0] > 0, pairs


def test_a_volume_that_somebody_has_open_is_not_reverted(pool, db):
    good(snapshot(pool))
    pid = pool.host.run(f"sleep 1000 < {db['path']} >/dev/null 2>&1 & echo $!").strip()
    told = refusal(foretold(pool, call, name="db", revert_to="monday"))
    assert f"volume db can't be reverted: it is in use by process sleep (pid {pid}) on the storage host; end that first" in told
    pool.host.run(f"kill {pid}; while kill -0 {pid} 2>/dev/null; do :; done")
    settled(pool, call, name="db", revert_to="monday")


@thick
def test_a_thick_volume_that_is_held_is_not_copied(pool, db):
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    why = "while volume db is held by web-1 on c (reserved), who may be writing: /dev/volumes copies it, which takes time; detach it first"
    for act, options in ((snapshot, {"force": True}), (call, {"name": "new", "source": {"volume": "db", "force": True}})):
        assert why in refusal(foretold(pool, act, **options))


SLOW = """
begun, go_on = fork.Event(), fork.Event()
real = os.pwritev


def slow(handle, pieces, start):
    begun.set()
    assert go_on.wait(120)
    return real(handle, pieces, start)


def work():
    os.pwritev = slow
    answer = call(Snapshots, backend=BACKEND, volume="db", name="monday")
    os._exit(1 if answer["failed"] else 0)


BACKEND = {"driver": "lvm", "pool": "volumes"}
first = fork.Process(target=work)
first.start()
assert begun.wait(60)
told = [call(Snapshots, backend=BACKEND, volume="db", name="monday"), call(Volumes, backend=BACKEND, name="other", size_gib=1)]
told.append(call(Attachments, backend=BACKEND, volume="db", instance="web-1", host="c", action="reserve"))
go_on.set()
first.join(60)
told.append(call(Snapshots, backend=BACKEND, volume="db", name="monday"))
print(json.dumps([first.exitcode, *[[one["failed"], one["changed"], one.get("msg")] for one in told]]))
"""


@thick
def test_while_it_is_copied_others_get_at_the_pool_and_nobody_at_the_volume(pool, db):
    status, again, other, reserved, after = inside(pool.host, SLOW)
    assert status == 0 and other[0] is False and after[:2] == [False, False]
    assert again[0] and "can't be overwritten: it is in use by process python3" in again[2]
    assert reserved[0] and "while it is copied to snapshot monday" in reserved[2]


# ---- kills

KILLED = (
    KILLER
    + """
BACKEND["allocation"] = ALLOCATION
if ALLOCATION == "thick":
    del BACKEND["thin_pool"]
ONE, MONDAY = {"name": "db", "size_gib": 1}, {"volume": "db", "name": "monday"}
CLONE = {"name": "new", "source": {"volume": "db", "snapshot": "monday"}}
GONE = {"name": "db", "state": "absent", "cascade": True}


def put(letter, at=0):
    handle = os.open(call(Volumes, name="db")["path"], os.O_RDWR)
    os.pwrite(handle, letter * (8 << 20), at)
    os.fsync(handle)
    os.close(handle)


def shown(name):
    # of the first 8 MiB, and what is beyond a GiB
    handle = os.open(f"/dev/volumes/{name}", os.O_RDONLY)
    try:
        first = os.pread(handle, 8 << 20, 0)
        return [first[:1].decode() if first == first[:1] * len(first) else "mixed", not any(os.pread(handle, 1 << 20, GIB))]
    finally:
        os.close(handle)


def see():
    asked = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,lv_tags,lv_skip_activation", "volumes"]
    rows = json.loads(real(["lvm", *asked], capture_output=True).stdout)["report"][0]["lv"]
    found = []
    for row in sorted(rows, key=lambda row: row["lv_name"]):
        if row["lv_name"] != "thin":
            kept = row["lv_name"].startswith("_snapshot")
            if kept:
                real(["lvm", "lvchange", "-ay", "-K", "volumes/" + row["lv_name"]])
            found.append([row["lv_name"].split("-")[0], int(row["lv_size"]) // GIB, "status=available" in row["lv_tags"], *shown(row["lv_name"])])
            assert bool(row["lv_skip_activation"]) == (kept and ALLOCATION == "thin"), row
    return found


def monday():
    put(b"a")
    assert not call(Snapshots, **MONDAY)["failed"]
    put(b"b")


def grown():
    monday()
    assert not call(Volumes, name="db", size_gib=2)["failed"]
    put(b"b", GIB)


DB, KEPT, NEW = ["volume", 1, True, "b", True], ["_snapshot", 1, False, "a", True], ["volume", 1, True, "a", True]
before, resource, wish, after = {
    "taken": (lambda: put(b"a"), Snapshots, MONDAY, [KEPT, NEW]),
    "dropped": (monday, Snapshots, {**MONDAY, "state": "absent"}, [DB]),
    "cloned": (monday, Volumes, CLONE, [KEPT, DB, NEW]),
    "cloned from the volume": (monday, Volumes, {"name": "new", "source": {"volume": "db"}}, [KEPT, DB, DB]),
    "cloned and larger": (monday, Volumes, {**CLONE, "size_gib": 2}, [KEPT, DB, ["volume", 2, True, "a", True]]),
    "reverted and larger": (grown, Volumes, {"name": "db", "revert_to": "monday"}, [KEPT, ["volume", 2, True, "a", True]]),
    "gone with all": (monday, Volumes, GONE, []),
}[STORY]
found = []
for at in range(40):
    assert not call(Volumes, **ONE)["failed"]
    before()
    killed = attempt(at, wish, resource)
    answer, again, now = call(resource, **wish), call(resource, **wish), see()
    found.append([at, killed, answer["failed"] or again["changed"], answer.get("msg"), now if sorted(now) != sorted(after) else None])
    for name in ("db", "new"):
        call(Volumes, **{**GONE, "name": name, "wipe": False})
    if see() or killed == 0:
        break
print(json.dumps(found))
"""
)


# story: how many writes it has with a thin volume, and with a thick one
WRITES = {
    "taken": (3, 4), "dropped": (3, 4), "cloned": (2, 3), "cloned from the volume": (2, 3), "cloned and larger": (3, 3), "reverted and larger": (8, 3),
    "gone with all": (3, 5),
}  # fmt: skip


@pytest.mark.parametrize("story", WRITES)
def test_killed_at_every_write_the_next_run_finishes(pool, story):
    found = inside(pool.host, f"ALLOCATION, STORY = {pool.allocation!r}, {story!r}\n" + KILLED, timeout=900)
    assert [row for row in found if row[2] or row[4] is not None] == []
    assert [row[1] for row in found] == [-9] * WRITES[story][pool.allocation == "thick"] + [0], "the kills missed"


# ---- more than one, and much


@thin
def test_back_and_forth_between_snapshots(pool, db):
    """An older one and a younger one, in any order; nobody depends on any other."""
    host = pool.host
    for letter, name in (("b", "monday"), ("c", "tuesday")):
        pattern(host, db["path"], letter)
        good(snapshot(pool, name=name))
    for name, letter in (("monday", "b"), ("tuesday", "c"), ("monday", "b")):
        settled(pool, call, name="db", revert_to=name)
        assert letters(host, db["path"]) == letter
    settled(pool, snapshot, name="monday", state="absent")
    good(call(pool, name="new", source={"volume": "db", "snapshot": "tuesday"}))
    settled(pool, snapshot, name="tuesday", state="absent")
    settled(pool, call, name="db", state="absent")
    assert letters(host, path_of(pool, "new")) == "c"


@thin
def test_after_a_reboot_clones_are_there_and_snapshots_out_of_sight(pool, db):
    host = pool.host
    good(snapshot(pool))
    new = good(call(pool, name="new", source={"volume": "db", "snapshot": "monday"}))["path"]
    good(call(pool, name="db", revert_to="monday"))
    host.reboot()
    host.run(f"for n in $(seq 60); do test -b {new} && break; sleep 1; done", timeout=90)  # LVM activates volumes after ssh answers
    assert letters(host, new, 0, 10) == letters(host, db["path"], 0, 10) == "a"
    assert "_snapshot" not in host.run("ls /dev/volumes")
    pattern(host, db["path"], "b")
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    for action in ("terminate", "release"):
        good(call(pool, module="cinder_attachment", volume="db", instance="web-1", action=action))
    settled(pool, call, name="db", revert_to="monday")
    assert letters(host, db["path"], 0, 10) == "a"


@thin
def test_a_pool_that_is_nearly_full(pool):
    host = pool.host
    made = good(call(pool, name="db", size_gib=3))
    pattern(host, made["path"], "a", 0, 1600)
    taken = good(snapshot(pool))
    would = "GiB free, and would need up to 1.56 GiB when all that is shared is written anew"
    assert would in str(taken["warnings"])
    pattern(host, made["path"], "b", 0, 1400)
    told = refusal(foretold(pool, snapshot, name="tuesday"))
    assert "snapshot tuesday of volume db can't be taken: thin pool volumes/thin has 9" in told and would in told
    assert "with a limit of 90 %" in refusal(foretold(pool, call, name="new", source={"volume": "db"}, backend={"max_pool_used_percent": 90.0}))
    settled(pool, snapshot, state="absent")
    good(snapshot(pool, name="tuesday"))
    assert letters(host, made["path"], 0, 4) == "b"


HUNDRED = """
import time


def room():
    return int(_lvm_host.run("vgs", "--noheadings", "-o", "vg_mda_free", "--units", "b", "--nosuffix", "volumes"))


assert not call(Volumes, name="db", size_gib=1)["failed"]
wishes = [{"volume": "db", "name": f"night-{number:03}", "metadata": {"number": str(number)}} for number in range(100)]
times, rooms = [], [room()]
for wish in ({}, {}, {"state": "absent"}):
    began = time.monotonic()
    answer = call(Snapshots, snapshots=[{**one, **wish} for one in wishes])
    times.append([answer["failed"], answer["changed"], answer.get("msg"), time.monotonic() - began])
    rooms.append(room())
print(json.dumps([*times, rooms[0] - rooms[1]]))
"""


@thin
def test_a_volume_with_a_hundred_snapshots(pool):
    made, again, gone, taken = inside(pool.host, HUNDRED, timeout=900)
    assert [made[:3], again[:3], gone[:3]] == [[False, True, None], [False, False, None], [False, True, None]]
    print(f"100 snapshots: {made[3]:.1f} s, nothing to do: {again[3]:.1f} s, removed: {gone[3]:.1f} s; {taken / 100:.0f} bytes of LVM's metadata each")
    assert taken < 100 * 1024, "docs/operations.md says how many there may be"
    assert snapshots(pool) == [] and len(pool.names()) == 1


@thin
def test_lvms_own_metadata_is_not_filled_with_records(pool, db):
    """As with a volume group whose physical volumes were made with little of it."""
    tag, lv = "x" * 1000, "volumes/thin"
    free = int(pool.host.run("vgs --noheadings -o vg_mda_free --units b --nosuffix volumes"))
    for start in range(0, (free - (30 << 10)) // 1008, 100):
        most = min(start + 100, (free - (30 << 10)) // 1008)
        pool.host.run("lvchange -qq " + " ".join(f"--addtag {tag}{number}" for number in range(start, most)) + f" {lv}")
    told = refusal(foretold(pool, snapshot))
    assert "KiB left for LVM's own metadata, where records are kept, and 32 must stay free" in told
    assert "KiB left for LVM's own metadata" in refusal(foretold(pool, call, name="new", size_gib=1))
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", action="terminate"))
    good(call(pool, module="cinder_attachment", volume="db", instance="web-1", action="release"))
    settled(pool, call, name="db", state="absent")
    assert pool.names() == []
