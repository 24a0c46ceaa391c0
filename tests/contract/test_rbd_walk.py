# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The walk with volumes in the pool of a real Ceph cluster, by its playbooks: forwards, again, backwards, and what gets in its way."""

from __future__ import annotations

import re
import time

import pytest

from tests.contract.test_two_computes import silence
from tests.contract.test_walk import ATTACHMENTS, BACK, ONE, VOLUMES, WISH, bad, diffs, good, plain, statuses
from tests.rig.ceph import Ceph
from tests.rig.pools import RbdPool
from tests.rig.walk import CephWalk, Walk

GIB = 1 << 30


def ground_on(ceph: Ceph) -> CephWalk:
    walk = CephWalk(RbdPool(ceph, namespace=""))
    for name in ("web-1", "web 'two'"):
        walk.libvirtd.paused_domain(name)
    return walk


@pytest.fixture(scope="module")
def ground(ceph):
    with ground_on(ceph) as walk:
        yield walk


@pytest.fixture
def walk(ground):
    """The ground, empty before and after: what a test leaves is taken away by the plays themselves."""
    empty = ground.traces()
    yield ground
    clear(ground)
    assert ground.traces() == empty, "the walk left something behind"


def clear(walk):
    good(walk.play("detach", attachments=ATTACHMENTS))
    good(walk.play("volume", volumes=[{"name": r["name"], "cascade": True} for r in walk.records()], volume_state="absent"))


def alias_of(walk, name="db-data"):
    return "ua-" + next(record["id"] for record in walk.records() if record["name"] == name)


def domain_of(walk, name="web-1"):
    return walk.libvirtd.connection.lookupByName(name)


def test_there_again_and_back_with_the_bytes_on_the_cluster(walk):
    before = walk.traces()
    assert good(walk.play("attach", **WISH)).changed
    assert statuses(walk) == {"db-data": "in-use", "db-data-1": "in-use"}
    after, versions = walk.traces(), walk.pool.traces()
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "write -P 0xa5 0 64k")
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "flush")
    written = [one for one in walk.pool.traces() if one not in versions]
    with walk.pool.image("volume-" + alias_of(walk)[3:], read_only=True) as image:
        assert image.read(0, 1 << 16) == b"\xa5" * (1 << 16)

    again = good(walk.play("attach", **WISH))
    assert again.changed == [] and again.steps == []
    assert [one for one in walk.pool.traces() if one not in versions and "watch" not in one[0]] == written and walk.traces() == after

    assert good(walk.play("detach", **BACK)).changed
    assert statuses(walk) == {"db-data": "available", "db-data-1": "available"}
    assert {**walk.traces(), "volumes": [], "files": []} == {**before, "volumes": [], "files": []}
    assert good(walk.play("detach", **BACK)).changed == []

    good(walk.play("attach", **WISH))
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "read -P 0xa5 0 64k")


def test_check_mode_predicts_the_walk_and_writes_nothing(walk):
    before, versions = walk.traces(), walk.pool.traces()
    predicted = good(walk.play("attach", check=True, **WISH))
    assert walk.traces() == before and walk.pool.traces() == versions
    real = good(walk.play("attach", **WISH))
    assert predicted.changed == real.changed
    assert plain(predicted.told()) == plain(real.told()) and plain(diffs(predicted)) == plain(diffs(real))
    predicted = good(walk.play("detach", check=True, **BACK))
    assert statuses(walk) == {"db-data": "in-use", "db-data-1": "in-use"}
    real = good(walk.play("detach", **BACK))
    assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())


def test_module_runs_do_not_grow_with_the_volumes_and_nothing_is_exported(walk):
    one = good(walk.play("attach", **ONE)).module_runs()
    two = good(walk.play("attach", **WISH)).module_runs()
    assert one == two == {"cinder_volume": 1, "connector_info": 1, "cinder_attachment": 3, "libvirt_disk": 1}
    assert good(walk.play("detach", **BACK)).module_runs() == {"connector_info": 1, "cinder_attachment": 3, "libvirt_disk": 1}


def test_no_key_is_printed(walk):
    key = walk.pool.ceph.key("client.cinder")
    for arguments in ((), ("-vvv",)):
        played = good(walk.play("attach", *arguments, **WISH))
        assert key not in played.output and key not in str(played.tasks)
        assert key not in good(walk.play("detach", *arguments, **BACK)).output


def test_extend_goes_through_to_the_guest(walk):
    good(walk.play("attach", **ONE))
    good(walk.play("extend", volumes=[{"name": "db-data", "size_gib": 2}]))
    (record,) = walk.records()
    assert record["size_bytes"] == walk.pool.size_of(f"rbd:{walk.pool.ceph.pool}/volume-{record['id']}") == 2 * GIB
    assert domain_of(walk).blockInfo("sda")[0] == 2 * GIB


def test_one_that_fails_is_taken_back_and_the_others_go_on(walk):
    """Somebody else has the image open: who it is stands in the story, and nothing of this walk is left."""
    good(walk.play("volume", volumes=VOLUMES))
    with walk.pool.image("volume-" + alias_of(walk)[3:]):
        played = bad(walk.play("attach", attach_timeout=1, **WISH), "is open at 127.", "FAILED at attach")
    assert statuses(walk) == {"db-data": "available", "db-data-1": "in-use"}
    assert any("db-data-1 -> web 'two': sda on compute-1, changed" in line for line in played.told())
    assert good(walk.play("attach", **WISH)).changed and statuses(walk) == {"db-data": "in-use", "db-data-1": "in-use"}


