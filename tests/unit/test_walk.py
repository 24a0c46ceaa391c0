# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure part of the walk: placing, lists for the modules, merging answers, undo, notes and story."""

from __future__ import annotations

import pytest
from ansible_collections.stackless.block.plugins.plugin_utils import _walk

CONNECTOR = {"ip": "192.0.2.7", "initiator": "iqn.2026-01.org.example:C1"}
COMPUTE = {
    "c1": {"connector": CONNECTOR, "domains": [{"name": "web-1"}, {"name": "web-2"}]},
    "c2": {"connector": {**CONNECTOR, "initiator": "iqn.2026-01.org.example:c2"}, "domains": [{"name": "web-10"}]},
    "c3": {"unreachable": True, "msg": "no route to host"},
}
WISH = {"volume": "db", "instance": "web-1"}
PREFIX = "iqn.2026-01.org.example"


def place(*wishes, connectors=None, storage=("s1",), looks=None, **more):
    return _walk.place(list(wishes), connectors or COMPUTE, list(storage), looks or {}, PREFIX, **more)


def reserved(placed, **changes):
    fields = {"volume_id": "v1", "attachment_id": "a1", "path": "/p/v1", "size_bytes": 1, "multiattach": False, "status": "reserved"}
    counts = {"others": 0, "others_on_host": 0, "others_staying": 0}
    result = {**WISH, "changed": True, "steps": ["reserve"], "transport": placed[0]["transport"], **counts, **fields, **changes}
    return _walk.merge(placed, "reserve", {placed[0]["storage_host"]: {"results": [result]}})


def admitted(transport="qemu"):
    luns = [{"lun": 7, "serial": "someone-elses", "wwid": "naa.7"}, {"lun": 3, "serial": "v1", "wwid": "naa.1"}]
    shown = {"portals": [{"ip": "192.0.2.1", "port": 3260}], "luns": luns}
    exported = {"target_iqn": "iqn.2026-01.org.example:volume-v1", **shown, "changed": True, "steps": ["export"]}
    door = {"target_iqn": exported["target_iqn"], "initiator": CONNECTOR["initiator"], "username": "u", "password": "p"}
    folded = {**door, "initiator": door["initiator"].lower()}
    doors = [{**door, "initiator": "iqn.x:other", "username": "no"}, {**door, "target_iqn": "iqn.x:t", "username": "no"}, folded]
    after = _walk.merge(reserved(place({**WISH, "transport": transport})), "export", {"s1": {"results": [exported]}})
    return _walk.merge(after, "acl", {"s1": {"results": [exported], "credentials": doors}})


def reason(attachment):
    return attachment["failure"]["reason"]


