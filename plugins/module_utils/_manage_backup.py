# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Backups as resources of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import collections
import datetime
import typing as t
import uuid

from ._backups import BackupStore, open_store
from ._errors import Invalid, StorageError
from ._hosts.at_work import ThisHost
from ._manage_volume import OnBackend, text_of, volume_result
from ._model.backup import Backup, Key, backup_from, backup_record, keep_of
from ._model.volume import Volume, check_name
from ._plan_backup import BackupWish, Places, backups_of, names_of, plan_backup, pruned_key
from ._reconcile import Plan, World


class Backups(OnBackend):
    plural = "backups"

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.store = open_store(options["repository"])
        self.work = ThisHost()
        self._planned: t.Set[str] = set()  # wishes, by their fresh ids
        self._uncleaned = ""  # why the space of what was deleted is not free yet

    def want(self, item: t.Dict[str, t.Any]) -> BackupWish:
        volume, state = check_name(item.get("volume")), item.get("state") or "present"
        if state != "pruned" and item.get("keep") is not None:
            raise Invalid(f"keep says what stays of the backups of volume {volume} with state=pruned; leave it out, or prune in a task of its own")
        return BackupWish(
            volume=volume,
            name="" if state == "pruned" else check_name(item.get("name"), "backup"),
            state=state,
            description=text_of(volume, "description", item),
            snapshot=None if item.get("snapshot") is None else check_name(item["snapshot"], "snapshot"),
            force=bool(item.get("force")),
            to=None if item.get("to") is None else check_name(item["to"]),
            overwrite=bool(item.get("overwrite")),
            keep=keep_of(volume, item.get("keep")) if state == "pruned" else None,
            fresh_id=str(uuid.uuid4()),
            now=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def with_snapshots(self, want: BackupWish) -> t.Tuple[str, ...]:
        return (want.volume,) if want.snapshot else ()

    def observe(self, wants: t.Sequence[t.Any]) -> World:
        world = super().observe(wants)
        # in the middle of a task this run's own changes are enough: every look is a process that derives a key, and no lock keeps others away
        world.update(self.store.known if self._waits(wants) else self.store.look())
        for want in wants:
            if want.state == "pruned":
                world[pruned_key(want.volume)] = names_of(backups_of(want.volume, world))
        return world

    def _waits(self, wants: t.Sequence[BackupWish]) -> bool:
        """Whether some wishes of this task are fulfilled, and these are not; what is restored needs the ids that only a look tells."""
        return bool(self._planned) and all(want.fresh_id not in self._planned and want.state != "restored" for want in wants)

    def plan(self, want: BackupWish, world: World) -> Plan:
        self._planned.add(want.fresh_id)
        return self.warned(plan_backup(want, world, Places(self.backend, self.store, self.work)), *self.store.warnings)

    def assumed(self, result: t.Dict[str, t.Any], world: World) -> World:
        record = result.get("backup")
        backup = {} if not record else {Key(record["volume_id"], record["name"]): backup_from(record)}
        return {**super().assumed(result, world), **backup}

    def flush(self) -> None:
        """What was deleted takes space until it is cleaned up; that can wait for others who are at the store."""
        if not self.store.unclean:
            return
        try:
            self.store.clean()
        except StorageError as error:
            self._uncleaned = f"what was deleted still takes space: {error}; the next deletion frees it"

    def settled(self, plan: Plan, world: World) -> bool:
        """Others may have gone on with a volume since, or have taken more backups."""
        have = world.get(plan.key)
        if isinstance(plan.after, Volume):
            return have is not None and have.id == plan.after.id and (have.data_bytes or 0) >= plan.after.size_bytes
        if isinstance(plan.after, tuple):
            return not (set(plan.before) - set(plan.after)) & set(have or ())
        return have == plan.after

    def show(self, plan: Plan, state: t.Any) -> t.Dict[str, t.Any]:
        if isinstance(state, Volume):
            return volume_result(state)
        if isinstance(state, tuple):
            return {"names": list(state)}
        return backup_result(state)

    def doubts(self, plan: Plan, state: t.Any) -> t.Sequence[str]:
        return [self._uncleaned] if self._uncleaned else []

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return {key: item.get(key) for key in ("volume", "name")}


def backup_result(backup: t.Optional[Backup]) -> t.Dict[str, t.Any]:
    """A backup as a module returns it."""
    if backup is None:
        return {"status": "deleted", "backup": None}
    record = backup_record(backup)
    return {**record, "status": "available", "size_gib": backup.size_bytes >> 30, "backup": record}


def find_backups(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The backups of a repository, ordered by volume and time, or those of exactly the given volumes; read and compared where that is asked for."""
    store = open_store(options["repository"])
    found = [one for one in store.look().values() if options.get("volumes") is None or one.volume in options["volumes"]]
    ordered = sorted(found, key=lambda one: (one.volume, one.created_at, one.name))
    flaws = {one.key: _flaw(store, one) for one in ordered} if options.get("verify") else {}
    shown = [{**backup_result(one), **({"verified": not flaws[one.key], "flaw": flaws[one.key]} if flaws else {})} for one in ordered]
    return {"backups": shown, "warnings": [*store.warnings, *filter(None, [store.missing]), *filter(None, flaws.values())]}


def _flaw(store: BackupStore, backup: Backup) -> t.Optional[str]:
    """Why a backup could not be restored, or None once all of it was read, decrypted and compared with its checksums."""
    try:
        collections.deque(store.give(backup), maxlen=0)
    except StorageError as error:
        return str(error)
    return None
