# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The walk that production takes, in the kernel: LVM, LIO, open-iscsi, libvirt, by the playbooks. Bytes are followed all the way.

One story in the order of its tests: each goes on where the one before it ended. That second runs change nothing is shown by
molecule's scenario `lab`.
"""

from __future__ import annotations

import re

from tests.rig.lab.scene import BACKEND, CLEAN, attachments, bytes_at, device_of, fingerprint, good, guest_device, holds, leftovers, volume, write
from tests.rig.lab.watch import watched

GIB = 1 << 30
# two of one size: what one is given must never be the other's
VOLUMES = [{"name": "db-data", "size_gib": 1}, {"name": "db-log", "size_gib": 1}]
ATTACHMENTS = [{"volume": "db-data", "instance": "guest-1"}, {"volume": "db-log", "instance": "web-1", "bus": "scsi"}]
WISH = {"volumes": VOLUMES, "attachments": ATTACHMENTS}


def plain(told):
    """Without what nobody can predict: random ids, CHAP names and what is made of them."""
    return [re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|6001405[0-9a-f]{25}", "ID", line) for line in told]


def test_a_check_predicts_the_walk_and_no_secret_is_seen_on_it(lab):
    before = fingerprint(lab)
    predicted = good(lab.play("attach", check=True, **WISH))
    assert fingerprint(lab) == before, "the check wrote something"
    with watched(lab.storage, lab.compute):
        real = good(lab.play("attach", "-vvv", **WISH))
    assert predicted.changed == real.changed
    assert plain(predicted.told()) == plain(real.told())
    assert attachments(lab) == {"db-data": [("guest-1", "compute-1", "attached")], "db-log": [("web-1", "compute-1", "attached")]}
    secrets = re.findall(r"^node\.session\.auth\.password = (\S+)$", lab.compute.run("find /etc/iscsi/nodes -type f -exec cat {} +"), re.MULTILINE)
    assert secrets and all(len(secret) >= 12 for secret in secrets)
    for secret in secrets:
        assert secret not in real.output
        for host in (lab.storage, lab.compute):
            seen = host.run("cat /run/seen; journalctl -b --no-pager -o cat")
            assert "python3" in seen and secret not in seen
    assert lab.compute.run("find /etc/iscsi/nodes -type f -perm /077") == ""
    assert lab.storage.run("find /etc/rtslib-fb-target -name 'saveconfig*' -perm /077") == ""


def test_what_a_guest_writes_is_on_its_own_volume_and_no_other(lab):
    data, log = volume(lab, "db-data"), volume(lab, "db-log")
    lab.guest.run(f"write {guest_device(lab, data['id'])} 0 first-light")
    write(lab.compute, "web-1", log["id"], 0x5A)
    assert bytes_at(lab.storage, data["path"], 11) == "first-light"
    assert holds(lab.storage, log["path"], 0x5A) and not holds(lab.storage, data["path"], 0x5A)


def test_a_running_guest_sees_its_volume_grow(lab):
    data = volume(lab, "db-data")
    assert good(lab.play("extend", volumes=[{"name": "db-data", "size_gib": 2}])).changed
    assert volume(lab, "db-data")["size_bytes"] == 2 * GIB
    assert lab.guest.wait_for(rf"^DISK-SIZE {guest_device(lab, data['id'])} .*size={2 * GIB}$")


def test_a_detach_is_predicted_too_and_leaves_nothing_but_the_volumes(lab):
    predicted = good(lab.play("detach", check=True, attachments=ATTACHMENTS))
    real = good(lab.play("detach", attachments=ATTACHMENTS))
    assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())
    assert leftovers(lab) == {**CLEAN, "volumes": ["db-data", "db-log"]}


OTHERWISE = {
    "volume_attach_iqn_prefix": "iqn.2030-01.org.example.elsewhere",
    "iscsi_acl": {"mutual_username": "storage-1", "mutual_password": "the-target-itself"},
    "iscsi_export": {"attributes": {"default_cmdsn_depth": 128}, "lun": {"discard": False}},
}


def test_the_bytes_are_there_on_another_host_that_is_served_otherwise(lab):
    """The way back does not know that: what it takes down stands in the record."""
    log = volume(lab, "db-log")
    good(lab.play("attach", attachments=[{"volume": "db-log", "instance": "db-1", "bus": "scsi"}], **OTHERWISE))
    assert attachments(lab)["db-log"] == [("db-1", "compute-2", "attached")]
    assert holds(lab.compute2, device_of(lab.compute2, "db-1", log["id"]), 0x5A)
    target = f"/sys/kernel/config/target/iscsi/{OTHERWISE['volume_attach_iqn_prefix']}:volume-{log['id']}/tpgt_1"
    assert lab.storage.run(f"cat {target}/attrib/default_cmdsn_depth {target}/lun/lun_0/*/attrib/emulate_tpu").split() == ["128", "0"]
    assert "node.session.auth.username_in = storage-1" in lab.compute2.run("find /etc/iscsi/nodes -type f -exec cat {} +")
    good(lab.play("detach", attachments=[{"volume": "db-log", "instance": "db-1"}]))


def test_who_gets_the_space_next_reads_no_old_byte(lab):
    volumes = lab.storage.module("cinder_volume", {"backend": BACKEND, "state": "absent", "volumes": [{"name": v["name"]} for v in VOLUMES]})
    assert not volumes.get("failed"), volumes["msg"]
    assert leftovers(lab) == CLEAN
    lab.storage.module("cinder_volume", {"backend": BACKEND, "name": "next", "size_gib": 1})
    path = volume(lab, "next")["path"]
    assert lab.storage.run(f"cmp -n {256 << 20} {path} /dev/zero && echo only zeros", timeout=240).strip() == "only zeros"
    lab.storage.module("cinder_volume", {"backend": BACKEND, "name": "next", "state": "absent"})
