# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in a Ceph pool: the laws on a fake cluster, names, records and whose they are, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Conflict, Failed, Invalid, Refused, StorageError
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.pool import pool_advice, pool_result
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Volume
from ansible_collections.stackless.block.plugins.module_utils._plan_volume import VolumeWish, plan_volume
from ansible_collections.stackless.block.plugins.module_utils._volumes import _rbd_pool as figures
from ansible_collections.stackless.block.plugins.module_utils._ceph import Place, _holders, _key_in, _why_not
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import Image, record_text, volume_of, volumes_in
from ansible_collections.stackless.block.plugins.module_utils._volumes.rbd import RbdBackend

from .fake_rbd import DF, MONITORS, FakeCluster
from .volume_case import crashes_and_refusals, laws_hold

ID = "0b5e7a1c-2222-4222-8333-444455556666"
OTHER = "0b5e7a1c-2222-4222-8333-444455557777"
FRESH = "0b5e7a1c-2222-4222-8333-444455558888"
ATTACHED = Attachment(id="a1", instance="web-1", host="compute-1", status="attached")


def volume(name="db", id=ID, **changes) -> Volume:
    return Volume(**{"name": name, "id": id, "size_bytes": GIB, "allocation": "thin", "path": f"rbd:volumes/volume-{id}", **changes})


def image(of: Volume, size=None, **changes) -> Image:
    key = f"k-{of.id}"
    made = Image(f"volume-{of.id}", key, of.size_bytes if size is None else size, record_text(of, key))
    return dataclasses.replace(made, **changes)


def backend(cluster: FakeCluster, **options) -> RbdBackend:
    return RbdBackend({"pool": "volumes", **options}, open_cluster=lambda place: cluster)


# name: (record, size of the image, more of it)
STATES = {
    "nothing": None,
    "creating": ({"status": "creating"}, GIB, {}),
    "available": ({}, GIB, {}),
    "short": ({"size_bytes": 2 * GIB}, GIB, {}),
    "available 2": ({"size_bytes": 2 * GIB}, 2 * GIB, {}),
    "extending": ({"size_bytes": 2 * GIB, "status": "extending"}, GIB, {}),
    "extended": ({"size_bytes": 2 * GIB, "status": "extending"}, 2 * GIB, {}),
    "in use": ({"status": "in-use", "attachments": (ATTACHED,)}, GIB, {}),
    "extending in use": ({"size_bytes": 2 * GIB, "status": "extending", "attachments": (ATTACHED,)}, GIB, {}),
    "deleting": ({"status": "deleting"}, GIB, {}),
    "error": ({"status": "error"}, GIB, {}),
    "with snapshots": ({}, GIB, {"snapshots": True}),
}
WISHES = {
    "present": VolumeWish("db"),
    "1 GiB": VolumeWish("db", size_bytes=GIB, fresh_id=ID),
    "2 GiB": VolumeWish("db", size_bytes=2 * GIB, fresh_id=ID),
    "renamed": VolumeWish("db", new_name="db-old"),
    "renamed and larger": VolumeWish("db", new_name="db-old", size_bytes=2 * GIB),
    "described": VolumeWish("db", description="a = ü", metadata=(("owner", "shop"),)),
    "shared": VolumeWish("db", size_bytes=GIB, multiattach=True, fresh_id=ID),
    "thick": VolumeWish("db", size_bytes=GIB, allocation="thick", fresh_id=ID),
    "absent": VolumeWish("db", present=False),
}


def made(state: str) -> RbdBackend:
    cluster = FakeCluster()
    theirs = Image(f"volume-{OTHER}", "theirs", 4 * GIB)  # Cinder's own are named so too
    cluster.found = {"theirs": theirs, "copy": image(volume(), name="copy", key="copy")}
    if STATES[state]:
        record, size, more = STATES[state]
        mine = image(volume(**record), size, **more)
        cluster.found[mine.key] = mine
    else:
        del cluster.found["copy"]
    made = backend(cluster)
    made.fake = cluster
    return made


def trace(subject: RbdBackend) -> tuple:
    return subject.fake.writes, repr(sorted(subject.fake.found.items())), repr(subject.fake.noted)


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_laws(state, wish):
    laws_hold(made, state, WISHES[wish], trace)


