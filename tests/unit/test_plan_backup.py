# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups: the laws on every pair of state and wish, with volumes in real directories and a store in memory.

tests/contract/test_backups.py has the real store, and volumes that snapshots are taken of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._backups import BackupStore, open_store
from ansible_collections.stackless.block.plugins.module_utils._backups import restic
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Failed, Invalid, Refused, StorageError
from ansible_collections.stackless.block.plugins.module_utils._hosts import Workplace
from ansible_collections.stackless.block.plugins.module_utils._model.backup import Backup, Keep, Key, backup_from, backup_record, keep_of, kept
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Snapshot, Volume, record_of, volume_from
from ansible_collections.stackless.block.plugins.module_utils._plan_attachment import AttachmentWish, plan_attachment
from ansible_collections.stackless.block.plugins.module_utils._plan_backup import BackupWish, Places, backups_of, names_of, plan_backup, pruned_key
from ansible_collections.stackless.block.plugins.module_utils._plan_snapshot import SnapshotWish, plan_snapshot
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes import Readable, VolumeBackend
from ansible_collections.stackless.block.plugins.module_utils._volumes.file import FileBackend

from . import laws

ID = "0b5e7a1c-2222-4222-8333-444455556666"
OLD = "0b5e7a1c-2222-4222-8333-444455558888"
NEW = "0b5e7a1c-2222-4222-8333-444455557777"
FRESH = "0b5e7a1c-2222-4222-8333-444455559999"
MARK = Snapshot(id="5a4b0000-4444-4444-8555-666677778888", name="monday", size_bytes=GIB, created_at="2026-01-31T23:00:00Z", status="creating")
NOW = "2026-01-31T23:00:00Z"
NIGHT = Snapshot(id="5a4b0000-4444-4444-8555-666677779999", name="night", size_bytes=GIB // 2, created_at="2026-01-30T01:00:00Z")
FROM_NIGHT = dataclasses.replace(MARK, size_bytes=GIB // 2, created_at=NIGHT.created_at, metadata=(("host", "here"), ("snapshot", "night")))
ATTACHED = Attachment(id="a1", instance="web-1", host="compute-1", status="attached")


def volume(name="db", id=ID, **changes) -> Volume:
    return Volume(**{"name": name, "id": id, "size_bytes": GIB, **changes})


def backup(name="monday", at=NOW, volume_id=ID, **changes) -> Backup:
    given = {"name": name, "volume": "db", "volume_id": volume_id, "size_bytes": GIB, "created_at": at, "id": f"{name}-1", "copies": (f"{name}-1",)}
    return Backup(**{**given, **changes})


class FakeStore(BackupStore):
    """Keeps backups in memory; what it refuses and how it fails is restic's own (tests/contract/test_backups.py)."""

    where = "/srv/backups"

    def __init__(self, *backups):
        self.found = {one.key: one for one in backups}
        self.given = [(4096, b"kept")]

    def look(self):
        return dict(self.found)

    def keep(self, backup, data):
        assert sum(len(piece) for _start, piece in data.pieces(4 << 20)) <= data.size_bytes
        kept_one = dataclasses.replace(backup, id=f"{backup.name}-1", copies=(f"{backup.name}-1",))
        self.found.setdefault(backup.key, kept_one)
        return kept_one

    def forget(self, backups):
        self.found = {key: one for key, one in self.found.items() if one not in backups}

    def give(self, backup):
        return iter(self.given)


class FakeWorkplace(Workplace):
    name = "here"

    def __init__(self, busy=False):
        self.busy = busy

    def anybody(self, volume_id):
        return self.busy


TWO = (backup("sunday", "2026-01-30T23:00:00Z"), backup())
# name: the volumes, and what the store has
STATES = {
    "nothing": ((), ()),
    "plain": ((volume(),), ()),
    "begun": ((volume(status="backing-up", backup=MARK),), ()),
    "nearly done": ((volume(status="backing-up", backup=MARK),), (backup(),)),
    "another is begun": ((volume(status="backing-up", backup=dataclasses.replace(MARK, name="sunday")),), ()),
    "another was killed": ((volume(status="backing-up", backup=dataclasses.replace(MARK, name="sunday", metadata=(("host", "here"),))),), ()),
    "another is begun elsewhere": ((volume(status="backing-up", backup=dataclasses.replace(MARK, name="sunday", metadata=(("host", "there"),))),), ()),
    "done": ((volume(),), (backup(),)),
    "described": ((volume(),), (backup(description="by hand"),)),
    "two": ((volume(),), TWO),
    "held": ((volume(status="in-use", attachments=(ATTACHED,)),), (backup(),)),
    "of another": ((volume(),), (backup(volume_id=OLD),)),
    "gone": ((), TWO),
    "extending": ((volume(status="extending"),), (backup(),)),
    "restoring": ((volume(status="restoring-backup", restored_from="monday-1"),), (backup(),)),
    "restoring another": ((volume(status="restoring-backup", restored_from="sunday-1"),), (backup(),)),
    "restored": ((volume(restored_from="monday-1"),), (backup(),)),
    "being made": ((volume("new", NEW, status="restoring-backup", source_backup="monday-1", restored_from="monday-1"),), (backup(),)),
    "made": ((volume("new", NEW, source_backup="monday-1"),), (backup(),)),
    "larger": ((volume(),), (backup(size_bytes=2 * GIB),)),
    "with a snapshot": ((volume(snapshots=(NIGHT,)),), ()),
    "held with a snapshot": ((volume(status="in-use", attachments=(ATTACHED,), snapshots=(NIGHT,)),), ()),
    "begun from it": ((volume(status="backing-up", snapshots=(NIGHT,), backup=FROM_NIGHT),), ()),
    "done from it": ((volume(snapshots=(NIGHT,)),), (backup(snapshot="night", snapshot_id=NIGHT.id),)),
    "done from an earlier one": ((volume(snapshots=(NIGHT,)),), (backup(snapshot="night", snapshot_id=OLD),)),
    "kept": ((volume(kept_at=NOW, source_image="/srv/disk.raw"),), (backup(),)),
}
WISHES = {
    "present": BackupWish("db", "monday", fresh_id=MARK.id, now=NOW),
    "by force": BackupWish("db", "monday", force=True, fresh_id=MARK.id, now=NOW),
    "told": BackupWish("db", "monday", description="by hand", fresh_id=MARK.id, now=NOW),
    "of a snapshot": BackupWish("db", "monday", snapshot="night", fresh_id=MARK.id, now=NOW),
    "absent": BackupWish("db", "monday", "absent"),
    "restored": BackupWish("db", "monday", "restored", fresh_id=FRESH),
    "over it": BackupWish("db", "monday", "restored", overwrite=True, fresh_id=FRESH),
    "to another": BackupWish("db", "monday", "restored", to="new", fresh_id=FRESH),
    "over another": BackupWish("db", "monday", "restored", to="new", overwrite=True, fresh_id=FRESH),
    "pruned": BackupWish("db", state="pruned", keep=Keep(last=1)),
}


@pytest.fixture
def made(tmp_path):
    """Makes a directory and a store in a state, always the same ones."""

    def make(state):
        path = tmp_path / "volumes"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        backend = FileBackend(str(path))
        for one in STATES[state][0]:
            backend.swap(None, dataclasses.replace(one, path=backend.locate(one.id)))
            for snapshot in one.snapshots:
                with open(backend._kept(snapshot.id), "wb") as data:
                    data.truncate(snapshot.size_bytes)
            backend.allocate(one)
        return Places(backend, FakeStore(*STATES[state][1]), FakeWorkplace())

    return make


def observe(places):
    world = {**places.volumes.observe(), **places.backups.look()}
    world[pruned_key("db")] = names_of(backups_of("db", world))
    return world


def trace(places):
    found = sorted(Path(places.volumes.path).iterdir())
    files = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns, path.read_text() if path.suffix == ".json" else "") for path in found)
    return files, repr(sorted(places.backups.found.items()))


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws(made, state, wish):
    laws.hold(laws.Subject(lambda: made(state), observe, lambda places, world: plan_backup(WISHES[wish], world, places), trace))


