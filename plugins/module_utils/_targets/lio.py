# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""lio: targets of the Linux kernel. Looks straight at configfs, writes through rtslib-fb.

What shapes this file, all seen on Linux 6.1 with rtslib 2.1.75:
- What is saved is a copy of what runs, taken once for all targets of a task. A run that is killed before leaves a saved
  form that differs from what runs, which the next run sees and mends.
- A backstore is called TARGET_LUN. The underscore, which no target's name has, tells whose it is though a killed run
  never came to use it. It holds its volume, which LVM can't remove meanwhile; so it goes with its LUN.
- A new TPG is shut, asks for CHAP and has demo mode off; an ACL without a secret lets nobody in. So doors open last.
- Attributes of a TPG that a restore left out come back from the saved form before the TPG is enabled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
import typing as t

from .._errors import Failed, Invalid, Unavailable
from .._model.data import Secret
from .._model.target import Acl, Attributes, Export, Lun, Portal, Target
from . import ELSEWHERE, PORTALS, Look, TargetBackend, Traits, backing, holder, traits
from ._here import DeviceTraits, device_traits, is_open, size_of, why_not
from ._lio_saved import Saveconfig, covers, merged, saved_stores, saved_targets
from ._lio_shape import EVERYBODY, READ_ONLY, WRITABLE, acl_of, asks_chap, first_tpg, lun_of, np_of, portal_of, stores_of, target_of, wwid_of
from ._lio_tree import Shape, StoreName, Tree, store_key, unfinished_links

_PER_ACL_CHAP = (6, 0)  # the first Linux whose ACLs have an attribute `authentication` of their own
_OWN = frozenset(
    {"authentication", "generate_node_acls", "cache_dynamic_acls", "demo_mode_write_protect", "AuthMethod", "emulate_tpu", "emulate_write_cache"}
)
_BEFORE_DOORS = ("authentication", "generate_node_acls")  # attributes of a TPG that have to stand before anybody may come in


