# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab for all tests of a run, fresh for every file of them. LAB_NAME names it, so that several can run side by side."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from tests.rig.lab.lab import Lab


@pytest.fixture(scope="session")
def one_lab() -> Iterator[Lab]:
    lab = Lab(os.environ.get("LAB_NAME", "test"))
    yield lab
    if lab.hosts:  # else it was not started, or is another run's
        lab.stop()


@pytest.fixture(scope="module")
def lab(one_lab: Lab) -> Lab:
    """The lab as the snapshot has it; what a file of tests does to it, no other one sees."""
    if one_lab.hosts:
        one_lab.reset()
    else:
        one_lab.start()
    return one_lab
