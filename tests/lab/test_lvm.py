# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in a volume group, on the real LVM: bytes, records, races, kills, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.rig.lab.volume_group import LvmPool

pytestmark = pytest.mark.long  # the walk in `make test` meets only a part of this

GIB = 1 << 30
BACKEND = {"driver": "lvm", "pool": "volumes", "thin_pool": "thin"}

WRITES, REMOVE_ALL = LvmPool.WRITES, LvmPool.REMOVE_ALL

# For programs of tests inside the host: modules as functions, in processes that have imported everything already.
INSIDE = """
import json, multiprocessing, os, sys
from ansible_collections.stackless.block.plugins.module_utils import _reconcile
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Attachments, Volumes
from ansible_collections.stackless.block.plugins.module_utils._volumes import _block, _lvm_host

BACKEND = {"driver": "lvm", "pool": "volumes", "thin_pool": "thin"}
fork = multiprocessing.get_context("fork")


class Answered(Exception):
    pass


class Module:
    check_mode = False

    def __init__(self, **params):
        self.params = {"timeout": 20, "lock_timeout": 60, "assume": [], "backend": BACKEND, "volumes": None, "attachments": None, "snapshots": None, **params}

    def exit_json(self, **answer):
        raise Answered({"failed": False, **answer})

    fail_json = exit_json

    def warn(self, text):
        raise AssertionError(text)


def call(resource, **params):
    try:
        _reconcile.reconcile(Module(**params), resource)
    except Answered as answered:
        return answered.args[0]
"""


@pytest.fixture
def storage(lab):
    yield lab.storage
    lab.storage.run(REMOVE_ALL, timeout=120)


@pytest.fixture
def call(storage):
    def run(check=False, module="cinder_volume", backend=None, **options):
        answer = storage.module(module, {"backend": {**BACKEND, **(backend or {})}, **options}, check=check)
        assert "Traceback" not in str(answer)
        return answer

    return run


def inside(host, program, timeout=300):
    """Runs a program in the host, the collection at hand; what it printed last, from JSON."""
    out = host.run(f"cd {host.checkout()} && PYTHONPATH=. python3 -", timeout=timeout, input=INSIDE + program)
    return json.loads(out.splitlines()[-1])


PATTERN = """
import mmap, os, sys
path, letter, start, count, piece = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4]), 1 << 20
handle, room = os.open(path, os.O_WRONLY | os.O_DIRECT), mmap.mmap(-1, piece)
room[:] = letter * piece
for at in range(start, start + count):
    assert os.pwritev(handle, [room], at * piece) == piece
"""


def pattern(host, path, letter, offset_mib=0, mib=4):
    """Writes a letter all over a place."""
    host.run(f"python3 - {path} {letter} {offset_mib} {mib}", input=PATTERN, timeout=300)


LETTERS = """
import mmap, os, sys
path, start, end, piece, found, same = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 1 << 20, set(), b""
handle, room = os.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, piece)
for at in range(start, end):
    data = room[: os.preadv(handle, [room], at * piece)]
    while data and data != same:  # an emulated processor compares whole pieces fast, and is slow to look at single bytes
        found.add(data[:1])
        same = data[:1] * len(data)
        data = b"" if data == same else data.replace(data[:1], b"")
print(b"".join(sorted(found - {bytes(1)})).decode("latin-1"), end="")
"""


def letters(host, path, offset_mib=0, mib=4):
    """The different bytes that stand there."""
    return host.run(f"python3 - {path} {offset_mib} {offset_mib + mib}", input=LETTERS, timeout=300)


ZERO = """
import mmap, os, sys
path, start, end, piece = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 8 << 20
handle, room, zeros = os.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, piece), bytes(piece)
print(all(os.preadv(handle, [room], at) == piece and room[:] == zeros for at in range(start, end, piece)))
"""


def is_zero(host, path, from_gib, to_gib):
    """Whether all bytes between are zeros, on the medium."""
    return host.run(f"python3 - {path} {from_gib * GIB} {to_gib * GIB}", input=ZERO, timeout=300).strip() == "True"


