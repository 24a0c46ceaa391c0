# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Who exports volumes: one interface, one back end per target daemon."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import Invalid
from .._model.target import Acl, Attributes, Lun, Portal, Target

# Keep in sync with doc_fragments/_target.py
TARGET_OPTIONS: t.Dict[str, t.Any] = {
    "helper": {"type": "str", "choices": ["tgt", "lio"], "default": "tgt"},
    "control_port": {"type": "int", "default": 0},
    "ipc_socket": {"type": "path", "default": "/var/run/tgtd/socket"},
    "config_dir": {"type": "path", "default": "/etc/tgt/conf.d"},
    "saveconfig": {"type": "path"},
    "return_secrets": {"type": "bool", "default": False},
}

# Keys of the world beside the targets' names, which hold Exports.
PORTALS = ("portals",)  # -> FrozenSet[Portal]: all that the daemon serves
ELSEWHERE = ("elsewhere",)  # -> Dict[Portal, str]: portals that can't be listened at here, and why
ACCOUNTS = ("accounts",)  # -> Dict[str, FrozenSet[str]]: names of global accounts, and the targets that use each


def backing(path: str) -> t.Tuple[str, str]:
    """The key of the world under which the size in bytes of a LUN's data stands; not in the world: no such data."""
    return ("backing", path)


def traits(path: str) -> t.Tuple[str, str]:
    """The key of the world under which the Traits of a LUN's data stand; not in the world: what the back end presumes."""
    return ("traits", path)


def holder(path: str) -> t.Tuple[str, str]:
    """The key of the world under which stands who else has a LUN's data open, in words; not in the world: nobody."""
    return ("holder", path)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What a LUN is by the nature of its data, by names of its attributes, and which of that can't be chosen otherwise."""

    defaults: t.Dict[str, t.Any]
    fixed: t.FrozenSet[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class LunLook:
    """The attributes to be seen of one LUN, which is meant by number, path or serial."""

    lun: t.Optional[int]
    path: t.Optional[str]
    serial: t.Optional[str]
    attributes: t.FrozenSet[str]


@dataclasses.dataclass(frozen=True)
class Look:
    """What has to be seen of one target: is it reached at these portals, are these paths there, do these initiators' secrets fit?"""

    iqn: str
    portals: t.FrozenSet[Portal] = frozenset()
    paths: t.FrozenSet[str] = frozenset()
    initiators: t.FrozenSet[str] = frozenset()
    attributes: t.FrozenSet[str] = frozenset()
    luns: t.Tuple[LunLook, ...] = ()


class TargetBackend:
    """The verbs a target daemon must have. Every verb may be repeated after a crash without harm.

    The flags say what a daemon can't do; planners refuse it with a sentence.
    """

    lock_path: t.Optional[str] = None
    where = ""
    shared_portals = False  # a portal serves all targets, so that none can be taken from one of them
    chap_per_target = False  # CHAP is asked of all initiators of a target, or of none
    mutual_per_target = False  # all initiators of a target are shown the same mutual pair
    global_accounts = False  # a username exists once for all targets
    per_acl_read_only = False  # a disk may be read-only for one initiator and not for another
    saves_live = False  # what is saved is a copy of what runs, taken once, after all changes of a task
    enables = False  # a target lets nobody in before it is enabled
    first_lun, last_lun = 1, 16383
    bstypes: t.Tuple[str, ...] = ()
    growing: t.FrozenSet[str] = frozenset()  # the bstypes whose LUNs are as large as their data at any time
    changeable: t.FrozenSet[str] = frozenset()  # what of a LUN changes in place
    own_attributes: t.Optional[t.FrozenSet[str]] = None  # attributes that have an option of their own; None: there are no attributes

    def observe(self, looks: t.Sequence[Look]) -> t.Dict[t.Hashable, t.Any]:
        """The world: Exports by target name, PORTALS, ELSEWHERE, ACCOUNTS and backing sizes. Creates nothing. Raises Unavailable."""
        raise NotImplementedError

    def names(self) -> t.Set[str]:
        """All targets, live or saved by this collection."""
        raise NotImplementedError

    def spelled(self, name: str) -> str:
        """An iSCSI name as the daemon spells it. Raises Invalid for one that it can't have."""
        return name

    def presumed(self, path: str) -> Traits:
        """The traits of data that is not there yet."""
        raise NotImplementedError

    def wwid(self, serial: str) -> str:
        """The identity that initiators will see of a LUN with this serial, as naa.HEX."""
        raise NotImplementedError

    def save(self, target: Target) -> None:
        """Writes what comes back after a restart, in one atomic change, at once or when `flush` is called."""
        raise NotImplementedError

    def forget(self, iqn: str) -> None:
        """Removes the saved form."""
        raise NotImplementedError

    def flush(self) -> None:
        """Writes what `save` and `forget` only gathered."""

    def create(self, iqn: str) -> None:
        """An empty target that lets nobody in."""
        raise NotImplementedError

    def delete(self, iqn: str) -> None:
        """Takes the target away with its LUNs and ACLs; its accounts stay."""
        raise NotImplementedError

    def enable(self, iqn: str) -> None:
        """Lets in whom it may concern."""
        raise NotImplementedError

    def set_attributes(self, iqn: str, attributes: Attributes) -> None:
        raise NotImplementedError

    def add_portal(self, iqn: str, portal: Portal) -> None:
        raise NotImplementedError

    def remove_portal(self, iqn: str, portal: Portal) -> None:
        raise NotImplementedError

    def add_lun(self, iqn: str, lun: Lun, kept_off: t.FrozenSet[str] = frozenset()) -> None:
        """Shows a LUN to all who see the others, and to these initiators read-only."""
        raise NotImplementedError

    def identify_lun(self, iqn: str, lun: Lun) -> None:
        """Gives a LUN, which an earlier run left without, its serial and attributes."""
        raise NotImplementedError

    def change_lun(self, iqn: str, lun: Lun) -> None:
        """Sets what changes in place."""
        raise NotImplementedError

    def remove_lun(self, iqn: str, number: int) -> None:
        raise NotImplementedError

    def admit(self, iqn: str, acl: Acl) -> None:
        """Lets an initiator in with exactly these secrets, whatever the account was before; the door opens last."""
        raise NotImplementedError

    def deny(self, iqn: str, initiator: str) -> None:
        """Shuts the door of an initiator; its account stays."""
        raise NotImplementedError

    def drop_address(self, iqn: str, address: str) -> None:
        """Shuts a door for an address."""
        raise NotImplementedError

    def drop_account(self, iqn: str, username: str) -> None:
        """Takes an account from the target and, if no other target uses it, away; the target may be gone already."""
        raise NotImplementedError


def open_targets(options: t.Dict[str, t.Any]) -> TargetBackend:
    """The back end for a module's options. Helpers are imported here, so that only the used one is needed."""
    if options["helper"] == "tgt":
        from .tgt import TgtBackend

        return TgtBackend(options["control_port"], options["ipc_socket"], options["config_dir"])
    if options["helper"] == "lio":
        from .lio import LioBackend

        return LioBackend(options["saveconfig"])
    raise Invalid(f"there is no target helper {options['helper']!r}")
