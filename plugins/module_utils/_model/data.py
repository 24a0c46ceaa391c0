# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Values that every subject shares: secrets, and how a state is shown to a person."""

from __future__ import annotations

import dataclasses
import typing as t

MASK = "********"


@dataclasses.dataclass(frozen=True)
class Secret:
    """A text that must never be printed: repr, str and diffs show a mask, `reveal()` the text."""

    _text: str = dataclasses.field(repr=False)

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


def as_data(value: t.Any, show: t.Callable[[Secret], t.Any] = str) -> t.Any:
    """A state as plain, sorted data, fit for JSON. Secrets become what `show` makes of them.

    Fields that carry the metadata `{"hidden": True}` are left out, sets are sorted so that
    two runs print the same order.
    """
    if isinstance(value, Secret):
        return show(value)
    if dataclasses.is_dataclass(value):
        shown = [f for f in dataclasses.fields(value) if not f.metadata.get("hidden")]
        return {f.name: as_data(getattr(value, f.name), show) for f in shown}
    if isinstance(value, dict):
        return {key: as_data(value[key], show) for key in sorted(value)}
    if isinstance(value, (set, frozenset)):
        return sorted((as_data(v, show) for v in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [as_data(v, show) for v in value]
    return value


def secrets_in(value: t.Any) -> t.Set[Secret]:
    """Every secret somewhere inside a state."""
    found: t.Set[Secret] = set()
    as_data(value, found.add)
    return found


def diff_data(before: t.Any, after: t.Any) -> t.Tuple[t.Any, t.Any]:
    """Both states as data; a secret that changes is seen to change, and nothing more of it."""
    kept = secrets_in(before) & secrets_in(after)

    def masked(word: str) -> t.Callable[[Secret], str]:
        return lambda secret: MASK if secret in kept else MASK + word

    return as_data(before, masked(" (old)")), as_data(after, masked(" (new)"))
