# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""Disks and their notes as libvirt's XML, there and back. Nothing here talks to libvirt.

Built and taken apart with ElementTree only, so that no text of a user's can end an attribute.
"""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

from .._model.disk import IOTUNE_KEYS, Disk, Iotune, Record, SecretKey, Source

NAMESPACE = "https://stackless.org/xmlns/block/1"
PREFIX = "stackless"
MARK = "made by stackless.block for its disks"

_DRIVER = ("cache", "io", "discard")
_FLAGS = {"read_only": "readonly", "shareable": "shareable"}
_RECORD_INTS = ("lun",)
_LOCAL = {"file": "file", "block": "dev"}  # the attribute of <source> that names a path
_NAMED_BY = {"iscsi": "usage", "ceph": "uuid"}  # the attribute of <secret> that names it


def disks_in(domain_xml: str) -> t.List[Disk]:
    """All disks of a domain, CD-ROM and floppy drives too."""
    return [disk_from(element) for element in ET.fromstring(domain_xml).findall("devices/disk")]


def disk_element(domain_xml: str, name: str) -> t.Optional[ET.Element]:
    """The <disk> with this Disk.key, as the domain has it."""
    elements = ET.fromstring(domain_xml).findall("devices/disk")
    return next((element for element in elements if disk_from(element).key == name), None)


def disk_from(element: ET.Element) -> Disk:
    driver = _attributes(element, "driver")
    target = _attributes(element, "target")
    return Disk(
        device=target.get("dev", ""),
        bus=target.get("bus", ""),
        source=_source_from(element),
        alias=_attributes(element, "alias").get("name"),
        serial=element.findtext("serial"),
        cache=driver.get("cache"),
        io=driver.get("io"),
        discard=driver.get("discard"),
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        iotune=_iotune_from(element.find("iotune")),
        format=driver.get("type"),
        kind=element.get("device", "disk"),
    )


def _attributes(element: ET.Element, path: str) -> t.Dict[str, str]:
    found = element.find(path)
    return {} if found is None else found.attrib


def _source_from(element: ET.Element) -> Source:
    kind = element.get("type", "")
    source = _attributes(element, "source")
    protocol = source.get("protocol")
    if protocol == "iscsi":
        return _iscsi_from(element, source.get("name", ""))
    path = next((source[name] for name in ("file", "dev", "name", "dir") if name in source), None)
    if protocol == "rbd":
        return _rbd_from(element, path)
    return Source(type=kind, path=path, protocol=protocol)


def _iscsi_from(element: ET.Element, name: str) -> Source:
    """A LUN that QEMU logs in to; its name is the target's and, unless it is 0, a slash and its number."""
    target_iqn, _slash, lun = name.rpartition("/")
    return Source(
        type="network",
        protocol="iscsi",
        target_iqn=target_iqn or name,
        lun=int(lun) if target_iqn and lun.isdigit() else 0,
        portals=_hosts_from(element, 3260),
        initiator=_attributes(element, "source/initiator/iqn").get("name"),
        username=_auth_from(element, "").get("username"),
    )


def _rbd_from(element: ET.Element, image: t.Optional[str]) -> Source:
    return Source(
        type="network",
        protocol="rbd",
        path=image,
        portals=_hosts_from(element, 6789),
        username=_auth_from(element, "").get("username"),
        secret_uuid=_auth_from(element, "/secret").get("uuid"),
        config=_attributes(element, "source/config").get("file"),
    )


def _hosts_from(element: ET.Element, port: int) -> t.Tuple[t.Tuple[str, int], ...]:
    hosts = [host.attrib for host in element.findall("source/host")]
    return tuple((host.get("name", ""), int(host.get("port", port))) for host in hosts)


def _auth_from(element: ET.Element, below: str) -> t.Dict[str, str]:
    """What <auth>, or an element below it, says; libvirt takes it in <disk> as well, where older definitions have it."""
    return _attributes(element, "source/auth" + below) or _attributes(element, "auth" + below)


def _iotune_from(element: t.Optional[ET.Element]) -> Iotune:
    found = {child.tag: int(child.text or 0) for child in (element if element is not None else ()) if child.tag in IOTUNE_KEYS}
    return tuple(sorted((key, value) for key, value in found.items() if value))


def disk_xml(disk: Disk) -> str:
    """The <disk> of one of our disks: raw, whatever its content looks like."""
    element = ET.Element("disk", {"type": disk.source.type, "device": "disk"})
    ET.SubElement(element, "driver", {"name": "qemu", "type": "raw"})
    element.append(_source_element(disk.source))
    ET.SubElement(element, "target", {"dev": disk.device, "bus": disk.bus})
    if disk.serial:
        ET.SubElement(element, "serial").text = disk.serial
    if disk.alias:
        ET.SubElement(element, "alias", {"name": disk.alias})
    _edit(element, disk)
    return ET.tostring(element, encoding="unicode")


