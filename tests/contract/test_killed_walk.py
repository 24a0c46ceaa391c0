# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The walk is killed after every single step, controller and module at once; the same play run again must end as if nothing had happened."""

from __future__ import annotations

import re

import pytest

from ansible_collections.stackless.block.plugins.module_utils._hosts.ceph import write_config
from tests.rig.pools import RbdPool
from tests.rig.walk import CephWalk, Walk, plain

WISH = {"volumes": [{"name": "db-data", "size_gib": 1}], "attachments": [{"volume": "db-data", "instance": "web-1", "bus": "scsi"}]}
BACK = {"attachments": WISH["attachments"]}
GONE = {"volumes": [{"name": "db-data"}], "volume_state": "absent"}

# Every step of both ways, in order, through an export; test_the_table_is_the_walk holds it against an undisturbed run.
ATTACH = [
    "record volume db-data as creating",
    "allocate 1 GiB for volume db-data",
    "mark volume db-data available",
    "reserve volume db-data for web-1",
    "save target TARGET",
    "create target TARGET",
    "add LUN 1 (PATH) to TARGET",
    "save target TARGET",
    "admit INITIATOR to TARGET",
    "note ua-ID in the running and persistent metadata of domain web-1",
    "set the CHAP secret for target TARGET",
    "attach ua-ID as sda to the running and persistent domain web-1",
    "complete volume db-data for web-1",
]
DETACH = [
    "begin to detach volume db-data for web-1",
    "detach sda from the persistent domain web-1",
    "ask the running domain web-1 to let go of sda",
    "remove the CHAP secret for target TARGET",
    "forget ua-ID in the running and persistent metadata of domain web-1",
    "end the connection of volume db-data for web-1",
    "delete target TARGET",
    "remove CHAP account ACCOUNT of TARGET",
    "forget target TARGET",
    "release volume db-data from web-1",
]


# A volume in a Ceph pool is made with its record, and nothing is exported.
ATTACH_RBD = [
    *ATTACH[:4],
    "initialize volume db-data for web-1",
    ATTACH[9],
    "set the Ceph secret ID",
    *ATTACH[11:],
]
DETACH_RBD = [*DETACH[:3], "remove the Ceph secret ID", *DETACH[4:6], DETACH[9]]

WAYS = {"file": (ATTACH, DETACH), "rbd": (ATTACH_RBD, DETACH_RBD)}
# Who gives up there has something else to take back than after the step before; all others are for the campaign.
GIVEN_UP = {"file": [ATTACH[step] for step in (1, 3, 8, 11)], "rbd": ["initialize volume db-data for web-1", ATTACH_RBD[-2]]}


def case(driver, step):
    """A step of both ways. Where file makes the same two as rbd, rbd's are for the campaign: how its records are written is killed in test_rbd.py."""
    attach, detach = (way[min(step, len(way)) - 1] for way in WAYS[driver])
    long = driver == "rbd" and attach in ATTACH and detach in DETACH
    return pytest.param(driver, step, id=f"{driver}-{attach}", marks=[pytest.mark.long] if long else [])


def given_up(case):
    here = case.id.partition("-")[2] in GIVEN_UP[case.values[0]]
    return pytest.param(*case.values, id=case.id, marks=[] if here else [pytest.mark.long])


CASES = [case(driver, step) for driver, (attach, _detach) in WAYS.items() for step in range(1, len(attach) + 1)]


@pytest.fixture(scope="module")
def walk(request):
    """The ground for volumes of the driver that a test asks for."""
    if request.param == "file":
        made = Walk()
    else:
        made = CephWalk(RbdPool(request.getfixturevalue("ceph"), namespace=""))
        write_config()  # as on a host that has had such a disk before: the file stays, and writing it is no step any more
    with made as ground:
        ground.driver = request.param
        ground.libvirtd.paused_domain("web-1")
        yield ground


@pytest.fixture(scope="module")
def undisturbed(walk):
    """The steps of both ways, and what is there before, between and after."""
    empty = walk.traces()
    attach = good(walk.play("attach", **WISH))
    attached = walk.traces()
    detach = good(walk.play("detach", **BACK))
    detached = walk.traces()
    good(walk.play("volume", **GONE))
    assert walk.traces() == empty
    return {"attach": attach.steps, "detach": detach.steps, "empty": empty, "attached": attached, "detached": detached}


def good(played):
    assert played.status == 0, played.output[-3000:]
    return played


def killed(walk, playbook, wish, step):
    played = walk.play(playbook, env={"STACKLESS_KILL_AFTER": str(step)}, **wish)
    assert played.status == -9, f"the play was not killed: {played.output[-2000:]}"
    assert len(played.steps) == step


def anonymous(step):
    step = re.sub(r"\(/\S+\)", "(PATH)", step)
    step = re.sub(r"iqn\.2026-01\.org\.stackless:volume-\S+", "TARGET", step)
    step = re.sub(r"iqn\.2026-01\.org\.example:\S+", "INITIATOR", step)
    step = re.sub(r"account \S+", "account ACCOUNT", step)
    return plain(step).replace("an-id", "ID")


@pytest.mark.parametrize("walk", WAYS, indirect=True)
def test_the_table_is_the_walk(walk, undisturbed):
    attach, detach = WAYS[walk.driver]
    assert [anonymous(step) for step in undisturbed["attach"]] == attach
    assert [anonymous(step) for step in undisturbed["detach"]] == detach


@pytest.mark.parametrize("walk, step", CASES, indirect=["walk"])
def test_killed_on_the_way_there_and_on_the_way_back(walk, undisturbed, step):
    killed(walk, "attach", WISH, step)
    good(walk.play("attach", **WISH))
    assert walk.traces() == undisturbed["attached"]
    killed(walk, "detach", BACK, min(step, len(WAYS[walk.driver][1])))
    good(walk.play("detach", **BACK))
    assert walk.traces() == undisturbed["detached"]
    good(walk.play("volume", **GONE))
    assert walk.traces() == undisturbed["empty"]


@pytest.mark.parametrize("walk, step", [given_up(case) for case in CASES], indirect=["walk"])
def test_killed_and_given_up(walk, undisturbed, step):
    """Who gives up instead of going on gets a clean machine as well."""
    killed(walk, "attach", WISH, step)
    good(walk.play("detach", **BACK))
    good(walk.play("volume", **GONE))
    assert walk.traces() == undisturbed["empty"]
