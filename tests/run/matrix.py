# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests and sanity on every supported ansible-core for which this machine has a Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.rig.collection import ROOT
from tests.run.copy import NOT_RUN, environment, pyenv_bins

# ansible-core: the Pythons its controller runs on
SUPPORTED = {
    "2.19.14": ("3.11", "3.12", "3.13"),
    "2.20.10": ("3.12", "3.13", "3.14"),
    "2.21.5": ("3.12", "3.13", "3.14"),
}


def main() -> int:
    rows: list[tuple[str, str, str]] = []
    for core, versions in SUPPORTED.items():
        found = {version: path for version in versions if (path := interpreter(version))}
        rows += [(core, version, f"{NOT_RUN}no Python {version} on this machine") for version in versions if version not in found]
        for position, (version, path) in enumerate(found.items()):
            # sanity looks at all target Pythons by itself, so once per ansible-core is enough
            rows.append((core, version, verdict(core, version, path, with_sanity=position == 0)))
    print()
    for core, version, said in sorted(rows):
        print(f"  ansible-core {core:<8} Python {version:<5} {said}")
    failed = [row for row in rows if row[2].startswith("FAILED")]
    ran = sum(not row[2].startswith(NOT_RUN) for row in rows)
    print(f"\n{ran - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not ran else 0


def interpreter(version: str) -> str | None:
    """The full path of a Python that really starts, from the distribution or from pyenv."""
    for folder in ["/usr/bin", "/usr/local/bin", *pyenv_bins()]:
        path = shutil.which(f"python{version}", path=folder)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def verdict(core: str, version: str, path: str, with_sanity: bool) -> str:
    place = ROOT / ".cache" / "matrix" / f"{core}-{version}"
    python = place / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    made = run(python, uv, "venv", "--quiet", "--clear", "--python", path, place) and run(
        python, uv, "pip", "install", "--quiet", "--python", python, f"ansible-core=={core}", "pytest==9.2.0", "pytest-xdist==3.8.0"
    )
    if not made:
        return "FAILED: the virtual environment could not be made"
    checks = {"unit tests": run(python, python, "-m", "pytest", "tests/unit", "-q", "-p", "tests.run.honest", "-p", "no:cacheprovider")}
    if with_sanity:
        checks["sanity"] = run(python, sys.executable, "-m", "tests.run.sanity", python)
    failed = [name for name, ok in checks.items() if not ok]
    return f"FAILED: {', '.join(failed)}" if failed else ", ".join(checks)


def run(python: Path, *command: object) -> bool:
    words = [str(word) for word in command]
    print(f"\n+ {' '.join(words)}", flush=True)
    env = {**environment(python=str(python)), "UV_LINK_MODE": "copy", "UV_SYSTEM_CERTS": "1"}
    return subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
