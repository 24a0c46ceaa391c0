# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LIO's saved file and its tree in configfs, on plain directories: what is read, merged, compared and written."""

from __future__ import annotations

import copy
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Failed, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.target import Acl, Portal, Session
from ansible_collections.stackless.block.plugins.module_utils._targets import Look, LunLook
from ansible_collections.stackless.block.plugins.module_utils._targets._lio_saved import Saveconfig, covers, merged, saved_stores, saved_targets
from ansible_collections.stackless.block.plugins.module_utils._targets._lio_shape import EVERYBODY, target_of, wwid_of
from ansible_collections.stackless.block.plugins.module_utils._targets._lio_tree import Tree, parse_info, unfinished_links

IQN, OTHER = "iqn.2026-01.org.example:volume-1", "iqn.2026-01.org.example:volume-10"
A, B = "iqn.1993-08.org.debian:01:a", "iqn.1993-08.org.debian:01:b"
SERIAL = "0b5e7a1c-2222-4222-8333-444455556666"

STORE = {
    "plugin": "block", "name": f"{IQN}_0", "wwn": SERIAL, "dev": "/dev/volumes/volume-1", "write_back": False, "readonly": False,
    "attributes": {"emulate_tpu": 1, "emulate_write_cache": 0}, "alua_tpgs": [],
}  # fmt: skip
TARGET = {
    "wwn": IQN, "fabric": "iscsi",
    "tpgs": [{
        "tag": 1, "enable": True,
        "attributes": {"authentication": 1, "generate_node_acls": 0, "default_cmdsn_depth": 64}, "parameters": {"ImmediateData": "Yes"},
        "luns": [{"index": 0, "storage_object": f"/backstores/block/{IQN}_0", "alias": "read-write", "alua_tg_pt_gp_name": "default_tg_pt_gp"}],
        "portals": [
            {"ip_address": "192.0.2.10", "port": 3260, "iser": False, "offload": False},
            {"ip_address": "[2001:db8::10]", "port": 3261, "iser": False, "offload": False},
        ],
        "node_acls": [
            {"node_wwn": A, "attributes": {"authentication": -1}, "chap_userid": "a", "chap_password": "secret of a",
             "mapped_luns": [{"index": 0, "tpg_lun": 0, "alias": "x", "write_protect": False}]},
            {"node_wwn": B, "attributes": {"authentication": 0}, "mapped_luns": [{"index": 0, "tpg_lun": 0, "alias": "y", "write_protect": True}]},
        ],
    }],
}  # fmt: skip
THEIRS = {"wwn": "naa.5001405000000001", "fabric": "loopback", "tpgs": []}
CONFIG = {
    "fabric_modules": [{"name": "iscsi", "discovery_enable_auth": True}],
    "storage_objects": [{"plugin": "ramdisk", "name": "r"}, STORE],
    "targets": [THEIRS, TARGET],
}


def changed(value: Any, **parts: Any) -> Any:
    return {**copy.deepcopy(value), **parts}


# ---- the saved file


def test_a_merge_replaces_what_is_named_where_it_stood_and_nothing_else() -> None:
    new, other, store = changed(TARGET, tpgs=[]), changed(TARGET, wwn=OTHER), changed(STORE, dev="/dev/other")
    before = copy.deepcopy(CONFIG)
    found = merged(CONFIG, {IQN: new, OTHER: other}, {("block", f"{IQN}_0"): store, ("fileio", f"{IQN}_0"): {"plugin": "fileio", "name": f"{IQN}_0"}})
    assert found["targets"] == [THEIRS, new, other]
    assert found["storage_objects"] == [{"plugin": "ramdisk", "name": "r"}, store, {"plugin": "fileio", "name": f"{IQN}_0"}]
    assert found["fabric_modules"] == CONFIG["fabric_modules"] and CONFIG == before


def test_a_merge_takes_out_what_is_gone_and_no_other_of_a_similar_name() -> None:
    config = changed(CONFIG, targets=[THEIRS, TARGET, changed(TARGET, wwn=OTHER), changed(TARGET, fabric="qla2xxx")])
    found = merged(config, {IQN: None, "iqn.2026-01.org.example:never": None}, {("block", f"{IQN}_0"): None, ("ramdisk", f"{IQN}_0"): None})
    assert [(t["fabric"], t["wwn"]) for t in found["targets"]] == [("loopback", THEIRS["wwn"]), ("iscsi", OTHER), ("qla2xxx", IQN)]
    assert found["storage_objects"] == [{"plugin": "ramdisk", "name": "r"}]


def test_only_iscsi_targets_are_found() -> None:
    assert set(saved_targets(CONFIG)) == {IQN} and set(saved_stores(CONFIG)) == {("ramdisk", "r"), ("block", f"{IQN}_0")}