def test_the_cases_hold_enough_crashes_and_refusals(made):
    crashes = refusals = 0
    for state, wish in itertools.product(STATES, WISHES):
        places = made(state)
        try:
            crashes += max(0, len(plan_backup(WISHES[wish], observe(places), places).acts) - 1)
        except StorageError:
            refusals += 1
    assert crashes > 50 and refusals > 45


@pytest.mark.parametrize(
    "state,wish,words",
    [
        ("another is begun", "present", "backup sunday of it is being taken; let the run that is at it end"),
        ("another is begun elsewhere", "present", "backup sunday of it is being taken; let the run that is at it end"),
        ("another was killed", "present", None),
        ("held", "to another", None),
        ("held", "over it", "it is held by web-1 on compute-1"),
        ("of another", "present", f"is of another volume of that name, with the id {OLD}"),
        ("done", "told", "another description, and a backup is never changed"),
        ("done", "restored", "it is there and holds something else"),
        ("restoring another", "restored", "it is there and holds something else"),
        ("larger", "over it", "extend it first"),
        ("gone", "present", None),
        ("two", "absent", None),
        ("extending", "over it", "while it is extending"),
        ("plain", "of a snapshot", "volume db has no snapshot night; take it first"),
        ("held with a snapshot", "present", "detach it first"),
        ("held with a snapshot", "of a snapshot", None),
        ("begun from it", "present", "backup monday of it is being taken"),
        ("begun", "of a snapshot", "backup monday of it is being taken"),
        ("done", "of a snapshot", "was not taken from this snapshot night"),
        ("done from an earlier one", "of a snapshot", "was not taken from this snapshot night"),
        ("done from it", "of a snapshot", None),
        ("kept", "over it", "it is kept of image /srv/disk.raw, for volumes that are made from that"),
        ("done from it", "present", None),
    ],
)
def test_what_is_refused(made, state, wish, words):
    places = made(state)
    if words is None:
        plan_backup(WISHES[wish], observe(places), places)
        return
    with pytest.raises(StorageError, match=words):
        plan_backup(WISHES[wish], observe(places), places)