class LioBackend(TargetBackend):
    where = "LIO"
    lock_path = "/run/stackless-block-lio.lock"
    per_acl_read_only = saves_live = enables = True
    first_lun, last_lun = 0, 255  # rtslib maps no higher number
    bstypes = ("block", "fileio")
    growing = frozenset({"block"})
    changeable = frozenset({"discard", "attributes"})
    own_attributes = _OWN

    def __init__(self, saveconfig: t.Optional[str]) -> None:
        self.lib = _rtslib()
        self.saveconfig = Saveconfig(saveconfig or self.lib.root.default_save_file)
        self.chap_per_target = _release() < _PER_ACL_CHAP
        self._saved: t.Dict[str, Shape] = {}
        self._saved_stores: t.Dict[StoreName, Shape] = {}
        self._tree = Tree()  # its backstores as they were observed, and as verbs have changed them since
        self._gathered: t.List[str] = []  # targets to be saved, or forgotten where they do not run
        self._tidied: t.Set[str] = set()

    def spelled(self, name: str) -> str:
        """LIO folds names to lower case (RFC 3722), and what rtslib can't restore is not made."""
        try:
            return str(self.lib.utils.normalize_wwn(("iqn", "eui", "naa"), name)[0])
        except self.lib.RTSLibError as error:
            raise Invalid(f"{name} can't be a name in LIO, whose tools take no underscore and no naa name but of 16 digits; choose another name") from error

    def presumed(self, path: str) -> Traits:
        return _traits(DeviceTraits(discard=True, write_cache=True) if path.startswith("/dev/") else None)

    def wwid(self, serial: str) -> str:
        return wwid_of(serial)

    # ---- looking

    def observe(self, looks: t.Sequence[Look]) -> t.Dict[t.Hashable, t.Any]:
        self._tree = tree = Tree()
        config = self.saveconfig.read()
        self._saved, self._saved_stores = saved_targets(config), saved_stores(config)
        world: t.Dict[t.Hashable, t.Any] = {PORTALS: frozenset(), ELSEWHERE: _elsewhere(looks, tree)}
        for look in looks:
            shape = tree.target(look.iqn)
            export = self._export(look, shape, tree)
            if export.target or not export.intact:
                world[look.iqn] = export
            luns = export.saved.luns if export.saved else ()
            for path in look.paths | {lun.path for lun in luns if lun.path}:
                world.update(_data(path))
                world.update(self._holder(look.iqn, path, shape, tree))
        return world

    def names(self) -> t.Set[str]:
        return set(Tree().target_names()) | set(saved_targets(self.saveconfig.read()))

    def _export(self, look: Look, shape: t.Optional[Shape], tree: Tree) -> Export:
        saved = self._saved.get(look.iqn)
        stores = {key: store for key in stores_of(shape) for store in [tree.store(key)] if store}
        live = _with_devices(target_of(shape, stores, look), running=True) if shape and first_tpg(shape) else None
        record = _with_devices(target_of(saved, self._saved_stores, look), running=False) if saved else None
        intact = self._is_intact(look.iqn, shape, stores, tree) and self.saveconfig.intact
        return Export(live, record, intact, tree.sessions(look.iqn) if shape else ())

    def _is_intact(self, iqn: str, shape: t.Optional[Shape], stores: t.Dict[StoreName, Shape], tree: Tree) -> bool:
        """Whether nothing is left half-made, and nothing that is both saved and running is saved otherwise than it runs."""
        half_made = os.path.isdir(tree.target_path(iqn)) and not first_tpg(shape)
        if half_made or _orphans(iqn, shape, tree) or unfinished_links(tree.root, iqn):
            return False
        saved = self._saved.get(iqn)
        if saved is None or shape is None:
            return True
        return covers(saved, shape) and all(covers(self._saved_stores.get(key), store) for key, store in stores.items())

    def _holder(self, iqn: str, path: str, shape: t.Optional[Shape], tree: Tree) -> t.Dict[t.Hashable, t.Any]:
        """Whether a backstore that is not this target's, or a mount say, has the data open."""
        keys = tree.users(path)
        mine = {*stores_of(shape), *_orphans(iqn, shape, tree)}
        others = [f"the backstore {'/'.join(key)} of someone else" for key in keys if key not in mine]
        if not keys and is_open(path):
            others = ["open in another program, or mounted"]
        return {holder(path): others[0]} if others else {}

    # ---- the saved form

    def save(self, target: Target) -> None:
        self._gather(target.iqn)

    def forget(self, iqn: str) -> None:
        self._gather(iqn)

    def _gather(self, iqn: str) -> None:
        """Clears away what earlier runs left half-made, and remembers to save the rest."""
        tree, shape = self._tree, self._tree.outline(iqn)
        with self._asked(f"clear away what was left of target {iqn}"):
            self._tidy(iqn)
            if os.path.isdir(tree.target_path(iqn)) and not first_tpg(shape):
                self._target(iqn).delete()
            for key in _orphans(iqn, shape, tree):
                self._drop_store(key)
        self._gathered.append(iqn)

    def flush(self) -> None:
        if not self._gathered:
            return
        tree, config = Tree(), self.saveconfig.read()
        targets = {iqn: tree.target(iqn) for iqn in self._gathered}
        stores: t.Dict[StoreName, t.Optional[Shape]] = {}
        for iqn, shape in targets.items():
            known = [key for key in saved_stores(config) if _is_own(key, iqn)]
            stores.update({key: tree.store(key) for key in [*known, *stores_of(shape)]})
        self.saveconfig.write(merged(config, targets, stores))
        self._gathered.clear()

    # ---- the target

    def create(self, iqn: str) -> None:
        with self._asked(f"make target {iqn}"):
            os.makedirs(os.path.dirname(self.lib.root.default_save_file), exist_ok=True)  # else RTSRoot finds no place for reservations
            self.lib.RTSRoot()
            tpg = self.lib.TPG(self.lib.Target(self.lib.FabricModule("iscsi"), iqn, "any"), 1, "any")
            saved = first_tpg(self._saved.get(iqn)).get("attributes", {})
            for name in _BEFORE_DOORS:
                tpg.set_attribute(name, saved.get(name, int(name == "authentication")))

    def enable(self, iqn: str) -> None:
        with self._asked(f"enable target {iqn}"):
            tpg, saved = self._tpg(iqn), first_tpg(self._saved.get(iqn))
            attributes = {name: value for name, value in saved.get("attributes", {}).items() if name not in _BEFORE_DOORS}
            self.lib.utils.set_attributes(tpg, attributes, _ignored)
            self.lib.utils.set_parameters(tpg, saved.get("parameters", {}), _ignored)
            tpg.enable = True

    def set_attributes(self, iqn: str, attributes: Attributes) -> None:
        tpg = self._tpg(iqn)
        for name, value in attributes:
            with self._asked(f"set {name} of {iqn} to {value}"):
                (tpg.set_parameter if name in tpg.list_parameters() else tpg.set_attribute)(name, value)

    def delete(self, iqn: str) -> None:
        keys = [key for key in stores_of(self._tree.outline(iqn)) if _is_own(key, iqn)]
        with self._asked(f"remove target {iqn}"):
            self._tidy(iqn)
            self._target(iqn).delete()
            for key in {*keys, *_orphans(iqn, None, self._tree)}:
                self._drop_store(key)

    def add_portal(self, iqn: str, portal: Portal) -> None:
        with self._asked(f"listen at portal {portal} for {iqn}"):
            self.lib.NetworkPortal(self._tpg(iqn), np_of(portal), portal.port, "any")

    def remove_portal(self, iqn: str, portal: Portal) -> None:
        tpg = self._tpg(iqn)
        with self._asked(f"close portal {portal} of {iqn}"):
            for np in tpg.network_portals:
                if portal_of(np.ip_address, np.port) == portal:
                    np.delete()

    # ---- LUNs

    def add_lun(self, iqn: str, lun: Lun, kept_off: t.FrozenSet[str] = frozenset()) -> None:
        """Makes backstore and LUN as they are saved, where they are."""
        saved = lun_of(self._saved.get(iqn), lun.lun)
        with self._asked(f"make LUN {lun.lun} of {iqn} from {lun.path}"):
            self._tidy(iqn)
            tpg = self._tpg(iqn)
            there = {one.lun for one in tpg.luns}
            full = [acl for acl in tpg.node_acls if there <= {mapped.tpg_lun.lun for mapped in acl.mapped_luns}]
            made = self.lib.LUN(tpg, lun.lun, self._store(iqn, lun, saved), alias=READ_ONLY if lun.read_only else WRITABLE)
            for acl in full:
                self._map(acl, made, lun.read_only or acl.node_wwn in kept_off, acl_of(self._saved.get(iqn), acl.node_wwn))

    def identify_lun(self, iqn: str, lun: Lun) -> None:
        self.change_lun(iqn, lun)  # never planned: a backstore has its serial before it is a LUN

    def change_lun(self, iqn: str, lun: Lun) -> None:
        store = self.lib.LUN(self._tpg(iqn), lun.lun).storage_object
        for name, value in (*lun.attributes, ("emulate_tpu", str(int(bool(lun.discard))))):
            with self._asked(f"set {name} of LUN {lun.lun} of {iqn} to {value}"):
                store.set_attribute(name, value)

    def remove_lun(self, iqn: str, number: int) -> None:
        with self._asked(f"remove LUN {number} of {iqn}"):
            self._tidy(iqn)
            lun = self.lib.LUN(self._tpg(iqn), number)
            key = (lun.storage_object.plugin, lun.storage_object.name)
            lun.delete()
            if _is_own(key, iqn):
                self._drop_store(key)

    def _store(self, iqn: str, lun: Lun, saved: Shape) -> t.Any:
        """The backstore for a LUN, made anew where an earlier run left it half-made."""
        name, attributes = f"{iqn}_{lun.lun}", t.cast(Shape, {})
        old = store_key(saved["storage_object"]) if saved else ("", "")
        record = self._saved_stores.get(old, {})
        if record.get("dev") == lun.path and record.get("wwn") == lun.serial and old[0] == lun.bstype:
            name, attributes = old[1], record.get("attributes", {})
        key = (t.cast(str, lun.bstype), name)
        self._drop_store(key)
        if lun.bstype == "block":
            store = self.lib.BlockStorageObject(name, dev=lun.path, wwn=lun.serial, readonly=lun.read_only)
        else:
            store = self.lib.FileIOStorageObject(name, dev=lun.path, size=lun.size_bytes, wwn=lun.serial, write_back=lun.write_cache)
        self._tree.stores()[key] = store.path
        self.lib.utils.set_attributes(store, {k: v for k, v in attributes.items() if k not in _OWN}, _ignored)
        for attribute, value in (*lun.attributes, ("emulate_tpu", int(bool(lun.discard)))):
            store.set_attribute(attribute, value)
        return store

    def _drop_store(self, key: StoreName) -> None:
        """Takes a backstore away unless a LUN uses it, one that was never enabled too."""
        path = self._tree.stores().get(key)
        if path and not self._tree.is_exported(key):
            self.lib.tcm.StorageObject.so_from_path(path).delete()
            self._tree.stores().pop(key)

    # ---- doors

    def admit(self, iqn: str, acl: Acl) -> None:
        with self._asked(f"let {acl.initiator} in at {iqn}"):
            self._tidy(iqn)
            tpg = self._tpg(iqn)
            node, saved = self.lib.NodeACL(tpg, acl.initiator, "any"), acl_of(self._saved.get(iqn), acl.initiator)
            if not node.chap_userid:
                self.lib.utils.set_attributes(node, {k: v for k, v in saved.get("attributes", {}).items() if k not in _OWN}, _ignored)
            if acl.username:
                _give(node, acl)
                self._ask(tpg, node, True)
            else:
                self._ask(tpg, node, False)
                _give(node, Acl(acl.initiator))
            for lun in tpg.luns:
                self._map(node, lun, acl.read_only or _is_read_only(lun), saved)

    def deny(self, iqn: str, initiator: str) -> None:
        with self._asked(f"shut out {initiator} at {iqn}"):
            self._tidy(iqn)
            self.lib.NodeACL(self._tpg(iqn), initiator, "lookup").delete()

    def drop_address(self, iqn: str, address: str) -> None:
        if address == EVERYBODY:
            with self._asked(f"turn off the demo mode of {iqn}"):
                self._tpg(iqn).set_attribute("generate_node_acls", 0)

    def _ask(self, tpg: t.Any, node: t.Any, chap: bool) -> None:
        """Asks this initiator for CHAP or not; where ACLs can't differ, all of them."""
        shape = {"attributes": {name: int(node.get_attribute(name)) for name in node.list_attributes() if name == "authentication"}}
        if asks_chap(shape, tpg.get_attribute("authentication") == "1") != chap:
            (node if shape["attributes"] else tpg).set_attribute("authentication", int(chap))

    def _map(self, node: t.Any, lun: t.Any, read_only: bool, saved: Shape) -> None:
        """Shows a LUN to an initiator: as it was saved, else under its own number, else under the first that is free."""
        mapped = list(node.mapped_luns)
        old = next((one for one in mapped if one.tpg_lun.lun == lun.lun), None)
        if old is not None:
            if old.write_protect != read_only:
                old.write_protect = read_only
            return
        taken = {one.mapped_lun for one in mapped}
        wished = [one["index"] for one in saved.get("mapped_luns", []) if one.get("tpg_lun") == lun.lun]
        number = next(number for number in [*wished, lun.lun, *range(256)] if number not in taken)
        self.lib.MappedLUN(node, number, lun, read_only)

    # ---- rtslib's objects, which are never made by looking for them

    def _target(self, iqn: str) -> t.Any:
        return self.lib.Target(self.lib.FabricModule("iscsi"), iqn, "lookup")

    def _tpg(self, iqn: str) -> t.Any:
        with self._asked(f"find target {iqn}"):
            return self.lib.TPG(self._target(iqn), 1, "lookup")

    def _tidy(self, iqn: str) -> None:
        if iqn not in self._tidied:
            for path in unfinished_links(Tree().root, iqn):
                os.rmdir(path)
            self._tidied.add(iqn)

    @contextlib.contextmanager
    def _asked(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except (self.lib.RTSLibError, OSError) as error:
            raise Failed(f"LIO was asked to {what} and said no: {error}; see dmesg for the kernel's reason") from error


def _rtslib() -> t.Any:
    try:
        lib = importlib.import_module("rtslib_fb")
    except ImportError as error:
        raise Unavailable(f"{sys.executable} of this host has no module rtslib_fb; install the package python3-rtslib-fb") from error
    for name in ("root", "tcm", "utils"):
        importlib.import_module(f"rtslib_fb.{name}")
    return lib


def _release() -> t.Tuple[int, int]:
    numbers = os.uname().release.replace("-", ".").split(".")
    return int(numbers[0]), int(numbers[1])


def _ignored(problem: str) -> None:
    """An attribute that this kernel does not have, or does not let change, stays as it is."""


# ---- the data behind LUNs


def _traits(device: t.Optional[DeviceTraits]) -> Traits:
    """A file is punched where it is discarded; a device decides by itself."""
    if device is None:
        return Traits({"bstype": "fileio", "discard": True, "write_cache": False}, fixed=frozenset({"bstype"}))
    fixed = {"bstype", "write_cache"} | (set() if device.discard else {"discard"})
    return Traits({"bstype": "block", "discard": device.discard, "write_cache": device.write_cache}, fixed=frozenset(fixed))


def _data(path: str) -> t.Dict[t.Hashable, t.Any]:
    size = size_of(path)
    return {} if size is None else {backing(path): size, traits(path): _traits(device_traits(path))}


def _with_devices(target: Target, running: bool) -> Target:
    """With what is a block device's own: its size at any time, and its write cache, which is no choice of LIO's. Sizes are not saved."""
    return dataclasses.replace(target, luns=tuple(_with_device(lun, running) for lun in target.luns))


def _with_device(lun: Lun, running: bool) -> Lun:
    device = device_traits(lun.path) if lun.bstype == "block" else None
    size = size_of(lun.path) if device else lun.size_bytes
    return dataclasses.replace(lun, size_bytes=size if running else None, write_cache=device.write_cache if device else lun.write_cache)


def _elsewhere(looks: t.Sequence[Look], tree: Tree) -> t.Dict[Portal, str]:
    """The portals that can't be listened at; one that LIO listens at already can be shared."""
    wished = {portal for look in looks for portal in look.portals}
    if not wished:
        return {}
    served = {portal_of(*np.rsplit(":", 1)) for iqn in tree.target_names() for np in tree.portals(iqn)}
    return {portal: why for portal in sorted(wished - served) for why in why_not(portal)}


# ---- whose is a backstore


def _is_own(key: StoreName, iqn: str) -> bool:
    owner, _underscore, number = key[1].rpartition("_")
    return owner == iqn and number.isdigit()


def _orphans(iqn: str, shape: t.Optional[Shape], tree: Tree) -> t.List[StoreName]:
    """Backstores of this target that no LUN uses."""
    used = stores_of(shape)
    return [key for key in tree.stores() if _is_own(key, iqn) and key not in used and not tree.is_exported(key)]


# ---- doors


def _give(node: t.Any, acl: Acl) -> None:
    """Sets the secrets of an initiator, none where it has none."""
    node.chap_userid, node.chap_password = acl.username or "", _text(acl.password)
    node.chap_mutual_userid, node.chap_mutual_password = acl.mutual_username or "", _text(acl.mutual_password)


def _text(secret: t.Optional[Secret]) -> str:
    return secret.reveal() if secret else ""


def _is_read_only(lun: t.Any) -> bool:
    return lun.alias == READ_ONLY or bool(getattr(lun.storage_object, "readonly", False))