def test_the_cases_hold_enough_crashes_and_refusals():
    crashes, refusals = crashes_and_refusals(made, STATES, WISHES.values())
    assert crashes > 40 and refusals > 30


def apply(subject: RbdBackend, wish: VolumeWish):
    plan = plan_volume(wish, subject.observe(), subject)
    for step in plan.acts:
        step.act(*step.args)
    return plan


@pytest.mark.parametrize("state,wish", list(itertools.product(STATES, WISHES)))
def test_others_are_left_alone(state, wish):
    subject = made(state)
    theirs = {key: found for key, found in subject.fake.found.items() if key in ("theirs", "copy")}
    try:
        apply(subject, WISHES[wish])
    except (Conflict, Invalid, Refused) as error:
        assert len(str(error)) > 20
    except StorageError:
        assert state == "nothing"  # nothing to rename
    assert {key: subject.fake.found.get(key) for key in theirs} == theirs


class Killed(BaseException):
    """The process ends here, as with kill -9."""


@pytest.mark.parametrize("wish", ["1 GiB", "renamed and larger", "absent"])
def test_killed_before_any_write_the_next_run_finishes(wish):
    kills = 0
    for kill in range(1, 20):
        subject = made("nothing" if wish == "1 GiB" else "available")
        left = itertools.count(1)

        def dying(left=left, kill=kill):
            if next(left) == kill:
                raise Killed

        subject.fake.before_write = dying
        try:
            apply(subject, WISHES[wish])
        except Killed:
            kills += 1
            subject.fake.before_write = lambda: None
            fresh = VolumeWish(**{**vars(WISHES[wish]), "fresh_id": FRESH})
            again = backend(subject.fake)
            apply(again, fresh)
        volumes = backend(subject.fake).observe()
        mine = [found for found in subject.fake.found.values() if found.key not in ("theirs", "copy")]
        assert len(mine) == len(volumes) and {found.volume_id for found in mine} == {v.id for v in volumes.values()}
        assert [(v.name, v.status) for v in volumes.values()] == ([] if wish == "absent" else [("db" if wish == "1 GiB" else "db-old", "available")])
    assert kills >= {"1 GiB": 4, "renamed and larger": 4, "absent": 2}[wish]


class Watch:
    """Somebody on another host who plans to make volume db before a certain write of the first; that one may be killed then."""

    def __init__(self, backend, moment, kills):
        self.backend, self.moment, self.kills = backend, moment, kills
        self.writes, self.looked, self.steps = 0, False, ()

    def look(self):
        self.writes += 1
        if self.looked and self.kills:
            raise Killed
        if self.writes == self.moment:
            self.steps = plan_volume(VolumeWish("db", size_bytes=GIB, fresh_id=OTHER), self.backend.observe(), self.backend).acts
            self.looked = True