def edited_xml(element: ET.Element, disk: Disk) -> str:
    """An existing <disk> with the attributes of `disk`; what this collection does not know of stays as it is."""
    if _source_from(element) != disk.source:
        for old in element.findall("source") + element.findall("auth"):
            element.remove(old)
        element.set("type", disk.source.type)
        element.append(_source_element(disk.source))
    _edit(element, disk)
    return ET.tostring(element, encoding="unicode")


def _source_element(source: Source) -> ET.Element:
    if source.type != "network":
        return ET.Element("source", {_LOCAL[source.type]: source.path or ""})
    name = f"{source.target_iqn}/{source.lun}" if source.protocol == "iscsi" else str(source.path)
    element = ET.Element("source", {"protocol": str(source.protocol), "name": name})
    for ip, port in source.portals:
        ET.SubElement(element, "host", {"name": ip, "port": str(port)})
    if source.config:
        ET.SubElement(element, "config", {"file": source.config})
    if source.username:
        element.append(_auth_element(source.username, source.secret))
    if source.initiator:
        ET.SubElement(ET.SubElement(element, "initiator"), "iqn", {"name": source.initiator})
    return element


def _auth_element(username: str, secret: t.Optional[SecretKey]) -> ET.Element:
    element = ET.Element("auth", {"username": username})
    if secret:
        ET.SubElement(element, "secret", {"type": secret.type, _NAMED_BY[secret.type]: secret.name})
    return element


def _edit(element: ET.Element, disk: Disk) -> None:
    driver = element.find("driver")
    if driver is None:
        driver = ET.SubElement(element, "driver", {"name": "qemu", "type": "raw"})
    for name in _DRIVER:
        driver.attrib.pop(name, None)
    driver.attrib.update({name: getattr(disk, name) for name in _DRIVER if getattr(disk, name)})
    for old in [child for tag in (*_FLAGS.values(), "iotune") for child in element.findall(tag)]:
        element.remove(old)
    for tag in (tag for name, tag in _FLAGS.items() if getattr(disk, name)):
        ET.SubElement(element, tag)
    limits = ET.SubElement(element, "iotune") if disk.iotune else element
    for key, value in disk.iotune:
        ET.SubElement(limits, key).text = str(value)


# ---- notes in <metadata> ---------------------------------------------------------------------------------------------


def records_in(domain_xml: str) -> t.List[Record]:
    """The notes of a whole domain."""
    found = ET.fromstring(domain_xml).find(f"metadata/{{{NAMESPACE}}}disks")
    return [] if found is None else _records(found)


def records_from(metadata_xml: t.Optional[str]) -> t.List[Record]:
    """The notes in the element that libvirt keeps for our namespace, which it hands out without the namespace."""
    return _records(ET.fromstring(metadata_xml)) if metadata_xml else []


def _records(disks: ET.Element) -> t.List[Record]:
    return [_record_from(child.attrib) for child in disks if child.tag.rpartition("}")[2] == "disk" and child.get("alias")]


def _record_from(attributes: t.Dict[str, str]) -> Record:
    known = {name: attributes[name] for name in Record.__dataclass_fields__ if name in attributes}
    return Record(**{name: int(value) if name in _RECORD_INTS else value for name, value in known.items()})  # type: ignore[arg-type]


def records_xml(records: t.Iterable[Record]) -> t.Optional[str]:
    """The element for these notes, ordered by alias; None when there are none."""
    element = ET.Element("disks")
    for record in sorted(records, key=lambda record: record.alias):
        noted = {name: getattr(record, name) for name in Record.__dataclass_fields__}
        ET.SubElement(element, "disk", {name: str(value) for name, value in noted.items() if value is not None})
    return ET.tostring(element, encoding="unicode") if len(element) else None


def secret_xml(key: SecretKey) -> str:
    element = ET.Element("secret", {"ephemeral": "no", "private": "no"})
    ET.SubElement(element, "description").text = MARK
    usage = ET.SubElement(element, "usage", {"type": key.type})
    if key.type == "ceph":
        ET.SubElement(element, "uuid").text = key.name
        ET.SubElement(usage, "name").text = f"stackless.block {key.name}"
    else:
        ET.SubElement(usage, "target").text = key.name
    return ET.tostring(element, encoding="unicode")


def secret_is_ours(xml: str) -> bool:
    return ET.fromstring(xml).findtext("description") == MARK
