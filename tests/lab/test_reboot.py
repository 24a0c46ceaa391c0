# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that restart: exports come back with the storage host, sessions of attached volumes with our playbook, those of detached ones never."""

from __future__ import annotations

import re

from tests.rig.lab.scene import attachments, bytes_at, good, guest_device, leftovers, names, volume

VOLUMES = [{"name": "kept", "size_gib": 1}, {"name": "given-back", "size_gib": 1}]
KEPT = {"volume": "kept", "instance": "guest-1"}
GIVEN_BACK = {"volume": "given-back", "instance": "web-2", "bus": "scsi"}


def test_a_storage_host_restarts_under_a_writing_guest(lab):
    good(lab.play("attach", volumes=VOLUMES, attachments=[KEPT, GIVEN_BACK]))
    kept = volume(lab, "kept")
    device = guest_device(lab, kept["id"])
    lab.guest.run(f"count {device} 8")
    lab.storage.reboot(hard=True)  # it is back before open-iscsi's replacement_timeout of 120 s ends, so nothing is lost
    written, errors = re.fullmatch(r"(\d+) written, (\d+) errors", lab.guest.run("stop", timeout=150).strip()).groups()
    assert int(written) and int(errors) == 0
    lab.guest.run(f"write {device} 16 after-the-storm")
    assert bytes_at(lab.storage, kept["path"], 15, 16 * 512) == "after-the-storm"
    assert good(lab.play("attach", attachments=[KEPT, GIVEN_BACK])).changed == []


def test_a_compute_host_restarts_and_recovers_what_is_attached_and_nothing_else(lab):
    good(lab.play("detach", attachments=[GIVEN_BACK]))
    lab.compute.reboot(hard=True)
    assert names(lab.compute, "ls /sys/class/iscsi_session 2>/dev/null") == [], "somebody logged in by himself"
    recovered = good(lab.play("recover"))
    told = "\n".join(recovered.told())
    assert "kept -> guest-1" in told and "given-back" not in told
    assert attachments(lab) == {"kept": [("guest-1", "compute-1", "attached")], "given-back": []}
    assert volume(lab, "kept")["id"] in lab.compute.run("ls /etc/iscsi/nodes") and len(names(lab.compute, "ls /sys/class/iscsi_session")) >= 1
    lab.compute.run("virsh start guest-1", timeout=90)
    device = guest_device(lab, volume(lab, "kept")["id"])
    assert lab.guest.run(f"read {device} 16").strip() == "after-the-storm"
    assert good(lab.play("recover")).changed == []
    good(lab.play("detach", attachments=[KEPT]))
    found = leftovers(lab)
    assert found["compute"]["sessions"] == [] and found["targets"] == []