class TestNames:
    def test_of_two_hosts_that_looked_at_the_same_moment_one_gets_it(self):
        cluster = FakeCluster()
        first, second = backend(cluster), backend(cluster)
        plans = [plan_volume(VolumeWish("db", size_bytes=GIB, fresh_id=id), one.observe(), one) for one, id in ((first, ID), (second, OTHER))]
        for step in plans[0].acts:
            step.act(*step.args)
        with pytest.raises(Conflict, match=f"volume db was made by someone else meanwhile, at rbd:volumes/volume-{ID}; look at it"):
            plans[1].acts[0].act(*plans[1].acts[0].args)
        assert [found.volume_id for found in cluster.found.values()] == [ID]

    @pytest.mark.parametrize("killed", [False, True])
    def test_a_look_in_the_middle_of_another_ones_making_is_not_relied_upon(self, killed):
        """The other one looks before any write of the first, and comes to his turn when that is done, or was killed before its next write."""
        looked = 0
        for moment in range(1, 8):
            cluster = FakeCluster()
            first, second = backend(cluster), backend(cluster)
            watch = Watch(second, moment, killed)
            cluster.before_write = watch.look
            with contextlib.suppress(Killed):
                apply(first, VolumeWish("db", size_bytes=GIB, fresh_id=ID))
            cluster.before_write = lambda: None
            with contextlib.suppress(Conflict):
                for step in watch.steps:
                    step.act(*step.args)
            looked += watch.looked
            found = backend(cluster)
            assert [v.name for v in found.observe().values()] == ["db"] and not found.warnings and len(cluster.found) == 1
        assert looked >= 4

    def test_renaming_to_a_name_that_was_given_meanwhile_is_a_conflict(self):
        subject = made("available")
        plan = plan_volume(WISHES["renamed"], subject.observe(), subject)
        apply(backend(subject.fake), VolumeWish("db-old", size_bytes=GIB, fresh_id=FRESH))
        with pytest.raises(Conflict, match="volume db-old was made by someone else"):
            plan.acts[0].act(*plan.acts[0].args)
        assert backend(subject.fake).observe()["db"].id == ID

    def test_another_name_given_meanwhile_does_no_harm(self):
        subject = made("available")
        plan = plan_volume(VolumeWish("log", size_bytes=GIB, fresh_id=FRESH), subject.observe(), subject)
        apply(backend(subject.fake), VolumeWish("web", size_bytes=GIB, fresh_id=OTHER[:-1] + "0"))
        for step in plan.acts:
            step.act(*step.args)
        assert set(backend(subject.fake).observe()) == {"db", "log", "web"}

    def test_are_given_one_after_the_other(self):
        subject = made("nothing")
        subject.fake.locked = True
        with pytest.raises(Busy):
            apply(subject, WISHES["1 GiB"])

    def test_an_image_that_took_too_long_gets_no_record(self, monkeypatch):
        subject = made("nothing")
        subject.lease = 0
        with pytest.raises(Failed, match="took too long"):
            apply(subject, WISHES["1 GiB"])
        subject.lease = 30
        apply(subject, VolumeWish("db", size_bytes=GIB, fresh_id=FRESH))
        assert [found.volume_id for found in subject.fake.found.values() if found.key != "theirs"] == [FRESH]


