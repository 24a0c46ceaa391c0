# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the initiator's planner, on every pair of a start and a wish; its refusals; the gate; and what it undoes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any, Callable

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _errors as errors
from ansible_collections.stackless.block.plugins.module_utils._hosts import found_portals
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret, as_data
from ansible_collections.stackless.block.plugins.module_utils._model.session import Connection, Device, Holder, Map, Session, wwn_link
from ansible_collections.stackless.block.plugins.module_utils._model.target import Portal
from ansible_collections.stackless.block.plugins.module_utils._plan_session import SessionWish, arrived, departed, handed_over, is_degraded
from ansible_collections.stackless.block.plugins.module_utils._plan_session import left_over, plan_session, waiting_for
from ansible_collections.stackless.block.plugins.module_utils._reconcile import Plan
from tests.unit.fake_initiator import IQN, FakeInitiator, Lun
from tests.unit.laws import Subject, hold

MIB = 1 << 20
A, B, C = Portal("192.0.2.10"), Portal("192.0.2.11"), Portal("2001:db8::10")
ONE = Lun("serial-1", "naa.60014050000000000000000000000001", MIB)
TWO = Lun("serial-2", "naa.60014050000000000000000000000002", MIB)
QEMU = Holder("domain", "web-1", 4711)
IDENTITY = {"serial": ONE.serial, "wwid": ONE.wwid, "size_bytes": MIB}
CHAP = {"username": "someone", "password": Secret("a password of A")}


def wish(**given: Any) -> SessionWish:
    return SessionWish(**{"iqn": IQN, "lun": 1, "portals": (A, B), **IDENTITY, **CHAP, **given})


GONE: dict[str, Any] = {"present": False, "portals": (), "lun": None, "wwid": None, "size_bytes": None, "username": None, "password": None}
WISHES = {
    "two portals": wish(),
    "a map": wish(multipath=True),
    "no map": wish(multipath=False),
    "one portal": wish(portals=(A,)),
    "three, one of them IPv6": wish(portals=(A, B, C)),
    "another password": wish(password=Secret("a new password")),
    "no CHAP": wish(username=None, password=None),
    "mutual, at boot": wish(mutual_username="it", mutual_password=Secret("its own"), startup="automatic", replacement_timeout=5),
    "grown": wish(size_bytes=2 * MIB),
    "gone": wish(**GONE),
    "gone by number": wish(**{**GONE, "lun": 1, "serial": None}),
    "all gone": wish(**{**GONE, "serial": None}),
    "gone, if nobody uses it": wish(**GONE, keep_in_use=True),
}


def nothing(multipathd: bool) -> FakeInitiator:
    host = FakeInitiator(multipathd)
    host.luns = {1: copy.copy(ONE)}
    return host


def run(plan: Plan) -> None:
    for step in plan.acts:
        step.act(*step.args)


def plan(host: FakeInitiator, want: SessionWish) -> Plan:
    return plan_session(want, host.observe(), host)


def connected(multipathd: bool = False, **given: Any) -> FakeInitiator:
    host = nothing(multipathd)
    run(plan(host, wish(**given)))
    return host


def other_lun(host: FakeInitiator) -> None:
    host.luns[2] = copy.copy(TWO)
    host.scan(IQN, 2)


def stale(host: FakeInitiator) -> None:
    for key, device in host.devices.items():
        host.devices[key] = dataclasses.replace(device, serial=TWO.serial, wwid=TWO.wwid)
    host.maps.clear()


def session_down(host: FakeInitiator) -> None:
    portal = next(iter(host.sessions))
    host.sessions[portal] = dataclasses.replace(host.sessions[portal], state="FAILED")


def offline(host: FakeInitiator) -> None:
    for key, device in host.devices.items():
        host.devices[key] = dataclasses.replace(device, state="offline")


def held(host: FakeInitiator) -> None:
    host.holders = {name: (QEMU,) for name in ["mpath-" + ONE.wwid] if ONE.wwid in host.maps}
    if not host.holders:
        host.holders = {str(device.name): (QEMU,) for device in list(host.devices.values())[:1]}


