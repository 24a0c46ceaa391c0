# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""Domains that are kept from writing, as a resource of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Failed, Invalid
from ._hosts.libvirt import lock_path
from ._hosts.quiesce import Quiescer
from ._model.quiesce import Guest, Hold
from ._plan_quiesce import QuiesceWish, plan_quiesce
from ._reconcile import Plan, Resource, World

_MAX_SECONDS = 3600


class Quiesced(Resource):
    plural = "domains"

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.host = Quiescer(options["uri"])
        self.lock_path = lock_path(options["uri"], "quiesce")

    def want(self, item: t.Dict[str, t.Any]) -> QuiesceWish:
        name, at_most = item.get("name"), item.get("at_most") or 60
        if not name:
            raise Invalid("an item names no domain; give name")
        if not 1 <= at_most <= _MAX_SECONDS:
            raise Invalid(f"domain {name} can't be kept from writing for at_most={at_most} seconds; give 1 to {_MAX_SECONDS}")
        return QuiesceWish(name, item.get("state") != "released", item.get("without_agent") or "pause", at_most)

    def observe(self, wants: t.Sequence[QuiesceWish]) -> World:
        return self.host.observe()

    def assumed(self, result: t.Dict[str, t.Any], world: World) -> World:
        """Takes results of this module: the domain will be kept from writing."""
        have: t.Optional[Guest] = world.get(result.get("name"))
        way = result.get("quiesced")
        return {have.name: dataclasses.replace(have, running=have.running and way != "paused", hold=Hold(way))} if have and way else {}

    def plan(self, want: QuiesceWish, world: World) -> Plan:
        return plan_quiesce(want, world, self.host)

    def settled(self, plan: Plan, world: World) -> bool:
        have: t.Optional[Guest] = world.get(plan.key)
        if plan.after.hold or have is None or have.hold is None or have.hold.state == "expired":
            return True
        if have.hold.state == "broken":
            raise Failed(_stuck(have))
        return False

    def unsettled(self, plan: Plan, world: World) -> str:
        return _stuck(world[plan.key])

    def show(self, plan: Plan, state: t.Optional[Guest]) -> t.Dict[str, t.Any]:
        before, hold = plan.before.hold, state.hold if state else None
        held = None if before is None or plan.after.hold else before == Hold(before.way) and hold is None
        return {"quiesced": hold.way if hold and hold.state == "holding" else None, "held": held}


def _stuck(have: Guest) -> str:
    why = have.hold.reason if have.hold and have.hold.reason else "what holds it has not ended"
    return f"domain {have.name} may still be kept from writing: {why}; run the same task again, or see virsh domfsthaw and resume"