class TestPlace:
    def test_finds_both_hosts(self):
        (placed,) = place(WISH)
        assert (placed["host"], placed["storage_host"], placed["connector"]) == ("c1", "s1", CONNECTOR)

    def test_a_name_is_not_a_prefix(self):
        (placed,) = place({"volume": "db", "instance": "web-1x"}, {"volume": "db", "instance": "web-10"})[1:]
        assert placed["host"] == "c2"

    def test_unknown_instance_names_who_was_asked_and_who_was_silent(self):
        (placed,) = place({"volume": "db", "instance": "nope"})
        assert reason(placed) == "c1, c2 have no domain nope; no answer from c3 (unreachable: no route to host); define it there first, or correct the name"

    def test_with_a_limit_others_are_left_out_unless_a_host_is_silent(self):
        answering = {host: COMPUTE[host] for host in ("c1", "c2")}
        for wish in ({"volume": "db", "instance": "elsewhere"}, {**WISH, "host": "c9"}):
            (placed,) = place(wish, limited=True, connectors=answering)
            assert placed["outside"] and "failure" not in placed
        for backwards in (False, True):
            (placed,) = place({"volume": "db", "instance": "elsewhere"}, limited=True, backwards=backwards)
            assert "no answer from c3" in reason(placed)

    def test_an_instance_on_two_hosts_needs_a_word(self):
        twice = {"c1": COMPUTE["c1"], "c4": COMPUTE["c1"]}
        assert "say which with host" in reason(place(WISH, connectors=twice)[0])
        assert place({**WISH, "host": "c4"}, connectors=twice)[0]["host"] == "c4"

    def test_wrong_host(self):
        assert "c2 has no domain web-1" in reason(place({**WISH, "host": "c2"})[0])

    def test_several_storage_hosts_need_a_home(self):
        assert "no storage host, or more than one, has a volume db (asked: s1, s2)" in reason(place(WISH, storage=("s1", "s2"))[0])
        looks = {"s1": {"volumes": []}, "s2": {"volumes": [{"name": "db"}]}}
        assert place(WISH, storage=("s1", "s2"), looks=looks)[0]["storage_host"] == "s2"
        assert place({**WISH, "storage_host": "s2"}, storage=("s1", "s2"))[0]["storage_host"] == "s2"

    def test_a_storage_host_that_does_not_answer_is_named(self):
        looks = {"s1": {"volumes": []}, "s2": {"unreachable": True, "msg": "timed out"}}
        assert "no answer from s2 (unreachable: timed out); say which" in reason(place(WISH, storage=("s1", "s2"), looks=looks)[0])

    @pytest.mark.parametrize(
        "wish,transports,expected",
        [
            ({}, {}, "host"),
            ({}, {"c1": "qemu", "c2": "host"}, "qemu"),
            ({"transport": "host"}, {"c1": "qemu"}, "host"),
        ],
    )
    def test_how_the_bytes_travel(self, wish, transports, expected):
        assert place({**WISH, **wish}, transports=transports)[0]["transport"] == expected

    def test_on_one_host_nothing_has_to_travel(self):
        (placed,) = place(WISH, storage=("c1",), transports={"c1": "qemu"})
        assert placed["transport"] == "local"
        assert place({**WISH, "transport": "host"}, storage=("c1",))[0]["transport"] == "host"
        assert "volume db is on s1 and web-1 on c1; leave transport out" in reason(place({**WISH, "transport": "local"})[0])
        assert "transport pigeon is not known" in reason(place({**WISH, "transport": "pigeon"})[0])

    def test_no_storage_host(self):
        assert "inventory group storage" in reason(place(WISH, storage=())[0])

    @pytest.mark.parametrize("wish", [{}, {"volume": "db"}, {"instance": "web-1"}])
    def test_half_a_wish(self, wish):
        assert "give both" in reason(place(wish)[0])

    def test_a_volume_that_could_not_be_made(self):
        made = {"s1": {"results": [{"name": "db", "failed": True, "msg": "no space"}]}}
        assert place(WISH, made=made)[0]["failure"] == {"step": "volume", "reason": "no space", "silent": False}

    def test_backwards_an_instance_may_be_gone(self):
        (placed,) = place({"volume": "db", "instance": "gone"}, backwards=True)
        assert "failure" not in placed and placed.get("host") is None
        begun = _walk.merge([placed], "begin", {"s1": {"results": [{"volume": "db", "instance": "gone", "volume_id": "v1", "host": "c2"}]}})
        assert begun[0]["host"] == "c2"

    @pytest.mark.parametrize("recorded,ok", [("c1", True), ("c2", True), ("c3", False), ("c9", False)])
    def test_backwards_another_host_than_the_recorded_one_needs_proof(self, recorded, ok):
        placed = place(WISH, backwards=True)
        begun = _walk.merge(placed, "begin", {"s1": {"results": [{**WISH, "volume_id": "v1", "host": recorded, "transport": "host"}]}})
        assert (begun[0]["host"], "failure" not in begun[0]) == ("c1", ok)
        assert bool(_walk.items([{**begun[0], "attachment_id": "a1"}], "detach", "c1")) == ok

    def test_backwards_a_host_that_is_not_the_instances_is_refused(self):
        assert "c2 has no domain web-1" in reason(place({**WISH, "host": "c2"}, backwards=True)[0])