def leave_old_bytes(host, mib=3000):
    """Others leave their bytes all over the free space, in places that a volume's begin, middle and end will be."""
    host.run(f"lvcreate -qq -y -Wn -L {mib}M -n others volumes")
    host.run(
        "head -c 2M /dev/zero | tr '\\0' O > /run/old; "
        "for at in $(seq 0 250 %d); do dd if=/run/old of=/dev/volumes/others bs=1M seek=$at oflag=direct status=none; done"
        % (mib - 2)
    )
    assert letters(host, "/dev/volumes/others", 1000, 2) == "O"
    host.run("lvremove -qq -y -f volumes/others")


@pytest.mark.parametrize("allocation", ["thin", "thick"])
def test_a_life(storage, call, allocation):
    """Made, written to, grown and renamed while it is in use, and gone; a check predicts it and writes nothing."""
    leave_old_bytes(storage)
    wish = {"name": "db", "size_gib": 1, "allocation": allocation, "description": "für alle: a=b&c", "metadata": {"owner": "the shop"}}
    before = storage.run(WRITES)
    predicted = call(check=True, **wish)
    assert storage.run(WRITES) == before
    made = call(**wish)
    assert (made["steps"], made["status"]) == (predicted["steps"], "available"), made
    assert is_zero(storage, made["path"], 0, 1)
    tags = storage.run(f"lvs --noheadings -o lv_tags {made['path']}")
    assert {"stackless.name=db", "stackless.status=available", "stackless.metadata.0=owner=the+shop"} <= set(tags.strip().split(","))

    before = storage.run(WRITES)
    assert not call(**wish)["changed"] and storage.run(WRITES) == before
    pattern(storage, made["path"], "D", 1020)
    predicted = call(check=True, name="db", size_gib=2, new_name="log")
    assert storage.run(WRITES) == before
    holder = "sleep 1000 < {path} >/dev/null 2>&1 & echo $!".format(path=made["path"])
    pid = storage.run(holder).strip()
    grown = call(name="db", size_gib=2, new_name="log")
    assert (grown["steps"], grown["diff"], grown["status"]) == (predicted["steps"], predicted["diff"], "available"), grown
    assert letters(storage, made["path"], 1020) == "D" and is_zero(storage, made["path"], 1, 2)
    assert storage.run(f"blockdev --getsize64 {made['path']}").strip() == str(2 * GIB)

    before = storage.run(WRITES)
    for check in (True, False):
        refused = call(check=check, name="log", state="absent")
        assert refused["failed"] and f"in use by process sleep (pid {pid}) on the storage host" in refused["msg"]
    storage.run(f"kill {pid}; while kill -0 {pid} 2>/dev/null; do :; done")
    predicted = call(check=True, name="log", state="absent")
    assert storage.run(WRITES) == before
    gone = call(name="log", state="absent")
    assert gone["steps"] == predicted["steps"] and gone["status"] == "deleted", gone
    assert ("wipe the data of volume log" in gone["steps"]) == (allocation == "thick")
    assert storage.run("lvs --noheadings -o lv_name volumes").split() == ["thin"]


def test_no_old_byte_is_readable(storage, call):
    """Wiped data is not on the medium any more; data that was not wiped is in no later volume."""
    made = call(name="a", size_gib=1, allocation="thick")
    first = int(storage.run(f"lvs --noheadings -o seg_pe_ranges {made['path']}").strip().split(":")[1].split("-")[0])
    at = 1 + first * 4  # MiB; LVM's data begins after the first of the disk
    disk = storage.run("pvs --noheadings -o pv_name").strip()
    pattern(storage, made["path"], "S", 512)
    assert letters(storage, disk, at + 512) == "S"
    call(name="a", state="absent")
    assert letters(storage, disk, at + 512) == ""

    for allocation in ("thick", "thin"):
        made = call(name="b", size_gib=1, allocation=allocation)
        pattern(storage, made["path"], "S", 512)
        call(name="b", state="absent", wipe=False)
        made = call(name="c", size_gib=1, allocation=allocation)
        assert is_zero(storage, made["path"], 0, 1)
        call(name="c", state="absent")


