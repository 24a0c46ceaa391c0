# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab is what it says it is: three hosts, wires that can be cut, a guest that answers, and a way back to the beginning."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rig.collection import ROOT
from tests.rig.lab.cache import LabError
from tests.rig.lab.host import Host
from tests.rig.lab.lab import Lab
from tests.rig.stage import processes_with

DISK = """\
<disk type='block' device='disk'>
  <driver name='qemu' type='raw' cache='none'/>
  <source dev='{device}'/>
  <target dev='vda' bus='virtio'/>
  <serial>a-serial</serial>
</disk>
"""


def reaches(host: Host, address: str) -> bool:
    return "1 received" in host.run(f"ping -c 1 -W 2 {address}", check=False)


def reaches_again(host: Host, address: str) -> bool:
    """With patience: a wire that was healed, and a machine that has little of the processors, lose a packet or two."""
    return any(reaches(host, address) for attempt in range(8))


def test_the_storage_host_has_a_volume_group_with_a_thin_pool_and_room_beside_it(lab: Lab) -> None:
    assert lab.storage.run("lvs --noheadings -o lv_name,lv_attr --separator , volumes").split() == ["thin,twi-a-tz--"]
    assert float(lab.storage.run("vgs --noheadings --nosuffix --units g -o vg_free volumes")) >= 4


def test_the_storage_host_has_the_kernels_target_and_nothing_exported(lab: Lab) -> None:
    assert lab.storage.run("systemctl is-enabled rtslib-fb-targetctl.service").strip() == "enabled"
    assert lab.storage.run("ls /sys/kernel/config/target/iscsi 2>/dev/null | grep ^iqn || echo none").strip() == "none"


def test_the_compute_hosts_can_log_in_and_have_multipath_at_hand(lab: Lab) -> None:
    for host in (lab.compute, lab.compute2):
        assert host.run("cat /etc/iscsi/initiatorname.iscsi").strip() == f"InitiatorName=iqn.2026-01.org.example:{host.name}"
        assert host.run("systemctl is-active iscsid.socket multipathd.service libvirtd.service", check=False).split() == ["active", "inactive", "active"]
        assert "No active sessions" in host.run("iscsiadm -m session 2>&1", check=False)


def test_domains_are_there(lab: Lab) -> None:
    assert lab.compute.run("virsh list --state-paused --name").split() == ["web-1", "web-2", "web-3", "web-4"]
    assert lab.compute.run("virsh list --state-running --name").split() == ["guest-1"]
    assert lab.compute2.run("virsh list --name").split() == ["db-1", "db-2"]


def test_every_host_reaches_both_portals_and_nothing_outside(lab: Lab) -> None:
    for host in (lab.compute, lab.compute2):
        assert all(reaches_again(host, address) for address in lab.storage.addresses + lab.storage.addresses6)
    assert all(host.run("ip route show default; ip -6 route show default") == "" for host in lab.hosts)


def test_a_host_that_is_cut_off_hears_nothing_and_the_others_do_not_notice(lab: Lab) -> None:
    lab.cut(lab.compute)
    assert not reaches(lab.compute, lab.storage.address)
    assert reaches_again(lab.compute2, lab.storage.address)
    lab.heal(lab.compute)
    assert reaches_again(lab.compute, lab.storage.address)


def test_one_of_two_addresses_can_be_cut(lab: Lab) -> None:
    first, second = lab.storage.addresses
    lab.cut(lab.storage, second)
    assert reaches_again(lab.compute, first)
    assert not reaches(lab.compute, second)
    lab.heal(lab.storage, second)
    assert reaches_again(lab.compute, second)


def test_a_script_that_fails_is_told_with_all_it_printed(lab: Lab) -> None:
    with pytest.raises(AssertionError, match=r"(?s)ended with 1.*one.*two"):
        lab.compute.run("echo one; echo two >&2; false; echo three")
    assert lab.compute.run("false; cat", check=False, input="four") == "four"
    with pytest.raises(AssertionError, match="time is over"):
        lab.compute.run("sleep 60", timeout=1)


def test_a_module_of_the_checkout_runs_there(lab: Lab) -> None:
    answer = lab.compute.module("connector_info", {})
    assert answer["connector"]["host"] == "compute-1"
    assert "guest-1" in [domain["name"] for domain in answer["domains"]]