DRIFTS: dict[str, Callable[[FakeInitiator], None]] = {
    "as it was left": lambda host: None,
    "rebooted": lambda host: (host.sessions.clear(), host.devices.clear(), host.maps.clear()),
    "records lost": lambda host: host.records.clear(),
    "devices lost": lambda host: (host.devices.clear(), host.maps.clear()),
    "the map lost": lambda host: (host.maps.clear(), host.claimed.clear()),
    "another LUN beside it": other_lun,
    "another volume in its place": stale,
    "in use": held,
    "a session down": session_down,
    "a session down, in use": lambda host: (session_down(host), held(host)),
    "given up by the kernel": offline,
    "exchanged for another and back": lambda host: host.devices.update({k: dataclasses.replace(d, exchanged="serial other") for k, d in host.devices.items()}),
    "links lost": lambda host: host.unlinked.update({*("dm-0" for _wwid in host.maps), *(str(device.name) for device in host.devices.values())}),
    "the LUN grown": lambda host: setattr(host.luns[1], "size_bytes", 2 * MIB),
    "open to others": lambda host: host.records.update({k: dataclasses.replace(r, private=False) for k, r in host.records.items()}),
    "a portal down": lambda host: host.dead_portals.update({B: "Connection refused"}) or host.sessions.pop(B, None),
}


def starts() -> list[Any]:
    """Hosts as wishes leave them, with every drift that can befall them, with and without multipathd; and empty ones."""
    found = [pytest.param(nothing(m), id=f"nothing, multipathd {m}") for m in (False, True)]
    for name, multipathd in itertools.product(("two portals", "one portal", "no map"), (False, True)):
        for drift, befall in DRIFTS.items():
            host = nothing(multipathd)
            run(plan(host, WISHES[name]))
            befall(host)
            found.append(pytest.param(host, id=f"{name}, multipathd {multipathd}, {drift}"))
    return found


def subject(want: SessionWish, start: FakeInitiator) -> Subject:
    """The target follows the wish: a volume is extended before its host is told."""

    def make() -> FakeInitiator:
        host = copy.deepcopy(start)
        if want.present and want.size_bytes:
            host.luns[1].size_bytes = want.size_bytes
        return host

    return Subject(make, FakeInitiator.observe, lambda host, world: plan_session(want, world, host), FakeInitiator.trace)


@pytest.mark.parametrize("name", WISHES)
def test_laws(name: str) -> None:
    want = WISHES[name]
    acts = []
    for param in starts():
        try:
            acts.append(hold(subject(want, param.values[0])))
        except AssertionError as error:
            raise AssertionError(f"{param.id}: {error}") from error
    assert sum(count > 1 for count in acts) > 20, "hardly any start asked for something to be done"


def test_the_laws_are_tried_on_more_than_refusals() -> None:
    for want in WISHES.values():
        refused = 0
        for param in starts():
            try:
                plan(copy.deepcopy(param.values[0]), want)
            except errors.StorageError:
                refused += 1
        assert refused < len(starts()) / 2


# ---- the gate --------------------------------------------------------------------------------------------------------


def device(**seen: Any) -> Device:
    fields = {"lun": 1, "portal": A, **IDENTITY, "name": "sdb", "hctl": "1:0:0:1", **seen}
    return Device(**{"links": (str(wwn_link(fields["wwid"], False)),), **fields})


def seen(*devices: Device, maps: tuple[Map, ...] = (), sessions: tuple[Session, ...] = (Session(A),)) -> Connection:
    return Connection(sessions=sessions, devices=devices, maps=maps)


def test_a_device_that_is_the_volume_is_handed_over() -> None:
    have = seen(device())
    assert arrived(wish(portals=(A,)), have, have, {})
    assert handed_over(have, have.devices) == "/dev/disk/by-id/wwn-0x60014050000000000000000000000001"


@pytest.mark.parametrize(("name", "other"), [("serial", "serial-2"), ("serial", None), ("wwid", TWO.wwid), ("wwid", None), ("size_bytes", 2 * MIB)])
def test_no_other_device_passes_the_gate(name: str, other: Any) -> None:
    have = seen(device(**{name: other}))
    with pytest.raises(errors.Conflict, match=f"sdb with {name} {other}, not "):
        arrived(wish(portals=(A,)), have, have, {})


def test_one_wrong_path_among_good_ones_does_not_pass() -> None:
    have = seen(device(), device(portal=B, name="sdc", serial="serial-2"), sessions=(Session(A), Session(B)))
    with pytest.raises(errors.Conflict, match="sdc with serial serial-2"):
        arrived(wish(), have, have, {})