class TestTheRecord:
    def test_says_all_of_a_volume(self):
        other = dataclasses.replace(ATTACHED, id="a2", instance="wéb", reason="no\nanswer", transport="host")
        said = {"description": "ü = &", "metadata": (("a", ""), ("k", "v")), "volume_type": "ssd", "multiattach": True}
        full = volume(attachments=(ATTACHED, other), status="in-use", **said)
        for one in (full, volume(), volume(status="error")):
            assert volume_of(image(one), "rbd:volumes") == one
            assert image(one).record.isascii() and "null" not in image(one).record and "path" not in image(one).record

    @pytest.mark.parametrize("theirs", [{"status": "reserved"}, {"description": "x"}, None])
    @pytest.mark.parametrize("after", ["changed", "removed", "deleting"])
    def test_is_left_alone_when_someone_was_faster(self, theirs, after):
        subject = made("available" if after != "removed" else "deleting")
        have = subject.observe()["db"]
        mine = f"k-{ID}"
        if theirs is None:
            del subject.fake.found[mine]
        else:
            subject.fake.found[mine] = image(dataclasses.replace(have, **theirs))
        found = dict(subject.fake.found)
        wanted = {"changed": dataclasses.replace(have, status="error"), "removed": None, "deleting": dataclasses.replace(have, status="deleting")}[after]
        if (theirs, after) == (None, "removed"):
            subject.swap(have, wanted)  # it is what was wanted
        else:
            with pytest.raises(Conflict, match="volume db was changed by someone else meanwhile"):
                subject.swap(have, wanted)
        assert subject.fake.found == found

    def test_of_a_plan_that_is_old_is_a_conflict(self):
        subject = made("available")
        have = subject.observe()["db"]
        subject.swap(have, dataclasses.replace(have, status="error"))
        with pytest.raises(Conflict):
            subject.swap(have, dataclasses.replace(have, status="deleting"))

    @pytest.mark.parametrize(
        "record,words",
        [
            ("", "can't be relied upon"),
            ("{", "can't be relied upon"),
            ("[]", "can't be relied upon"),
            ("{}", "can't be relied upon"),
            ({"name": "a b"}, "can't be a volume's name"),
            ({"size_bytes": "much"}, "its size or its status is none"),
            ({"status": None}, "its size or its status is none"),
            ({"attachments": [{}]}, "can't be relied upon"),
            ({"attachments": 7}, "can't be relied upon"),
            ({"description": "ü"}, "it holds characters that are not ASCII"),
        ],
    )
    def test_that_was_edited_badly_is_told_and_left_alone(self, record, words):
        text = record if isinstance(record, str) else json.dumps({**json.loads(image(volume()).record), **record}, ensure_ascii=False)
        cluster = FakeCluster()
        cluster.found = {f"k-{ID}": image(volume(), record=text)}
        subject = backend(cluster)
        found = subject.observe()
        assert len(found) == 1 and words in subject.warnings[0] and "rbd image-meta set" in subject.warnings[0]
        for name in found:
            if name == "db":
                with pytest.raises(Conflict, match="damaged"):
                    plan_volume(WISHES["absent"], found, subject)

    def test_that_was_edited_well_is_taken_as_it_is(self):
        cluster = FakeCluster()
        cluster.found = {f"k-{ID}": image(volume(), record=json.dumps({**json.loads(image(volume()).record), "description": "by hand", "note": 1}, indent=4))}
        subject = backend(cluster)
        assert subject.observe()["db"].description == "by hand" and not subject.warnings
        apply(subject, WISHES["described"])
        assert backend(cluster).observe()["db"].description == "a = ü"

    def test_a_copy_of_a_volume_is_none(self):
        copy = image(volume(), name="copy", key="c")
        named_alike = image(volume(), name=f"volume-{OTHER}", key="d")
        found, wrong = volumes_in([copy, named_alike, image(volume())], "rbd:volumes")
        assert list(found) == ["db"] and found["db"].id == ID and not wrong
        assert volumes_in([copy, named_alike], "rbd:volumes") == ({}, []), "nor when the volume itself is gone"

    def test_an_image_that_was_renamed_by_hand_is_told(self):
        found, wrong = volumes_in([image(volume(), name="mine")], "rbd:volumes")
        assert found["db"].flaw and f"it is the record of volume-{ID}" in wrong[0]

    def test_two_of_one_name_are_told(self):
        found, wrong = volumes_in([image(volume()), image(volume(id=OTHER))], "rbd:volumes")
        assert found["db"].flaw and "both carry its name" in wrong[0]


class TestDeleting:
    def test_waits_for_who_has_it_open_before_it_begins(self):
        subject = made("available")
        subject.fake.opened[f"volume-{ID}"] = ["192.0.2.7 (client.4711)"]
        with pytest.raises(Busy, match=r"volume db can't be deleted, its image is open at 192.0.2.7 \(client.4711\); end that"):
            apply(subject, WISHES["absent"])
        assert backend(subject.fake).observe()["db"].status == "available" and subject.fake.writes == 0

    def test_that_was_stopped_when_the_header_was_gone_is_finished(self):
        subject = made("available")

        def dying(image):
            del subject.fake.found[image.key]
            raise Killed

        remove, subject.fake.remove = subject.fake.remove, dying
        with pytest.raises(Killed):
            apply(subject, WISHES["absent"])
        asked = []
        subject.fake.remove = lambda image: (asked.append(image.name), remove(image))
        again = backend(subject.fake)
        assert again.observe()["db"].status == "deleting" and not again.warnings
        assert [step.name for step in apply(again, WISHES["absent"]).steps] == ["remove volume db"] and asked == [f"volume-{ID}"]
        assert backend(subject.fake).observe() == {} and subject.fake.noted == {}

    @pytest.mark.parametrize("kill", range(2, 8))
    def test_never_meets_a_volume_whose_record_was_taken_away(self, kill):
        """Whatever notes a run left that was killed while it made the volume."""
        subject = made("nothing")
        writes = itertools.count(1)

        def dying():
            if next(writes) == kill:
                raise Killed

        subject.fake.before_write = dying
        with contextlib.suppress(Killed):
            apply(subject, WISHES["1 GiB"])
        subject.fake.before_write = lambda: None
        apply(backend(subject.fake), WISHES["1 GiB"])
        (mine,) = [found for found in subject.fake.found.values() if found.key != "theirs"]
        subject.fake.found[mine.key] = dataclasses.replace(mine, record=None)  # by hand, to keep the image from us
        for name in ("log", "db"):
            apply(backend(subject.fake), VolumeWish(name, size_bytes=GIB, fresh_id=FRESH if name == "log" else OTHER[:-1] + "0"))
        assert mine.key in subject.fake.found

    def test_of_a_volume_that_a_check_predicted_is_predicted_too(self):
        subject = made("nothing")
        world = {**subject.observe(), "db": volume(data_bytes=GIB)}
        assert len(plan_volume(WISHES["absent"], world, subject).steps) == 2

    def test_with_snapshots_is_refused_by_their_names(self):
        subject = made("with snapshots")
        with pytest.raises(Refused, match="volume db can't be deleted: its image has snapshots that were not made by cinder_snapshot: s1; remove that first"):
            plan_volume(WISHES["absent"], subject.observe(), subject)


