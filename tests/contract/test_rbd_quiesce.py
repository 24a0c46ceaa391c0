# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots by the playbook of volumes that a running guest writes to: what is in them was so at one moment."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Iterator

import pytest

from tests.contract.test_walk import bad, good
from tests.rig.agent import AgentGuest
from tests.rig.pools import RbdPool
from tests.rig.walk import CephWalk

VOLUMES = [{"name": name, "size_gib": 1} for name in ("first", "second")]
ATTACHMENTS = [{"volume": volume["name"], "instance": "web-1", "bus": "scsi"} for volume in VOLUMES]
SIZE = 64 << 20
PAUSED = 3  # virDomainState
# writes the same number to both disks, to the first one first
COUNT = "(n=0; while :; do n=$((n+1)); for disk in %s %s; do echo $n | dd of=/dev/$disk seek=65536 conv=fsync 2>/dev/null; done; done)"


@pytest.fixture(scope="module")
def ground(ceph) -> Iterator[tuple[CephWalk, AgentGuest]]:
    with CephWalk(RbdPool(ceph, namespace="")) as walk:
        guest = AgentGuest(walk.libvirtd.connection, walk.libvirtd.directory, "web-1")
        try:
            guest.start()
            good(walk.play("volume", volumes=VOLUMES))
            make_file_system(walk, "first")
            good(walk.play("attach", attachments=ATTACHMENTS))
            yield walk, guest
            good(walk.play("detach", attachments=ATTACHMENTS))
            good(walk.play("volume", volumes=[{"name": volume["name"], "cascade": True} for volume in VOLUMES], volume_state="absent"))
            assert walk.records() == []
        finally:
            guest.stop()


def image_of(walk: CephWalk, name: str) -> str:
    return "volume-" + next(record["id"] for record in walk.records() if record["name"] == name)


def disk_of(walk: CephWalk, guest: AgentGuest, name: str) -> str:
    return guest.wait_for(rf"^DISK-ADD (\w+) serial={image_of(walk, name)[7:]} ").group(1)


def make_file_system(walk: CephWalk, name: str) -> None:
    data = walk.directory / "ext4"
    with data.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", data], check=True)
    with walk.pool.image(image_of(walk, name)) as image:
        image.write(data.read_bytes(), 0)


def taken(walk: CephWalk, volume: str, snapshot: str) -> bytes:
    """What a snapshot has of the beginning of its volume."""
    (found,) = [one for record in walk.records() if record["name"] == volume for one in record.get("snapshots", ()) if one["name"] == snapshot]
    with walk.pool.image(image_of(walk, volume), read_only=True) as image:
        image.set_snap(next(snap["name"] for snap in image.list_snaps() if found["id"] in snap["name"]))
        return image.read(0, SIZE)


def wish(name: str) -> dict[str, list[dict[str, object]]]:
    return {"snapshots": [{"volume": volume["name"], "name": name, "force": True} for volume in VOLUMES]}


def features(walk: CephWalk, data: bytes) -> str:
    path = walk.directory / "taken"
    path.write_bytes(data)
    return subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout.partition("Filesystem features:")[2].splitlines()[0]


def test_volumes_of_an_instance_without_an_agent_are_taken_at_one_moment(ground: tuple[CephWalk, AgentGuest]) -> None:
    walk, guest = ground
    first, second = (disk_of(walk, guest, name) for name in ("first", "second"))
    guest.run(f"mkdir /tmp; {COUNT % (first, second)} & echo $! >/tmp/counter")
    assert "does not answer" in bad(walk.play("snapshot", **wish("refused"), snapshot_quiesce="require")).output
    assert not any(record.get("snapshots") for record in walk.records()), "what could not be frozen was taken"
    predicted = good(walk.play("snapshot", check=True, **wish("monday"), snapshot_quiesce="pause"))
    done = good(walk.play("snapshot", **wish("monday"), snapshot_quiesce="pause"))
    assert done.changed == predicted.changed and len(done.changed) == 3, "paused, taken, released"
    first, second = (int(taken(walk, volume, "monday")[65536 * 512 :][:20].split(b"\n")[0] or 0) for volume in ("first", "second"))
    assert first - second in (0, 1) and first > 0
    assert good(walk.play("snapshot", **wish("monday"), snapshot_quiesce="pause")).changed == []
    assert guest.domain.state()[0] == 1
    guest.run("kill $(cat /tmp/counter)")


def test_file_systems_are_frozen_by_the_agent(ground: tuple[CephWalk, AgentGuest]) -> None:
    walk, guest = ground
    guest.start_agent()
    guest.mount(disk_of(walk, guest, "first"))
    guest.count()
    good(walk.play("snapshot", **wish("torn"), snapshot_quiesce="none"))
    assert "needs_recovery" in features(walk, taken(walk, "first", "torn")), "this test can't tell a frozen file system from one that is not"
    done = good(walk.play("snapshot", **wish("clean")))
    assert [name for name in done.changed if "write" in name] and "needs_recovery" not in features(walk, taken(walk, "first", "clean"))
    n = int(guest.run("cat /mnt/n"))
    guest.run("sleep 0.5")
    assert int(guest.run("cat /mnt/n")) > n, "it was thawed"


def test_a_moment_that_is_over_too_early_is_told(ground: tuple[CephWalk, AgentGuest]) -> None:
    walk, guest = ground
    guest.stop_agent()
    stall = threading.Thread(target=stall_when_paused, args=(walk, guest, 2))
    stall.start()
    said = bad(walk.play("snapshot", **wish("late"), snapshot_quiesce="pause", snapshot_quiesce_seconds=1, snapshot_group=True)).output
    stall.join()
    assert not [one for record in walk.records() for one in record.get("snapshots", ()) if one["name"] == "late"], "a group of two moments is none"
    assert "web-1 could not be kept from writing until the snapshots were taken, which took more than 1 s" in " ".join(said.split())


def stall_when_paused(walk: CephWalk, guest: AgentGuest, seconds: float) -> None:
    """As soon as the instance is kept from writing, the cluster takes its time."""
    deadline = time.monotonic() + 60
    while guest.domain.state()[0] != PAUSED and time.monotonic() < deadline:
        time.sleep(0.01)
    walk.pool.ceph.pause("osd")
    time.sleep(seconds)
    walk.pool.ceph.resume("osd")
