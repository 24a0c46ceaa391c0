# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call of a tool of the shape of cinder-rtstool: one process, one act. Cinder's LIO driver makes four for every volume that it exports.

rtstool.py create DEVICE IQN USER PASSWORD PORTAL | add-initiator IQN USER PASSWORD INITIATOR | save | clear
"""

from __future__ import annotations

import sys

import rtslib_fb


def create(device: str, iqn: str, user: str, password: str, portal: str) -> None:
    backstore = rtslib_fb.BlockStorageObject(iqn, dev=device)
    tpg = rtslib_fb.TPG(rtslib_fb.Target(rtslib_fb.FabricModule("iscsi"), iqn, mode="create"), 1, mode="create")
    tpg.set_attribute("authentication", "1")
    rtslib_fb.LUN(tpg, storage_object=backstore, lun=0)
    tpg.enable = True
    rtslib_fb.NetworkPortal(tpg, portal, 3260, mode="any")


def add_initiator(iqn: str, user: str, password: str, initiator: str) -> None:
    target = next(target for target in rtslib_fb.FabricModule("iscsi").targets if target.wwn == iqn)
    acl = rtslib_fb.NodeACL(next(target.tpgs), initiator, mode="create")
    acl.chap_userid, acl.chap_password = user, password
    rtslib_fb.MappedLUN(acl, 0, tpg_lun=0)


def save() -> None:
    rtslib_fb.RTSRoot().save_to_file()


def clear() -> None:
    rtslib_fb.RTSRoot().clear_existing(confirm=True)


{"create": create, "add-initiator": add_initiator, "save": save, "clear": clear}[sys.argv[1]](*sys.argv[2:])