class TestItems:
    def test_only_the_hosts_own_and_the_living(self):
        placed = place(WISH, {"volume": "x", "instance": "nope"}, {"volume": "y", "instance": "web-10"})
        assert [i["volume"] for i in _walk.items(placed, "reserve", "s1")] == ["db", "y"]
        assert _walk.items(placed, "reserve", "s2") == []

    def test_reserve_names_host_and_initiator(self):
        (item,) = _walk.items(place(WISH), "reserve", "s1")
        told = {"initiator": CONNECTOR["initiator"], "ip": "192.0.2.7", "mode": "rw", "transport": "host", "iqn_prefix": PREFIX}
        assert item == {**WISH, "action": "reserve", "host": "c1", **told}
        assert "iqn_prefix" not in _walk.items(place({**WISH, "transport": "local"}, storage=("c1",)), "reserve", "c1")[0]

    def test_attachments_of_one_target_share_an_item(self):
        first, second = reserved(place(WISH))[0], reserved(place(WISH))[0]
        second = {**second, "instance": "web-10", "connector": COMPUTE["c2"]["connector"]}
        assert len(_walk.items([first, second], "export", "s1", {"portals": []})) == 1
        (item,) = _walk.items([first, second], "acl", "s1")
        assert [a["initiator"] for a in item["acls"]] == [CONNECTOR["initiator"], COMPUTE["c2"]["connector"]["initiator"]]
        assert len(_walk.items([first, dict(first)], "acl", "s1")[0]["acls"]) == 1

    def test_export_and_door_are_as_their_storage_host_says(self):
        options = {"attributes": {"default_cmdsn_depth": 128}, "lun": {"discard": False, "path": "/etc/passwd"}}
        (export,) = _walk.items(reserved(place(WISH)), "export", "s1", {"portals": [], "options": options})
        assert export["attributes"] == {"default_cmdsn_depth": 128} and export["luns"] == [{"discard": False, "path": "/p/v1", "serial": "v1"}]
        settings = {"chap": "generate", "options": {"mutual_username": "it", "mutual_password": "its own"}}
        (door,) = _walk.items(reserved(place(WISH)), "acl", "s1", settings)[0]["acls"]
        assert door == {"initiator": CONNECTOR["initiator"], "chap": "generate", "mutual_username": "it", "mutual_password": "its own"}

    def test_the_disk_gets_the_auth_of_its_own_initiator(self):
        (item,) = _walk.items(admitted(), "attach", "c1")
        assert (item["source"]["username"], item["source"]["password"], item["source"]["lun"]) == ("u", "p", 3)
        assert (item["domain"], item["serial"], item["read_only"], item["shareable"]) == ("web-1", "v1", False, False)

    def test_the_host_logs_in_with_all_that_tells_its_device(self):
        (item,) = _walk.items(admitted("host"), "login", "c1")
        assert item == {
            "target_iqn": "iqn.2026-01.org.example:volume-v1", "lun": 3, "portals": [{"ip": "192.0.2.1", "port": 3260}],
            "wwid": "naa.1", "serial": "v1", "size_bytes": 1, "username": "u", "password": "p",
        }  # fmt: skip
        assert _walk.items(admitted("qemu"), "login", "c1") == []

    def test_the_instance_gets_the_hosts_device(self):
        answer = {"target_iqn": "iqn.2026-01.org.example:volume-v1", "device_path": "/dev/disk/by-id/x", "degraded": True, "steps": ["log in"]}
        after = _walk.merge(admitted("host"), "login", {"c1": {"results": [answer]}})
        (item,) = _walk.items(after, "attach", "c1")
        assert (item["source"], item["io"]) == ({"type": "block", "path": "/dev/disk/by-id/x"}, "native")
        assert "io" not in _walk.items([{**after[0], "cache": "writeback"}], "attach", "c1")[0]
        assert "degraded" in _walk.story(after)[0]

    @pytest.mark.parametrize("path,kind", [("/dev/vg/volume-v1", "block"), ("/srv/volume-v1", "file")])
    def test_a_volume_on_the_spot_is_plugged_as_it_is(self, path, kind):
        after = reserved(place(WISH, storage=("c1",)), path=path)
        assert [s for s in ("export", "acl", "login", "logout", "deny", "withdraw") if _walk.items(after, s, "c1", {"portals": []})] == []
        assert _walk.items(after, "attach", "c1")[0]["source"] == {"type": kind, "path": path}
        assert "source" not in _walk.items(after, "detach", "c1")[0]

    @pytest.mark.parametrize("here,staying,expected", [(0, 0, "refuse"), (1, 0, "keep"), (1, 1, None)])
    def test_a_session_stays_as_long_as_others_on_the_host_need_it(self, here, staying, expected):
        after = [{**admitted("host")[0], "others": here, "others_on_host": here, "others_staying": staying}]
        items = _walk.items(after, "logout", "c1")
        assert [item["if_in_use"] for item in items] == ([expected] if expected else [])
        assert all((item["state"], item["serial"]) == ("absent", "v1") for item in items)

    def test_what_others_share_is_counted_again_when_the_own_disk_is_out(self):
        """Two plays, each on its way back with one of them: the later one must find nobody else there."""
        shared = [{**admitted("host")[0], "others": 1, "others_on_host": 1, "others_staying": 1}]
        assert _walk.items(_walk.to_undo(fail(shared, "attach")), "recount", "s1") == [{**WISH, "action": "give_up"}]
        assert _walk.items(shared, "recount", "s1") == [{**WISH, "action": "begin_detaching"}]
        counted = _walk.merge(shared, "recount", {"s1": {"results": [{**WISH, "others": 1, "others_on_host": 1, "others_staying": 0}]}})
        assert [item["if_in_use"] for item in _walk.items(counted, "logout", "c1")] == ["keep"]
        alone = [{**shared[0], "others_on_host": 0}]
        assert _walk.items(alone, "recount", "s1") == [] and _walk.merge(alone, "recount", {}) == alone

    @pytest.mark.parametrize("prefix", [PREFIX, None])
    def test_the_export_is_the_recorded_one(self, prefix):
        recorded = {"target_iqn": "iqn.2020-01.org.example.old:volume-v1"} if prefix else {}
        (begun,) = _walk.merge(place(WISH, backwards=True), "begin", {"s1": {"results": [{**WISH, "volume_id": "v1", "transport": "host", **recorded}]}})
        assert begun["target_iqn"] == recorded.get("target_iqn", f"{PREFIX}:volume-v1")

    @pytest.mark.parametrize("others,here,steps", [(0, 0, ["withdraw"]), (1, 0, ["deny"]), (1, 1, [])])
    def test_an_export_stays_as_long_as_others_need_it(self, others, here, steps):
        attachments = [{**a, "others": others, "others_on_host": here} for a in reserved(place(WISH))]
        assert [s for s in ("deny", "withdraw") if _walk.items(attachments, s, "s1")] == steps


