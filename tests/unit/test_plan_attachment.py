# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attachments: every action from every status, who may reserve, and what stays said."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Conflict, Invalid, NotFound, Refused
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import attachment_result
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Volume, attachment_from, status_of
from ansible_collections.stackless.block.plugins.module_utils._plan_attachment import ACTIONS, AttachmentWish, plan_attachment
from ansible_collections.stackless.block.plugins.module_utils._volumes import VolumeBackend

MINE = Attachment(id="a1", instance="web-1", host="compute-1")
OTHER = Attachment(id="a2", instance="web-2", host="compute-2")


class Records:
    """Keeps one record in memory; the file driver's own test shows the swap on disk."""

    where = "/pool"

    def instant(self, volume, allocation=None):
        return True

    def __init__(self, volume):
        self.volume = volume
        self.open_at = ["192.0.2.7:0/1"]

    def clients(self, volume, attachment):
        return tuple(self.open_at)

    def fence(self, volume, clients):
        assert volume == self.volume and list(clients) == self.open_at
        self.open_at = []

    def swap(self, before, after):
        assert self.volume == before
        self.volume = after


def volume(*attachments, **changes):
    status = changes.pop("status", None) or status_of(attachments)
    return Volume(name="db", id="v1", size_bytes=GIB, status=status, attachments=attachments, data_bytes=GIB, **changes)


def wish(action, **changes):
    return AttachmentWish(**{"volume": "db", "instance": "web-1", "action": action, "host": "compute-1", "fresh_id": "a1", **changes})


def act(action, have, **changes):
    records = Records(have)
    plan = plan_attachment(wish(action, **changes), {"db": have}, records)
    for step in plan.acts:
        step.act(*step.args)
    assert records.volume == plan.after
    assert records.open_at == [] or action != "fence" or plan.after == have, "a client was not fenced"
    again = plan_attachment(wish(action, **changes), {"db": plan.after}, records)
    assert not again.acts, "the same action a second time still wants to write"
    return plan.after


# from this status, which status follows; None is no attachment, an error class a refusal
LIFE = {
    "reserve": {None: "reserved", "reserved": "reserved", "attaching": "attaching", "attached": "attached", "detaching": Conflict, "detached": "reserved"},
    "initialize": {None: Conflict, "reserved": "attaching", "attaching": "attaching", "attached": "attached", "detaching": Conflict, "detached": Conflict},
    "complete": {None: Conflict, "reserved": "attached", "attaching": "attached", "attached": "attached", "detaching": Conflict, "detached": Conflict},
    "begin_detaching": {
        None: None, "reserved": "detaching", "attaching": "detaching", "attached": "detaching", "detaching": "detaching", "detached": "detached",
    },
    "roll_detaching": {None: Conflict, "reserved": Conflict, "attaching": Conflict, "attached": "attached", "detaching": "attached", "detached": Conflict},
    "give_up": {None: None, "reserved": "reserved", "attaching": "reserved", "attached": Conflict, "detaching": Conflict, "detached": "detached"},
    "fence": {None: None, "reserved": "detached", "attaching": "detached", "attached": "detached", "detaching": "detached", "detached": "detached"},
    "terminate": {None: None, "reserved": "detached", "attaching": "detached", "attached": Conflict, "detaching": "detached", "detached": "detached"},
    "release": {None: None, "reserved": Refused, "attaching": Refused, "attached": Refused, "detaching": Refused, "detached": None},
}  # fmt: skip


def test_the_table_is_whole():
    assert set(LIFE) == set(ACTIONS)


@pytest.mark.parametrize("action,status", list(itertools.product(LIFE, LIFE["reserve"])))
def test_life(action, status):
    have = volume(*([dataclasses.replace(MINE, status=status)] if status else []))
    expected = LIFE[action][status]
    if isinstance(expected, type):
        with pytest.raises(expected, match="web-1|db"):
            act(action, have)
        return
    after = act(action, have)
    got = after.attachment("web-1")
    assert (got and got.status) == expected
    assert after.status == status_of(after.attachments)


def test_the_proof_comes_before_the_record_says_it():
    plan = plan_attachment(wish("fence"), {"db": volume(MINE)}, Records(volume(MINE)))
    assert [step.name for step in plan.acts] == ["keep 192.0.2.7:0/1 of compute-1 from volume db for good", "take volume db from web-1"]


def test_a_storage_that_can_not_keep_a_host_away_refuses():
    class Plain(VolumeBackend):
        where = "/pool"

    with pytest.raises(Refused, match="can't be taken from compute-1 without its help"):
        plan_attachment(wish("fence"), {"db": volume(MINE)}, Plain())


@pytest.mark.parametrize("other", ["reserved", "attaching", "attached", "detaching", "detached"])
def test_another_holder_is_named(other):
    with pytest.raises(Conflict, match=r"held by web-2 on compute-2 \("):
        act("reserve", volume(dataclasses.replace(OTHER, status=other)))


@pytest.mark.parametrize("other,ok", [("reserved", True), ("attached", True), ("detaching", False), ("detached", False)])
def test_multiattach_lets_a_second_in_unless_one_is_leaving(other, ok):
    have = volume(dataclasses.replace(OTHER, status=other), multiattach=True)
    if not ok:
        with pytest.raises(Conflict, match="web-2"):
            act("reserve", have)
        return
    assert len(act("reserve", have).attachments) == 2


