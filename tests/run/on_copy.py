# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a tool of this virtual environment inside a copy of the collection: `python -m tests.run.on_copy TOOL ARGUMENT…`"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.run.copy import collection_copy, environment


def main(tool: str, *arguments: str) -> int:
    with collection_copy() as copy:
        command = [Path(sys.executable).with_name(tool), *arguments]
        return subprocess.run(command, cwd=copy, env=environment(copy.parents[2]), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