def test_who_is_at_work_is_not_overtaken_and_who_was_killed_is(made):
    places = made("another was killed")
    ending, begin, *_rest = plan_backup(WISHES["present"], observe(places), places).steps
    assert ending.name == "give up backup sunday of volume db, whose run was killed" and begin.name == "mark volume db backing-up"
    ending.act(*ending.args)
    assert places.volumes.observe()["db"].backup is None
    with pytest.raises(Conflict, match="backup sunday of it is being taken"):
        busy = dataclasses.replace(made("another was killed"), work=FakeWorkplace(busy=True))
        plan_backup(WISHES["present"], observe(busy), busy)


def test_the_volume_counts_and_not_its_name():
    own, other = backup(volume="older"), backup("sunday", volume_id=OLD)
    world = {"db": volume(), own.key: own, other.key: other}
    assert backups_of("db", world) == [own] and backups_of("older", world) == [own]
    assert backups_of("db", {other.key: other}) == [other] == backups_of("db", {"db": volume(), other.key: other})
    assert backups_of("db", {"db": volume(), "db-old": volume("db-old", OLD), other.key: other}) == [], "that volume has another name by now"


def test_what_was_made_from_a_backup_is_overwritten_only_when_that_is_said(made):
    for wish, many in (("to another", False), ("over another", True)):
        places = made("made")
        assert bool(plan_backup(WISHES[wish], observe(places), places).acts) is many


