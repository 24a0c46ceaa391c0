# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The campaign plays in the same lab as tests/lab. It takes about an hour, so `make campaign` is not part of `make test`."""

from __future__ import annotations

import pytest

from tests.lab.conftest import lab, one_lab

__all__ = ["lab", "one_lab"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/campaign/" in item.nodeid:
            item.add_marker(pytest.mark.long)
