# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt_quiesce on a real guest with its real agent, which writes all the time, and on one without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.rig.agent import AgentGuest
from tests.rig.collection import run_module
from tests.rig.libvirtd import Libvirtd

DISK = "<disk type='file'><driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with Libvirtd() as libvirtd:
        yield libvirtd


@pytest.fixture(scope="module")
def guest(daemon: Libvirtd) -> Iterator[AgentGuest]:
    data = daemon.directory / "data"
    with data.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", data], check=True)
    guest = AgentGuest(daemon.connection, daemon.directory, "web-1")
    try:
        guest.start()
        guest.domain.attachDevice(DISK.format(path=data))
        guest.wait_for("^DISK-ADD vda")
        guest.start_agent()
        guest.mount("vda")
        guest.count()
        yield guest
    finally:
        guest.stop()


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: Libvirtd) -> Iterator[None]:
    yield
    assert not list(Path("/run").glob("stackless-block-quiesced-*"))


def run(daemon: Libvirtd, check: bool = False, **options: Any) -> dict[str, Any]:
    answer = run_module("libvirt_quiesce", {"uri": daemon.uri, "name": "web-1", **options}, check=check)
    assert not answer.get("failed"), answer
    return answer


def refusal(daemon: Libvirtd, **options: Any) -> str:
    answer = run_module("libvirt_quiesce", {"uri": daemon.uri, "name": "web-1", **options})
    assert answer["failed"], answer
    return answer["msg"]


def writes(guest: AgentGuest) -> bool:
    """Whether what the disk has of the guest changes within a second."""
    time.sleep(0.3)  # what was on its way
    before = guest.domain.blockStats("vda")[2]
    time.sleep(1)
    return guest.domain.blockStats("vda")[2] != before


def holder(domain: Any) -> int:
    return json.loads(Path(f"/run/stackless-block-quiesced-{domain.UUIDString()}").read_text())["pid"]


def test_file_systems_are_frozen_until_they_are_released(daemon: Libvirtd, guest: AgentGuest) -> None:
    assert writes(guest)
    predicted = run(daemon, check=True, at_most=50)
    assert writes(guest)
    done = run(daemon, at_most=50)
    assert done["quiesced"] == "frozen" and done["steps"] == ["freeze the file systems of web-1 for at most 50 s"]
    assert {key: predicted[key] for key in ("changed", "steps", "quiesced", "diff")} == {key: done[key] for key in ("changed", "steps", "quiesced", "diff")}
    assert not writes(guest)
    assert not run(daemon, at_most=50)["changed"]
    foreseen = run(daemon, check=True, state="released")
    assert not writes(guest)
    released = run(daemon, state="released")
    assert released["held"] is foreseen["held"] is True and released["quiesced"] is None and released["diff"] == foreseen["diff"]
    assert writes(guest)
    again = run(daemon, state="released")
    assert not again["changed"] and again["held"] is None


def test_what_nobody_releases_releases_itself(daemon: Libvirtd, guest: AgentGuest) -> None:
    run(daemon, at_most=2)
    assert not writes(guest)
    time.sleep(1)
    assert writes(guest)
    late = run(daemon, state="released")
    assert late["held"] is False and writes(guest)
    run(daemon, at_most=1)
    time.sleep(1.5)
    assert run(daemon, at_most=30)["changed"]  # what has expired does not count
    assert not writes(guest)
    assert run(daemon, state="released")["held"] is True


def test_what_was_killed_is_released_by_the_next_run(daemon: Libvirtd, guest: AgentGuest) -> None:
    run(daemon)
    os.kill(holder(guest.domain), signal.SIGKILL)
    assert not writes(guest)
    assert run(daemon, state="released")["held"] is False
    assert writes(guest)


def test_an_agent_that_does_not_answer_is_told_in_bounded_time(daemon: Libvirtd, guest: AgentGuest) -> None:
    guest.run("kill -STOP $(cat /tmp/qemu-ga.pid)")
    began = time.monotonic()
    said = refusal(daemon)
    assert "web-1 can't be kept from writing" in said and "agent" in said
    assert time.monotonic() - began < 25
    guest.run("kill -CONT $(cat /tmp/qemu-ga.pid)")
    wait_for_release()
    assert writes(guest), "what it did too late was taken back"


def wait_for_release() -> None:
    deadline = time.monotonic() + 30
    while list(Path("/run").glob("stackless-block-quiesced-*")) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_an_agent_that_does_not_answer_at_the_end_is_asked_until_it_does(daemon: Libvirtd, guest: AgentGuest) -> None:
    run(daemon)
    guest.run("kill -STOP $(cat /tmp/qemu-ga.pid)")
    said = refusal(daemon, state="released", timeout=7)
    assert "web-1 may still be kept from writing" in said and "agent" in said
    assert not writes(guest)
    guest.run("kill -CONT $(cat /tmp/qemu-ga.pid)")
    wait_for_release()
    assert writes(guest)


def test_an_agent_that_does_not_answer_when_the_time_is_up_is_asked_until_it_does(daemon: Libvirtd, guest: AgentGuest) -> None:
    run(daemon, at_most=3)
    guest.run("kill -STOP $(cat /tmp/qemu-ga.pid); sleep 9; kill -CONT $(cat /tmp/qemu-ga.pid)")
    assert run(daemon, state="released", timeout=30)["held"] is False
    assert writes(guest)


def test_who_has_no_agent_is_paused_left_or_refused(daemon: Libvirtd) -> None:
    domain = daemon.paused_domain("db-1")
    assert not run(daemon, name="db-1")["changed"]  # somebody else has paused it
    domain.resume()
    assert "does not answer" in refusal(daemon, name="db-1", without_agent="refuse")
    assert not run(daemon, name="db-1", without_agent="ignore")["changed"] and domain.state()[0] == 1
    done = run(daemon, name="db-1")
    assert done["quiesced"] == "paused" and domain.state()[0] == 3
    assert run(daemon, name="db-1", state="released")["held"] is True and domain.state()[0] == 1
    run(daemon, name="db-1")
    os.kill(holder(domain), signal.SIGKILL)
    assert run(daemon, name="db-1", state="released")["held"] is False and domain.state()[0] == 1
    domain.destroy()
    assert not run(daemon, name="db-1")["changed"]


def test_many_at_once_and_one_that_is_not_there(daemon: Libvirtd, guest: AgentGuest) -> None:
    answer = run_module("libvirt_quiesce", {"uri": daemon.uri, "domains": [{"name": "web-1"}, {"name": "web-11"}]})
    first, second = answer["results"]
    assert answer["failed"] and first["quiesced"] == "frozen" and "there is no domain web-11" in second["msg"]
    assert run(daemon, state="released")["held"] is True
    assert "give 1 to 3600" in refusal(daemon, at_most=9999)


def test_a_domain_that_ends_meanwhile_needs_no_release(daemon: Libvirtd) -> None:
    domain = daemon.paused_domain("db-2")
    domain.resume()
    run(daemon, name="db-2")
    domain.destroy()
    assert not run(daemon, name="db-2", state="released")["failed"]
