# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's XML there and back, and the limits and names that are checked before libvirt sees them."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Invalid
from ansible_collections.stackless.block.plugins.module_utils._hosts import connector, domain_xml
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Disk, Record, SecretKey, Source
from ansible_collections.stackless.block.plugins.module_utils._model.disk import check_iotune, check_iqn, device_name, guest_serial

EVIL = "a' b\"<c>&ü/../"
FILE = Disk("vdb", "virtio", Source("file", path="/srv/" + EVIL), alias="ua-1", serial="1", cache="none")
TARGET, INITIATOR = "iqn.2026-01.org.example:a", "iqn.2026-01.org.example:c"
LUN = Disk("sdb", "scsi", Source("network", protocol="iscsi", target_iqn=TARGET, lun=3, portals=(("::1", 3261),), initiator=INITIATOR, username=EVIL))
UUID = "5c000000-0000-4000-8000-000000000001"
IMAGE = Source("network", "pool/ns/a", "rbd", portals=(("192.0.2.1", 6789), ("::1", 6790)), username="cinder", secret_uuid=UUID, config="/etc/c.conf")
RBD = Disk("sdc", "scsi", IMAGE, discard="unmap")
FULL = dataclasses.replace(FILE, io="native", discard="unmap", read_only=True, shareable=True, iotune=(("read_bytes_sec", 5), ("total_iops_sec", 7)))
BLOCK = Disk("vdb", "virtio", Source("block", path="/dev/vg/a"))


def domain(*disks: str) -> str:
    return f"<domain><devices>{''.join(disks)}</devices></domain>"


@pytest.mark.parametrize("disk", [FILE, LUN, FULL, BLOCK, RBD], ids=["file", "lun", "full", "block", "rbd"])
def test_a_disk_comes_back_as_it_went(disk: Disk) -> None:
    assert domain_xml.disks_in(domain(domain_xml.disk_xml(disk))) == [disk]


@pytest.mark.parametrize("disk", [FILE, LUN, FULL, RBD], ids=["file", "lun", "full", "rbd"])
@pytest.mark.parametrize("before", [FILE, LUN, FULL, RBD], ids=["from file", "from lun", "from full", "from rbd"])
def test_an_edited_disk_has_the_new_attributes_and_keeps_what_we_do_not_know(before: Disk, disk: Disk) -> None:
    element = ET.fromstring(domain_xml.disk_xml(before))
    address = ET.SubElement(element, "address", {"type": "pci", "slot": "0x07"})
    ET.SubElement(element, "boot", {"order": "1"})
    element.find("driver").set("queues", "4")
    edited = ET.fromstring(domain_xml.edited_xml(element, dataclasses.replace(disk, device=before.device, bus=before.bus)))
    seen = domain_xml.disk_from(edited)
    for name in ("cache", "io", "discard", "read_only", "shareable", "iotune"):
        assert getattr(seen, name) == getattr(disk, name)
    assert seen.source == disk.source and len(edited.findall("source")) == 1
    assert edited.find("address").attrib == address.attrib and edited.find("boot") is not None
    assert edited.find("driver").get("queues") == "4"


def test_no_source_probes_a_format_or_carries_a_password() -> None:
    element = ET.fromstring(domain_xml.disk_xml(LUN))
    assert element.find("driver").attrib["type"] == "raw"
    assert element.find("source/auth/secret").attrib == {"type": "iscsi", "usage": "iqn.2026-01.org.example:a"}
    assert ET.fromstring(domain_xml.disk_xml(RBD)).find("source/auth/secret").attrib == {"type": "ceph", "uuid": UUID}


@pytest.mark.parametrize(
    ("xml", "identity"),
    [
        (f"<disk type='network'><source protocol='iscsi' name='{TARGET}/12'><host name='h'/></source></disk>", ("iscsi", TARGET, 12)),
        (f"<disk type='network'><source protocol='iscsi' name='{TARGET}'/></disk>", ("iscsi", TARGET, 0)),
        ("<disk type='network'><source protocol='rbd' name='pool/a'><host name='h' port='6789'/></source></disk>", ("rbd", "pool/a")),
        ("<disk type='network'><auth username='u'><secret type='ceph' usage='s'/></auth><source protocol='rbd' name='p/i'/></disk>", ("rbd", "p/i")),
        ("<disk type='volume'><source pool='p' volume='v'/><target dev='vda' bus='virtio'/></disk>", (None, None)),
        ("<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>", (None, None)),
    ],
)
def test_disks_of_others_are_read_without_trouble(xml: str, identity: tuple[object, ...]) -> None:
    assert domain_xml.disks_in(domain(xml))[0].source.identity == identity


def test_a_disk_is_found_by_alias_only_when_the_alias_is_a_users() -> None:
    ours = domain_xml.disk_xml(FILE)
    theirs = domain_xml.disk_xml(dataclasses.replace(FILE, alias="virtio-disk0", device="vdc"))
    assert domain_xml.disk_element(domain(ours, theirs), "ua-1").find("target").get("dev") == "vdb"
    assert domain_xml.disk_element(domain(ours, theirs), "vdc").find("alias").get("name") == "virtio-disk0"
    for name in ("vdb", "virtio-disk0", "ua-", "ua-10"):
        assert domain_xml.disk_element(domain(ours, theirs), name) is None


