# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Targets as files that tgt-admin loads when tgtd starts: one file a target, readable by root only.

A file holds the target twice: as JSON in a comment, which is what this collection reads again, and
as tgt-admin's directives. A file whose directives do not follow from its JSON was tampered with.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._errors import Conflict, Failed, Unavailable
from .._model.data import Secret
from .._model.target import Lun, Target, target_data, target_from

_MARK = "# stackless.block: written by the module iscsi_target, which replaces it; changes made by hand are lost\n"

# tgt-admin lets everybody in where a file names no address, whatever initiator names it holds; no peer has this address.
NOBODY = "0.0.0.0"

# The caching mode page (SBC-3 section 6.5.5) with the bit WCE off, as tgt-admin's `write-cache off` sets it.
CACHE_OFF = "8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0"


class Saved(t.NamedTuple):
    """What a file tells; `obstacle` is the sentence why it can't be ours."""

    target: t.Optional[Target] = None
    intact: bool = True
    obstacle: t.Optional[str] = None


class TargetFiles:
    def __init__(self, directory: str) -> None:
        self.directory = directory

    def check(self) -> None:
        if not os.path.isdir(self.directory):
            raise Unavailable(f"config_dir {self.directory} does not exist or is no directory; install tgt, or name the directory whose files tgt-admin loads")

    def path(self, iqn: str) -> str:
        return os.path.join(self.directory, iqn.replace(":", "_") + ".conf")  # a target's name has no underscore

    def names(self) -> t.Set[str]:
        """The targets that have a file of ours."""
        entries = [entry for entry in os.listdir(self.directory) if entry.endswith(".conf") and not entry.startswith(".")]
        found = [self.read(entry[: -len(".conf")].replace("_", ":")).target for entry in entries]
        return {target.iqn for target in found if target}

    def read(self, iqn: str) -> Saved:
        path = self.path(iqn)
        try:
            with open(path, encoding="utf-8") as handle:
                text = handle.read()
                mode = os.fstat(handle.fileno()).st_mode & 0o777
        except FileNotFoundError:
            return Saved(intact=not os.path.lexists(_unfinished(path)))
        except (OSError, ValueError) as error:
            raise Unavailable(f"the saved target {path} can't be read: {error}; run the task as root") from error
        if not text.startswith(_MARK):
            return Saved(obstacle=f"{path} is not of this collection, and target {iqn} would be saved there; move that file away, or set config_dir")
        try:
            target = target_from(json.loads(text[len(_MARK) :].partition("\n")[0][2:]), _secret)
        except (ValueError, TypeError, KeyError):
            return Saved(intact=False)  # not even the JSON: to be written anew
        return Saved(target, intact=text == render(target) and mode == 0o600 and not os.path.lexists(_unfinished(path)))

    def write(self, target: Target) -> None:
        path = self.path(target.iqn)
        fresh = _unfinished(path)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as handle:
                os.fchmod(handle.fileno(), 0o600)
                handle.write(render(target))
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(fresh, path)
            self._sync()
        except OSError as error:
            raise Failed(f"target {target.iqn} can't be saved at {path}: {error.strerror}; make {self.directory} writable for root") from error

    def remove(self, iqn: str) -> None:
        if self.read(iqn).obstacle:
            raise Conflict(f"{self.path(iqn)} is not of this collection and stays")
        try:
            for path in (self.path(iqn), _unfinished(self.path(iqn))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            self._sync()
        except OSError as error:
            raise Failed(f"the saved target {self.path(iqn)} can't be removed: {error.strerror}; make {self.directory} writable for root") from error

    def _sync(self) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unfinished(path: str) -> str:
    """Where a file is written before it takes its place. A killed run leaves it, with secrets inside: the file is not intact then."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")


def render(target: Target) -> str:
    """The whole file of a target."""
    record = json.dumps(target_data(target, Secret.reveal), sort_keys=True)
    lines = [f"<target {target.iqn}>", "    allow-in-use yes", f"    initiator-address {NOBODY}"]
    for lun in target.luns:
        lines += _store(lun)
    pairs = [(acl.username, acl.password) for acl in target.acls]
    lines += [f"    incominguser {name} {secret.reveal()}" for name, secret in pairs if name and secret]
    mutual = {(acl.mutual_username, acl.mutual_password) for acl in target.acls if acl.mutual_username}
    lines += [f"    outgoinguser {name} {secret.reveal()}" for name, secret in mutual if secret]
    lines += [f"    initiator-name {acl.initiator}" for acl in target.acls]
    return f"{_MARK}# {record}\n" + "\n".join([*lines, "</target>"]) + "\n"


def _store(lun: Lun) -> t.List[str]:
    inside = [f"lun {lun.lun}", f"bs-type {lun.bstype}"]
    inside += [f"scsi_id {scsi_id(lun.wwid)}"] if lun.wwid else []
    inside += [f"scsi_sn {lun.serial}"] if lun.serial else []
    inside += ["readonly 1"] if lun.read_only else []
    inside += [] if lun.write_cache else ["write-cache off"]
    return [f"    <backing-store {lun.path}>", *(f"        {line}" for line in inside), "    </backing-store>"]


def scsi_id(wwid: str) -> str:
    """tgtd makes a LUN's NAA designator (16 bytes, type 6) of the hexadecimal digits of its scsi_id, right aligned."""
    return wwid[len("naa.") :]


def _secret(text: t.Optional[str]) -> t.Optional[Secret]:
    return None if text is None else Secret(text)