def test_a_link_that_leads_to_another_device_is_not_handed_over() -> None:
    have = seen(device(links=()))
    assert not arrived(wish(portals=(A,)), have, have, {}) and handed_over(have, have.devices) is None
    assert "the link of sdb has come" in waiting_for(wish(), have)


def test_a_device_without_a_wwid_goes_by_where_it_is() -> None:
    path = "/dev/disk/by-path/ip-192.0.2.10:3260-iscsi-x-lun-1"
    have = seen(device(wwid=None, links=(path, "/dev/disk/by-id/scsi-1x")))
    assert handed_over(have, have.devices) == path


def mapped(**given: Any) -> Connection:
    above = Map(**{"wwid": ONE.wwid, "size_bytes": MIB, "name": "mpatha", "devices": frozenset({"sdb"}), "links": (str(wwn_link(ONE.wwid, True)),), **given})
    return seen(device(), maps=(above,))


def test_a_map_is_ready_with_all_paths_its_size_and_its_link() -> None:
    assert arrived(wish(portals=(A,)), mapped(), mapped(), {})
    assert handed_over(mapped(), mapped().devices) == "/dev/disk/by-id/dm-uuid-mpath-360014050000000000000000000000001"


@pytest.mark.parametrize("lacking", [{"devices": frozenset()}, {"size_bytes": 2 * MIB}, {"links": ()}])
def test_a_map_that_is_not_ready_is_waited_for(lacking: Any) -> None:
    assert not arrived(wish(portals=(A,)), mapped(), mapped(**lacking), {})


def test_a_map_that_shall_be_is_waited_for() -> None:
    assert not arrived(wish(portals=(A,)), mapped(), seen(device()), {})


def test_a_login_that_failed_everywhere_tells_all_reasons() -> None:
    with pytest.raises(errors.Failed, match=r"at 192.0.2.10:3260 why A; at 192.0.2.11:3260 why B"):
        arrived(wish(), Connection(), Connection(), {A: "why A", B: "why B"})


def test_a_login_that_failed_somewhere_is_a_degraded_map() -> None:
    assert arrived(wish(), mapped(), mapped(), {B: "why"})
    assert is_degraded(wish(), mapped()) and not is_degraded(wish(portals=(A,)), mapped())


def test_a_lun_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.NotFound, match="shows this host no LUN 1"):
        arrived(wish(), Connection(), seen(), {})


def test_what_is_missing_is_told() -> None:
    assert waiting_for(wish(), seen(sessions=(Session(A, state="FAILED"),))) == "the session at 192.0.2.10:3260 is FAILED"
    assert "no block device for 1:0:0:1" in waiting_for(wish(), seen(device(name=None)))
    assert "mpatha is not complete" in waiting_for(wish(), mapped())


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(host: FakeInitiator, want: SessionWish, kind: type) -> str:
    before = host.trace()
    with pytest.raises(kind) as caught:
        plan(host, want)
    assert host.trace() == before
    return str(caught.value)


@pytest.mark.parametrize("multipathd", [False, True])
def test_a_device_in_use_is_not_taken_away(multipathd: bool) -> None:
    host = connected(multipathd)
    held(host)
    assert "in use by domain web-1 (pid 4711); let it go there first" in refusal(host, WISHES["gone"], errors.Refused)
    left = plan(host, wish(**GONE, keep_in_use=True))
    assert not left.acts and left.warnings == (f"serial serial-1 of {IQN} is still in use by domain web-1 (pid 4711), so it stays",)


def test_another_volume_in_the_place_that_is_in_use_is_refused_by_name() -> None:
    host = connected(portals=(A,))
    stale(host)
    held(host)
    told = refusal(host, wish(), errors.Conflict)
    assert "serial serial-2, not serial-1" in told and "in use by domain web-1 (pid 4711)" in told


def test_a_device_that_its_holder_takes_for_another_volume_is_refused() -> None:
    host = connected(portals=(A,))
    DRIFTS["exchanged for another and back"](host)
    assert [step.name.split(" ")[0] for step in plan(host, wish(portals=(A,))).acts] == ["delete", "scan"]
    held(host)
    assert "with serial other, which it had not when it was found, and it is in use by domain web-1" in refusal(host, wish(), errors.Conflict)