def test_what_fails_leaves_the_volume_as_it_was(made):
    for state, wish, left in (("plain", "present", ["available"]), ("nothing", "present", None), ("gone", "restored", [])):
        places = made(state)
        try:
            plan = plan_backup(WISHES[wish], observe(places), places)
        except StorageError:
            assert left is None
            continue
        for stop in range(len(plan.steps)):
            places = made(state)
            plan = plan_backup(WISHES[wish], observe(places), places)
            for step in [*plan.steps[:stop], *plan.undo]:
                step.act(*step.args)
            assert [one.status for one in places.volumes.observe().values()] == left


def test_a_backup_that_was_given_up_meanwhile_is_not_kept(made):
    places = made("plain")
    plan = plan_backup(WISHES["present"], observe(places), places)
    begin, write, _end = plan.steps
    begin.act(*begin.args)
    keep = places.backups.keep

    def slow(one, data):
        for step in plan_backup(WISHES["absent"], observe(places), places).acts:
            step.act(*step.args)
        return keep(one, data)

    places.backups.keep = slow
    with pytest.raises(Conflict, match="was changed by someone else meanwhile"):
        write.act(*write.args)
    assert places.backups.found == {}


def test_the_same_play_run_again_finds_it_done_and_takes_nothing_away(made):
    places = made("plain")
    begin, write, end = plan_backup(WISHES["present"], observe(places), places).steps
    begin.act(*begin.args)
    write.act(*write.args)
    (again,) = plan_backup(WISHES["present"], observe(places), places).acts
    again.act(*again.args)
    end.act(*end.args)
    assert len(places.backups.found) == 1 and places.volumes.observe()["db"].status == "available"


def test_what_somebody_has_open_is_not_overwritten(made):
    places = made("done")
    places.volumes.holder = lambda volume: "the mount /mnt"
    with pytest.raises(Refused, match="volume db can't be restored from backup monday of volume db: it is in use by the mount /mnt on the storage host"):
        plan_backup(WISHES["over it"], observe(places), places)


def test_a_volume_whose_data_is_not_as_long_as_its_record_is_not_kept(made):
    places = made("plain")
    plan = plan_backup(WISHES["present"], observe(places), places)
    plan.steps[0].act(*plan.steps[0].args)
    with open(places.volumes.locate(ID), "r+b") as handle:
        handle.truncate(GIB + 512)
    with pytest.raises(Conflict, match=f"its record says {GIB} bytes and its data has {GIB + 512}"):
        plan.steps[1].act(*plan.steps[1].args)


class Instant(VolumeBackend):
    """A storage with snapshots, of which only plans are wanted."""

    where = "rbd:volumes"

    def missing(self, *_more):
        return None


def test_what_is_read_from_a_snapshot_may_come_and_go(made):
    places, marked = Places(Instant(), FakeStore()), volume(status="backing-up", backup=MARK)
    plan = plan_backup(WISHES["by force"], {"db": volume(status="in-use", attachments=(ATTACHED,), data_bytes=GIB)}, places)
    names = [step.name for step in plan.acts]
    assert names[1] == "take a snapshot of volume db to read from" and names[-2] == "remove that snapshot of volume db"
    reserve = AttachmentWish("db", "web-1", "reserve", host="c", fresh_id="a")
    after = plan_attachment(reserve, {"db": dataclasses.replace(marked, data_bytes=GIB)}, Instant()).after
    assert after.status == "backing-up" and after.backed_up().status == "reserved" and after.restored_from is None
    with pytest.raises(Conflict, match="it is held by web-1"):
        plan_attachment(dataclasses.replace(reserve, instance="web-2"), {"db": dataclasses.replace(after, data_bytes=GIB)}, Instant())
    places = made("begun")
    with pytest.raises(Conflict, match="can't be reserved for web-1 while it is copied to backup monday"):
        plan_attachment(reserve, observe(places), places.volumes)


