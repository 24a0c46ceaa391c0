# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two compute hosts at one storage host: volumes that instances share, two controllers at once, and a host that falls silent in the middle."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rig.lab.scene import CLEAN, attachments, bad, good, holds, leftovers, names, volume, write

SESSIONS = "ls /sys/class/iscsi_session 2>/dev/null"
INITIATORS = "ls /sys/kernel/config/target/iscsi/iqn.*/tpgt_1/acls"


@pytest.fixture
def clean(lab):
    yield lab
    held = [{"volume": name, "instance": a[0]} for name, found in attachments(lab).items() for a in found]
    good(lab.play("detach", attachments=held))
    good(lab.play("volume", volumes=[{"name": name} for name in attachments(lab)], volume_state="absent"))
    assert leftovers(lab) == CLEAN


def on(instance, name="shared"):
    return {"volume": name, "instance": instance, "bus": "scsi"}


def test_session_and_acl_of_a_shared_volume_stay_until_the_last_of_their_host_has_gone(clean):
    lab = clean
    three = [on("web-1"), on("web-2"), on("db-1")]
    good(lab.play("attach", volumes=[{"name": "shared", "size_gib": 1, "multiattach": True}], attachments=three))
    shared = volume(lab, "shared")
    write(lab.compute, "web-1", shared["id"], 0x21)
    write(lab.compute2, "db-1", shared["id"], 0x22, "64k")
    assert holds(lab.storage, shared["path"], 0x21) and holds(lab.storage, shared["path"], 0x22, 65536)
    sessions = len(names(lab.compute, SESSIONS))
    assert sessions and len(names(lab.storage, INITIATORS)) == 2

    good(lab.play("detach", attachments=three[:1]))
    assert len(names(lab.compute, SESSIONS)) == sessions and len(names(lab.storage, INITIATORS)) == 2
    write(lab.compute, "web-2", shared["id"], 0x23)
    assert holds(lab.storage, shared["path"], 0x23)

    good(lab.play("detach", attachments=three[1:2]))
    assert names(lab.compute, SESSIONS) == [] and len(names(lab.storage, INITIATORS)) == 1
    write(lab.compute2, "db-1", shared["id"], 0x24)
    assert holds(lab.storage, shared["path"], 0x24)

    good(lab.play("attach", attachments=three))
    good(lab.play("detach", attachments=three))  # all at one moment: the one that finds the device unused logs out
    assert leftovers(lab) == {**CLEAN, "volumes": ["shared"]}


def test_two_plays_that_take_one_volume_back_at_once_leave_nothing(clean):
    """Each sees the other's instance at first, and whoever is last logs out, withdraws and has nobody to wait for."""
    lab = clean
    both = [on("web-1"), on("web-2")]
    good(lab.play("attach", volumes=[{"name": "shared", "size_gib": 1, "multiattach": True}], attachments=both))
    with ThreadPoolExecutor(2) as controllers:
        list(controllers.map(lambda one: lab.play("detach", attachments=[one]), both))
    good(lab.play("detach", attachments=both))  # one of them may have met the other in the middle
    assert leftovers(lab) == {**CLEAN, "volumes": ["shared"]}


def test_two_controllers_with_twenty_volumes_for_two_hosts(clean):
    lab = clean
    wishes = []
    for side, instances in (("a", ("web-1", "db-1")), ("b", ("web-2", "db-2"))):
        made = [f"{side}{number}" for number in range(10)]
        wish = [on(instances[number % 2], name) for number, name in enumerate(made)]
        wishes.append({"volumes": [{"name": name, "size_gib": 1} for name in made], "attachments": wish})
    with ThreadPoolExecutor(2) as controllers:
        played = list(controllers.map(lambda wish: lab.play("attach", **wish), wishes))
    assert [p.status for p in played] == [0, 0], "\n".join(p.output[-2000:] for p in played if p.status)
    found = attachments(lab)
    assert {name: a[0][2] for name, a in found.items()} == {f"{side}{n}": "attached" for side in "ab" for n in range(10)}
    for number, (name, ((instance, host, _status),)) in enumerate(sorted(found.items())):
        write(lab.compute if host == "compute-1" else lab.compute2, instance, volume(lab, name)["id"], 0x40 + number)
    assert [name for number, name in enumerate(sorted(found)) if not holds(lab.storage, volume(lab, name)["path"], 0x40 + number)] == []


class TestSilence:
    """A compute host that nobody reaches: nothing of the storage side goes, the reason is kept, the next run finishes."""

    def play_until(self, lab, script, name):
        """Plays, with the compute host stopped as soon as this script succeeds on the storage host."""
        watcher = threading.Thread(target=self.freeze_when, args=(lab, script))
        watcher.start()
        try:
            return lab.play(name, attachments=[on("web-1")])
        finally:
            watcher.join()
            lab.compute.thaw()

    def freeze_when(self, lab, script):
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            if lab.storage.ssh(script, 20)[0] == 0:
                lab.compute.freeze()
                return
            time.sleep(0.1)

    def stopped(self, lab, played, step, status):
        """The walk stopped at this step, its export stands, and the record says why."""
        bad(played, f"shared -> web-1 | {step} | ")
        (kept,) = volume(lab, "shared")["attachments"]
        assert (kept["status"], kept["step"]) == (status, step) and "unreachable" in kept["reason"]
        assert len(leftovers(lab)["targets"]) == 1

    def test_in_the_middle_of_an_attach(self, clean):
        lab = clean
        good(lab.play("volume", volumes=[{"name": "shared", "size_gib": 1}]))
        played = self.play_until(lab, "ls -d /sys/kernel/config/target/iscsi/iqn.*", "attach")
        self.stopped(lab, played, "login", "reserved")
        good(lab.play("attach", attachments=[on("web-1")]))
        assert attachments(lab) == {"shared": [("web-1", "compute-1", "attached")]}

    def test_in_the_middle_of_a_detach(self, clean):
        lab = clean
        good(lab.play("attach", volumes=[{"name": "shared", "size_gib": 1}], attachments=[on("web-1")]))
        played = self.play_until(lab, "lvs --noheadings -o lv_tags volumes | grep -q detaching", "detach")
        self.stopped(lab, played, "detach", "detaching")
        assert len(names(lab.storage, INITIATORS)) == 1
        good(lab.play("detach", attachments=[on("web-1")]))
        assert leftovers(lab) == {**CLEAN, "volumes": ["shared"]}
