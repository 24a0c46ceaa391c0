# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tgt back end on a real tgtd: beside the fake, killed between any two requests, and what tgtd really does."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Failed, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.target import Acl, Portal
from ansible_collections.stackless.block.plugins.module_utils._plan_target import AclWish, LunWish, TargetWish, plan_target
from ansible_collections.stackless.block.plugins.module_utils._targets import Look, TargetBackend
from ansible_collections.stackless.block.plugins.module_utils._targets._chap_probe import Fit, try_door
from ansible_collections.stackless.block.plugins.module_utils._targets._tgtd_ipc import Tgtd as Channel
from ansible_collections.stackless.block.plugins.module_utils._targets._tgtd_ipc import parse_accounts, parse_targets, shown_megabytes
from ansible_collections.stackless.block.plugins.module_utils._targets.tgt import TgtBackend
from tests.rig.fake_targets import FakeTargets
from tests.rig.tgtd import Tgtd, free_port

IQN = "iqn.2026-01.org.example:volume-1"
A, B, C = (f"iqn.1993-08.org.debian:01:{name}" for name in "abc")
MIB = 1 << 20


@pytest.fixture
def tgtd() -> Iterator[Tgtd]:
    with Tgtd("127.0.0.1", "::1") as running:
        yield running
        assert running.adm("--op", "show", "--mode", "system"), "tgtd died"


def data(tgtd: Tgtd, name: str, size: int = 16 * MIB) -> str:
    path = tgtd.directory / name
    path.touch()
    os.truncate(path, size)
    return str(path)


def backend_of(tgtd: Tgtd) -> TgtBackend:
    return TgtBackend(tgtd.control_port, str(tgtd.ipc_socket), str(tgtd.config_dir))


def channel_of(tgtd: Tgtd) -> Channel:
    return Channel(str(tgtd.ipc_socket), tgtd.control_port)


def acl(initiator: str, **wish: Any) -> AclWish:
    tail = initiator[-1]
    return AclWish(initiator, fresh=(f"fresh{tail}", Secret(f"made-for-{tail}-only")), **wish)


def given(initiator: str, username: str, password: str, mutual: str | None = None) -> AclWish:
    pair = {"mutual_username": "target", "mutual_password": Secret(mutual)} if mutual else {}
    return acl(initiator, chap="given", username=username, password=Secret(password), **pair)


def converge(backend: TargetBackend, want: TargetWish) -> Any:
    """Plans, runs the steps, looks again; returns what is then."""
    look = Look(want.iqn, want.portals, frozenset(lun.path for lun in want.luns if lun.path), frozenset(a.initiator for a in want.acls if a.present))
    plan = plan_target(want, backend.observe([look]), backend)
    for step in plan.steps:
        step.act(*step.args)
    found = backend.observe([look]).get(want.iqn)
    assert found == plan.after
    return found


def stories(tgtd: Tgtd) -> dict[str, list[TargetWish]]:
    one, two = data(tgtd, "one"), data(tgtd, "two", 32 * MIB)
    portal, fresh = Portal(*tgtd.portals[0]), Portal("127.0.0.1", free_port("127.0.0.1"))

    def wish(**parts: Any) -> TargetWish:
        return TargetWish(IQN, **parts)

    aio = LunWish(2, two, read_only=True, bstype="aio", write_cache=False)
    first = wish(luns=(LunWish(1, one, "serial-1"),), portals=frozenset({portal}), acls=(acl(A), acl(B), acl(C)))
    return {
        "deny the first": [first, wish(acls=(acl(A, present=False),))],
        "deny the middle one": [first, wish(acls=(acl(B, present=False),))],
        "deny all": [first, wish(acls=tuple(acl(name, present=False) for name in (A, B, C)))],
        "purge": [first, wish(acls=(acl(B),), purge_acls=True, luns=(aio,), purge_luns=True)],
        "rotate": [first, wish(acls=(given(A, "someone", "a-password-of-A"),)), wish(acls=(given(A, "someone", "another-of-A"),))],
        "a new password, alone": [wish(acls=(given(A, "someone", password),)) for password in ("a-password-of-A", "another-of-A")],
        "mutual": [
            wish(acls=(given(A, "someone", "a-password-of-A", "the-target-itself"),)),
            wish(acls=(given(A, "someone", "a-password-of-A", "the-target-again"),)),
            wish(acls=(acl(A, present=False),)),
        ],
        "open, then closed": [wish(acls=(acl(A, chap="none"),)), wish(acls=(acl(A),))],
        "another portal": [first, wish(portals=frozenset({fresh}))],
        "and gone": [first, wish(present=False)],
    }


STORIES = ["deny the first", "deny the middle one", "deny all", "purge", "rotate", "a new password, alone", "mutual"]
STORIES += ["open, then closed", "another portal", "and gone"]


