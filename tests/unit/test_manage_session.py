# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initiator module's options and results, and what it takes from tasks before it in check mode."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Invalid, Refused
from ansible_collections.stackless.block.plugins.module_utils._hosts import silence
from ansible_collections.stackless.block.plugins.module_utils._manage_session import Sessions, session_result
from ansible_collections.stackless.block.plugins.module_utils._manage_target import _logged_out
from ansible_collections.stackless.block.plugins.module_utils._model.session import Ground
from ansible_collections.stackless.block.plugins.module_utils._model.target import Export, Session
from ansible_collections.stackless.block.plugins.module_utils._plan_session import plan_session
from tests.unit.fake_initiator import IQN
from tests.unit.test_plan_session import A, GONE, IDENTITY, QEMU, connected, held, nothing, wish

ITEM = {"target_iqn": IQN, "lun": 1, "portals": [{"ip": "192.0.2.10"}], **IDENTITY}


def want(**given: Any) -> Any:
    return Sessions({"timeout": 1}).want({**ITEM, **given})


def test_a_wish_is_taken_as_it_is_said() -> None:
    taken = want(wwid=str(IDENTITY["wwid"]).upper().replace("NAA", "naa"), portals=[{"ip": "192.0.2.10", "port": None}, {"ip": "192.0.2.10"}], if_in_use="keep")
    assert (taken.wwid, taken.portals, taken.keep_in_use, taken.startup, taken.iface) == (IDENTITY["wwid"], (A,), True, "manual", "default")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"target_iqn": "nonsense"}, "target_iqn"),
        ({"lun": None}, "has no number"),
        ({"lun": -1}, "can't be a disk"),
        ({"portals": []}, "has no portals"),
        ({"wwid": "3600"}, "write it like naa."),
        ({"serial": "two words"}, "without blanks"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"iface": "../default"}, "no name of an interface"),
        ({"login_timeout": 0}, "login_timeout"),
        ({"username": "me"}, "username for .* stands alone"),
        ({"username": "me", "password": "a\nnode.startup = automatic"}, "password for .* without blanks"),
        ({"mutual_username": "it", "mutual_password": "secret"}, "mutual CHAP"),
    ],
)
def test_what_can_not_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        want(**given)
    assert "startup" not in str(caught.value)


def test_absent_needs_no_more_than_a_name() -> None:
    assert Sessions({"timeout": 1}).want({"target_iqn": IQN, "state": "absent"}).lun is None


# ---- what tasks before it predicted ----------------------------------------------------------------------------------


def test_portals_of_a_target_that_will_be_there_answer() -> None:
    host = nothing(False)
    host.dead_portals = {A: "Connection refused"}
    world = host.observe()
    result = {"changed": True, "target_iqn": IQN, "luns": [], "portals": [{"ip": A.ip, "port": A.port}]}
    assert Sessions({}).assumed({**result, "changed": False}, world) == {}
    world.update(Sessions({}).assumed(result, world))
    assert world[silence(A)] is None and plan_session(wish(portals=(A,)), world, host).steps


@pytest.mark.parametrize("multipathd", [False, True])
def test_a_domain_that_will_have_let_go_holds_nothing(multipathd: bool) -> None:
    host = connected(multipathd, portals=(A,))
    held(host)
    world, gone = host.observe(), wish(**GONE)
    link = session_result(wish(), world[IQN], Ground())["device_path"]
    unplugged = {"domain": QEMU.name, "serial": "x", "live": False, "source": {"type": "block", "path": link}}
    for other in ({**unplugged, "domain": "web-2"}, {**unplugged, "live": True}, {**unplugged, "source": {"type": "block", "path": "/dev/vdz"}}):
        with pytest.raises(Refused):
            plan_session(gone, {**world, **Sessions({}).assumed(other, world)}, host)
    assert plan_session(gone, {**world, **Sessions({}).assumed(unplugged, world)}, host).after is None


def test_a_target_sees_no_session_of_a_host_that_will_have_logged_out() -> None:
    me, other = Session("iqn.me", "192.0.2.20"), Session("iqn.other", "192.0.2.21")
    world: Any = {IQN: Export(sessions=(me, me, other))}
    assert _logged_out({"target_iqn": IQN, "initiator": "iqn.me", "sessions": []}, world)[IQN].sessions == (other,)
    assert _logged_out({"target_iqn": IQN + "0", "initiator": "iqn.me", "sessions": []}, world) == {}


# ---- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multipathd", [False, True])
def test_a_prediction_names_the_link_that_the_run_returns(multipathd: bool) -> None:
    host = nothing(multipathd)
    foretold = session_result(wish(), plan_session(wish(), host.observe(), host).after, Ground())
    reached = session_result(wish(), connected(multipathd).observe()[IQN], Ground())
    names = ("device_path", "serial", "wwid", "size_bytes", "sessions", "degraded")
    assert {name: foretold[name] for name in names} == {name: reached[name] for name in names}
    assert foretold["device_path"].startswith("/dev/disk/by-id/" + ("dm-uuid-mpath-3" if multipathd else "wwn-0x"))


def test_what_is_gone_has_no_device() -> None:
    gone = session_result(wish(**GONE), connected().observe()[IQN], Ground())
    assert gone["device_path"] is None and gone["paths"] == [] and gone["serial"] == IDENTITY["serial"]


def test_links_are_waited_for_and_not_longer_than_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, asked = Sessions({"timeout": 1}), []
    linked = iter([False, False, False, True, True])
    monkeypatch.setattr(sessions.host, "linked", lambda links: asked.append(set(links)) or next(linked))
    sessions._awaited = {"/dev/disk/by-id/wwn-0x1"}
    began = time.monotonic()
    sessions.wait(0.01)
    assert time.monotonic() - began < 1 and asked == [{"/dev/disk/by-id/wwn-0x1"}] * 4
    sessions.wait(0.01)
    assert asked[4:] == [set()]


def test_a_link_is_awaited_as_long_as_the_device_can_not_be_handed_over() -> None:
    sessions, host = Sessions({"timeout": 1}), connected()
    link = session_result(wish(), host.observe()[IQN], Ground())["device_path"]
    plan = sessions.plan(wish(), host.observe())
    host.unlinked.add(next(iter(host.devices.values())).name)
    assert not sessions.settled(plan, host.observe())
    assert sessions._awaited == {link}
    host.unlinked.clear()
    sessions._awaited = set()
    assert sessions.settled(plan, host.observe()) and sessions._awaited == set()
