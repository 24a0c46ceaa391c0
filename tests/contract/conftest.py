# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools of every driver that needs no kernel of its own: what holds for one of them holds for all."""

from __future__ import annotations

from typing import Iterator

import pytest

from ansible_collections.stackless.block.plugins.module_utils._manage_image import Images
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots, find_snapshots
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Attachments, Volumes, find_volumes

from tests.contract import test_reserve_race as inside
from tests.rig import pools
from tests.rig.ceph import Ceph
from tests.rig.libvirtd import Libvirtd
from tests.rig.pools import MANY, DirectoryPool, RbdPool, call, good


@pytest.fixture(scope="session")
def ceph():
    """A Ceph cluster for all tests that do it no harm; each takes a namespace of its own."""
    with Ceph() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with Libvirtd() as running:
        yield running


@pytest.fixture
def nothing_is_left(daemon: Libvirtd) -> Iterator[None]:
    """Of domains and secrets, after a test."""
    yield
    daemon.remove_domains()
    left = [secret.usageID() for secret in daemon.connection.listAllSecrets()]
    for secret in daemon.connection.listAllSecrets():
        secret.undefine()
    assert left == [], "secrets are left over"


@pytest.fixture(params=["file", "rbd"])
def pool(request, tmp_path):
    if request.param == "file":
        return DirectoryPool(tmp_path)
    return RbdPool(request.getfixturevalue("ceph"))


@pytest.fixture
def db(pool):
    """A volume that holds a's."""
    made = good(call(pool, name="db", size_gib=1))
    pool.write(made["path"], b"a" * MANY)
    return made


IN_PROCESS = {"cinder_volume": Volumes, "cinder_snapshot": Snapshots, "cinder_attachment": Attachments, "cinder_image": Images}
LOOKS = {"cinder_volume_info": find_volumes, "cinder_snapshot_info": find_snapshots}


@pytest.fixture
def quick(request, monkeypatch):
    """Calls modules on volumes in this process, for tests that don't look at the module around the engine."""

    def called(pool, check=False, module="cinder_volume", backend=None, env=None, **options):
        where = {**pool.backend, **(backend or {})}
        if module in LOOKS:
            return LOOKS[module]({"backend": where, **options})
        if env is not None:
            return call(pool, check=check, module=module, backend=backend, env=env, **options)
        monkeypatch.setattr(inside.Module, "check_mode", check)
        return inside.call(IN_PROCESS[module], **{"backend": where, IN_PROCESS[module].plural: None, **options})

    for place in (request.module, pools):
        monkeypatch.setattr(place, "call", called)