@pytest.mark.parametrize("name", STORIES)
def test_the_fake_tells_the_same_story(tgtd: Tgtd, name: str) -> None:
    story = stories(tgtd)[name]
    sizes = {str(path): path.stat().st_size for path in (tgtd.directory / "one", tgtd.directory / "two")}
    fake = FakeTargets(sizes)
    fake.portals = {Portal(*portal) for portal in tgtd.portals}
    for want in story:
        assert converge(backend_of(tgtd), want) == converge(fake, want)
    assert parse_accounts(channel_of(tgtd).ask("account", "show")) == set(fake.passwords)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is tidied up."""


def killed_after(backend: TgtBackend, requests: int) -> None:
    """Lets the back end send so many changing requests and write so many files, then dies instead of the next."""
    left = iter(range(requests))
    ask, write, remove = backend.tgtd.ask, backend.files.write, backend.files.remove

    def counted(act: Any) -> Any:
        def once(*arguments: Any, **options: Any) -> Any:
            if arguments[1:2] != ("show",) and next(left, None) is None:
                raise Killed
            return act(*arguments, **options)

        return once

    backend.tgtd.ask, backend.files.write, backend.files.remove = counted(ask), counted(write), counted(remove)


@pytest.mark.parametrize("name", STORIES)
def test_killed_between_any_two_requests_it_ends_the_same(tgtd: Tgtd, name: str) -> None:
    *before, last = stories(tgtd)[name]

    def start_over() -> None:
        tgtd.restart()
        for path in tgtd.config_dir.iterdir():
            path.unlink()
        for want in before:
            converge(backend_of(tgtd), want)

    def outcome() -> tuple[Any, ...]:
        shown = parse_targets(channel_of(tgtd).ask("target", "show"))
        accounts = parse_accounts(channel_of(tgtd).ask("account", "show"))
        parts = {iqn: (t.luns, sorted(t.accounts), t.outgoing, sorted(t.admitted)) for iqn, t in shown.items()}
        return parts, accounts, {path.name: path.read_text() for path in tgtd.config_dir.iterdir()}

    start_over()
    converge(backend_of(tgtd), last)
    undisturbed = outcome()
    chap = "none" not in {a.chap for want in (*before, last) for a in want.acls}
    for requests in range(100):
        start_over()
        backend = backend_of(tgtd)
        killed_after(backend, requests)
        try:
            converge(backend, last)
        except Killed:
            for target in parse_targets(channel_of(tgtd).ask("target", "show")).values():
                assert not chap or target.accounts or not target.admitted, f"after request {requests} a door is open without any account"
        else:
            break
        converge(backend_of(tgtd), last)
        assert outcome() == undisturbed, f"killed after request {requests}"
    assert 1 <= requests < 99, "no request was ever cut off"


def test_a_hole_in_the_accounts_kills_tgtd_which_is_why_they_leave_from_the_end() -> None:
    """When this fails, tgt was repaired, and the back end may become simpler."""
    with Tgtd() as doomed:
        channel = channel_of(doomed)
        channel.ask("target", "new", f"targetname={IQN}", tid=1)
        for name in ("first", "second"):
            channel.ask("account", "new", f"user={name},password=secretsecret")
            channel.ask("account", "bind", f"user={name}", tid=1)
        channel.ask("account", "unbind", "user=first", tid=1)
        with pytest.raises(Unavailable):
            channel.ask("target", "show")


@pytest.mark.parametrize("size", [MIB, 16 * MIB, 1 << 30, (1 << 30) + 4096, 20 << 30, 1 << 40, 4096])
def test_the_printed_size_is_understood(tgtd: Tgtd, size: int) -> None:
    channel = channel_of(tgtd)
    channel.ask("target", "new", f"targetname={IQN}", tid=1)
    channel.ask("device", "new", f"path={data(tgtd, 'sized', size)}", tid=1, lun=1)
    assert parse_targets(channel.ask("target", "show"))[IQN].luns[1].megabytes == shown_megabytes(size)


def test_the_probe_judges_both_secrets_and_makes_no_session(tgtd: Tgtd) -> None:
    converge(backend_of(tgtd), TargetWish(IQN, acls=(given(A, "someone", "a-password-of-A", "the-target-itself"),)))
    right = Acl(A, "someone", Secret("a-password-of-A"), "target", Secret("the-target-itself"))
    for portal in (Portal(*portal) for portal in tgtd.portals):
        assert try_door(portal, IQN, right) == Fit(True, True)
        assert try_door(portal, IQN, dataclasses.replace(right, password=Secret("wrong"))) == Fit(False, False)
        assert try_door(portal, IQN, dataclasses.replace(right, mutual_password=Secret("wrong"))) == Fit(True, False)
        assert try_door(portal, IQN, dataclasses.replace(right, username="no-one")) == Fit(False, False)
    assert parse_targets(channel_of(tgtd).ask("target", "show"))[IQN].sessions == []
    with pytest.raises(Unavailable, match="does not judge"):
        try_door(Portal(*tgtd.portals[0]), IQN, dataclasses.replace(right, initiator=B))
    with pytest.raises(Unavailable, match="can't be asked"):
        try_door(Portal("127.0.0.1", free_port("127.0.0.1")), IQN, right)


def test_five_hundred_probes_leave_nothing_open(tgtd: Tgtd) -> None:
    converge(backend_of(tgtd), TargetWish(IQN, acls=(given(A, "someone", "a-password-of-A"),)))
    files = Path(f"/proc/{tgtd.pid}/fd")
    before = len(list(files.iterdir()))
    for attempt in range(500):
        assert try_door(Portal(*tgtd.portals[0]), IQN, Acl(A, "someone", Secret("a-password-of-A"))).incoming
    backend_of(tgtd).observe([])  # tgtd has seen all hang-ups by the time that it answers this
    assert len(list(files.iterdir())) <= before + 1


def test_a_refused_request_is_told_without_its_text(tgtd: Tgtd) -> None:
    channel = channel_of(tgtd)
    channel.ask("account", "new", "user=someone,password=a-password-of-A")
    with pytest.raises(Failed) as caught:
        channel.ask("account", "new", "user=someone,password=a-password-of-A")
    assert "the account exists" in str(caught.value) and "password" not in str(caught.value)
