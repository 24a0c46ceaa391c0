# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""From whether a domain writes to whether it shall: pure decisions, no reading, no writing."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import NotFound, Refused
from ._hosts import QuiesceHost
from ._model.quiesce import Guest, Hold
from ._reconcile import Plan, Step, World


@dataclasses.dataclass(frozen=True)
class QuiesceWish:
    """What the user says of one domain. `without_agent` is pause, ignore or refuse; `at_most` is in seconds."""

    domain: str
    quiesced: bool = True
    without_agent: str = "pause"
    at_most: int = 60


def plan_quiesce(want: QuiesceWish, world: World, host: QuiesceHost) -> Plan:
    """Keeps a domain from writing, or lets it write again. Raises NotFound or Refused."""
    have: t.Optional[Guest] = world.get(want.domain)
    if have is None:
        near = ", ".join(sorted(str(name) for name in world)[:8]) or "none"
        raise NotFound(f"there is no domain {want.domain} at {host.where}; define it, or choose one of: {near}")
    if not want.quiesced:
        return _released(have, host)
    return _quiesced(want, have, host)


def _quiesced(want: QuiesceWish, have: Guest, host: QuiesceHost) -> Plan:
    if have.hold and have.hold.state == "holding":
        return Plan(have.name, have, have)
    free = dataclasses.replace(have, running=have.running or _pauses(have), hold=None)
    way = _way(want, free)
    ending = _release(have, host) if have.hold else ()
    if way is None:
        return Plan(have.name, have, free, ending)
    what = {"frozen": "freeze the file systems of", "paused": "pause"}[way]
    after = dataclasses.replace(free, running=way != "paused", hold=Hold(way))
    step = Step(f"{what} {have.name} for at most {want.at_most} s", host.quiesce, (have.name, way, want.at_most))
    return Plan(have.name, have, after, (*ending, step), undo=_release(after, host))


def _way(want: QuiesceWish, have: Guest) -> t.Optional[str]:
    """How this domain is kept quiet; None where that is not needed, or not wanted."""
    if not have.running:
        return None
    if have.agent:
        return "frozen"
    if want.without_agent == "refuse":
        raise Refused(
            f"the guest agent of {have.name} does not answer, so that its file systems can't be frozen; "
            "install qemu-guest-agent in the guest and give the domain its channel, or choose without_agent=pause"
        )
    return "paused" if want.without_agent == "pause" else None


def _released(have: Guest, host: QuiesceHost) -> Plan:
    if have.hold is None:
        return Plan(have.name, have, have)
    after = dataclasses.replace(have, running=have.running or _pauses(have), hold=None)
    return Plan(have.name, have, after, _release(have, host))


def _release(have: Guest, host: QuiesceHost) -> t.Tuple[Step, ...]:
    return (Step(f"let {have.name} write again", host.release, (have.name,)),)


def _pauses(have: Guest) -> bool:
    """Whether it is our own hold that it does not run for."""
    return have.hold is not None and have.hold.way == "paused" and have.hold.state != "expired"
