# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make test`: every check there is, side by side where the machine has the cores, and a table at the end.

    python -m tests.run [STEP…]

What a step says goes to .cache/test/<step>.log; the end of it is shown when the step fails. The exit status is 0
only if every step passed and none of them kept quiet about a test that did not run.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.rig.collection import ROOT
from tests.run.copy import NOT_RUN, environment, known_files

LOGS = ROOT / ".cache" / "test"
BIN = Path(sys.executable).parent


@dataclasses.dataclass(frozen=True)
class Step:
    """One check: a command in the checkout, with what it proves in a few words.

    `never`: what its log must not say, because the tool calls a success what did not run.
    `lab`: it runs the virtual machines of tests/rig/lab, of which one set at a time is enough for a machine.
    """

    name: str
    about: str
    command: list
    timeout: int = 600
    pytest: bool = False
    never: tuple[str, ...] = ()
    lab: bool = False

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


@dataclasses.dataclass
class Result:
    step: Step
    seconds: float = 0.0
    status: int | str = "not started"
    passed: int = 0
    failed: int = 0

    @property
    def ok(self) -> bool:
        return self.status == 0 and self.failed == 0 and self.passed > 0

    @property
    def counted(self) -> str:
        if not self.step.pytest:
            return "ok" if self.ok else f"failed ({self.status})"
        return f"{self.passed} passed" + (f", {self.failed} failed" if self.failed else "") + ("" if self.ok or self.failed else f" ({self.status})")


def steps() -> list[Step]:
    """All steps: the lab first, with the light ones beside it, as it wants the processors most; then the longest."""
    python = [sys.executable, "-m"]
    tests = [name for name in tracked(".py") if name.startswith("tests/contract/test_")]
    killed = ["tests/contract/test_killed_walk.py"]
    walks = ["tests/contract/test_walk.py", "tests/contract/test_two_computes.py"]
    ceph = [name for name in tests if name.startswith("tests/contract/test_rbd")]
    contracts = [name for name in tests if name not in (*killed, *walks, *ceph)]
    return [
        pytest("lab", "three hosts with kernels of their own: LVM, LIO, open-iscsi, multipath, krbd", "tests/lab", timeout=3600, lab=True),
        Step("sanity", "ansible-test sanity, nothing ignored", [*python, "tests.run.sanity"], 1800),
        Step("lint", "ansible-lint, profile production", [*python, "tests.run.on_copy", "ansible-lint", "--offline"]),
        Step("docs", "antsibull-docs, every module and role", [*python, "tests.run.on_copy", "antsibull-docs", "lint-collection-docs", "--plugin-docs", "."]),
        pytest("unit", "planners, their laws, the architecture", "tests/unit"),
        Step("tarball", "built, installed off line, looked over", [*python, "tests.run.tarball", "build", "check"]),
        Step("changelog", "antsibull-changelog lint", [BIN / "antsibull-changelog", "lint"]),
        Step("yaml", "yamllint", [BIN / "yamllint", "--strict", *tracked(".yml", ".yaml", ".yamllint", ".ansible-lint")]),
        Step("shell", "shellcheck", ["shellcheck", *shell_scripts()]),
        pytest("killed", "the walk, killed after every step, there and back", *killed, timeout=2700),
        pytest("walk", "playbooks on a real tgtd, libvirtd and QEMU: drift, refusals, secrets", *walks, timeout=1800),
        pytest("contract", "modules on a real tgtd, libvirtd, QEMU and Ceph", *contracts, timeout=2400),
        pytest("ceph", "RBD on real Ceph clusters, volumes and disks: kills, watchers, full pools, silence", *ceph, timeout=2400),
        molecule("molecule", "the walk: converge, again, check mode, backwards", "walk"),
        molecule("molecule-ceph", "the same with a Ceph cluster", "ceph"),
        Step("demo", "the story a newcomer sees", [*python, "tests.demo"], 300),
        Step("demo-ceph", "the same story with a Ceph cluster", [*python, "tests.demo", "--ceph"], 300),
        molecule("lab-play", "the same walk in the lab, through the kernel", "lab", lab=True),
    ]


def molecule(name: str, about: str, scenario: str, lab: bool = False) -> Step:
    command = [BIN / "molecule", "test", "--scenario-name", scenario]
    return Step(name, about, command, 1500 if lab else 900, never=("Missing playbook", "no hosts matched"), lab=lab)


def pytest(name: str, about: str, *places: str, timeout: int = 600, lab: bool = False) -> Step:
    command = [sys.executable, "-m", "pytest", *places, "-m", "not long", "-p", "tests.run.honest", "-p", "no:cacheprovider", "-p", "no:ansible"]
    return Step(name, about, [*command, "-q", "--durations=10", f"--junitxml={LOGS / name}.xml"], timeout, pytest=True, lab=lab)