def test_a_device_that_answers_as_another_volume_goes_by_what_its_users_take_it_for() -> None:
    """A restored target without its LUN, or with another one, must not hide who still has the old device."""
    host = connected(portals=(A,))
    DRIFTS["exchanged for another and back"](host)
    steps = [step.name for step in plan(host, WISHES["gone"]).acts]
    assert [name.split(" ")[0] for name in steps] == ["delete", "log", "remove"], "what is held back for one volume must not be written to another"
    held(host)
    assert "in use by domain web-1" in refusal(host, WISHES["gone"], errors.Refused)


def test_discovery_that_fails_is_an_error_of_its_target_alone() -> None:
    host = nothing(False)
    world = {**host.observe(), found_portals(IQN): errors.Unavailable("discovery failed")}
    with pytest.raises(errors.Unavailable, match="discovery failed"):
        plan_session(wish(discovery=True), world, host)
    assert plan_session(dataclasses.replace(wish(), iqn=IQN + "0"), world, host).steps


def test_a_path_that_is_down_does_not_keep_a_volume_from_growing() -> None:
    host = connected(multipathd=True)
    host.sessions[B] = dataclasses.replace(host.sessions[B], state="FAILED")
    host.devices[1, B] = dataclasses.replace(host.devices[1, B], state="transport-offline")
    held(host)
    host.luns[1].size_bytes = 2 * MIB
    want = wish(size_bytes=2 * MIB)
    planned = plan(host, want)
    assert [step.name for step in planned.steps] == ["look at the size of sd1 again", f"resize the multipath map mpath-{ONE.wwid} to {2 * MIB} bytes"]
    run(planned)
    host.maps[ONE.wwid] = 2 * MIB
    assert arrived(want, planned.after, host.observe()[IQN], {})


def test_another_volume_is_not_taken_for_the_one_that_shall_go() -> None:
    host = connected(portals=(A,))
    stale(host)
    assert not plan(host, WISHES["gone"]).acts


def test_a_session_that_another_lun_needs_stays() -> None:
    host = connected(portals=(A,))
    other_lun(host)
    run(plan(host, WISHES["gone"]))
    assert list(host.sessions) == [A] and host.records and [device.lun for device in host.devices.values()] == [2]


def test_no_portal_that_answers_is_refused_with_every_reason() -> None:
    host = nothing(False)
    host.dead_portals = {A: "Connection refused", B: "no answer within 3 s"}
    told = refusal(host, wish(), errors.Unavailable)
    assert "192.0.2.10:3260 (Connection refused); 192.0.2.11:3260 (no answer within 3 s)" in told


def test_one_portal_that_does_not_answer_is_left_out_and_told() -> None:
    host = nothing(True)
    host.dead_portals = {A: "Connection refused"}
    planned = plan(host, wish())
    assert [session.portal for session in planned.after.sessions] == [B]
    assert planned.warnings == (f"{IQN} is not reached at 192.0.2.10:3260: Connection refused",)


def test_a_session_that_is_down_under_a_device_in_use_is_told() -> None:
    host = connected(portals=(A,))
    session_down(host)
    held(host)
    assert "(its session is down: FAILED)" in refusal(host, wish(portals=(A,)), errors.Unavailable)


@pytest.mark.parametrize(
    ("ground", "given", "told"),
    [
        ({"installed": False}, {}, "open-iscsi is not installed"),
        ({"daemon": False}, {}, "iscsid does not run"),
        ({}, {"iface": "bond0"}, "open-iscsi has no iface bond0"),
        ({}, {"multipath": True}, "multipathd does not run"),
    ],
)
def test_a_host_that_is_not_able_is_refused_with_what_it_lacks(ground: Any, given: Any, told: str) -> None:
    host = nothing(False)
    host.ground = dataclasses.replace(host.ground, **ground)
    with pytest.raises(errors.StorageError, match=told):
        plan(host, wish(**given))


def test_a_host_that_has_all_needs_no_daemon() -> None:
    host = connected()
    host.ground = dataclasses.replace(host.ground, daemon=False, installed=False)
    assert not plan(host, wish()).acts


