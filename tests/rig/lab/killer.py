# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module on a machine of the lab whose process is killed between two of its steps."""

from __future__ import annotations

import json
from typing import Any


KILLER = """
import importlib
import os
import sys

from ansible_collections.stackless.block.plugins.module_utils import _reconcile

name, left, sys.argv, sys.stdin = sys.argv[1], int(sys.argv[2]), sys.argv[:1], open("/tmp/arguments")
run, flush = _reconcile._run, _reconcile._flush


def count():
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1


def counted(outcome, steps, patience):
    for step in steps:
        count()
        run(outcome, [step], patience)


def flushed(resource, touched):
    flush(resource, touched)
    count()


_reconcile._run, _reconcile._flush = counted, flushed
importlib.import_module("ansible_collections.stackless.block.plugins.modules." + name).main()
"""


def killed(host: Any, module: str, options: dict[str, Any], after: int) -> None:
    """The module as its process is killed after so many steps; what steps only gathered counts as one more."""
    place = host.checkout()
    host.run("cat > /tmp/killer", input=KILLER)
    host.run("umask 077; cat > /tmp/arguments", input=json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    status = host.run(f"cd {place}; PYTHONPATH=. timeout 100 python3 /tmp/killer {module} {after} > /tmp/said 2>&1; echo $?", check=False, timeout=120)
    host.run("rm /tmp/arguments")
    assert status.strip() == "137", "it came to its end before it could be killed: " + host.run("cat /tmp/said")