class TestSpace:
    @pytest.mark.parametrize(
        "flags,words", [("hashpspool,full,full_quota", "reached its quota"), ("full,hashpspool", "its OSDs are"), ("hashpspool,nearfull", None)]
    )
    def test_a_full_pool_is_told(self, flags, words):
        told = figures.full([{"pool_name": "else", "flags_names": "full"}, {"pool_name": "volumes", "flags_names": flags}], "volumes")
        assert (words in told and "pool volumes is full" in told) if words else told is None

    def test_only_the_pools_that_count_do(self):
        subject = made("available")
        subject.fake.answers["osd pool ls"] = [{"pool_name": "else", "flags_names": "full"}]
        assert plan_volume(WISHES["2 GiB"], subject.observe(), subject).steps
        subject.fake.answers["osd pool ls"] = [{"pool_name": "volumes", "flags_names": "full"}]
        with pytest.raises(Refused, match="volume db can't be extended: pool volumes is full"):
            plan_volume(WISHES["2 GiB"], subject.observe(), subject)
        assert plan_volume(WISHES["absent"], subject.observe(), subject).steps, "what is full must be able to become empty"

    @pytest.mark.parametrize(
        "df,quota,space",
        [
            (DF, None, ((1 << 36) + (1 << 38), 1 << 38)),
            (DF, {"quota_max_bytes": 1 << 37}, (1 << 37, 1 << 36)),
            (DF, {"quota_max_bytes": 1 << 30}, (1 << 36, 0)),
            (DF, {"quota_max_bytes": 0}, ((1 << 36) + (1 << 38), 1 << 38)),
            ({"stats": {"total_bytes": 0}, "pools": []}, None, (None, None)),
            ({"stats": {"total_bytes": 0}, "pools": [{"name": "volumes", "stats": {"stored": 0, "max_avail": 0}}]}, None, (None, None)),
            ({"stats": {"total_bytes": 1}, "pools": []}, None, (None, None)),
            (None, None, (None, None)),
        ],
    )
    def test_is_what_the_pool_could_hold_or_unknown(self, df, quota, space):
        assert figures.space(df, quota, "volumes") == space

    def test_nobody_knows_is_null_and_told_never_zero(self):
        subject = made("available")
        subject.fake.answers["df"] = {"stats": {"total_bytes": 0}, "pools": []}
        pool = subject.capacity()
        result = pool_result(pool, [])
        assert {result[key] for key in ("total_gib", "free_gib", "virtual_free_gib", "over_subscription_ratio")} == {None}
        assert (result["allocated_gib"], result["provisioned_gib"]) == (1.0, 6.0)  # one of ours, a copy of it, and theirs
        assert "have a ceph-mgr running" in pool_advice(pool)[0]
        assert plan_volume(VolumeWish("big", size_bytes=1 << 50, fresh_id=FRESH), subject.observe(), subject).steps

    def test_more_than_may_be_promised_is_refused_with_all_that_is(self):
        subject = made("available")
        world = subject.observe()
        room = int(((1 << 36) + (1 << 38)) * 20 - 6 * GIB)
        plan_volume(VolumeWish("big", size_bytes=room, fresh_id=FRESH), world, subject)
        with pytest.raises(Refused, match="pool volumes of 320 GiB would have .* promised, more than 20 times what it holds"):
            plan_volume(VolumeWish("big", size_bytes=room + 1, fresh_id=FRESH), world, subject)
        world["log"] = volume("log", FRESH)
        with pytest.raises(Refused):
            plan_volume(VolumeWish("big", size_bytes=room, fresh_id=FRESH), world, subject)

    def test_a_pool_that_is_nearly_full_takes_nothing_more(self):
        subject = made("available")
        subject.fake.answers["df"] = {"stats": {"total_bytes": 1 << 40}, "pools": [{"name": "volumes", "stats": {"stored": 96, "max_avail": 4}}]}
        with pytest.raises(Refused, match=r"pool volumes has 96.0 % of its space used, with a limit of 95 %"):
            plan_volume(WISHES["2 GiB"], subject.observe(), subject)


