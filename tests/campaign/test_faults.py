# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong on real hosts: each time one clear sentence, in bounded time, and nothing left behind that the next run does not finish.

What a single module meets (a wrong secret, a missing ACL or LUN, a full pool) stands in the tests of that module.
"""

from __future__ import annotations

import time

import pytest

from tests.rig.lab.scene import CLEAN, attachments, bad, bytes_at, device_of, good, guest_device, holds, leftovers, names, volume, write

ONE = [{"name": "one", "size_gib": 1}]
ON = [{"volume": "one", "instance": "web-1", "bus": "scsi"}]
WISH = {"volumes": ONE, "attachments": ON}
KEPT = {**CLEAN, "volumes": ["one"]}


@pytest.fixture
def clean(lab):
    yield lab
    good(lab.play("detach", attachments=ON))
    good(lab.play("volume", volumes=ONE, volume_state="absent"))
    assert leftovers(lab) == CLEAN


@pytest.fixture
def multipathd(clean):
    """Runs on compute-1; without it one path is all that there shall be."""
    clean.compute.run("modprobe dm_multipath; systemctl start multipathd", timeout=90)
    yield
    good(clean.play("detach", attachments=ON))
    clean.compute.run("systemctl stop multipathd.socket multipathd", timeout=90)


def within(seconds, played_at):
    took = time.monotonic() - played_at
    assert took < seconds, f"it took {took:.0f} s"


def test_no_portal_can_be_reached(clean):
    lab = clean
    began = time.monotonic()
    lab.cut(lab.compute)
    try:
        bad(lab.play("attach", **WISH), "one -> web-1 | login | ", lab.storage.addresses[0])
    finally:
        lab.heal(lab.compute)
    within(150, began)
    assert leftovers(lab) == KEPT and attachments(lab) == {"one": []}


@pytest.mark.usefixtures("multipathd")
def test_one_of_two_portals_can_not_be_reached_and_heals(clean):
    lab = clean
    second = lab.storage.addresses[1]
    good(lab.play("volume", volumes=ONE))
    # the storage host listens at both; only the way to the second is closed
    lab.compute.run(f"ip route add blackhole {second}/32")
    try:
        played = good(lab.play("attach", **WISH))
    finally:
        lab.compute.run(f"ip route del blackhole {second}/32")
    assert any("degraded" in line for line in played.told()) and second in played.output
    healed = good(lab.play("attach", **WISH))
    assert healed.changed and not any("degraded" in line for line in healed.told())
    assert len(names(lab.compute, "ls /sys/class/iscsi_session")) == 2
    assert good(lab.play("attach", **WISH)).changed == []


def test_the_target_is_gone_under_a_logged_in_session(clean):
    lab = clean
    good(lab.play("attach", **WISH))
    iqn = lab.storage.run("basename $(ls -d /sys/kernel/config/target/iscsi/iqn.*)").strip()
    lab.storage.run(f"targetcli /iscsi delete {iqn}", timeout=90)
    healed = good(lab.play("attach", **WISH))
    assert healed.changed
    one = volume(lab, "one")
    lab.compute.run("for i in $(seq 60); do grep -q LOGGED /sys/class/iscsi_session/*/state && exit 0; sleep 1; done; exit 1", timeout=90)
    write(lab.compute, "web-1", one["id"], 0x51)
    assert holds(lab.storage, one["path"], 0x51)
    lab.storage.run(f"targetcli /iscsi delete {iqn}", timeout=90)
    # QEMU lets a disk go when its last write is through: the kernel gives that up after replacement_timeout, 120 s
    bad(lab.play("detach", attachments=ON, volume_detach_timeout=5), "one -> web-1 | detach | ", "run the same play again")
    lab.compute.run("for i in $(seq 150); do grep -q offline /sys/class/scsi_device/*/device/state && exit 0; sleep 1; done; exit 1", timeout=200)
    good(lab.play("detach", attachments=ON))
    assert leftovers(lab) == KEPT


def test_a_domain_that_does_not_run_gets_its_disk_for_the_next_start(clean):
    lab = clean
    lab.compute.run("virsh destroy web-1")
    try:
        good(lab.play("attach", **WISH))
        assert "/dev/disk" in lab.compute.run("virsh domblklist --inactive web-1")
        assert good(lab.play("attach", **WISH)).changed == []
    finally:
        lab.compute.run("virsh start --paused web-1", timeout=90)
    one = volume(lab, "one")
    write(lab.compute, "web-1", one["id"], 0x52)
    assert holds(lab.storage, one["path"], 0x52)


def test_the_initiator_service_is_stopped(clean):
    lab = clean
    lab.compute.run("systemctl stop iscsid.socket iscsid.service")
    began = time.monotonic()
    try:
        bad(lab.play("attach", **WISH), "one -> web-1 | login | ", "iscsid")
    finally:
        lab.compute.run("systemctl start iscsid.socket")
    within(90, began)
    assert leftovers(lab) == KEPT


def test_a_device_that_somebody_else_holds_is_not_taken_away(clean):
    lab = clean
    good(lab.play("attach", **WISH))
    one = volume(lab, "one")
    link = device_of(lab.compute, "web-1", one["id"])
    lab.compute.run(f"(setsid sleep 600 <{link} >/dev/null 2>&1 & echo $! >/run/holder); sleep 0.5")
    try:
        bad(lab.play("detach", attachments=ON), "one -> web-1 | logout | ", "sleep")
        assert attachments(lab) == {"one": [("web-1", "compute-1", "detaching")]}
        assert len(leftovers(lab)["targets"]) == 1 and len(names(lab.compute, "ls /sys/class/iscsi_session"))
    finally:
        lab.compute.run("pkill -F /run/holder || kill $(cat /run/holder) || true")
    good(lab.play("detach", attachments=ON))
    assert leftovers(lab) == KEPT


def test_a_guest_that_does_not_let_go_keeps_disk_session_and_export(clean):
    lab = clean
    wish = [{"volume": "one", "instance": "guest-1"}]
    good(lab.play("attach", volumes=ONE, attachments=wish))
    lab.guest.run("refuse")
    try:
        bad(lab.play("detach", attachments=wish, volume_detach_timeout=8), "one -> guest-1 | detach | ")
        assert attachments(lab) == {"one": [("guest-1", "compute-1", "detaching")]}
        one = volume(lab, "one")
        lab.guest.run(f"write {guest_device(lab, one['id'])} 0 still-mine")
        assert bytes_at(lab.storage, one["path"], 10) == "still-mine"
    finally:
        lab.guest.run("comply")
    good(lab.play("detach", attachments=wish))
    assert leftovers(lab) == KEPT


def test_a_full_group_is_told_before_anything_is_made(lab):
    bad(lab.play("attach", volumes=[{"name": "one", "size_gib": 100000}], attachments=ON), "one -> web-1 | volume | ", "GiB")
    assert leftovers(lab) == CLEAN


TARGET_HOST = """
- hosts: storage
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: stackless.block.target_host
"""
SAVED = "sha256sum /etc/rtslib-fb-target/saveconfig.json"


def test_what_a_storage_host_starts_without_is_told_kept_and_brought_back(clean, tmp_path):
    """The restore at boot calls it a success: a target without its LUN, and the next save of others would lose it for good."""
    lab = clean
    role = tmp_path / "target_host.yml"
    role.write_text(TARGET_HOST)
    assert good(lab.play(str(role))).changed and good(lab.play(str(role))).changed == []
    good(lab.play("attach", **WISH))
    one = volume(lab, "one")
    saved = lab.storage.run(SAVED)
    lab.storage.run(f"lvchange -qq --setactivationskip y {one['path']}")
    lab.storage.reboot(hard=True)
    lab.storage.run("until systemctl is-active -q rtslib-fb-targetctl; do sleep 1; done", timeout=120)
    (found,) = lab.storage.module("iscsi_target_info", {"helper": "lio"})["targets"]
    assert found["incomplete"] == [f"LUN 0 ({one['path']})"]
    bad(lab.play("restore"), f"no file or block device {one['path']} for LUN 0")
    assert lab.storage.run(SAVED) == saved

    lab.storage.run(f"lvchange -qq --setactivationskip n {one['path']} && lvchange -qq -ay {one['path']}")
    assert good(lab.play("restore")).changed and good(lab.play("restore")).changed == []
    lab.compute.run("for i in $(seq 60); do grep -q LOGGED /sys/class/iscsi_session/*/state && exit 0; sleep 1; done; exit 1", timeout=90)
    write(lab.compute, "web-1", one["id"], 0x53)
    assert holds(lab.storage, one["path"], 0x53)
    good(lab.play("detach", attachments=ON))
    assert leftovers(lab) == KEPT
