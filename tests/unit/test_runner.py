# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of `make test` must not call a failure, or a test that did not run, a success."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tests.run.__main__ as run
from tests.rig.collection import ROOT


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LOGS", tmp_path)


def shell(line: str, timeout: int = 20) -> run.Result:
    return run.Runner(grace=0.2).run(run.Step("sample", "a sample", ["sh", "-c", line], timeout))


def test_a_step_that_ends_well_counts_as_one_passed(capsys: pytest.CaptureFixture[str]) -> None:
    result = shell("true")
    assert run.report([result], 1) == 0
    assert capsys.readouterr().out.endswith("\n1 passed, 0 failed\n")


def test_a_step_that_ends_badly_fails_the_whole_and_shows_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    result = shell("echo the reason; exit 3")
    assert run.report([result], 1) == 1
    out = capsys.readouterr().out
    assert "the reason" in out
    assert out.endswith("\n0 passed, 1 failed\n")


def test_a_step_that_was_never_started_fails_the_whole() -> None:
    assert run.report([run.Result(run.Step("sample", "", ["true"]))], 1) == 1


def test_a_step_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = shell(f"trap '' INT TERM; sleep 60 & echo $! >{pids}; wait", timeout=1)
    assert result.status == "not done within 1 s"
    deadline = time.monotonic() + 5
    while is_running(int(pids.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(pids.read_text()))


def test_steps_that_want_the_lab_take_turns(tmp_path: Path) -> None:
    runner, busy = run.Runner(), tmp_path / "busy"
    # mkdir fails where the directory is there already
    steps = [run.Step(f"sample-{n}", "", ["sh", "-c", f"mkdir {busy} && sleep 0.3 && rmdir {busy}"], lab=True) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert [result.status for result in pool.map(runner.run, steps)] == [0, 0]


def test_every_scenario_of_molecule_is_a_step() -> None:
    scenarios = {path.parent.name for path in (ROOT / "extensions/molecule").glob("*/molecule.yml")}
    assert {step.command[-1] for step in run.steps() if "molecule" in str(step.command[0])} == scenarios


def test_a_step_that_admits_to_have_left_something_out_fails() -> None:
    result = run.Runner().run(run.Step("sample", "", ["echo", "Missing playbook, rc 0"], never=("no hosts", "Missing playbook")))
    assert (result.ok, result.failed) == (False, 1)


def test_what_did_not_run_is_listed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    run.report([shell("echo 'NOT RUN HERE: the other thing: no such machine'")], 1)
    assert "\n  not run here: the other thing: no such machine\n" in capsys.readouterr().out
    run.report([shell("for case in a 'b: c'; do echo \"NOT RUN HERE: tests/x.py::test_it[$case]: too long\"; done")], 1)
    assert "\n  not run here: tests/x.py::test_it: too long (2 cases)\n" in capsys.readouterr().out


def test_an_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["nonsense"]) == 2
    assert "there is no step nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "rc"),
    [
        ("def test_it(): pass", 0),
        ("import pytest\ndef test_it(): pytest.skip('not today')", 1),
        ("import pytest\n@pytest.mark.skip(reason='never')\ndef test_it(): pass", 1),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): assert False", 1),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): pass", 1),
        ("import pytest\npytest.importorskip('no_such_library')\ndef test_it(): pass", 2),
        ("", 5),
    ],
    ids=["runs", "skips", "is marked", "is expected to fail", "passes against expectation", "lacks a library", "is not there"],
)
def test_a_test_that_does_not_run_is_no_success(tmp_path: Path, body: str, rc: int) -> None:
    (tmp_path / "test_sample.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.run.honest", "-p", "no:cacheprovider", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode == rc


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