def test_a_given_snapshot_is_read_and_kept_and_the_volume_goes_on(made):
    places = made("held with a snapshot")
    plan = plan_backup(WISHES["of a snapshot"], observe(places), places)
    assert (plan.after.size_bytes, plan.after.created_at, plan.after.snapshot) == (GIB // 2, NIGHT.created_at, "night")
    begin, write, end = plan.steps
    begin.act(*begin.args)
    with pytest.raises(Conflict, match="snapshot night of volume db can't be deleted while it is copied to backup monday"):
        plan_snapshot(SnapshotWish("db", "night", present=False), observe(places), places.volumes)
    for wish in (AttachmentWish("db", "web-1", "begin_detaching"), AttachmentWish("db", "web-1", "release")):
        with contextlib.suppress(Refused):
            (swap,) = plan_attachment(wish, observe(places), places.volumes).acts
            swap.act(*swap.args)
    assert observe(places)["db"].attachments[0].status == "detaching" and observe(places)["db"].status == "backing-up"
    write.act(*write.args)
    end.act(*end.args)
    after = observe(places)["db"]
    assert after.status == "detaching" and after.snapshots == (NIGHT,) and after.backup is None and places.volumes.taken(after) == {NIGHT.id}
    places = made("begun from it")
    reserve = AttachmentWish("db", "web-1", "reserve", host="c", fresh_id="a")
    assert plan_attachment(reserve, observe(places), places.volumes).after.backed_up().status == "reserved", "files are not read, the snapshot is"
    given_up = plan_backup(BackupWish("db", "tuesday", fresh_id=FRESH, now=NOW), observe(places), places)
    assert given_up.steps[0].name.startswith("give up backup monday"), "as of any other whose run was killed here"


@pytest.mark.parametrize("wish", [VolumeWish("db", size_bytes=2 * GIB), VolumeWish("db", present=False)])
def test_a_volume_is_neither_extended_nor_deleted_under_its_backup(made, wish):
    places = made("begun")
    with pytest.raises(StorageError, match="backup monday"):
        plan_volume(wish, places.volumes.observe(), places.volumes)


def test_a_snapshot_to_read_from_needs_room():
    class Full(Instant):
        def crowded(self, volume, others=()):
            return "it is nearly full"

        def taken(self, volume):
            return {MARK.id} if volume.backup else set()

    places, free = Places(Full(), FakeStore()), volume(data_bytes=GIB)
    with pytest.raises(Refused, match="backup monday of volume db can't be taken: it is nearly full"):
        plan_backup(WISHES["present"], {"db": free}, places)
    marked = dataclasses.replace(free, status="backing-up", backup=MARK)
    assert plan_backup(WISHES["present"], {"db": marked}, places).acts, "the snapshot that a killed run took is there"


def test_a_snapshot_that_a_killed_run_did_not_take_is_of_now():
    class Fresh(Instant):
        taken_ids: set[str] = set()

        def taken(self, volume):
            return self.taken_ids

    places, later = Places(Fresh(), FakeStore()), dataclasses.replace(WISHES["present"], fresh_id=FRESH, now="2026-02-01T08:00:00Z")
    marked = {"db": volume(status="backing-up", backup=MARK, data_bytes=GIB)}
    assert plan_backup(later, marked, places).after.created_at == later.now
    places.volumes.taken_ids = {MARK.id}
    assert plan_backup(later, marked, places).after.created_at == MARK.created_at


def test_a_snapshot_that_is_taken_for_a_backup_after_it_was_given_up_does_not_stay():
    class Storage(Instant):
        dropped = []

        def observe(self):
            return {"db": volume(data_bytes=GIB)}

        def drop(self, volume, snapshot, wipe):
            self.dropped.append(snapshot.id)

    places = Places(Storage(), FakeStore())
    plan = plan_backup(WISHES["present"], places.volumes.observe(), places)
    for step in plan.undo:
        step.act(*step.args)
    assert places.volumes.dropped == [MARK.id]


def test_records_hold_all(made):
    told = {"description": "größe, 100%", "volume_type": "ssd", "volume_description": "a,b", "metadata": (("k,ä", "v=w"),), "multiattach": True}
    whole = backup(**told, snapshot="night", snapshot_id=OLD)
    assert backup_from(backup_record(whole)) == whole
    tags = dict(tag.partition("=")[::2] for tag in restic._tags(whole))
    assert not [tag for tag in restic._tags(whole) if "," in tag] and tags["backup"] == "monday" and "ssd" in tags["record"]
    times = {"2": "2026-01-31T23:00:00.5Z", "1": "2026-01-31T22:00:00Z"}
    listed = [{"id": key, "time": time, "tags": restic._tags(whole)} for key, time in times.items()]
    others = [{"id": "x", "time": "", "tags": ["else"]}, {"id": "y", "time": ""}]
    found = restic._joined([one["backup"] for one in restic._listed(restic.json.dumps([*listed, *others]))])
    assert list(found) == [Key(ID, "monday")] and found[whole.key] == dataclasses.replace(whole, created_at="2026-01-31T22:00:00Z")
    assert (found[whole.key].id, found[whole.key].copies) == ("1", ("1", "2"))
    broken = {"id": "3", "time": "2026-01-31T22:00:00Z", "tags": ["volume_id=x", "record=%7B"]}
    assert restic._listed(restic.json.dumps([broken])) == [{"id": "3", "backup": None}]
    marked = volume(status="backing-up", backup=MARK, source_backup="s", restored_from="r")
    assert volume_from(record_of(marked)) == marked


@pytest.mark.parametrize(
    "location", ["srv/backups", "", "s3:host", "s3:https://me:secret@host/bucket", "s3:https://host:x/b/p", "rest:https://host/x", "sftp:host:/x"]
)
def test_places_that_are_none(location):
    with pytest.raises(Invalid, match="repository.location is"):
        open_store({"location": location, "password": "x"})


@pytest.mark.parametrize("location", ["/srv/backups", "s3:host/bucket/p", "s3:https://host:9000/bucket", "s3:http://[2001:db8::1]:9000/bucket/a/b"])
def test_places(location):
    assert open_store({"location": location, "password": "x"}).where == location


def test_what_stays():
    days = [backup(str(day), f"2026-01-{day:02}T0{hour}:00:00Z") for day in range(1, 8) for hour in (1, 2)]
    assert [one.name for one in kept(days, Keep(daily=2))] == ["7", "6"] and kept(days, Keep(daily=2))[0].created_at.endswith("T02:00:00Z")
    assert len(kept(days, Keep(last=3))) == 3 and len(kept(days, Keep(last=1, daily=3))) == 3 and len(kept(days, Keep(hourly=99))) == 14
    for rules in ({}, {"last": 0}, {"last": 1, "daily": -1}, None):
        with pytest.raises(Invalid, match="give how many stay"):
            keep_of("db", rules)


class Pieces(Readable):
    size_bytes = (9 << 20) + 5

    def extents(self):
        yield 4096, 8192
        yield 5 << 20, self.size_bytes

    def read(self, start, size):
        return bytes([start >> 12 & 255 or 1]) * size


class Sink:
    def __init__(self):
        self.data = bytearray()

    def sendall(self, piece):
        self.data += piece


def test_what_goes_out_comes_back_without_its_zeros():
    sink = Sink()
    restic._feed(sink, Pieces())
    assert len(sink.data) == Pieces.size_bytes and not sink.data[:4096].strip(b"\0") and not sink.data[8192 : 5 << 20].strip(b"\0")
    back, written = bytearray(len(sink.data)), 0
    for at in range(0, len(sink.data), 4 << 20):
        for start, piece in restic._filled(at, bytes(sink.data[at : at + (4 << 20)])):
            back[start : start + len(piece)] = piece
            written += len(piece)
    assert back == sink.data and written == (4 << 20) + 5 + (64 << 10)


def test_what_can_not_be_read_is_not_kept(made):
    places = made("plain")

    def broken(*_what):
        raise Failed("the disk is broken")

    places.volumes.reading = broken
    plan = plan_backup(WISHES["present"], observe(places), places)
    plan.steps[0].act(*plan.steps[0].args)
    with pytest.raises(Failed):
        plan.steps[1].act(*plan.steps[1].args)
    assert places.backups.found == {}
