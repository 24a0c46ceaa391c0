# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Domains that are kept from writing for a moment."""

from __future__ import annotations

import dataclasses
import typing as t

WAYS = ("frozen", "paused")


@dataclasses.dataclass(frozen=True)
class Hold:
    """What keeps a domain quiet: a process of its own, which lets go when it is told to, or by itself when the time is up.

    `way` is frozen (its file systems, by its agent) or paused. `state` is holding, expired (it has let go by itself), or
    broken: nobody knows whether it has, as the process was killed, or gave up. `reason`: why letting go did not succeed yet.
    """

    way: str
    state: str = "holding"
    reason: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Guest:
    """A domain as it may write: `running` when it runs and is not paused, `agent` when its guest agent answers."""

    name: str
    running: bool
    agent: bool = False
    hold: t.Optional[Hold] = None
