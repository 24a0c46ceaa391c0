# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The walk to several compute hosts: one run of a step for each, limits, hosts that do not answer, and a volume that two share."""

from __future__ import annotations

import json

import pytest

from tests.rig.collection import run_module
from tests.rig.walk import Walk

VOLUMES = [{"name": "one", "size_gib": 1}, {"name": "two", "size_gib": 1}]
ATTACHMENTS = [{"volume": "one", "instance": "web-1", "bus": "scsi"}, {"volume": "two", "instance": "web-2", "bus": "scsi"}]
WISH = {"volumes": VOLUMES, "attachments": ATTACHMENTS}


@pytest.fixture(scope="module")
def ground():
    with Walk(computes=2) as walk:
        for number, libvirtd in enumerate(walk.libvirtds, 1):
            libvirtd.paused_domain(f"web-{number}")
        yield walk


@pytest.fixture
def walk(ground):
    empty = ground.traces()
    yield ground
    ground.write_inventory()
    held = [{"volume": r["name"], "instance": a["instance"]} for r in ground.records() for a in r["attachments"]]
    assert good(ground.play("detach", attachments=held))
    assert good(ground.play("volume", volumes=[{"name": r["name"]} for r in ground.records()], volume_state="absent"))
    assert ground.traces() == empty


def good(played):
    assert played.status == 0, played.output[-3000:]
    return played


def silence(walk, host):
    """Nobody answers at this host any more."""
    path = walk.directory / "hosts.yml"
    hosts = json.loads(path.read_text())
    hosts["compute"]["hosts"][host].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1, ansible_ssh_extra_args="-o ConnectTimeout=2")
    path.write_text(json.dumps(hosts))


def attachments(walk):
    return {record["name"]: [(a["host"], a["status"]) for a in record["attachments"]] for record in walk.records()}


def test_each_host_gets_its_own_with_one_run(walk):
    runs = good(walk.play("attach", **WISH)).module_runs()
    assert runs == {"cinder_volume": 1, "connector_info": 2, "cinder_attachment": 2, "iscsi_target": 2, "libvirt_disk": 2}
    assert attachments(walk) == {"one": [("compute-1", "attached")], "two": [("compute-2", "attached")]}
    assert good(walk.play("attach", **WISH)).changed == []
    good(walk.play("detach", attachments=ATTACHMENTS))
    assert attachments(walk) == {"one": [], "two": []}


def test_a_limit_leaves_the_others_out(walk):
    good(walk.play("volume", volumes=VOLUMES))
    played = good(walk.play("attach", "--limit", "compute-2", attachments=ATTACHMENTS))
    assert attachments(walk) == {"one": [], "two": [("compute-2", "attached")]}
    assert "one -> web-1: left out, its instance is not on the hosts of this run" in played.told()
    good(walk.play("attach", attachments=ATTACHMENTS))
    good(walk.play("detach", "--limit", "compute-1", attachments=ATTACHMENTS))
    assert attachments(walk) == {"one": [], "two": [("compute-2", "attached")]}


def test_a_silent_host_keeps_what_it_has_and_the_others_go_on(walk):
    good(walk.play("attach", **WISH))
    whole = walk.traces()
    silence(walk, "compute-2")
    played = walk.play("detach", attachments=ATTACHMENTS)
    assert played.status != 0 and "two -> web-2 | detach | compute-2: unreachable" in played.output
    assert attachments(walk) == {"one": [], "two": [("compute-2", "detaching")]}
    (left,) = [a for record in walk.records() for a in record["attachments"]]
    assert left["step"] == "detach" and "unreachable" in left["reason"]
    assert walk.traces()["disks"][1] == whole["disks"][1] and len(walk.accounts()) == 1
    walk.write_inventory()
    good(walk.play("detach", attachments=ATTACHMENTS))
    assert attachments(walk) == {"one": [], "two": []}


def test_what_is_proven_clean_is_given_back_without_its_host(walk):
    """As when a host was switched off for good, and somebody said so in the record."""
    good(walk.play("attach", **WISH))
    volume = next(record for record in walk.records() if record["name"] == "two")
    iqn = volume["attachments"][0]["target_iqn"]
    gone = {"domain": "web-2", "serial": volume["id"], "state": "absent", "source": {"type": "network", "protocol": "iscsi", "target_iqn": iqn}}
    assert run_module("libvirt_disk", {"uri": walk.libvirtds[1].uri, **gone})["changed"]
    for action in ("begin_detaching", "terminate"):
        assert not run_module("cinder_attachment", {"backend": walk.backend, "volume": "two", "instance": "web-2", "action": action})["failed"]
    silence(walk, "compute-2")
    good(walk.play("detach", attachments=ATTACHMENTS[1:]))
    assert attachments(walk) == {"one": [("compute-1", "attached")], "two": []} and len(walk.accounts()) == 1


def test_a_silent_host_gets_nothing_and_is_named(walk):
    silence(walk, "compute-2")
    played = walk.play("attach", **WISH)
    assert played.status != 0
    assert any(row.startswith("two -> web-2: FAILED at connector: compute-1 has no domain web-2; no answer from compute-2") for row in played.told())
    assert attachments(walk) == {"one": [("compute-1", "attached")], "two": []}
    walk.write_inventory()
    good(walk.play("attach", **WISH))


def test_a_shared_volume_is_exported_until_its_last_instance_lets_go(walk):
    good(walk.play("volume", volumes=[{"name": "one", "size_gib": 1, "multiattach": True}]))
    both = [{"volume": "one", "instance": f"web-{n}", "bus": "scsi"} for n in (1, 2)]
    good(walk.play("attach", attachments=both))
    assert len(walk.accounts()) == 2 and good(walk.play("attach", attachments=both)).changed == []
    good(walk.play("detach", attachments=both[:1]))
    shown = walk.tgtd.adm("--mode", "target", "--op", "show")
    assert "iqn.2026-01.org.example:compute-2" in shown and "iqn.2026-01.org.example:compute-1" not in shown
    assert len(walk.accounts()) == 1 and attachments(walk) == {"one": [("compute-2", "attached")]}
    good(walk.play("attach", attachments=both))
    good(walk.play("detach", attachments=both))
    assert walk.tgtd.adm("--mode", "target", "--op", "show") == "" and attachments(walk) == {"one": []}