def test_connection_info_is_what_cinder_tells_nova():
    subject = made("available")
    found = subject.observe()
    assert subject.connection_info(found["db"]) == {
        "driver_volume_type": "rbd",
        "data": {
            "name": f"volumes/volume-{ID}", "hosts": ["192.0.2.1"], "ports": ["6789"], "auth_enabled": True, "auth_username": "cinder",
            "secret_type": "ceph", "secret_uuid": subject.connection_info(found["db"])["data"]["secret_uuid"], "volume_id": ID, "discard": True,
            "cluster_fsid": subject.cluster.fsid,
        },
    }  # fmt: skip
    other = RbdBackend({"pool": "volumes", "namespace": "shop", "user": "eve"}, open_cluster=lambda place: FakeCluster())
    assert other.locate(ID) == f"rbd:volumes/shop/volume-{ID}" and other.connection_info(found["db"])["data"]["name"] == f"volumes/shop/volume-{ID}"


def test_a_secret_is_one_for_each_user_of_a_cluster_unless_it_is_named():
    def told(**options):
        subject = RbdBackend({"pool": "volumes", **options}, open_cluster=lambda place: FakeCluster())
        subject.observe()
        return subject.connection_info(Volume("db", ID, GIB))["data"]["secret_uuid"]

    assert told() == told(namespace="shop") != told(user="eve")
    assert told(secret_uuid="5C000000-0000-4000-8000-000000000001") == "5c000000-0000-4000-8000-000000000001"
    with pytest.raises(Invalid, match="can't be the backend.secret_uuid"):
        told(secret_uuid="mine")


def test_credentials_are_the_users_key_and_none_where_nobody_may_read_it():
    cluster = FakeCluster()
    subject = RbdBackend({"pool": "volumes"}, open_cluster=lambda place: cluster)
    subject.observe()
    assert subject.credentials() == []
    cluster.key = Secret("a key")
    (found,) = subject.credentials()
    assert (found["username"], found["password"]) == ("cinder", "a key")
    assert found["secret_uuid"] == subject.connection_info(Volume("db", ID, GIB))["data"]["secret_uuid"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[client.cinder]\n\tkey = AQD==\n\tcaps mon = \"profile rbd\"\n", "AQD=="),
        ("[client.admin]\nkey = no\n\n[client.cinder]\n  key=AQD==\n", "AQD=="),
        ("[client.cinder2]\nkey = no\n", None),
        ("\xff no keyring", None),
    ],
)
def test_the_key_is_read_from_the_keyring(tmp_path, text, key):
    path = tmp_path / "keyring"
    path.write_bytes(text.encode("latin-1"))
    assert _key_in(str(path), "cinder") == key
    assert _key_in(str(tmp_path / "none"), "cinder") is None


def test_who_has_an_image_open():
    watchers = [{"id": 7, "addr": "192.0.2.7:0/1234"}, {"id": 8, "addr": "[2001:db8::8]:0/99"}]
    locks = {"lockers": [("client.7", "auto 1", "192.0.2.7:0/1234"), ("client.3", "auto 2", "192.0.2.3:0/1"), ("client.4", "mine", "192.0.2.4:0/1")]}
    assert _holders(watchers, {}) == ("192.0.2.7 (client.7)", "2001:db8::8 (client.8)")
    assert _holders(watchers[:1], locks) == ("192.0.2.4 (client.4)", "192.0.2.7 (client.7)")


