# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab for all tests of a run, fresh for every file of them. LAB_NAME names it, so that several can run side by side."""

from __future__ import annotations

import os
from typing import Any, Iterator

import pytest

from tests.rig.lab.host import Host
from tests.rig.lab.lab import Lab
from tests.rig.lab.volume_group import LvmPool, install_inspector
from tests.rig.pools import MANY, call, good


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


@pytest.fixture(scope="module")
def storage_host(lab: Lab) -> Host:
    """The storage host, with the inspector of images at hand."""
    install_inspector(lab.storage)
    return lab.storage


@pytest.fixture(params=["thin", "thick"])
def pool(lab: Lab, storage_host: Host, request: pytest.FixtureRequest) -> Iterator[LvmPool]:
    """The volume group for volumes that are all thin, or all thick."""
    made = LvmPool(storage_host, request.param)
    if request.param == "thick":  # which takes the place of the thin pool
        lab.storage.run("lvremove -qq -y -f volumes/thin")
        made.backend["thin_pool"] = None
    try:
        yield made
    finally:
        made.clear()
        if request.param == "thick":
            lab.storage.run("lvcreate -qq -y --type thin-pool -L 3G -n thin volumes")


@pytest.fixture
def db(pool: LvmPool) -> dict[str, Any]:
    """A volume that holds a's."""
    made = good(call(pool, name="db", size_gib=1))
    pool.write(made["path"], b"a" * MANY)
    return made