def test_the_same_instance_on_another_host_is_refused():
    with pytest.raises(Conflict, match="not on compute-9"):
        act("reserve", volume(MINE), host="compute-9")


@pytest.mark.parametrize("status", ["creating", "downloading", "deleting", "extending"])
@pytest.mark.parametrize("action", ["reserve", "complete", "begin_detaching", "release"])
def test_a_volume_somebody_is_at_is_left_alone(status, action):
    with pytest.raises(Conflict, match=f"is {status}; run the play"):
        act(action, volume(MINE, status=status))


@pytest.mark.parametrize("action", ["begin_detaching", "terminate", "release"])
def test_there_is_nothing_to_take_back_from_a_half_made_volume(action):
    assert act(action, volume(status="creating")) == volume(status="creating")


@pytest.mark.parametrize("status", ["error", "maintenance", "backing-up"])
def test_only_available_volumes_are_reserved(status):
    with pytest.raises(Conflict, match=f"it is {status}"):
        act("reserve", volume(status=status))


def test_a_volume_without_data_is_not_reserved():
    with pytest.raises(Refused, match="is gone from"):
        act("reserve", dataclasses.replace(volume(), data_bytes=None))


def test_the_transport_is_recorded_once_and_asked_for_again():
    first = act("reserve", volume(), transport="host")
    assert first.attachment("web-1").transport == "host"
    assert act("reserve", first).attachment("web-1").transport == "host"
    with pytest.raises(Conflict, match="is reserved for web-1 by transport host, not qemu; set transport to host, or detach it first"):
        act("reserve", first, transport="qemu")
    again = act("reserve", volume(dataclasses.replace(MINE, status="detached", transport="host")), transport="local")
    assert again.attachment("web-1").transport == "local"


def test_a_record_without_a_transport_is_an_old_one_of_qemus():
    assert attachment_from({"id": "a", "instance": "i", "host": "h"}).transport == "qemu"


def test_the_export_is_named_once_and_shared():
    first = act("reserve", volume(multiattach=True), iqn_prefix="iqn.2020-01.org.example")
    assert first.attachment("web-1").target_iqn == "iqn.2020-01.org.example:volume-v1"
    again = act("reserve", first, iqn_prefix="iqn.2026-01.org.example")
    both = act("reserve", again, instance="web-2", iqn_prefix="iqn.2026-01.org.example")
    assert {a.target_iqn for a in both.attachments} == {"iqn.2020-01.org.example:volume-v1"}
    assert act("reserve", volume()).attachment("web-1").target_iqn is None


def test_reserve_needs_a_host():
    with pytest.raises(Invalid, match="give host"):
        act("reserve", volume(), host=None)


def test_an_unknown_volume_is_refused_forwards_and_warned_of_backwards():
    with pytest.raises(NotFound, match="no volume db at /pool"):
        plan_attachment(wish("reserve"), {}, Records(None))
    plan = plan_attachment(wish("begin_detaching"), {}, Records(None))
    assert not plan.acts and "no volume db" in plan.warnings[0]


def test_step_and_reason_are_noted_and_go_with_the_next_move():
    noted = act("reserve", volume(MINE), step="attach", reason="compute-1 is unreachable")
    assert (noted.attachment("web-1").step, noted.attachment("web-1").reason) == ("attach", "compute-1 is unreachable")
    completed = act("complete", noted)
    assert completed.attachment("web-1").reason is None
    stopped = act("complete", completed, step="login", reason="no portal is reached")
    assert stopped.attachment("web-1").reason == "no portal is reached"
    assert act("complete", stopped) == completed


def test_who_shares_the_session_counts_those_that_stay():
    def at(number, **changes):
        return Attachment(**{"id": f"a{number}", "instance": f"web-{number}", "host": "compute-1", "transport": "host", "status": "attached", **changes})

    others = (at(2), at(3, status="detaching"), at(4, transport="qemu"), at(5, transport="local"), at(6, host="compute-2"), at(7, status="detached"))
    result = attachment_result(volume(MINE, *others, multiattach=True), "web-1")
    assert (result["others"], result["others_on_host"], result["others_staying"]) == (4, 3, 1)
    mapped = (at(2, transport="krbd"), at(3, transport="krbd", status="detaching"), at(4, transport="rbd"), at(6, transport="krbd", host="compute-2"))
    result = attachment_result(volume(MINE, *mapped, multiattach=True), "web-1")
    assert (result["others"], result["others_on_host"], result["others_staying"]) == (3, 2, 1)


def test_who_else_holds_it_counts_those_whose_host_is_not_clean():
    here = dataclasses.replace(OTHER, id="a3", instance="web-3", host="compute-1", status="attached")
    gone = dataclasses.replace(OTHER, id="a4", instance="web-4", status="detached")
    result = attachment_result(volume(MINE, dataclasses.replace(OTHER, status="detaching"), here, gone, multiattach=True), "web-1")
    assert (result["others"], result["others_on_host"]) == (2, 1)
