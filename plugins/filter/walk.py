# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.stackless.block.plugins.plugin_utils import _walk


class FilterModule:
    """The pure part of the walk, for the roles."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "walk_answers": _walk.answers_of,
            "walk_attached": _walk.attached,
            "walk_failures": _walk.failures,
            "walk_group_undo": _walk.group_undo,
            "walk_homeless": _walk.homeless,
            "walk_housed": _walk.housed,
            "walk_items": _walk.items,
            "walk_located": _walk.located,
            "walk_lost": _walk.lost,
            "walk_merge": _walk.merge,
            "walk_notes": _walk.notes,
            "walk_outcome": _walk.outcome,
            "walk_place": _walk.place,
            "walk_predicted": _walk.predicted,
            "walk_story": _walk.story,
            "walk_to_undo": _walk.to_undo,
            "walk_told": _walk.told,
            "walk_volumes": _walk.volumes,
            "walk_writers": _walk.writers,
        }