def test_an_inactive_volume_is_activated_when_it_is_needed(storage, call):
    made = call(name="db", size_gib=1)
    storage.run(f"lvchange -an {made['path'][5:]}")
    before = storage.run(WRITES)
    options = {"module": "cinder_attachment", "volume": "db", "instance": "web-1", "host": "c", "action": "reserve"}
    predicted = call(check=True, **options)
    assert storage.run(WRITES) == before
    assert call(**options)["steps"] == predicted["steps"] == ["activate volume db", "reserve volume db for web-1"]
    storage.run(f"test -b {made['path']}")
    refused = call(name="db", state="absent")
    assert refused["failed"] and "web-1 on c (reserved)" in refused["msg"]


def test_a_volume_that_the_target_has_is_not_deleted(storage, call):
    made = call(name="db", size_gib=1)
    storage.run("modprobe target_core_mod; python3 -", input=f"import rtslib_fb; rtslib_fb.BlockStorageObject('vol', dev={made['path']!r})")
    try:
        refused = call(name="db", state="absent")
        assert refused["failed"] and "in use by the target's backstore vol" in refused["msg"], refused
    finally:
        forget = (
            "import rtslib_fb\nfor so in rtslib_fb.RTSRoot().storage_objects:\n    so.delete(save=False) if so.name == 'vol' else None"
        )
        storage.run("python3 -", input=forget)


OTHERS = "volume-0b5e7a1c-2222-4222-8333-444455556666"


def test_what_others_made_is_left_alone_and_damage_is_told(storage, call):
    storage.run(f"lvcreate -qq -y -L 64M -n {OTHERS} --addtag name=db --addtag backup volumes")
    one = call(name="db", size_gib=1)
    two = call(name="log", size_gib=1)
    lv = two["path"][5:]
    assert [v["name"] for v in call(module="cinder_volume_info")["volumes"]] == ["db", "log"]
    storage.run(f"lvchange -qq --deltag stackless.name=log --addtag stackless.name=db {lv}")
    answer = call(name="db", state="absent")
    assert answer["failed"] and one["path"] in answer["msg"] and two["path"] in answer["msg"] and "both carry its name" in answer["msg"]
    storage.run(f"lvchange -qq --deltag stackless.name=db --addtag stackless.name=log --addtag stackless.size_bytes=many --addtag keep {lv}")
    found = call(module="cinder_volume_info")
    assert [v["status"] for v in found["volumes"]] == ["available", "error"] and "two tags stackless.size_bytes" in str(found["warnings"])
    assert "two tags" in call(name="log", state="absent")["msg"]
    storage.run(f"lvchange -qq --deltag stackless.size_bytes=many {lv}")
    assert not call(volumes=[{"name": "db"}, {"name": "log", "description": "back"}]).get("failed")
    assert "keep" in storage.run(f"lvs --noheadings -o lv_tags {lv}")
    assert not call(state="absent", volumes=[{"name": "db"}, {"name": "log"}]).get("failed")
    assert storage.run("lvs --noheadings -o lv_name,lv_tags volumes").split() == ["thin", OTHERS, "backup,name=db"]


def test_refusals_before_anything_is_written(storage, call):
    before = storage.run(WRITES)
    pool = call(module="cinder_pool_info")
    group = call(module="cinder_pool_info", backend={"thin_pool": None})
    assert (pool["total_gib"], pool["provisioned_gib"], pool["advice"]) == (3.0, 0.0, []) and pool["metadata_percent"] > 0
    assert group["total_gib"] > group["free_gib"] > 3 and group["data_percent"] is None
    for check in (True, False):
        volumes = [{"name": "a", "size_gib": 3}, {"name": "b", "size_gib": 3}]
        full = call(check=True, allocation="thick", volumes=volumes)
        assert [r["failed"] for r in full["results"]] == [False, True] and "besides what this run has promised already" in full["msg"]
        told = [
            call(check=check, name="a", size_gib=100, allocation="thick")["msg"],
            call(check=check, name="a", size_gib=100)["msg"],
            call(check=check, name="a", size_gib=1, backend={"max_pool_used_percent": 1.0})["msg"],
            call(check=check, name="a", size_gib=1, backend={"pool": "volume"})["msg"],
            call(check=check, name="a", size_gib=1, backend={"thin_pool": "thi"})["msg"],
        ]
        wanted = ["volume group volumes has", "more than 20 times what it holds", "metadata used, with a limit of 1 %"]
        wanted += ["no volume group volume on", "no thin pool volumes/thi;"]
        assert [words in message for words, message in zip(wanted, told)] == [True] * 5, told
    storage.run("lvchange -qq --zero n volumes/thin")
    assert "does not zero new blocks" in call(name="a", size_gib=1)["msg"]
    assert any("does not zero" in advice for advice in call(module="cinder_pool_info")["advice"])
    storage.run("lvchange -qq --zero y volumes/thin; vgchange -qq --permission r volumes 2>/dev/null || true")
    assert before.splitlines()[1:2] != [] and storage.run("lvs --noheadings -o lv_name volumes").split() == ["thin"]


