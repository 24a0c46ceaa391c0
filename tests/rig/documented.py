# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module answers, beside what its RETURN says."""

from __future__ import annotations

import functools
import importlib
from typing import Any, Iterator

import yaml

ANSIBLES = {"changed", "failed", "msg", "diff", "warnings", "deprecations", "invocation", "exception"}


def undocumented(module: str, answer: dict[str, Any]) -> list[str]:
    """The keys of an answer, those in its lists and dicts among them, of which the module's documentation does not speak."""
    return sorted(set(_unknown(answer, returned(module), "")))


@functools.lru_cache(maxsize=None)
def returned(module: str) -> dict[str, Any]:
    known = yaml.safe_load(importlib.import_module(f"ansible_collections.stackless.block.plugins.modules.{module}").RETURN)
    if module == "cinder_backup":  # which says that what it restores has what a volume has
        volume = returned("cinder_volume")
        known = {**volume, **known}
        known["results"]["contains"] = {**volume["results"]["contains"], **known["results"]["contains"]}
    return known


def _unknown(values: dict[str, Any], known: dict[str, Any], where: str) -> Iterator[str]:
    for key, value in values.items():
        if key not in known:
            if where or key not in ANSIBLES:
                yield where + key
        elif "contains" in known[key]:
            for one in value if isinstance(value, list) else [value]:
                yield from _unknown(one or {}, known[key]["contains"], f"{where}{key}.")