def tracked(*endings: str) -> list[str]:
    return [str(name) for name in known_files() if str(name).endswith(endings) and name.name != "changelog.yaml"]


def shell_scripts() -> list[str]:
    scripts = {str(name) for name in known_files() if (ROOT / name).read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash"))}
    return sorted(scripts | set(tracked(".sh")))


class Runner:
    """Runs steps, and ends what it started when it is interrupted.

    `grace`: how many seconds a step has to clean up, once asked politely to end and once less so.
    """

    def __init__(self, grace: float = 15) -> None:
        self.grace = grace
        self.running: dict[str, subprocess.Popen] = {}
        self.lock = threading.Lock()
        self.lab = threading.Lock()
        self.stopped = False

    def run(self, step: Step) -> Result:
        with self.lab if step.lab else contextlib.nullcontext():
            return self.run_now(step)

    def run_now(self, step: Step) -> Result:
        result = Result(step)
        if self.stopped:
            return result
        self.say(f"{step.name:<10} begins: {step.about}")
        began = time.monotonic()
        with step.log.open("wb") as log:
            process = subprocess.Popen(
                step.command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            self.running[step.name] = process
            try:
                result.status = process.wait(step.timeout)
            except subprocess.TimeoutExpired:
                result.status = f"not done within {step.timeout} s"
            finally:
                self.end(step.name)
        result.seconds = time.monotonic() - began
        for words in step.never:
            if result.status == 0 and words in step.log.read_text(errors="replace"):
                result.status = f"it says {words!r}"
        count(result)
        self.say(f"{step.name:<10} {result.counted}, {result.seconds:.0f} s")
        return result

    def say(self, text: str) -> None:
        with self.lock:
            print(f"  {text}", flush=True)

    def end(self, name: str) -> None:
        """Ends a step with all its children: politely, so that it can clean up, then not."""
        process = self.running.pop(name)
        for sign in (signal.SIGINT, signal.SIGTERM):
            if process.poll() is None:
                signal_group(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.grace)
        # whatever is left of it, also when it ended by itself
        signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        self.stopped = True
        for name in list(self.running):
            self.end(name)


def signal_group(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, sign)


def count(result: Result) -> None:
    """Fills in how many tests passed and failed; a step without tests of its own counts as one."""
    report = LOGS / f"{result.step.name}.xml"
    if result.step.pytest and report.exists():
        suite = ET.parse(report).getroot().find("testsuite").attrib
        result.failed = int(suite["failures"]) + int(suite["errors"])
        result.passed = int(suite["tests"]) - result.failed - int(suite["skipped"])
    elif result.status == 0:
        result.passed = 1
    if result.status != 0 and not result.failed:
        result.failed = 1


def main(names: list[str]) -> int:
    known = {step.name: step for step in steps()}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"there is no step {unknown[0]}; the steps are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in names] or list(known.values())
    LOGS.mkdir(parents=True, exist_ok=True)
    for old in (*LOGS.glob("*.xml"), *LOGS.glob("*.log")):
        old.unlink()
    runner = Runner()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2))) as pool:
        try:
            results = list(pool.map(runner.run, chosen))
        except KeyboardInterrupt:
            runner.stop()
            print("interrupted; everything this run had started is ended", file=sys.stderr)
            return 130
    return report(results, time.monotonic() - began)


def report(results: list[Result], seconds: float) -> int:
    for result in (r for r in results if not r.ok):
        print(f"\n--- {result.step.name} failed; the end of {os.path.relpath(result.step.log, ROOT)}:")
        print("\n".join(result.step.log.read_text(errors="replace").splitlines()[-60:]) if result.step.log.exists() else "(not started)")
    print(f"\n  {'step':<10} {'seconds':>7}  result")
    for result in results:
        print(f"  {result.step.name:<10} {result.seconds:>7.1f}  {result.counted}")
    print(f"  {'all':<10} {seconds:>7.1f}")
    for line in not_run(results):
        print(f"  not run here: {line}")
    print(f"\n{sum(r.passed for r in results)} passed, {sum(r.failed for r in results)} failed")
    return 0 if all(r.ok for r in results) else 1


def not_run(results: list[Result]) -> list[str]:
    """What did not run, each test once with the number of its cases; the logs name those too."""
    logs = (r.step.log.read_text(errors="replace") for r in results if r.step.log.exists())
    lines = {line.removeprefix(NOT_RUN) for log in logs for line in log.splitlines() if line.startswith(NOT_RUN)}
    cases = collections.Counter(re.sub(r"(::\w+)\[.*\](?=: )", r"\1", line) for line in lines)
    return [line if number == 1 else f"{line} ({number} cases)" for line, number in sorted(cases.items())]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