class TestLostHosts:
    HERE, THERE = "192.0.2.7:0/1", "192.0.2.8:0/2"

    def volume(self, *others):
        attachments = [Attachment(f"a{n}", f"web-{n}", f"c{n}", ip=ip) for n, ip in enumerate(("192.0.2.7", *others))]
        return Volume("db", ID, GIB, attachments=tuple(attachments), status="in-use")

    def clients(self, volume, *open_at):
        subject = made("available")
        subject.observe()
        subject.cluster.clients = lambda image: list(open_at)
        return subject.clients(volume, volume.attachments[0])

    def test_who_has_the_image_open_is_the_lost_host_where_nobody_else_may(self):
        assert self.clients(self.volume(), self.HERE, "198.51.100.1:0/9") == (self.HERE, "198.51.100.1:0/9")
        assert self.clients(self.volume()) == ()

    def test_others_that_share_the_volume_are_left_alone(self):
        assert self.clients(self.volume("192.0.2.8"), self.HERE, self.THERE) == (self.HERE,)

    def test_a_client_that_could_be_anybodys_is_told(self):
        with pytest.raises(Refused, match="198.51.100.1:0/9 too, and nobody knows whose they are"):
            self.clients(self.volume("192.0.2.8"), self.HERE, "198.51.100.1:0/9")

    def test_it_is_certain_only_when_the_image_is_not_open_any_more(self):
        subject, blocked = made("available"), []
        volume = subject.observe()["db"]
        left = [[self.HERE], []]
        subject.cluster.connected, subject.cluster.block = lambda image: left.pop(0), blocked.append
        with pytest.raises(Busy, match="though on the cluster's blocklist"):
            subject.fence(volume, (self.HERE,))
        subject.fence(volume, (self.HERE,))
        assert blocked == [(self.HERE,)] * 2


def test_monitors_of_ipv6_and_of_the_second_protocol_alone():
    only = {"mons": [{"public_addrs": {"addrvec": [{"type": "v2", "addr": "[2001:db8::1]:3300"}]}}]}
    assert figures.addresses(only) == [("2001:db8::1", "3300")] and figures.addresses(MONITORS) == [("192.0.2.1", "6789")]


@pytest.mark.parametrize(
    "options,words",
    [
        ({"pool": None}, "backend.pool is None; the rbd driver needs the name of a pool"),
        ({"pool": "a/b"}, "backend.pool is 'a/b'"),
        ({"namespace": "a@b"}, "backend.namespace is 'a@b'"),
        ({"data_pool": "a:b"}, "backend.data_pool is 'a:b'"),
        ({"user": "client.cinder"}, "without client."),
        ({"allocation": "thick"}, "the rbd driver has only thin"),
        ({"timeout": 0}, "backend.timeout is 0"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(Invalid) as refusal:
        RbdBackend({"pool": "volumes", **options}, open_cluster=lambda place: FakeCluster())
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "number,monitors,words",
    [
        (110, "192.0.2.1", "the Ceph cluster of 192.0.2.1 does not answer client.eve within 7 s"),
        (13, "192.0.2.1", "refuses client.eve: it does not know it or has another key; compare `ceph auth get client.eve` with /k"),
        (2, "192.0.2.1", "there is no key of client.eve for the Ceph cluster of 192.0.2.1 in /k"),
        (2, "", "the Ceph configuration /c names no monitors"),
        (22, "none.invalid", "check mon_host in /c"),
    ],
)
def test_why_a_connection_did_not_come_about(number, monitors, words):
    place = Place("volumes", user="eve", conf="/c", timeout=7)
    assert words in _why_not(number, place, monitors, "/k")
    assert ("the key of client.eve in /k can't be read" in _why_not(number, place, monitors, "/k", ["/k"])) is (number == 13)


def test_a_key_that_everybody_can_read_is_told(tmp_path):
    subject = made("nothing")
    key = tmp_path / "keyring"
    key.write_text("")
    subject.fake.keyring = f"/does/not/exist,{key}"
    os.chmod(key, 0o640)
    assert subject.advice() == ()
    os.chmod(key, 0o644)
    assert subject.advice() == (f"everybody on this host can read the key in {key}; take that away (chmod o-rwx)",)
