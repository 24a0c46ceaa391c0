# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The walk is killed, controller and module at once, after a step on either host; the same play run again ends as if nothing had happened.

The steps in SAMPLE are tried, or with LAB_KILLS=all every step there is, which takes an hour of its own; -k "attach and storage" a quarter of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.rig.lab.scene import CLEAN, attachments, good, leftovers

WISH = {"volumes": [{"name": "one", "size_gib": 1}], "attachments": [{"volume": "one", "instance": "web-1", "bus": "scsi"}]}
BACK = {"attachments": WISH["attachments"]}
GONE = {"volumes": [{"name": "one"}], "volume_state": "absent"}
PLAYS = {"attach": WISH, "detach": BACK}
HOOK = Path(__file__).parent.parent / "rig" / "kill" / "sitecustomize.py"

# What runs a module's Python with the hook, and notes every step that the engine has done.
PYTHON = """#!/bin/sh
export PYTHONPATH=/run/kill STACKLESS_STEPS=/run/kill/steps STACKLESS_HELD=/run/kill/held STACKLESS_KILL_AFTER=$(cat /run/kill/after)
exec /usr/bin/python3 "$@"
"""
HELD = "for i in $(seq 900); do [ -e /run/kill/held ] && exec cat /run/kill/held; sleep 0.1; done; exit 1"

# by play and host, how many steps are done there when it dies
SAMPLE = {("attach", "storage"): [4, 6], ("attach", "compute"): [1, 2], ("detach", "compute"): [4], ("detach", "storage"): [3]}


@pytest.fixture(scope="module")
def hooked(lab):
    """The hook on both hosts, and the steps that an undisturbed walk does on each."""
    for host in (lab.storage, lab.compute, lab.compute2):
        host.run("mkdir -p /run/kill; cat >/run/kill/sitecustomize.py", input=HOOK.read_text())
        host.run("cat >/run/kill/python3; chmod 755 /run/kill/python3; echo 0 >/run/kill/after", input=PYTHON)
    found = {}
    for name, wish in PLAYS.items():
        play(lab, name, wish)
        for side in ("storage", "compute"):
            found[name, side] = getattr(lab, side).run("cat /run/kill/steps; rm /run/kill/steps").splitlines()
    good(lab.play("volume", **GONE))
    assert leftovers(lab) == CLEAN
    return found


def play(lab, name, wish):
    return good(lab.play(name, "-e", "ansible_python_interpreter=/run/kill/python3", **wish))


def killed(lab, name, side, after):
    """Runs a play that is killed on this side after so many steps there; returns the last one."""
    host = getattr(lab, side)
    host.run(f"echo {after} >/run/kill/after; rm -f /run/kill/steps /run/kill/held")
    reaper = threading.Thread(target=reap, args=(lab, host))
    reaper.start()
    played = lab.play(name, "-e", "ansible_python_interpreter=/run/kill/python3", **PLAYS[name])
    reaper.join()
    steps = host.run("cat /run/kill/steps; echo 0 >/run/kill/after; rm -f /run/kill/steps /run/kill/held").splitlines()
    assert played.status == -signal.SIGKILL, f"the play was not killed: {played.output[-2000:]}"
    assert len(steps) == after
    return steps[-1]


def reap(lab, host):
    status, pid, _err = host.ssh(HELD, 120)
    if status:
        return
    newest = max(lab.directory.glob("play-*/controller"), key=lambda path: path.stat().st_mtime)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(newest.read_text()), signal.SIGKILL)
    time.sleep(0.1)
    host.run(f"kill -9 {pid}")


def points(steps, sample):
    every = range(1, len(steps) + 1)
    assert set(sample) <= set(every), f"the sample names steps that there are not: {steps}"
    return every if os.environ.get("LAB_KILLS") == "all" else sample


@pytest.mark.parametrize(("name", "side"), SAMPLE)
def test_killed_after_a_step_the_next_run_finishes(lab, hooked, name, side):
    for after in points(hooked[name, side], SAMPLE[name, side]):
        if name == "detach":
            good(lab.play("attach", **WISH))
        step = killed(lab, name, side, after)
        print(f"killed on {side} after: {step}", flush=True)
        good(lab.play(name, **PLAYS[name]))
        expected = [("web-1", "compute-1", "attached")] if name == "attach" else []
        assert attachments(lab) == {"one": expected}, f"{name} was killed on {side} after {step!r}"
        again = good(lab.play(name, **PLAYS[name]))
        assert again.changed == [], f"{name} was killed on {side} after {step!r}, and the second run still wants to {again.changed}"
        if name == "attach":
            good(lab.play("detach", **BACK))
        assert leftovers(lab) == {**CLEAN, "volumes": ["one"]}, f"{name} was killed on {side} after {step!r}"
        good(lab.play("volume", **GONE))