def test_playbooks_run_on_its_inventory(lab: Lab, tmp_path: Path) -> None:
    playbook = tmp_path / "who.yml"
    playbook.write_text("[{hosts: all, gather_facts: false, tasks: [{name: Who, ansible.builtin.command: hostname, changed_when: false}]}]")
    played = lab.play(str(playbook))
    assert played.status == 0, played.output
    assert sorted(task["result"]["stdout"] for task in played.tasks) == ["compute-1", "compute-2", "storage-1"]


def test_the_guest_reads_writes_counts_and_lets_go(lab: Lab) -> None:
    lab.compute.run("vgcreate -q spare /dev/vdb && lvcreate -q -L 16M -n disk spare")
    lab.compute.run("cat > /root/disk.xml && virsh attach-device guest-1 /root/disk.xml", input=DISK.format(device="/dev/spare/disk"))
    lab.guest.wait_for(rf"^DISK-ADD vda serial=a-serial size={16 << 20}$")
    lab.guest.run("write vda 5 it's here")
    assert lab.guest.run("read vda 5") == "it's here\n"
    assert lab.compute.run("dd if=/dev/spare/disk bs=512 skip=5 count=1 iflag=direct status=none").rstrip("\0") == "it's here"
    with pytest.raises(AssertionError, match="write error 1"):
        lab.guest.run(f"write vda {32 << 20} beyond the end")
    lab.compute.run("lvextend -q -L 32M spare/disk && virsh blockresize guest-1 vda 32M")
    lab.guest.wait_for(rf"^DISK-SIZE vda serial=a-serial size={32 << 20}$")
    lab.guest.run("count vda 7")
    lab.guest.run("refuse")
    lab.compute.run("virsh detach-device guest-1 /root/disk.xml", check=False)
    assert int(lab.guest.run("read vda 7")) > 0
    lab.guest.run("comply")
    lab.guest.wait_for(r"^DISK-DEL vda$")
    assert "/dev/spare/disk" not in lab.compute.run("virsh domblklist guest-1")


def test_a_frozen_host_is_silent_and_goes_on(lab: Lab) -> None:
    before = lab.compute2.boot_id()
    lab.compute2.freeze()
    assert not reaches(lab.compute, lab.compute2.address)
    lab.compute2.thaw()
    assert lab.compute2.boot_id() == before


def test_a_host_boots_again_with_what_it_had_on_disk(lab: Lab) -> None:
    lab.storage.run("lvcreate -q -L 16M -n kept volumes; echo kept > /root/kept; sync")
    before = lab.storage.boot_id()
    lab.storage.reboot(hard=True)
    assert lab.storage.boot_id() != before
    assert lab.storage.run("cat /root/kept; lvs --noheadings -o lv_name volumes").split() == ["kept", "kept", "thin"]
    assert reaches_again(lab.compute, lab.storage.address)


def test_a_reset_forgets_everything(lab: Lab) -> None:
    lab.storage.run("lvcreate -q -L 16M -n forgotten volumes")
    lab.cut(lab.compute)
    began = time.monotonic()
    lab.reset()
    assert time.monotonic() - began < 60
    assert lab.storage.run("lvs --noheadings -o lv_name volumes").split() == ["thin"]
    assert reaches_again(lab.compute, lab.storage.address)
    assert abs(time.time() - float(lab.compute.run("date +%s"))) < 10


def test_a_lab_in_use_is_not_taken_over(lab: Lab) -> None:
    command = [sys.executable, "-m", "tests.rig.lab", "--name", lab.name, "up"]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert other.returncode == 1
    assert f"the lab {lab.name} is in use by process" in other.stderr
    assert reaches_again(lab.compute, lab.storage.address)


def test_nothing_outlives_a_killed_run(lab: Lab) -> None:
    name = f"{lab.name}-killed"
    program = f"from tests.rig.lab.lab import Lab; lab = Lab({name!r}); lab.start(); print(lab.hosts[0].machine.sockets, flush=True); input()"
    run = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with run:
        sockets = run.stdout.readline().strip()
        assert len(processes_with(f"{sockets}/storage-1.qmp")) == 1
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes_with(f"{sockets}/") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in processes_with(f"{sockets}/") if "qemu" in Path(f"/proc/{pid}/cmdline").read_text()] == []
    with pytest.raises(LabError, match="has ended"):
        Lab(name).find()
    Lab(name).stop()
    assert not Path(sockets).exists()