# ---- what is done, and undone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("multipathd", "name"), [(False, "sd1"), (True, "dm-0")])
def test_a_device_without_its_link_is_not_taken_for_done(multipathd: bool, name: str) -> None:
    host = connected(multipathd, portals=(A,))
    DRIFTS["links lost"](host)
    planned = plan(host, wish(portals=(A,)))
    assert [step.name for step in planned.acts] == [f"have udev look at {name} again"]
    assert not arrived(wish(portals=(A,)), planned.after, host.observe()[IQN], {})
    run(planned)
    assert arrived(wish(portals=(A,)), planned.after, host.observe()[IQN], {})


def test_a_record_that_others_can_read_is_written_anew() -> None:
    host = connected(portals=(A,))
    DRIFTS["open to others"](host)
    assert [step.name for step in plan(host, wish(portals=(A,))).acts] == [f"write the node record of {IQN} at 192.0.2.10:3260"]


def test_without_multipath_there_is_one_session() -> None:
    host = connected()
    assert len(host.sessions) == len(host.devices) == 1 and not host.maps


def test_with_multipath_there_is_one_at_every_portal() -> None:
    host = connected(multipathd=True)
    assert set(host.sessions) == {A, B} and list(host.maps) == [ONE.wwid]


def test_a_device_in_use_without_a_map_stays_so() -> None:
    host = connected()
    held(host)
    host.ground = dataclasses.replace(host.ground, multipathd=True)
    planned = plan(host, wish(multipath=True))
    assert not planned.acts and "stays without" in planned.warnings[0]


def test_the_dead_session_of_a_device_that_nobody_uses_is_made_anew() -> None:
    host = connected(portals=(A,))
    session_down(host)
    names = [step.name.split(" ")[0] for step in plan(host, wish(portals=(A,))).acts]
    assert names == ["delete", "end", "log", "scan"]


def test_the_safe_order_of_taking_away() -> None:
    host = connected(multipathd=True, portals=(A,))
    names = [step.name.split(f" {IQN}")[0] for step in plan(host, WISHES["gone"]).acts]
    assert names == [
        f"have multipathd forget {ONE.wwid}",
        f"flush and remove the multipath map mpath-{ONE.wwid}",
        "flush the buffers of sd1",
        "delete the SCSI device sd1 (1:0:0:1)",
        "log out of",
        "remove the node record of",
    ]


@pytest.mark.parametrize("multipathd", [False, True])
def test_undoing_leaves_exactly_what_there_was(multipathd: bool) -> None:
    starts_of = [nothing(multipathd), connected(multipathd, portals=(A,)), connected(multipathd, portals=(A,), multipath=False)]
    for host in starts_of:
        before = (dict(host.records), set(host.sessions), set(host.devices), set(host.maps), set(host.claimed))
        planned = plan(host, wish(portals=(A, B)))
        run(planned)
        for step in planned.undo:
            step.act(*step.args)
        assert (host.records, set(host.sessions), set(host.devices), set(host.maps), host.claimed) == before


def test_undoing_keeps_the_session_that_another_lun_needs() -> None:
    host = nothing(False)
    planned = plan(host, wish(portals=(A,)))
    run(planned)
    other_lun(host)
    for step in [step for step in planned.undo if "node record" not in step.name]:
        step.act(*step.args)
    assert list(host.sessions) == [A] and [device.lun for device in host.devices.values()] == [2]


def test_what_is_left_is_told_by_name() -> None:
    host = connected(multipathd=True, portals=(A,))
    planned, have = plan(host, WISHES["gone"]), host.observe()[IQN]
    assert not departed(planned, have, {})
    assert left_over(planned.before, planned.after, have) == f"device sd1 (1:0:0:1), multipath map mpath-{ONE.wwid}, the session at 192.0.2.10:3260 (LOGGED_IN)"
    assert departed(planned, Connection(), {})
    with pytest.raises(errors.Failed, match="no logout of .* at 192.0.2.10:3260: why"):
        departed(planned, have, {A: "why"})


def test_secrets_never_show() -> None:
    planned = plan(nothing(False), wish(mutual_username="it", mutual_password=Secret("its own")))
    told = repr(as_data(planned.after)) + repr(planned) + " ".join(step.name for step in (*planned.acts, *planned.undo))
    assert "a password of A" not in told and "its own" not in told
