# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout importable as the collection it is, and runs its modules as Ansible does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.rig.collection import collections_path, run_module as _run_module  # noqa: E402

sys.path.insert(0, str(collections_path()))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; part of `make campaign`, not of `make test`")


@pytest.fixture
def run_module():
    """run_module("cinder_volume", {options}, check=False, diff=True) -> the module's JSON answer."""
    return _run_module