NESTED = """
lvcreate -qq -y -V 1G --thinpool thin -n {lv} volumes
pvcreate -qq --config devices/scan_lvs=1 /dev/volumes/{lv}
vgcreate -qq --config devices/scan_lvs=1 guest /dev/volumes/{lv}
lvcreate -qq -y -L 64M -n data --config devices/scan_lvs=1 guest
vgchange -qq -an --config devices/scan_lvs=1 guest
"""
SEEN = "udevadm trigger -w /dev/volumes/{lv}; udevadm settle; vgchange -qq -ay >/dev/null 2>&1 || true; "
SEEN += "vgs --noheadings -o vg_name; ls /dev/guest 2>/dev/null || true"


def test_volume_groups_of_guests_are_not_seen_here(storage, call):
    lv = "nested"
    storage.run(NESTED.format(lv=lv), timeout=120)
    config, scanning = "/etc/lvm/lvmlocal.conf", "devices {{ scan_lvs = 1 {more} }}"
    storage.run(f"cp {config} /root/lvmlocal.conf")
    try:
        assert storage.run(SEEN.format(lv=lv)).split() == ["volumes"] and call(module="cinder_pool_info")["advice"] == []
        storage.run(f"cat > {config}", input=scanning.format(more=""))
        assert "guest" in storage.run(SEEN.format(lv=lv)).split()
        (advice,) = call(module="cinder_pool_info")["advice"]
        assert "looks for volume groups inside the volumes of volumes" in advice
        assert "looks for volume groups inside the volumes of volumes" in str(call(check=True, name="db", size_gib=1)["warnings"])
        storage.run("vgchange -qq -an guest")
        advised = advice.split(", or ")[1]  # and what it advises helps
        storage.run(f"cat > {config}", input=scanning.format(more=advised.replace("devices/", "")))
        assert storage.run(SEEN.format(lv=lv)).split() == ["volumes"] and call(module="cinder_pool_info")["advice"] == []
    finally:
        storage.run(f"cp /root/lvmlocal.conf {config}; dmsetup ls | awk '/^guest-/ {{print $1}}' | xargs -r dmsetup remove")


RACE = """
from ansible_collections.stackless.block.plugins.module_utils import _manage_volume
ROUNDS = 50
assert not call(Volumes, name="db", size_gib=1)["failed"]
backend = _manage_volume.open_backend(BACKEND)
free = backend.observe()["db"]


class Unlocked(Attachments):
    # nothing but LVM's own compare-and-swap between the two: they look first, both of them, and then write
    def __init__(self, options):
        super().__init__(options)
        self.lock_path = None

    def plan(self, want, world):
        planned = super().plan(want, world)
        looked.wait(60)
        return planned


def racer(number):
    for round in range(ROUNDS):
        start.wait(60)
        resource = Unlocked if round % 2 else Attachments
        answer = call(resource, volume="db", instance=f"web-{number}", host=f"c{number}", action="reserve")
        answers.put((round, number, answer["failed"], answer.get("msg", "")))


start, looked, answers = fork.Barrier(3), fork.Barrier(2), fork.Queue()
racers = [fork.Process(target=racer, args=(number,)) for number in range(2)]
for process in racers:
    process.start()
told = []
for round in range(ROUNDS):
    start.wait(60)
    told.append([answers.get(timeout=60) for process in racers])
    now = backend.observe()["db"]
    told[-1].append([a.instance for a in now.attachments])
    backend.swap(now, free)
for process in racers:
    process.join(30)
print(json.dumps(told))
"""