class TestMerge:
    def test_every_step_adds_and_the_story_grows(self):
        (attachment,) = admitted()
        assert attachment["target_iqn"] == "iqn.2026-01.org.example:volume-v1" and attachment["lun"] == 3
        assert [told["what"] for told in attachment["told"]] == ["reserve", "export", "export"]
        assert attachment["changed"]

    def test_a_failed_item_keeps_its_reason_and_is_left_out_after(self):
        failed = _walk.merge(place(WISH), "reserve", {"s1": {"results": [{**WISH, "failed": True, "msg": "held by web-2"}]}})
        assert failed[0]["failure"] == {"step": "reserve", "reason": "held by web-2", "silent": False}
        assert _walk.items(failed, "export", "s1", {"portals": []}) == []
        assert _walk.merge(failed, "export", {}) == failed

    @pytest.mark.parametrize(
        "answers,words",
        [
            ({"s1": {"unreachable": True, "msg": "timed out"}}, "s1: unreachable: timed out"),
            ({"s1": {"module_stderr": "Traceback", "failed": True}}, "s1: Traceback"),
            ({"s1": {"results": []}}, "s1: no answer"),
            ({}, "s1 is no host of this run"),
        ],
    )
    def test_a_silent_host_is_told_apart(self, answers, words):
        (attachment,) = _walk.merge(place(WISH), "reserve", answers)
        assert words in reason(attachment) and attachment["failure"]["silent"]

    def test_answers_of_a_loop(self):
        looped = {"results": [{"walk_host": "s1", "results": [1]}, {"walk_host": "s2", "skipped": True}]}
        assert list(_walk.answers_of(looped)) == ["s1"]
        assert _walk.answers_of({"skipped": True}) == {}

    def test_who_writes_to_what_a_snapshot_is_taken_of(self):
        def result(changed=True, failed=False, **holders):
            attachments = [{"instance": instance, "host": host} for instance, host in holders.items()]
            return {"changed": changed, "failed": failed, **({} if failed else {"record": {"attachments": attachments}})}

        foreseen = {"s1": {"results": [result(web="c2", db="c1"), result(False, other="c1"), result(failed=True)]}, "s2": {"results": [result(web="c2")]}}
        assert _walk.writers(foreseen) == {"c1": [{"name": "db"}], "c2": [{"name": "web"}]}
        assert _walk.writers({"s1": {"unreachable": True, "msg": "timed out"}}) == {}

    def test_a_group_that_is_not_whole_gives_up_what_was_taken_just_now(self):
        def result(name, changed, failed=False):
            return {"volume": name, "name": "monday", "changed": changed, "failed": failed, "id": "x"}

        taken = {"s1": {"results": [result("new", True), result("old", False)]}, "s2": {"results": [result("other", True)]}}
        both = {"s1": [{"volume": "new", "name": "monday"}], "s2": [{"volume": "other", "name": "monday"}]}
        assert _walk.group_undo(taken) == {}
        assert _walk.group_undo(taken, ["web-1"]) == both
        taken["s2"] = {"failed": True, "results": [*taken["s2"]["results"], result("gone", True, failed=True)]}
        assert _walk.group_undo(taken) == both
        taken["s2"] = {"unreachable": True, "msg": "timed out"}
        assert _walk.group_undo(taken) == {"s1": both["s1"], "s2": []}