def test_the_file_is_written_as_rtslib_writes_it_for_root_only(tmp_path: Path) -> None:
    saveconfig = Saveconfig(str(tmp_path / "target" / "saveconfig.json"))
    assert saveconfig.read() == {"fabric_modules": [], "storage_objects": [], "targets": []} and saveconfig.intact
    saveconfig.write(CONFIG)
    path = tmp_path / "target" / "saveconfig.json"
    assert path.read_text() == json.dumps(CONFIG, sort_keys=True, indent=2) + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and os.listdir(path.parent) == ["saveconfig.json"]
    assert saveconfig.read() == CONFIG and saveconfig.intact


def test_a_save_that_was_cut_short_leaves_the_old_file_and_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saveconfig = Saveconfig(str(tmp_path / "saveconfig.json"))
    saveconfig.write(CONFIG)
    with monkeypatch.context() as broken, pytest.raises(Failed, match="can't be saved at .*No space left"):
        broken.setattr(os, "replace", no_space)
        saveconfig.write(changed(CONFIG, targets=[]))
    assert saveconfig.read() == CONFIG and not saveconfig.intact
    saveconfig.write(CONFIG)
    assert saveconfig.intact
    (tmp_path / "saveconfig.json").chmod(0o644)
    assert not saveconfig.intact


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("text", ["{", "[]", "", '"text"'])
def test_a_file_that_makes_no_sense_is_told_and_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "saveconfig.json"
    path.write_text(text)
    with pytest.raises(Unavailable, match="can't be read"):
        Saveconfig(str(path)).read()
    assert path.read_text() == text


def test_saved_and_live_are_compared_whatever_their_order() -> None:
    turned = copy.deepcopy(TARGET)
    turned["tpgs"][0]["portals"].reverse()
    turned["tpgs"][0]["node_acls"].reverse()
    turned["tpgs"][0]["of a later release"] = True
    assert covers(turned, TARGET) and not covers(TARGET, turned)
    for part in ("portals", "luns", "node_acls"):
        short = copy.deepcopy(TARGET)
        short["tpgs"][0][part].pop()
        assert not covers(short, TARGET) and not covers(TARGET, short)
    other = copy.deepcopy(TARGET)
    other["tpgs"][0]["node_acls"][0]["chap_password"] = "another"
    assert not covers(other, TARGET) and not covers(None, TARGET) and not covers({"tpgs": None}, {"tpgs": []})


# ---- from its shape to a target


def test_a_target_of_its_shape() -> None:
    luns = (LunLook(None, STORE["dev"], None, frozenset({"emulate_tpu"})),)
    look = Look(IQN, attributes=frozenset({"ImmediateData", "default_cmdsn_depth", "none"}), luns=luns)
    found = target_of(TARGET, {("block", f"{IQN}_0"): STORE}, look)
    assert found.portals == {Portal("192.0.2.10"), Portal("2001:db8::10", 3261)} and found.enabled and found.addresses == frozenset()
    assert found.attributes == (("ImmediateData", "Yes"), ("default_cmdsn_depth", "64"))
    (lun,) = found.luns
    assert (lun.lun, lun.path, lun.serial, lun.bstype, lun.discard) == (0, STORE["dev"], SERIAL, "block", True)
    assert lun.wwid == "naa.60014050b5e7a1c22224222833344445"
    assert lun.attributes == (("emulate_tpu", "1"),) and not lun.read_only
    assert found.acls == (Acl(A, "a", Secret("secret of a")), Acl(B, read_only=True))


def test_what_of_an_acl_is_not_right_is_seen() -> None:
    def seen(**parts: Any) -> Acl:
        shape = copy.deepcopy(TARGET)
        shape["tpgs"][0]["node_acls"] = [{**shape["tpgs"][0]["node_acls"][0], **parts}]
        return target_of(shape, {("block", f"{IQN}_0"): STORE}, Look(IQN)).acls[0]

    assert seen(mapped_luns=[]).mapped is False
    assert seen(chap_userid="", chap_password="") == Acl(A, "")
    assert seen(attributes={"authentication": 0}) == Acl(A)
    assert seen(chap_mutual_userid="t", chap_mutual_password="m").mutual_username == "t"


def test_demo_mode_and_doors_without_chap_are_seen() -> None:
    shape = copy.deepcopy(TARGET)
    shape["tpgs"][0]["attributes"].update(authentication=0, generate_node_acls=1)
    found = target_of(shape, {}, Look(IQN))
    assert found.addresses == {EVERYBODY} and found.acl(A).username is None


def test_a_wwid_has_the_first_25_digits_of_the_serial() -> None:
    assert wwid_of(SERIAL) == "naa.60014050b5e7a1c22224222833344445"
    assert wwid_of("volume-1") == "naa.6001405e1" + "0" * 23
    assert {len(wwid_of(serial)) for serial in ("", SERIAL, "f" * 36)} == {36}


# ---- configfs

INFO = """InitiatorName: iqn.1993-08.org.debian:01:a
InitiatorAlias: compute-1
LIO Session ID: 1   ISID: 0x00 02 3d 00 00 01  TSIH: 1  SessionType: Normal
Session State: TARG_SESS_STATE_LOGGED_IN
---------------------[iSCSI Session Values]-----------------------
  CmdSN/WR  :  CmdSN/WC  :  ExpCmdSN  :  MaxCmdSN  :     ITT    :     TTT
 0x00000010   0x00000044   0x0000001c   0x0000005f   0x00000000   0x00000016
----------------------[iSCSI Connections]-------------------------
CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN
   Address 10.77.0.12 TCP  StatSN: 0x4e0a8d3b
"""


