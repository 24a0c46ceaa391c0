# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From the shape in which rtslib saves a target to a target of the model. Live and saved ones have the same shape."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from .._model.data import Secret
from .._model.target import Acl, Attributes, Lun, Portal, Target, ordered
from . import Look
from ._lio_tree import Shape, StoreName, store_key

READ_ONLY, WRITABLE = "read-only", "read-write"  # names of a LUN's link, which tell how it is to be mapped
EVERYBODY = "everywhere"  # stands for the demo mode: who has no ACL gets one at login


def target_of(shape: Shape, stores: t.Dict[StoreName, Shape], look: Look) -> Target:
    """The target, by its TPG 1. The size and the write cache of a block device are not in the shape."""
    tpg = first_tpg(shape)
    luns = tuple(_lun(lun, stores) for lun in tpg.get("luns", []))
    read_only = {lun.lun: lun.read_only for lun in luns}
    settings = {**tpg.get("attributes", {}), **tpg.get("parameters", {})}
    found = Target(
        iqn=shape["wwn"],
        portals=frozenset(portal_of(portal["ip_address"], portal["port"]) for portal in tpg.get("portals", [])),
        luns=luns,
        acls=tuple(_acl(acl, read_only, settings.get("authentication", 1) != 0) for acl in tpg.get("node_acls", [])),
        addresses=frozenset([EVERYBODY] if settings.get("generate_node_acls") else []),
        enabled=bool(tpg.get("enable", True)),
        attributes=_chosen(settings, look.attributes),
    )
    return ordered(_with_lun_attributes(found, tpg, stores, look))


def first_tpg(shape: t.Optional[Shape]) -> Shape:
    return next((tpg for tpg in (shape or {}).get("tpgs", []) if tpg.get("tag") == 1), {})


def lun_of(shape: t.Optional[Shape], number: int) -> Shape:
    return next((lun for lun in first_tpg(shape).get("luns", []) if lun.get("index") == number), {})


def acl_of(shape: t.Optional[Shape], initiator: str) -> Shape:
    return next((acl for acl in first_tpg(shape).get("node_acls", []) if acl.get("node_wwn") == initiator), {})


def stores_of(shape: t.Optional[Shape]) -> t.List[StoreName]:
    return [store_key(lun["storage_object"]) for lun in first_tpg(shape).get("luns", [])]


def portal_of(ip: str, port: int) -> Portal:
    return Portal(str(ipaddress.ip_address(ip.strip("[]"))), int(port))


def np_of(portal: Portal) -> str:
    """The address as LIO wants it."""
    return f"[{portal.ip}]" if ":" in portal.ip else portal.ip


def asks_chap(acl: Shape, by_default: bool) -> bool:
    """Whether this initiator is asked for CHAP: the attribute is 1, 0, or -1 for what the TPG says (since Linux 6.0)."""
    own = acl.get("attributes", {}).get("authentication", -1)
    return by_default if own == -1 else own == 1


def wwid_of(serial: str) -> str:
    """The NAA designator that the kernel makes: type 6, company 001405, and 25 digits of the serial (spc_gen_naa_6h_vendor_specific)."""
    digits = "".join(c for c in serial.lower() if c in "0123456789abcdef")[:25]
    return "naa.6001405" + digits.ljust(25, "0")


def _lun(lun: Shape, stores: t.Dict[StoreName, Shape]) -> Lun:
    plugin, name = store_key(lun["storage_object"])
    store = stores.get((plugin, name), {})
    serial = store.get("wwn") or None
    return Lun(
        lun=lun["index"],
        path=store.get("dev") or "",
        serial=serial,
        wwid=wwid_of(serial) if serial else None,
        read_only=bool(store.get("readonly")) or lun.get("alias") == READ_ONLY,
        bstype=plugin,
        size_bytes=store.get("size"),
        write_cache=bool(store.get("write_back")),
        discard=bool(store.get("attributes", {}).get("emulate_tpu")),
    )


def _acl(acl: Shape, read_only: t.Dict[int, bool], by_default: bool) -> Acl:
    mapped = {lun["tpg_lun"]: bool(lun.get("write_protect")) for lun in acl.get("mapped_luns", [])}
    writable = [number for number in mapped if not read_only.get(number)]
    kept_off = bool(writable) and all(mapped[number] for number in writable)
    right = all(number in mapped and mapped[number] == (only or kept_off) for number, only in read_only.items())
    names = (acl.get("chap_userid", ""), acl.get("chap_mutual_userid"))
    secrets = [Secret(acl[key]) if acl.get(key) else None for key in ("chap_password", "chap_mutual_password")]
    if not asks_chap(acl, by_default):
        return Acl(acl["node_wwn"], read_only=kept_off, mapped=right)
    return Acl(acl["node_wwn"], names[0], secrets[0], names[1], secrets[1], read_only=kept_off, mapped=right)


def _with_lun_attributes(target: Target, tpg: Shape, stores: t.Dict[StoreName, Shape], look: Look) -> Target:
    """The same with the attributes of its LUNs that are looked for."""
    wanted: t.Dict[int, t.FrozenSet[str]] = {}
    for one in look.luns:
        meant = target.meant(one.lun, one.path, one.serial)
        if meant:
            wanted[meant.lun] = one.attributes
    keys = {lun["index"]: store_key(lun["storage_object"]) for lun in tpg.get("luns", [])}
    chosen = {number: _chosen(stores.get(keys[number], {}).get("attributes", {}), names) for number, names in wanted.items()}
    return dataclasses.replace(target, luns=tuple(dataclasses.replace(lun, attributes=chosen.get(lun.lun, ())) for lun in target.luns))


def _chosen(settings: Shape, names: t.FrozenSet[str]) -> Attributes:
    return tuple((name, str(settings[name])) for name in sorted(names) if name in settings)