def fail(attachments, step, silent=False):
    return [{**a, "failure": {"step": step, "reason": "x", "silent": silent}} for a in attachments]


class TestUndo:
    @pytest.mark.parametrize("step", ["export", "acl", "attach"])
    def test_a_reserved_one_is_taken_back(self, step):
        (undo,) = _walk.to_undo(fail(reserved(place(WISH)), step))
        assert _walk.alive(undo) and undo["undoing"]["step"] == step

    def test_what_was_attached_before_stays(self):
        assert _walk.to_undo(fail(reserved(place(WISH), status="attached"), "attach")) == []

    def test_what_never_was_reserved_has_nothing_to_undo(self):
        assert _walk.to_undo(fail(place(WISH), "reserve")) == []

    @pytest.mark.parametrize("step,silent", [("attach", True), ("complete", False)])
    def test_what_the_next_run_resumes_stays(self, step, silent):
        assert _walk.to_undo(fail(reserved(place(WISH)), step, silent)) == []


class TestNotes:
    def test_a_stopped_one_is_noted_under_its_status(self):
        (note,) = _walk.notes(fail(reserved(place(WISH)), "attach", True), "s1")
        assert note == {**WISH, "host": "c1", "action": "reserve", "step": "attach", "reason": "x"}
        assert _walk.notes(fail(reserved(place(WISH)), "attach", True), "s2") == []

    def test_an_undone_one_has_no_record_to_note_in(self):
        failed = fail(reserved(place(WISH)), "attach")
        assert _walk.notes(failed, "s1", _walk.to_undo(failed)) == []

    def test_a_good_one_is_not_noted(self):
        assert _walk.notes(reserved(place(WISH)), "s1") == []


