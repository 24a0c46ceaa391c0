# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host with domains does about Ceph beside QEMU: its configuration, and its patience with clusters that are silent."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils._ceph import Seen
from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, NotFound, StorageError, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._hosts import ceph
from ansible_collections.stackless.block.plugins.module_utils._hosts.libvirt import LibvirtHost
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Image, Source

SOURCE = Source("network", "pool/ns/a", "rbd", portals=(("192.0.2.1", 6789),), username="cinder")
KEY = Secret("key")


@pytest.mark.parametrize(("models", "allowed"), [(["none", "dac"], True), (["apparmor", "dac"], False), ([], True)])
def test_apparmor_lets_qemu_read_no_configuration_of_ours(models: list[str], allowed: bool) -> None:
    host = LibvirtHost.__new__(LibvirtHost)
    xml = "".join(f"<secmodel><model>{model}</model></secmodel>" for model in models)
    host._connection = SimpleNamespace(getCapabilities=lambda: f"<capabilities><host>{xml}</host></capabilities>")
    assert host.rbd_config == (ceph.config_path() if allowed else None)


def test_the_configuration_is_for_everybody_to_read_and_written_only_when_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stackless-block" / "rbd.conf"
    monkeypatch.setattr(ceph, "config_path", lambda: str(path))
    assert not ceph.has_config()
    ceph.write_config()
    assert ceph.has_config() and stat.S_IMODE(os.stat(path).st_mode) == 0o644 and os.listdir(path.parent) == ["rbd.conf"]
    path.write_text("other")
    assert not ceph.has_config()


class Client:
    """A cluster that answers what it is told to, and counts how often it was asked."""

    asked: list[str] = []
    errors: list[StorageError] = []
    answer: Any = Seen(1, (), "id", 61)
    fsid = "a-cluster"

    def __init__(self, place: Any) -> None:
        self.place = place

    def look(self, name: str) -> Any:
        Client.asked.append(f"{self.place.path}/{name}")
        for error in Client.errors:
            raise error
        return Client.answer


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ceph.Images:
    monkeypatch.setattr(ceph, "Client", Client)
    Client.asked, Client.errors, Client.answer = [], [], Seen(1, (), "id", 61)
    return ceph.Images()


def test_an_image_is_looked_at_by_its_exact_name(images: ceph.Images) -> None:
    assert images.look(SOURCE, KEY) == Image(1, (), None, "a-cluster", "id", 61) and Client.asked == ["pool/ns/a"]
    images.look(Source("network", "pool/a", "rbd", portals=SOURCE.portals), KEY)
    assert Client.asked[1] == "pool/a"


def test_without_a_key_nobody_is_asked_and_nothing_is_known(images: ceph.Images) -> None:
    assert images.look(SOURCE, None) == Image() and Client.asked == []
    images.check_alone(SOURCE, None)


def test_a_silent_cluster_is_asked_once_for_all_disks(images: ceph.Images, monkeypatch: pytest.MonkeyPatch) -> None:
    Client.errors = [Unavailable("no answer within 5 s")]
    for _disk in range(100):
        assert images.look(SOURCE, KEY).error is Client.errors[0] and images.is_silent(SOURCE, KEY)
        with pytest.raises(Unavailable):
            images.check_answer(SOURCE, KEY)
    assert len(Client.asked) == 1
    monkeypatch.setattr(ceph, "_PAUSE", 0)
    images = ceph.Images()
    for _turn in range(3):
        images.look(SOURCE, KEY)
    assert len(Client.asked) == 4


def test_who_has_an_image_open_keeps_it_from_others_and_a_missing_one_from_nobody(images: ceph.Images) -> None:
    Client.answer = Client.answer._replace(holders=("192.0.2.7 (client.7)",))
    with pytest.raises(Busy, match=r"open at 192.0.2.7 \(client.7\); end that first"):
        images.check_alone(SOURCE, KEY)
    Client.errors = [NotFound("there is no image")]
    images.check_answer(SOURCE, KEY)
    assert images.look(SOURCE, KEY).cluster == "a-cluster"
    with pytest.raises(NotFound):
        images.check_alone(SOURCE, KEY)


def test_a_client_is_known_by_its_whole_number() -> None:
    image = Image(1, ("192.0.2.7 (client.7)", "192.0.2.7 (client.77)"))
    assert image.others("client.7") == ("192.0.2.7 (client.77)",) and image.others("client.") == image.others(None) == image.holders