def test_a_volume_that_an_instance_has_is_not_deleted_nor_given_to_another(walk):
    good(walk.play("attach", **ONE))
    bad(walk.play("volume", volumes=[{"name": "db-data"}], volume_state="absent"), "web-1")
    other = [{"volume": "db-data", "instance": "web 'two'", "bus": "scsi"}]
    bad(walk.play("attach", attachments=other), "it is held by web-1 on compute-1 (attached)")


def test_a_guest_that_refuses_keeps_its_volume(walk):
    virtio = [{"volume": "db-data", "instance": "web-1", "bus": "virtio"}]
    good(walk.play("attach", volumes=VOLUMES[:1], attachments=virtio))
    bad(walk.play("detach", attachments=virtio, volume_detach_timeout=1), "has not let go")
    assert statuses(walk) == {"db-data": "detaching"} and walk.records()[0]["attachments"][0]["step"] == "detach"
    domain_of(walk).reset()
    time.sleep(1)
    good(walk.play("detach", attachments=virtio))
    assert statuses(walk) == {"db-data": "available"}


@pytest.mark.parametrize("silent", [pytest.param("mon", marks=pytest.mark.long), "osd"])
def test_a_cluster_that_falls_silent_ends_the_play_in_bounded_time_and_the_next_finishes(silent):
    with Ceph() as ceph, ground_on(ceph) as walk:
        good(walk.play("attach", **ONE))
        ceph.pause(silent)
        began = time.monotonic()
        bad(walk.play("detach", **BACK), "within 5 s")
        bad(walk.play("attach", **ONE), "within 5 s")
        assert time.monotonic() - began < 90
        assert domain_of(walk).isActive()
        ceph.resume(silent)
        good(walk.play("attach", **ONE))
        good(walk.play("detach", **BACK))
        clear(walk)


def test_a_lost_host_is_kept_from_a_volume_before_that_goes_elsewhere(ceph):
    with CephWalk(RbdPool(ceph, namespace=""), computes=2) as walk:
        for libvirtd in walk.libvirtds:
            libvirtd.paused_domain("web-1")
        there = [{**ATTACHMENTS[0], "host": "compute-1"}]
        elsewhere = [{**ATTACHMENTS[0], "host": "compute-2"}]
        good(walk.play("attach", volumes=VOLUMES[:1], attachments=there))
        bad(walk.play("fence"), "lost_host is not given")
        bad(walk.play("fence", lost_host="compute-11"), "lost_host is compute-11; name a compute host of the inventory")
        bad(walk.play("fence", lost_host="compute-1"), "compute-1 answers, so it is not lost")
        silence(walk, "compute-1")
        bad(walk.play("attach", attachments=elsewhere), "is held by web-1 on compute-1 (attached), not on compute-2")
        before = walk.traces()
        assert walk.play("fence", lost_host="compute-1", check=True).changed and walk.traces() == before
        fenced = good(walk.play("fence", lost_host="compute-1"))
        assert re.search(r"keep 127[\d.:/]+ of compute-1 from volume db-data for good", fenced.output)
        assert statuses(walk) == {"db-data": "available"}
        assert good(walk.play("fence", lost_host="compute-1")).changed == []

        good(walk.play("attach", attachments=elsewhere))
        for libvirtd, pattern in ((walk.libvirtds[1], "0xa5"), (walk.libvirtds[0], "0x5a")):
            domain = libvirtd.connection.lookupByName("web-1")
            libvirtd.qemu_io(domain, alias_of(walk), f"write -P {pattern} 0 64k")
            libvirtd.qemu_io(domain, alias_of(walk), "flush")
        with walk.pool.image("volume-" + alias_of(walk)[3:], read_only=True) as image:
            assert image.read(0, 1 << 16) == b"\xa5" * (1 << 16), "a fenced client has written"
        good(walk.play("detach", attachments=elsewhere))
        good(walk.play("volume", volumes=[{"name": "db-data"}], volume_state="absent"))


def test_only_ceph_can_keep_a_host_from_its_volumes():
    with Walk() as walk:
        walk.libvirtd.paused_domain("web-1")
        good(walk.play("attach", **ONE))
        silence(walk, "compute-1")
        bad(walk.play("fence", lost_host="compute-1"), "this storage can't keep a host from its data")
        assert statuses(walk) == {"db-data": "in-use"}


def test_snapshots_of_a_volume_that_a_guest_writes_to_by_the_playbooks(walk):
    good(walk.play("attach", **WISH))
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "write -P 0xa5 0 64k")
    wish = {"snapshots": [{"volume": "db-data", "name": "monday"}]}
    assert "who may be writing" in bad(walk.play("snapshot", **wish)).output
    forced = {"snapshots": [{**wish["snapshots"][0], "force": True}]}
    predicted = good(walk.play("snapshot", check=True, **forced))
    taken = good(walk.play("snapshot", **forced))
    assert taken.changed == predicted.changed and len(taken.changed) == 1 and len(taken.steps) == 3
    assert good(walk.play("snapshot", **forced)).changed == []
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "write -P 0x5a 0 64k")
    good(walk.play("volume", volumes=[{"name": "new", "source": {"volume": "db-data", "snapshot": "monday"}}]))
    with walk.pool.image("volume-" + alias_of(walk, "new")[3:], read_only=True) as image:
        assert image.read(0, 1 << 16) == b"\xa5" * (1 << 16)
    good(walk.play("volume", volumes=[{"name": "new"}], volume_state="absent"))
    good(walk.play("detach", **BACK))
    good(walk.play("volume", volumes=[{"name": "db-data", "revert_to": "monday"}]))
    good(walk.play("attach", **WISH))
    walk.libvirtd.qemu_io(domain_of(walk), alias_of(walk), "read -P 0xa5 0 64k")
    good(walk.play("detach", **BACK))
    good(walk.play("snapshot", **wish, snapshot_state="absent"))