def test_story_and_failures():
    good = {**admitted()[0], "device": "vdb"}
    bad = fail(place({"volume": "x", "instance": "web-2"}), "acl")[0]
    lines = _walk.story([good, bad, {"volume": "z", "instance": "q", "outside": True}])
    assert lines[0] == "db -> web-1: vdb on c1, changed" and lines[1] == "    reserve"
    assert "x -> web-2: FAILED at acl: x" in lines and "left out" in lines[-1]
    assert _walk.failures([good, bad]) == ["x -> web-2 | acl | x"]
    assert "'p'" not in str(_walk.outcome([good])) and "password" not in str(_walk.outcome([good]))


def test_a_name_that_two_storage_hosts_have_is_nobodys_but_by_wish():
    looks = {"s1": {"volumes": [{"name": "db"}, {"name": "x"}]}, "s2": {"volumes": [{"name": "db"}]}, "s3": {"unreachable": True}}
    assert _walk.homes_of(looks) == {"x": "s1"}
    assert _walk.homes_of(looks, {"s1": {"results": [{"name": "db"}]}}) == {"x": "s1", "db": "s1"}


def test_who_has_the_volumes_that_are_to_grow():
    attachment = {"instance": "web-1", "host": "c1", "mode": "ro", "transport": "qemu", "status": "attached"}
    held = {"name": "db", "attachments": [attachment, {**attachment, "instance": "web-2", "status": "detaching"}]}
    looks = {"s1": {"volumes": [held]}, "s2": {"volumes": [{"name": "free", "attachments": []}]}}
    wishes = [{"name": "db", "size_gib": 2}, {"name": "free", "size_gib": 2}]
    assert _walk.housed(wishes, looks) == [{**wishes[0], "storage_host": "s1"}, {**wishes[1], "storage_host": "s2"}]
    assert _walk.attached(wishes, looks) == [
        {"volume": "db", "storage_host": "s1", "instance": "web-1", "host": "c1", "mode": "ro", "transport": "qemu"}
    ]


def test_a_volume_that_is_not_found_is_told_and_keeps_no_other_from_growing():
    free = {"name": "free", "attachments": []}
    looks = {"s1": {"volumes": [free, {**free, "name": "twin"}]}, "s2": {"volumes": [{**free, "name": "twin"}]}, "s3": {"unreachable": True, "msg": "away"}}
    wishes = [{"name": "free"}, {"name": "nope"}, {"name": "twin"}, {"name": "twin", "storage_host": "s2"}, {"name": "free", "storage_host": "s3"}]
    assert _walk.housed(wishes, looks) == [{"name": "free", "storage_host": "s1"}, {"name": "twin", "storage_host": "s2"}]
    (told,) = _walk.homeless(wishes[:2], looks)
    assert "has a volume nope (asked: s1, s2, s3); no answer from s3 (unreachable: away); say which with storage_host" in told
    assert len(_walk.homeless(wishes, looks)) == 3, "one that was found hides its namesake that was not"


def test_what_two_hosts_call_alike_is_recovered_on_both():
    attached = {"instance": "web-1", "host": "c1", "mode": "rw", "transport": "host", "status": "attached"}
    looks = {"s1": {"volumes": [{"name": "db", "attachments": [attached]}]}, "s2": {"volumes": [{"name": "db", "attachments": []}]}, "s3": {}}
    assert [(a["storage_host"], a["volume"]) for a in _walk.attached(_walk.located(looks), looks)] == [("s1", "db")]


def test_volumes_go_home():
    wishes = [{"name": "a", "size_gib": 1}, {"name": "b", "storage_host": "s1"}]
    assert _walk.volumes(wishes, ["s1"]) == {"s1": [{"name": "a", "size_gib": 1}, {"name": "b"}]}
    with pytest.raises(ValueError, match="volume a names no storage_host; choose one of: s1, s2"):
        _walk.volumes(wishes, ["s1", "s2"])
    with pytest.raises(ValueError, match="names s9, which is none"):
        _walk.volumes([{"name": "a", "storage_host": "s9"}], ["s1"])


