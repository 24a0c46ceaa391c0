# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Backups: what is recorded of one, and which of them a rule keeps.

A backup belongs to the volume with the id that it carries. Names are those of that time: a volume may have another one by now,
or be gone.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._errors import Invalid

_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Key(t.NamedTuple):
    """What tells a backup from all others."""

    volume_id: str
    name: str


@dataclasses.dataclass(frozen=True)
class Backup:
    """What a volume was at one moment, `created_at` (UTC, ISO 8601), kept apart from it.

    `snapshot` and `snapshot_id` are those of the volume's snapshot that it was read from, where one was given. `id` is that of the
    store, None where it is not made yet. `copies` are all things in the store that carry this backup's name: runs that overtook each
    other may leave more than one.
    """

    name: str
    volume: str
    volume_id: str
    size_bytes: int
    created_at: str
    description: t.Optional[str] = None
    volume_type: t.Optional[str] = None
    volume_description: t.Optional[str] = None
    metadata: t.Tuple[t.Tuple[str, str], ...] = ()
    multiattach: bool = False
    snapshot: t.Optional[str] = None
    snapshot_id: t.Optional[str] = None
    id: t.Optional[str] = dataclasses.field(default=None, compare=False, metadata={"hidden": True})
    copies: t.Tuple[str, ...] = dataclasses.field(default=(), compare=False, metadata={"hidden": True})

    @property
    def key(self) -> Key:
        return Key(self.volume_id, self.name)

    def __str__(self) -> str:
        return f"backup {self.name} of volume {self.volume}"


@dataclasses.dataclass(frozen=True)
class Keep:
    """How many backups of a volume stay: the `last` ones, and the newest one of each of so many hours, days, weeks, months and years."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def rules(self) -> t.Iterator[t.Tuple[int, t.Callable[[datetime.datetime], t.Any]]]:
        yield self.hourly, lambda time: (time.date(), time.hour)
        yield self.daily, lambda time: time.date()
        yield self.weekly, lambda time: time.isocalendar()[:2]
        yield self.monthly, lambda time: (time.year, time.month)
        yield self.yearly, lambda time: time.year


def keep_of(volume: str, options: t.Optional[t.Dict[str, t.Any]]) -> Keep:
    """The rules that a task gives; Invalid when they would keep nothing."""
    counts = {key: count for key, count in (options or {}).items() if count is not None}
    if not any(counts.values()) or min(counts.values()) < 0:
        raise Invalid(f"keep is {counts} for the backups of volume {volume}; give how many stay, such as {{last: 7, weekly: 8}}, and no number below 0")
    return Keep(**counts)


def kept(backups: t.Sequence[Backup], keep: Keep) -> t.List[Backup]:
    """Those of the backups of a volume that the rules keep, as restic's own policy chooses them, newest first."""
    ordered = sorted(backups, key=lambda one: (one.created_at, one.name), reverse=True)
    chosen = set(ordered[: keep.last])
    for count, period_of in keep.rules():
        chosen.update(_newest(ordered, count, period_of))
    return [one for one in ordered if one in chosen]


def _newest(ordered: t.Sequence[Backup], count: int, period_of: t.Callable[[datetime.datetime], t.Any]) -> t.Iterator[Backup]:
    last: t.Any = None
    for one in ordered:
        period = period_of(time_of(one))
        if count > 0 and period != last:
            yield one
            last, count = period, count - 1


def time_of(backup: Backup) -> datetime.datetime:
    return datetime.datetime.strptime(backup.created_at, _TIME)


def backup_record(backup: Backup) -> t.Dict[str, t.Any]:
    """A backup as plain data, the inverse of `backup_from`."""
    names = [field.name for field in dataclasses.fields(backup) if field.name != "copies"]
    return {**{name: getattr(backup, name) for name in names}, "metadata": dict(backup.metadata)}


def backup_from(data: t.Dict[str, t.Any]) -> Backup:
    """A backup from plain data; fields this version does not know are left out. Raises KeyError, TypeError or ValueError."""
    names = {field.name for field in dataclasses.fields(Backup)}
    known = {key: value for key, value in data.items() if key in names}
    backup = Backup(**{**known, "size_bytes": int(data["size_bytes"]), "metadata": tuple(sorted(dict(data.get("metadata") or {}).items()))})
    time_of(backup)
    return backup
