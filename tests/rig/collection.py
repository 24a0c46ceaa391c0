# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checkout as an installed collection, and its modules as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rig.documented import undocumented
from tests.rig.served import Served

ROOT = Path(__file__).resolve().parent.parent.parent


def collections_path() -> Path:
    """A directory for ANSIBLE_COLLECTIONS_PATH in which stackless.block is this checkout."""
    path = ROOT / ".cache" / "collections"
    link = path / "ansible_collections" / "stackless" / "block"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        try:
            link.symlink_to(ROOT, target_is_directory=True)
        except FileExistsError:
            pass
    return path


def run_module(
    name: str,
    options: dict[str, Any],
    check: bool = False,
    diff: bool = True,
    env: dict[str, str] | None = None,
    timeout: float = 120,
    alone: bool = False,
) -> dict[str, Any]:
    """Runs one module in a process of its own, options on stdin, and returns what it printed.

    `alone`, or with an `env` over the environment of the tests, it starts Python as on any host; else it is a child of one that serves.
    """
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
    environ = {**os.environ, "PYTHONPATH": str(collections_path()), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    said = None if alone or env else _SERVED.run(f"exec env PYTHONPATH={collections_path()} {sys.executable}", name, arguments, timeout, environ)
    if said is None:
        said = _run_alone(name, arguments, environ, timeout)
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise AssertionError(f"{name} printed no JSON:\n{said}") from error
    unknown = undocumented(name, answer)
    assert not unknown, f"the documentation of {name} does not speak of what it returns: {', '.join(unknown)}"
    return answer


_SERVED = Served(["sh", "-c"])


def _run_alone(name: str, arguments: dict[str, Any], environ: dict[str, str], timeout: float) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.stackless.block.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environ,
    )
    return done.stdout or done.stderr
