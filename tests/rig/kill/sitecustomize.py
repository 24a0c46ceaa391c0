# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kills a play right after a chosen step, as a power failure would. On PYTHONPATH only in the tests that want it.

Every step that the engine has done is a line in the file STACKLESS_STEPS. When that is the line
STACKLESS_KILL_AFTER, the controller of the play, whose process id stands in STACKLESS_CONTROLLER, and all
that it has started are killed at once. On another host than the controller's, STACKLESS_HELD is set instead:
the module writes its process id there and stops, and whoever waits for that file kills both.
"""

from __future__ import annotations

import importlib.machinery
import os
import signal
import sys

ENGINE = "ansible_collections.stackless.block.plugins.module_utils._reconcile"


def descendants(root):
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    children.setdefault(int(stat.read().rpartition(")")[2].split()[1]), []).append(int(entry))
            except OSError:
                continue
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def kill_all():
    with open(os.environ["STACKLESS_CONTROLLER"], encoding="utf-8") as handle:
        root = int(handle.read())
    os.kill(root, signal.SIGSTOP)  # nothing is started meanwhile
    for pid in [p for p in descendants(root) if p != os.getpid()] + [os.getpid()]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def hold():
    held = os.environ["STACKLESS_HELD"]
    with open(held + ".new", "w", encoding="utf-8") as handle:
        handle.write(str(os.getpid()))
    os.replace(held + ".new", held)
    os.kill(os.getpid(), signal.SIGSTOP)


def count(step):
    with open(os.environ["STACKLESS_STEPS"], "a+", encoding="utf-8") as steps:
        steps.write(step.name + "\n")
        steps.flush()
        steps.seek(0)
        done = len(steps.readlines())
    if done == int(os.environ.get("STACKLESS_KILL_AFTER", "0")):
        hold() if "STACKLESS_HELD" in os.environ else kill_all()


def watched(engine):
    plain = engine._run

    def run(outcome, steps, *rest):
        for step in steps:
            plain(outcome, [step], *rest)
            count(step)

    engine._run = run


class Finder:
    """Lets the import system find the engine as ever, and watches it once it is there."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != ENGINE:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not Finder else None
            if spec is not None and spec.loader is not None:
                load = spec.loader.exec_module
                spec.loader = Loader(load)
                return spec
        return None


class Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, load):
        self.load = load

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.load(module)
        watched(module)


if "STACKLESS_STEPS" in os.environ:
    sys.meta_path.insert(0, Finder)
