# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection as the files git knows of, copied to a place of its own, and the environment its tools run in."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

from tests.rig.collection import ROOT, collections_path

# Every step says with a line that begins so what it could not run on this machine, and why.
NOT_RUN = "NOT RUN HERE: "


@contextlib.contextmanager
def collection_copy() -> Iterator[Path]:
    """<temporary>/ansible_collections/stackless/block with the checkout's files: ansible-test skips all of a checkout's."""
    with tempfile.TemporaryDirectory(prefix="stackless-copy-") as temporary:
        copy = Path(temporary) / "ansible_collections" / "stackless" / "block"
        for name in known_files():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        yield copy


def known_files() -> list[Path]:
    """What git tracks or would track, as it stands in the checkout now."""
    # safe.directory: under sudo the checkout belongs to someone else
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file()]


def environment(collections: Path | None = None, python: str = sys.executable) -> dict[str, str]:
    """The environment for Ansible's tools: this virtual environment first, and this collection found."""
    path = [str(Path(python).parent), *pyenv_bins(), *(p for p in os.environ["PATH"].split(":") if "/shims" not in p)]
    return {
        **os.environ,
        "PATH": ":".join(path),
        "ANSIBLE_COLLECTIONS_PATH": str(collections or collections_path()),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def pyenv_bins() -> list[str]:
    """The real interpreters of pyenv: its shims claim versions that then do not start."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [str(path) for path in sorted(root.glob("versions/*/bin"))]