class TestCeph:
    """A volume in a Ceph pool: nothing is exported, QEMU is a client of the cluster."""

    AT = {
        "name": "volumes/volume-v1", "hosts": ["192.0.2.1", "::1"], "ports": ["6789", "6790"], "auth_username": "cinder", "secret_uuid": "s",
        "cluster_fsid": "f",
    }  # fmt: skip
    INFO = {"driver_volume_type": "rbd", "data": AT}
    IMAGE = {
        "type": "network", "protocol": "rbd", "image": "volumes/volume-v1", "secret_uuid": "s",
        "monitors": [{"ip": "192.0.2.1", "port": 6789}, {"ip": "::1", "port": 6790}],
    }  # fmt: skip

    def placed(self, **more):
        return place({**WISH, **more}, drivers={"s1": "rbd"}, transports={"c1": "qemu"})

    def initialized(self, transport="rbd", **more):
        answer = {**WISH, "changed": True, "steps": ["initialize"]}
        keys = [{"secret_uuid": "other", "password": "no"}, {"secret_uuid": "s", "username": "cinder", "password": "key"}]
        after = reserved(self.placed(transport=transport), connection_info=self.INFO, **more)
        return _walk.merge(after, "initialize", {"s1": {"results": [answer], "credentials": keys}})

    def test_travels_by_rbd_or_krbd_and_by_nothing_else(self):
        assert self.placed()[0]["transport"] == self.placed(transport="rbd")[0]["transport"] == "rbd"
        assert self.placed(transport="krbd")[0]["transport"] == "krbd"
        assert reason(self.placed(transport="host")[0]) == "transport host is not one of driver rbd; choose one of rbd, krbd, or leave it out"
        (placed,) = place({**WISH, "transport": "rbd"}, drivers={"s1": "lvm"})
        assert "transport rbd is not one of driver lvm; choose one of host, qemu, local" in reason(placed)
        assert place(WISH, storage=("c1",), drivers={"c1": "rbd"})[0]["transport"] == "rbd"

    @pytest.mark.parametrize(
        "of_host,driver,expected",
        [("krbd", "rbd", "krbd"), ("krbd", "lvm", "host"), ("qemu", "rbd", "rbd"), ("qemu", "lvm", "qemu"), ("rbd", "rbd", "rbd"), (None, "rbd", "rbd")],
    )
    def test_what_a_host_wants_counts_for_the_volumes_that_can_go_that_way(self, of_host, driver, expected):
        transports = {"c1": of_host} if of_host else {}
        assert place(WISH, drivers={"s1": driver}, transports=transports)[0]["transport"] == expected
        assert "transport pigeon is not known" in reason(place(WISH, drivers={"s1": driver}, transports={"c1": "pigeon"})[0])

    def test_needs_no_export_and_no_login(self):
        attachments = self.initialized()
        for step in ("export", "acl", "login", "logout", "deny", "withdraw", "map", "unmap"):
            assert _walk.items(attachments, step, "s1") == _walk.items(attachments, step, "c1") == []
        assert _walk.items(reserved(place(WISH)), "initialize", "s1") == []

    def test_the_disk_is_an_image_with_the_users_key(self):
        (disk,) = _walk.items(self.initialized(), "attach", "c1")
        assert disk["source"] == {**self.IMAGE, "username": "cinder", "password": "key"}
        assert disk["discard"] == "unmap" and "io" not in disk

    def test_a_key_that_the_storage_host_may_not_read_is_left_to_libvirt(self):
        answer = {"results": [{**WISH, "changed": True, "steps": []}], "credentials": []}
        after = _walk.merge(reserved(self.placed(), connection_info=self.INFO), "initialize", {"s1": answer})
        assert "password" not in _walk.items(after, "attach", "c1")[0]["source"]

    def test_the_way_back_names_the_image_and_no_secret(self):
        (gone,) = _walk.items(self.initialized(), "detach", "c1")
        assert gone == {"domain": "web-1", "serial": "v1", "state": "absent", "source": self.IMAGE}
        assert "key" not in str(_walk.outcome(self.initialized()))

    def test_the_kernel_maps_the_image_and_the_instance_gets_its_device(self):
        attachments = self.initialized("krbd")
        for step in ("export", "acl", "login", "logout", "deny", "withdraw"):
            assert _walk.items(attachments, step, "s1") == _walk.items(attachments, step, "c1") == []
        (item,) = _walk.items(attachments, "map", "c1")
        assert item == {
            "image": "volumes/volume-v1", "cluster_fsid": "f", "monitors": self.IMAGE["monitors"], "username": "cinder", "password": "key",
            "mode": "rw", "shared": False, "size_bytes": 1,
        }  # fmt: skip
        after = _walk.merge(attachments, "map", {"c1": {"results": [{"image": "volumes/volume-v1", "device_path": "/dev/x", "steps": ["map"]}]}})
        (disk,) = _walk.items(after, "attach", "c1")
        assert (disk["source"], disk["discard"], disk["io"]) == ({"type": "block", "path": "/dev/x"}, "unmap", "native")
        assert "source" not in _walk.items(after, "detach", "c1")[0] and "key" not in str(_walk.items(after, "unmap", "c1"))
        (other,) = _walk.merge(attachments, "map", {"c1": {"results": [{"image": "volumes/volume-v10", "device_path": "/dev/x", "steps": ["map"]}]}})
        assert other["failure"]["step"] == "map"

    @pytest.mark.parametrize("multiattach,mode,expected", [(False, "ro", ("ro", False)), (True, "ro", ("rw", True)), (True, "rw", ("rw", True))])
    def test_a_device_that_instances_may_share_is_for_all_of_them(self, multiattach, mode, expected):
        (item,) = _walk.items([{**self.initialized("krbd", multiattach=multiattach)[0], "mode": mode}], "map", "c1", {"exclusive": False})
        assert (item["mode"], item["shared"]) == expected and item.get("exclusive") == (None if multiattach else False)

    @pytest.mark.parametrize("here,staying,expected", [(0, 0, "refuse"), (1, 0, "keep"), (1, 1, None)])
    def test_a_device_stays_as_long_as_others_on_the_host_need_it(self, here, staying, expected):
        after = [{**self.initialized("krbd")[0], "others": here, "others_on_host": here, "others_staying": staying}]
        assert len(_walk.items(after, "recount", "s1")) == here
        items = _walk.items(after, "unmap", "c1")
        assert [(item["image"], item["cluster_fsid"], item["state"], item["if_in_use"]) for item in items] == (
            [("volumes/volume-v1", "f", "absent", expected)] if expected else []
        )

    def test_the_way_back_knows_the_image_from_the_record(self):
        placed = place({"volume": "db", "instance": "gone"}, backwards=True)
        record = {"volume": "db", "instance": "gone", "volume_id": "v1", "attachment_id": "a1", "host": "c2", "transport": "krbd"}
        counts = {"others": 0, "others_on_host": 0, "others_staying": 0}
        begun = _walk.merge(placed, "begin", {"s1": {"results": [{**record, **counts, "connection_info": self.INFO, "steps": []}]}})
        assert [item["image"] for item in _walk.items(begun, "unmap", "c2")] == ["volumes/volume-v1"]
        assert _walk.items([{**begun[0], "attachment_id": None}], "unmap", "c2") == []


def test_the_volumes_of_a_lost_host_are_fenced_and_those_that_were_are_released():
    mine, other = {"instance": "web-1", "host": "c1"}, {"instance": "web-2", "host": "c10"}
    looks = {"s1": {"volumes": [{"name": "db", "attachments": [mine, other]}, {"name": "log", "attachments": [mine]}]}, "s2": {"msg": "no"}}
    items = _walk.lost(looks, "s1", "c1")
    assert items == [{"volume": "db", "instance": "web-1", "action": "fence"}, {"volume": "log", "instance": "web-1", "action": "fence"}]
    assert _walk.lost(looks, "s2", "c1") == []
    taken = {"s1": {"results": [{**items[0], "failed": False, "steps": []}, {**items[1], "failed": True, "msg": "no"}]}}
    assert _walk.lost(looks, "s1", "c1", taken) == [{"volume": "db", "instance": "web-1", "action": "release"}]
    assert _walk.lost(looks, "s2", "c1", taken) == []
