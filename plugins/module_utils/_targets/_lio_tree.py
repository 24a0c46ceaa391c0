# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What LIO runs, read from configfs in the shape in which rtslib saves it (rtslib 2.1.75, the methods `dump`). Creates nothing.

rtslib's own objects are not used to look: making one makes what it stands for, loads kernel modules, and its dump of
one target takes as long as a hundred of these. What a killed run left half-made, a LUN without its link say, is left out.
"""

from __future__ import annotations

import os
import re
import stat
import typing as t

from .._model.target import Session

CONFIGFS = "/sys/kernel/config/target"

# How rtslib calls the directories of core/, and what it calls them in a saved path.
_PLUGINS = {"iblock": "block", "fileio": "fileio", "rd_mcp": "ramdisk", "pscsi": "pscsi", "user": "user"}
_ALUA = (
    "alua_access_state", "alua_access_status", "alua_write_metadata", "alua_access_type", "preferred", "nonop_delay_msecs",
    "trans_delay_msecs", "implicit_trans_secs", "alua_support_offline", "alua_support_standby", "alua_support_transitioning",
    "alua_support_active_nonoptimized", "alua_support_unavailable", "alua_support_active_optimized",
)  # fmt: skip
_ALUA_TYPES = ("None", "Implicit", "Explicit", "Implicit and Explicit")
_ALUA_STATUSES = ("None", "Altered by Explicit STPG", "Altered by Implicit ALUA")
_CHAP = (("chap_userid", "userid"), ("chap_password", "password"), ("chap_mutual_userid", "userid_mutual"), ("chap_mutual_password", "password_mutual"))

_PAGE = 1 << 16  # configfs reads no more at once (fs/configfs/file.c)

Shape = t.Dict[str, t.Any]
StoreName = t.Tuple[str, str]  # plugin and name


class Tree:
    """One look at the configfs tree; backstores are listed once, when first asked for."""

    def __init__(self, root: str = CONFIGFS) -> None:
        self.root = root
        self._stores: t.Optional[t.Dict[StoreName, str]] = None
        self._users: t.Optional[t.Dict[str, t.List[StoreName]]] = None
        self._settable: t.Dict[t.Tuple[str, ...], t.List[str]] = {}  # of all settings of a kind of thing, those that can be set

    # ---- targets

    def target_path(self, iqn: str) -> str:
        return os.path.join(self.root, "iscsi", iqn)

    def target_names(self) -> t.List[str]:
        """The iSCSI targets; other directories of the fabric have no dot in their names."""
        return [name for name in _folders(os.path.join(self.root, "iscsi")) if "." in name]

    def target(self, iqn: str) -> t.Optional[Shape]:
        """The target, or None where it has no TPG yet."""
        path, tags = self.target_path(iqn), self._tags(iqn)
        if not tags:
            return None
        return {**self._settings(path), "wwn": iqn, "fabric": "iscsi", "tpgs": [self._tpg(os.path.join(path, tag), int(tag[5:])) for tag in tags]}

    def outline(self, iqn: str) -> t.Optional[Shape]:
        """The LUNs of a target and nothing else, for a fraction of the cost; None where it has no TPG yet."""
        path, tags = self.target_path(iqn), self._tags(iqn)
        return {"wwn": iqn, "tpgs": [{"tag": int(tag[5:]), "luns": self._luns(os.path.join(path, tag))} for tag in tags]} if tags else None

    def _tags(self, iqn: str) -> t.List[str]:
        return [name for name in _folders(self.target_path(iqn)) if name.startswith("tpgt_")]

    def portals(self, iqn: str) -> t.List[str]:
        """The portals of a target as ADDRESS:PORT, an IPv6 address in brackets."""
        return [np for tag in _folders(self.target_path(iqn)) for np in _folders(os.path.join(self.target_path(iqn), tag, "np"))]

    def _tpg(self, path: str, tag: int) -> Shape:
        return {
            **self._settings(path),
            "tag": tag,
            "enable": _read(os.path.join(path, "enable")) == "1",
            "luns": self._luns(path),
            "portals": [_portal(os.path.join(path, "np", name), name) for name in _folders(os.path.join(path, "np"))],
            "node_acls": [self._acl(os.path.join(path, "acls", name), name) for name in _folders(os.path.join(path, "acls"))],
            **_chap(path),
        }

    def _luns(self, path: str) -> t.List[Shape]:
        luns = [self._lun(os.path.join(path, "lun", name), int(name[4:])) for name in _folders(os.path.join(path, "lun"))]
        return [lun for lun in luns if lun]

    def _acl(self, path: str, name: str) -> Shape:
        mapped = [_mapped(os.path.join(path, lun), int(lun[4:])) for lun in _folders(path) if lun.startswith("lun_")]
        tag = _read(os.path.join(path, "tag"))
        settings = self._settings(path)
        return {**settings, "node_wwn": name, "mapped_luns": [lun for lun in mapped if lun], **({"tag": tag} if tag else {}), **_chap(path)}

    def _lun(self, path: str, index: int) -> t.Optional[Shape]:
        link = _link(path)
        if link is None:
            return None
        plugin, name = _store_of(os.readlink(os.path.join(path, link)))
        group = _read(os.path.join(path, "alua_tg_pt_gp")) or ""
        found = re.match(r"TG Port Alias: (\S+)", group)
        return {"storage_object": store_path(plugin, name), "index": index, "alias": link, "alua_tg_pt_gp_name": found.group(1) if found else None}

    def sessions(self, iqn: str) -> t.Tuple[Session, ...]:
        """Who is logged in; of several sessions of one initiator the kernel tells one."""
        found = []
        for tag in _folders(self.target_path(iqn)):
            tpg = os.path.join(self.target_path(iqn), tag)
            texts = [_read(os.path.join(tpg, "acls", name, "info")) or "" for name in _folders(os.path.join(tpg, "acls"))]
            found += [session for text in texts for session in parse_info(text)]
            found += [Session(name, "") for name in (_read(os.path.join(tpg, "dynamic_sessions")) or "").replace("\0", "\n").split()]
        return tuple(found)

    # ---- backstores

    def stores(self) -> t.Dict[StoreName, str]:
        """All backstores, with their paths in configfs."""
        if self._stores is None:
            core = os.path.join(self.root, "core")
            hbas = [hba for hba in _folders(core) if hba.rpartition("_")[0] in _PLUGINS]
            self._stores = {(plugin_of(hba), name): os.path.join(core, hba, name) for hba in hbas for name in _folders(os.path.join(core, hba))}
        return self._stores

    def store_data(self, key: StoreName) -> str:
        """The path of the data of a backstore, as it was given."""
        return _read(os.path.join(self.stores()[key], "udev_path")) or ""

    def users(self, path: str) -> t.List[StoreName]:
        """The backstores that hold this data, by whatever path."""
        if self._users is None:
            self._users = {}
            for key in self.stores():
                self._users.setdefault(os.path.realpath(self.store_data(key)), []).append(key)
        return self._users.get(os.path.realpath(path), [])

    def is_exported(self, key: StoreName) -> bool:
        return "Status: ACTIVATED" in (_read(os.path.join(self.stores()[key], "info")) or "")

    def store(self, key: StoreName) -> t.Optional[Shape]:
        """The backstore, or None where there is none that is complete."""
        path = self.stores().get(key)
        if path is None or _read(os.path.join(path, "enable")) != "1":
            return None
        groups = [_alua(os.path.join(path, "alua", name), name) for name in _folders(os.path.join(path, "alua"))]
        serial = (_read(os.path.join(path, "wwn", "vpd_unit_serial")) or "").partition(":")[2].strip()
        shape = {**self._settings(path), "plugin": key[0], "name": key[1], "alua_tpgs": groups, "wwn": serial, "dev": self.store_data(key)}
        return {**shape, **_kind(key[0], shape, " ".join((_read(os.path.join(path, "info")) or "").split()))}

    # ---- settings

    def _settings(self, path: str) -> Shape:
        """Attributes, as numbers where they are such, and parameters, as far as they can be both read and written."""
        attributes = {name: _number(text) for name, text in self._values(os.path.join(path, "attrib"))}
        parameters = dict(self._values(os.path.join(path, "param")))
        return {**({"attributes": attributes} if attributes else {}), **({"parameters": parameters} if parameters else {})}

    def _values(self, path: str) -> t.List[t.Tuple[str, str]]:
        try:
            names = tuple(sorted(os.listdir(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        if names not in self._settable:  # things of one kind have the same settings, with the same modes
            self._settable[names] = [name for name in names if _can_be_set(os.path.join(path, name))]
        texts = [(name, _read(os.path.join(path, name))) for name in self._settable[names]]
        return [(name, text) for name, text in texts if text is not None]


def plugin_of(hba: str) -> str:
    kind = hba.rpartition("_")[0]
    return _PLUGINS.get(kind, kind)


def store_path(plugin: str, name: str) -> str:
    return f"/backstores/{plugin}/{name}"


def store_key(path: str) -> StoreName:
    """The inverse of store_path."""
    plugin, name = path.split("/")[2:4]
    return plugin, name


def parse_info(text: str) -> t.List[Session]:
    """The session that the file `info` of an ACL tells of, if any."""
    name = re.search(r"^InitiatorName: (\S+)", text, flags=re.MULTILINE)
    address = re.search(r"^\s*Address (\S+) ", text, flags=re.MULTILINE)
    return [Session(name.group(1), address.group(1).strip("[]") if address else "")] if name else []


def unfinished_links(root: str, iqn: str) -> t.List[str]:
    """LUNs and mapped LUNs that a killed run made without saying of what, mapped ones first; rtslib stumbles over them."""
    tpg = os.path.join(root, "iscsi", iqn, "tpgt_1")
    mapped = [os.path.join(tpg, "acls", acl, name) for acl in _folders(os.path.join(tpg, "acls")) for name in _folders(os.path.join(tpg, "acls", acl))]
    luns = [os.path.join(tpg, "lun", name) for name in _folders(os.path.join(tpg, "lun"))]
    return [path for path in mapped + luns if os.path.basename(path).startswith("lun_") and _link(path) is None]


# ---- the parts of backstores and targets


def _kind(plugin: str, shape: Shape, info: str) -> Shape:
    """What only backstores of one kind have."""
    cache = bool(shape.get("attributes", {}).get("emulate_write_cache"))
    if plugin == "block":
        return {"write_back": cache, "readonly": _said(info, "readonly") == "1"}
    if plugin == "fileio":
        return {"write_back": cache, "size": int(_said(info, "Size") or 0), "aio": _said(info, "Async") == "1"}
    return {}


def _portal(path: str, name: str) -> Shape:
    ip, _colon, port = name.rpartition(":")
    return {"ip_address": ip, "port": int(port), "iser": _read(os.path.join(path, "iser")) == "1", "offload": _read(os.path.join(path, "cxgbit")) == "1"}


def _mapped(path: str, index: int) -> t.Optional[Shape]:
    link = _link(path)
    if link is None:
        return None
    number = int(os.path.basename(os.readlink(os.path.join(path, link)))[4:])
    return {"index": index, "tpg_lun": number, "alias": link, "write_protect": _read(os.path.join(path, "write_protect")) == "1"}


def _chap(path: str) -> Shape:
    texts = [(key, _read(os.path.join(path, "auth", name))) for key, name in _CHAP]
    return {key: text for key, text in texts if text and text != "NULL"}


def _alua(path: str, name: str) -> Shape:
    shape: Shape = {"name": name, "tg_pt_gp_id": _number(_read(os.path.join(path, "tg_pt_gp_id")))}
    for key in _ALUA:
        text = _read(os.path.join(path, key))
        names = {"alua_access_type": _ALUA_TYPES, "alua_access_status": _ALUA_STATUSES}.get(key, ())
        shape[key] = names.index(text) if text in names else _number(text)
    return shape


def _can_be_set(path: str) -> bool:
    mode = os.stat(path).st_mode
    return bool(mode & stat.S_IWUSR and mode & stat.S_IRUSR)


def _number(text: t.Optional[str]) -> t.Any:
    try:
        return int(text or "")
    except ValueError:
        return text


def _said(info: str, key: str) -> t.Optional[str]:
    found = re.search(r".*\b" + key + r": ([^: ]+)", info)
    return found.group(1) if found else None


def _store_of(link: str) -> StoreName:
    hba, name = link.split("/")[-2:]
    return plugin_of(hba), name


def _link(path: str) -> t.Optional[str]:
    return next((entry.name for entry in os.scandir(path) if entry.is_symlink()), None)


def _folders(path: str) -> t.List[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> t.Optional[str]:
    """A file's text. The kernel gives one in one piece of at most a page; without Python's buffers it takes a third of the time."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(handle, _PAGE).decode("utf-8", "replace").strip()
        finally:
            os.close(handle)
    except OSError:
        return None