def test_notes_come_back_as_they_went() -> None:
    records = [Record("ua-1", "1", "vdb", "virtio", EVIL, "a-1", "iqn.2026-01.org.example:a", 0), Record("ua-2")]
    xml = domain_xml.records_xml(reversed(records))
    assert domain_xml.records_from(xml) == records
    assert domain_xml.records_xml([]) is None and domain_xml.records_from(None) == []


def test_notes_of_a_domain_are_those_of_our_namespace() -> None:
    ours = f"<s:disks xmlns:s='{domain_xml.NAMESPACE}'><s:disk alias='ua-1' lun='2' later='x'/><s:other alias='ua-3'/></s:disks>"
    theirs = "<n:disks xmlns:n='http://else'><n:disk alias='ua-2'/></n:disks>"
    assert domain_xml.records_in(f"<domain><metadata>{theirs}{ours}</metadata></domain>") == [Record("ua-1", lun=2)]
    assert domain_xml.records_in("<domain/>") == []


def test_only_a_secret_with_our_mark_is_ours() -> None:
    assert domain_xml.secret_is_ours(domain_xml.secret_xml(SecretKey("iscsi", "iqn.2026-01.org.example:a")))
    ceph = domain_xml.secret_xml(SecretKey("ceph", UUID))
    assert domain_xml.secret_is_ours(ceph) and ET.fromstring(ceph).findtext("uuid") == UUID
    assert not domain_xml.secret_is_ours("<secret><description>mine</description></secret>")
    assert not domain_xml.secret_is_ours("<secret/>")


# ---- checks ----------------------------------------------------------------------------------------------------------


def test_limits_that_are_none_are_left_out() -> None:
    assert check_iotune({"total_bytes_sec": 5, "read_bytes_sec": 0, "write_iops_sec": None}) == (("total_bytes_sec", 5),)
    assert check_iotune({}) == () and check_iotune(None) is None


@pytest.mark.parametrize(
    "limits",
    [
        {"total_bytes_sec": -1},
        {"total_bytes_sec": 1, "write_bytes_sec": 1},
        {"total_iops_sec": 1, "read_iops_sec": 1},
        {"total_iops_sec": 1, "total_iops_sec_max_length": 2},
        {"read_bytes_sec_max": 2},
        {"size_iops_sec": 4096, "total_bytes_sec": 1},
    ],
)
def test_limits_that_qemu_would_refuse(limits: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="iotune"):
        check_iotune(limits)


@pytest.mark.parametrize(("index", "name"), [(0, "vda"), (25, "vdz"), (26, "vdaa"), (51, "vdaz"), (52, "vdba"), (701, "vdzz")])
def test_device_names(index: int, name: str) -> None:
    assert device_name("virtio", index) == name


def test_virtio_shows_twenty_characters() -> None:
    long = "0123456789012345678901234567890123456"[:36]
    assert guest_serial(dataclasses.replace(FILE, serial=long)) == long[:20]
    assert guest_serial(dataclasses.replace(LUN, serial=long)) == long


@pytest.mark.parametrize("name", ["", "iqn", "iqn.26-01.org.example:a", TARGET.upper(), TARGET + " b", TARGET + "a" * 300, None])
def test_bad_iscsi_names(name: str | None) -> None:
    with pytest.raises(Invalid, match="give an iSCSI name such as"):
        check_iqn(name, "name")


# ---- the connector ---------------------------------------------------------------------------------------------------


def test_a_derived_initiator_is_plain_where_it_can_be_and_always_another() -> None:
    assert connector.derived_initiator("compute-1.example") == "iqn.2026-01.org.stackless:compute-1.example"
    hosts = ["Compute-1", "compute_1", "compute 1", "größe", "grösse", "雪", "x" * 300, "compute-1"]
    names = [connector.derived_initiator(host) for host in hosts]
    assert len(set(names)) == len(hosts) and names == [connector.derived_initiator(host) for host in hosts]
    for name in names:
        check_iqn(name, "derived name")


def test_the_initiator_of_open_iscsi(tmp_path) -> None:
    path = tmp_path / "initiatorname.iscsi"
    assert connector.configured_initiator(str(path)) is None
    path.write_text("## a comment\n#InitiatorName=iqn.no\nInitiatorName=iqn.1993-08.org.debian:01:abc\n")
    assert connector.configured_initiator(str(path)) == "iqn.1993-08.org.debian:01:abc"
    path.write_text("GenerateName=yes\n")
    assert connector.configured_initiator(str(path)) is None


def test_source_addresses() -> None:
    assert connector.source_address("127.0.0.1") == "127.0.0.1"
    assert connector.source_address("::1") == "::1"
    assert connector.source_address(None)


def test_programs_that_run() -> None:
    comm = open("/proc/self/comm", encoding="utf-8").read().strip()
    assert connector.runs(comm) and not connector.runs(comm[:-1] + "\x01")