def test_a_session_is_read() -> None:
    assert parse_info(INFO) == [Session(A, "10.77.0.12")]
    assert parse_info(INFO.replace("10.77.0.12", "[fd77::12]")) == [Session(A, "fd77::12")]
    assert parse_info(f"No active iSCSI Session for Initiator Endpoint: {A}\n") == []


def plant(root: Path, spec: dict[str, Any]) -> None:
    """Directories, files, and links, which are texts that begin with an arrow."""
    for name, value in spec.items():
        path = root / name
        if isinstance(value, dict):
            path.mkdir(parents=True)
            plant(path, value)
        elif value.startswith("-> "):
            path.symlink_to(value[3:])
        else:
            path.write_text(value + "\n")


ACL = {
    "attrib": {"authentication": "-1"}, "info": INFO, "tag": "",
    "auth": {"userid": "a", "password": "secret of a", "userid_mutual": "NULL", "password_mutual": "NULL"},
    "lun_0": {"x": "-> ../../../../../../target/iscsi/t/tpgt_1/lun/lun_0", "write_protect": "0"}, "lun_7": {"write_protect": "0"},
}  # fmt: skip
TPG = {
    "acls": {A: ACL}, "attrib": {"authentication": "1"}, "param": {"AuthMethod": "CHAP"}, "auth": {"userid": "NULL"},
    "enable": "1", "dynamic_sessions": "",
    "lun": {
        "lun_0": {"read-write": f"-> ../../../../../../target/core/iblock_0/{IQN}_0", "alua_tg_pt_gp": "TG Port Alias: default_tg_pt_gp\nTG Port Group ID: 0"},
        "lun_3": {},
    },
    "np": {"192.0.2.10:3260": {"iser": "0", "cxgbit": "0"}, "[2001:db8::10]:3261": {"iser": "0"}},
}  # fmt: skip
BACKSTORE = {
    "enable": "1", "udev_path": STORE["dev"], "alua": {},
    "wwn": {"vpd_unit_serial": f"T10 VPD Unit Serial Number: {SERIAL}"}, "attrib": {"emulate_tpu": "1", "emulate_write_cache": "0"},
    "info": "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512\n        iBlock device: dm-0  UDEV PATH: /dev/x  readonly: 0",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    info = "Status: DEACTIVATED  SectorSize: 512  TCM FILEIO ID: 0  File: /srv/f  Size: 4096  Mode: O_DSYNC Async: 0"
    file = {**BACKSTORE, "info": info, "udev_path": "/srv/f"}
    plant(tmp_path, {
        "iscsi": {IQN: {"tpgt_1": TPG, "fabric_statistics": {}}, "discovery_auth": {}, OTHER: {}},
        "core": {"alua": {}, "iblock_0": {f"{IQN}_0": BACKSTORE}, "fileio_1": {"f": file, "half-made": {"enable": "0", "info": "Status: DEACTIVATED"}}},
    })  # fmt: skip
    return Tree(str(tmp_path))


def test_configfs_is_read_in_the_shape_that_is_saved(tree: Tree) -> None:
    tpg = tree.target(IQN)["tpgs"][0]
    assert tree.target_names() == [IQN, OTHER] or tree.target_names() == [OTHER, IQN]
    assert tpg["luns"] == TARGET["tpgs"][0]["luns"]
    assert sorted(tpg["portals"], key=str) == sorted(TARGET["tpgs"][0]["portals"], key=str)
    assert tpg["node_acls"] == [TARGET["tpgs"][0]["node_acls"][0]]
    assert tree.store(("block", f"{IQN}_0")) == STORE
    assert (tree.store(("fileio", "f"))["size"], tree.store(("fileio", "f"))["aio"]) == (4096, False)
    assert tree.sessions(IQN) == (Session(A, "10.77.0.12"),)


def test_what_is_half_made_is_not_taken_for_made(tree: Tree) -> None:
    assert tree.target(OTHER) is None and tree.target("iqn.2026-01.org.example:none") is None
    assert tree.store(("fileio", "half-made")) is None and ("fileio", "half-made") in tree.stores()
    assert [os.path.relpath(path, tree.target_path(IQN)) for path in unfinished_links(tree.root, IQN)] == [f"tpgt_1/acls/{A}/lun_7", "tpgt_1/lun/lun_3"]
    assert tree.is_exported(("block", f"{IQN}_0")) and not tree.is_exported(("fileio", "f"))
    assert tree.users("/srv/../srv/f") == [("fileio", "f")] and tree.users("/srv/g") == []


def test_without_configfs_there_is_nothing(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path / "none"))
    assert (tree.target_names(), tree.target(IQN), tree.stores(), tree.sessions(IQN), tree.portals(IQN)) == ([], None, {}, (), [])
    assert unfinished_links(tree.root, IQN) == [] and list(tmp_path.iterdir()) == []
