# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes every task result of a play as a line of JSON into the file that STACKLESS_RECORD names.

Modules that ansible-core has packed for one play are kept in the directory STACKLESS_PACKED for the next ones:
packing takes a quarter of a short play, and what is packed is the same for all of them.
"""

from __future__ import annotations

DOCUMENTATION = """
name: record
type: aggregate
short_description: Record of a play, for tests
description: One line of JSON for every task result.
"""

import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402

from ansible import constants  # noqa: E402
from ansible.plugins.callback import CallbackBase  # noqa: E402


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"

    def __init__(self):
        super().__init__()
        os.symlink(os.environ["STACKLESS_PACKED"], os.path.join(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache"))

    def _note(self, result, status):
        outcome = result.result if hasattr(result, "result") else result._result
        task = result.task if hasattr(result, "task") else result._task
        looped = [r for r in outcome.get("results", []) if not r.get("skipped")] if task.loop else [outcome]
        runs = 0 if status == "skipped" else len(looped)
        line = {
            "at": time.time(),
            "host": str(result.host if hasattr(result, "host") else result._host),
            "name": task.get_name(),
            "action": task.action,
            "status": status,
            "runs": runs,
            "changed": bool(outcome.get("changed")),
            "result": outcome,
        }
        with open(os.environ["STACKLESS_RECORD"], "a", encoding="utf-8") as record:
            record.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result):
        self._note(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._note(result, "failed")

    def v2_runner_on_skipped(self, result):
        self._note(result, "skipped")

    def v2_runner_on_unreachable(self, result):
        self._note(result, "unreachable")