def test_of_two_that_reserve_at_once_one_wins(storage):
    told = inside(storage, RACE)
    assert len(told) == 50
    for first, second, held in told:
        winners = [f"web-{number}" for _round, number, failed, _msg in (first, second) if not failed]
        assert len(winners) == 1 and held == winners, (first, second, held)
        (message,) = [msg for _round, _number, failed, msg in (first, second) if failed]
        expected = "changed by someone else meanwhile" if first[0] % 2 else f"held by {winners[0]}"
        assert expected in message


KILLER = """
import signal
from ansible_collections.stackless.block.plugins.module_utils._hosts import qemu_img

GIB = 1 << 30
real, real_ioctl, real_write, real_tool = _lvm_host.subprocess.run, _block.fcntl.ioctl, os.pwritev, qemu_img.run
WRITERS = ("lvcreate", "lvchange", "lvextend", "lvremove", "lvrename")


class Killer:
    # ends the process, as kill -9 does, after one of its writes, or when a piece of a volume is zeroed or copied, or an image written
    def __init__(self, at):
        self.at, self.count = at, 0

    def passing(self):
        self.count += 1
        if self.count - 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self, argv, **options):
        if argv[1] not in WRITERS:
            return real(argv, **options)
        done = real(argv, **options)
        self.passing()
        return done

    def ioctl(self, *args):
        if args[2][:8] != bytes(8):
            return real_ioctl(*args)
        done = real_ioctl(*args)
        self.passing()
        return done

    def write(self, handle, pieces, start):
        done = real_write(handle, pieces, start)
        if start == 4 << 20:
            self.passing()
        return done

    def tool(self, *args, **options):
        done = real_tool(*args, **options)
        self.passing()
        return done


def attempt(at, wish, resource=Volumes):
    def work():
        killer = Killer(at)
        _lvm_host.subprocess.run, _block.fcntl.ioctl, os.pwritev, qemu_img.run = killer.run, killer.ioctl, killer.write, killer.tool
        os._exit(1 if call(resource, **wish)["failed"] else 0)

    process = fork.Process(target=work)
    process.start()
    process.join(120)
    return process.exitcode
"""

KILLED = KILLER + """
def see():
    asked = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,lv_tags", "volumes"]
    rows = json.loads(real(asked, capture_output=True).stdout)["report"][0]["lv"]
    ours = [row for row in rows if row["lv_name"] != "thin"]
    return sorted((row["lv_name"].split("-")[0], int(row["lv_size"]), "status=available" in row["lv_tags"]) for row in ours)


found = []
for allocation in ("thick", "thin"):
    one = {"name": "db", "size_gib": 1, "allocation": allocation}
    for wish, before, after in [
        (one, None, [["volume", GIB, True]]),
        ({**one, "size_gib": 2}, one, [["volume", 2 * GIB, True]]),
        ({"name": "db", "state": "absent"}, one, []),
    ]:
        for at in range(40):
            if before:
                assert not call(Volumes, **before)["failed"]
            killed = attempt(at, wish)
            answer = call(Volumes, **wish)
            found.append([allocation, at, killed, answer["failed"], answer.get("msg"), [list(row) for row in see()] == after])
            call(Volumes, name="db", state="absent", wipe=False)
            if killed == 0:
                break
print(json.dumps(found))
"""


def test_killed_at_every_write_the_next_run_finishes(storage):
    found = inside(storage, KILLED, timeout=600)
    assert [row for row in found if row[3] or not row[5]] == []
    assert [row[2] for row in found if row[2] not in (-9, 0)] == []
    assert [row[1] for row in found if row[2] == 0] == [3, 6, 3, 2, 3, 2], "the kills missed"


MANY = """
commands = []
real = _lvm_host.subprocess.run
_lvm_host.subprocess.run = lambda argv, **options: commands.append(argv[1]) or real(argv, **options)
volumes = [{"name": f"v{n}", "size_gib": 1} for n in range(50)]
told = []
for wish in ({"state": "present"}, {"state": "present"}, {"state": "absent"}):
    commands.clear()
    answer = call(Volumes, volumes=[{**volume, **wish} for volume in volumes])
    told.append([answer["failed"], answer["changed"], len(commands), answer.get("msg")])
print(json.dumps(told))
"""


def test_what_fifty_volumes_cost(storage):
    """Two looks and the question for the host's configuration a task, two writes a volume."""
    assert inside(storage, MANY, timeout=400) == [[False, True, 103, None], [False, False, 2, None], [False, True, 103, None]]
