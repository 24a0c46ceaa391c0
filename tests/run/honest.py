# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pytest plugin: a test that does not run is a failure, unless tests/not_here.txt allows it with a reason.

Each line of that file is `<pattern of the test's id>: <reason>`.
"""

from __future__ import annotations

import fnmatch

import pytest

from tests.rig.collection import ROOT
from tests.run.copy import NOT_RUN


def _allowed() -> list[tuple[str, str]]:
    path = ROOT / "tests" / "not_here.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split(": ", 1)) for line in lines if line and not line.startswith("#")]


def _reason(nodeid: str) -> str | None:
    return next((reason for pattern, reason in _allowed() if fnmatch.fnmatchcase(nodeid, pattern)), None)


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    dodged = report.outcome == "skipped" or hasattr(report, "wasxfail")
    if not dodged:
        return
    if report.outcome == "skipped" and _reason(report.nodeid):
        return
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} did not run ({report.longrepr}); a test here runs, or is listed in tests/not_here.txt"
    vars(report).pop("wasxfail", None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    report = yield
    _judge(report)
    return report


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"{NOT_RUN}{report.nodeid}: {_reason(report.nodeid)}")
    for item in terminalreporter.stats.get("deselected", []):
        terminalreporter.write_line(f"{NOT_RUN}{item.nodeid}: too long, `make campaign` runs it")
