# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the walk in the lab ask of its hosts: what there is, what has changed, which bytes stand where."""

from __future__ import annotations

import json
from typing import Any

from tests.rig.walk import plain

BACKEND = {"driver": "lvm", "pool": "volumes", "thin_pool": "thin"}

# Everything a walk can write to on a storage host, as far as two looks at an untouched host agree.
STORAGE = """
vgs --noheadings --nosuffix --units b -o vg_name,vg_seqno,vg_free
find /etc/lvm/archive /etc/lvm/backup -type f -exec sha256sum {} + 2>/dev/null | sort
find /sys/kernel/config/target/iscsi /sys/kernel/config/target/core -mindepth 1 -maxdepth 7 2>/dev/null | grep -v statistics | sort
sha256sum /etc/rtslib-fb-target/saveconfig.json 2>/dev/null
lsmod | grep -c target_core_iblock
"""

# The same of a compute host.
COMPUTE = """
find /etc/iscsi /var/lib/iscsi -exec stat -c '%n %a %Y' {} + 2>/dev/null | sort
ls /sys/class/iscsi_session 2>/dev/null | wc -l
find /etc/libvirt/qemu -name '*.xml' -exec sha256sum {} + | sort
for domain in $(virsh list --name); do virsh dumpxml "$domain"; done | grep -E '<disk|<source|<serial|stackless'
"""


def fingerprint(lab: Any) -> dict[str, str]:
    """What only a write changes, on every host."""
    hosts = {"storage": (lab.storage, STORAGE), "compute": (lab.compute, COMPUTE), "compute2": (lab.compute2, COMPUTE)}
    return {name: host.run(script, check=False) for name, (host, script) in hosts.items()}


def leftovers(lab: Any) -> dict[str, Any]:
    """What a walk that came to its end, forwards and back, may not leave behind; all empty when it is clean."""
    saved = lab.storage.run("cat /etc/rtslib-fb-target/saveconfig.json 2>/dev/null || echo '{}'")
    found = {
        "targets": names(lab.storage, "ls -d /sys/kernel/config/target/iscsi/iqn.* 2>/dev/null | xargs -rn1 basename"),
        "backstores": names(lab.storage, "ls -d /sys/kernel/config/target/core/*_*/*/ 2>/dev/null | xargs -rn1 basename"),
        "saved": sorted(target["wwn"] for target in json.loads(saved).get("targets", [])),
    }
    for name, host in (("compute", lab.compute), ("compute2", lab.compute2)):
        found[name] = {
            "sessions": names(host, "ls /sys/class/iscsi_session 2>/dev/null"),
            "nodes": names(host, "ls /etc/iscsi/nodes 2>/dev/null"),
            "scsi": names(host, "ls /sys/class/scsi_disk 2>/dev/null"),
            "maps": names(host, "ls -d /sys/block/dm-* 2>/dev/null"),
            "disks": names(host, "for d in $(virsh list --all --name); do virsh domblklist --inactive $d; virsh domblklist $d; done | grep -o '/dev/disk.*'"),
        }
    return {**found, "volumes": [v["name"] for v in volumes(lab)]}


CLEAN = {
    "targets": [], "backstores": [], "saved": [],
    "compute": {"sessions": [], "nodes": [], "scsi": [], "maps": [], "disks": []},
    "compute2": {"sessions": [], "nodes": [], "scsi": [], "maps": [], "disks": []},
    "volumes": [],
}  # fmt: skip


def names(host: Any, script: str) -> list[str]:
    return sorted(plain(line) for line in host.run(script, check=False).split())


def volumes(lab: Any) -> list[dict[str, Any]]:
    return lab.storage.module("cinder_volume_info", {"backend": BACKEND})["volumes"]


def volume(lab: Any, name: str) -> dict[str, Any]:
    (found,) = [v for v in volumes(lab) if v["name"] == name]
    return found


def attachments(lab: Any) -> dict[str, list[tuple[str, str, str]]]:
    """(instance, host, status) of every attachment, by volume."""
    return {v["name"]: sorted((a["instance"], a["host"], a["status"]) for a in v["attachments"]) for v in volumes(lab)}


def write(host: Any, instance: str, volume_id: str, byte: int, offset: str = "0") -> None:
    """Lets a domain's QEMU write 64 KiB of this byte through the disk it has; no guest system is needed for that."""
    monitor(host, instance, volume_id, f"write -P {byte} {offset} 64k")
    monitor(host, instance, volume_id, "flush")


def monitor(host: Any, instance: str, volume_id: str, command: str) -> str:
    return host.run(f"virsh qemu-monitor-command --hmp {instance} 'qemu-io -d ua-{volume_id} \"{command}\"'")


def holds(host: Any, path: str, byte: int, offset: int = 0) -> bool:
    """Whether these 64 KiB of a device are all this byte; read around the page cache."""
    script = f"dd if={path} bs=64k skip={offset // 65536} count=1 iflag=direct status=none | tr -d '\\{byte:03o}' | wc -c"
    return host.run(script).strip() == "0"


def bytes_at(host: Any, path: str, count: int, offset: int = 0) -> str:
    """So many bytes of a device as text, read around the page cache."""
    script = f"dd if={path} bs=4096 skip={offset // 4096} count=1 iflag=direct status=none | tail -c +{offset % 4096 + 1} | head -c {count}"
    return host.run(script, check=False)


def device_of(host: Any, instance: str, volume_id: str) -> str:
    """The path that a domain's definition names for a volume."""
    xml = host.run(f"virsh dumpxml {instance}")
    disk = next(text for text in xml.split("<disk ")[1:] if f"ua-{volume_id}" in text)
    return disk.partition("<source dev='")[2].partition("'")[0]


def guest_device(lab: Any, volume_id: str) -> str:
    """What the guest that runs calls the disk with this serial, of which virtio shows it 20 characters."""
    return lab.guest.wait_for(rf"^DISK-ADD (\w+) serial={volume_id[:20]} ").group(1)


def good(played: Any) -> Any:
    assert played.status == 0, played.output[-4000:]
    return played


def bad(played: Any, *words: str) -> Any:
    assert played.status != 0, "the play should have failed"
    for word in words:
        assert word in played.output, played.output[-4000:]
    assert "Traceback" not in played.output
    return played
