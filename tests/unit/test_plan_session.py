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
