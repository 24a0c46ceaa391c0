# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes and instances on one host: nothing is exported, and a volume that grows is seen to grow by its running instance."""

from __future__ import annotations

import json

import pytest

from tests.rig.walk import Walk

GIB = 1 << 30
VOLUMES = [{"name": "db", "size_gib": 1}, {"name": "log", "size_gib": 1}]
ATTACHMENTS = [{"volume": "db", "instance": "web-1", "bus": "scsi"}]
WISH = {"volumes": VOLUMES, "attachments": ATTACHMENTS}


@pytest.fixture(scope="module")
def ground():
    with Walk() as walk:
        walk.libvirtd.paused_domain("web-1")
        path = walk.directory / "hosts.yml"
        hosts = json.loads(path.read_text())
        everything = {**hosts["storage"]["hosts"]["storage-1"], **hosts["compute"]["hosts"]["compute-1"]}
        for group in ("storage", "compute"):
            hosts[group]["hosts"] = {"node-1": everything}
        path.write_text(json.dumps(hosts))
        yield walk


@pytest.fixture
def walk(ground):
    empty = ground.traces()
    yield ground
    assert good(ground.play("detach", attachments=ATTACHMENTS))
    assert good(ground.play("volume", volumes=[{"name": r["name"]} for r in ground.records()], volume_state="absent"))
    assert ground.traces() == empty


def good(played):
    assert played.status == 0, played.output[-3000:]
    return played


def disk(walk):
    domain = walk.libvirtd.connection.lookupByName("web-1")
    return domain.blockInfo("sda")[0]


def test_there_and_back_without_an_export(walk):
    predicted = good(walk.play("attach", check=True, **WISH))
    assert walk.records() == []
    real = good(walk.play("attach", **WISH))
    assert predicted.changed == real.changed
    assert "iscsi_target" not in real.module_runs() and walk.traces()["targets"] == []
    (attachment,) = [a for record in walk.records() for a in record["attachments"]]
    assert (attachment["transport"], attachment["status"], attachment["host"]) == ("local", "attached", "node-1")
    (live,) = [text for text in walk.traces()["disks"][0]["live"] if text.startswith("<disk")]
    assert 'type="file"' in live and str(walk.volumes) in live
    assert good(walk.play("attach", **WISH)).changed == []
    predicted = good(walk.play("detach", check=True, attachments=ATTACHMENTS))
    real = good(walk.play("detach", attachments=ATTACHMENTS))
    assert predicted.changed == real.changed and "iscsi_target" not in real.module_runs()


def test_another_transport_is_refused_while_it_is_attached(walk):
    good(walk.play("attach", **WISH))
    before = walk.traces()
    played = walk.play("attach", attachments=[{**ATTACHMENTS[0], "transport": "qemu"}])
    assert played.status != 0 and "by transport local, not qemu; set transport to local, or detach it first" in played.output
    assert walk.traces() == before


class TestExtend:
    def test_a_running_instance_sees_its_volume_grow(self, walk):
        good(walk.play("attach", **WISH))
        larger = [{"name": "db", "size_gib": 2}, {"name": "log", "size_gib": 3}]
        predicted = good(walk.play("extend", check=True, volumes=larger))
        assert disk(walk) == GIB
        real = good(walk.play("extend", volumes=larger))
        assert predicted.changed == real.changed and predicted.told() == real.told()
        assert disk(walk) == 2 * GIB
        assert {r["name"]: (r["size_bytes"], r["status"]) for r in walk.records()} == {"db": (2 * GIB, "in-use"), "log": (3 * GIB, "available")}
        assert good(walk.play("extend", volumes=larger)).changed == []

    @pytest.mark.parametrize(
        "volumes,words",
        [
            ([{"name": "nope", "size_gib": 2}], "has a volume nope (asked: node-1); say which with storage_host, make it, or correct the name"),
            ([{"name": "db", "size_gib": 1}, {"name": "log", "size_gib": 1}], "can't shrink to 1 GiB"),
        ],
    )
    def test_what_can_not_grow_is_told(self, walk, volumes, words):
        good(walk.play("attach", volumes=[{**wish, "size_gib": 2} for wish in VOLUMES], attachments=ATTACHMENTS))
        before = walk.traces()
        played = walk.play("extend", volumes=volumes)
        assert played.status != 0 and words in played.output and "Traceback" not in played.output
        assert walk.traces() == before
