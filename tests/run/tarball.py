# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's tarball: `build` makes it in dist/, `check` installs it somewhere else, off line, and looks it over."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.rig.collection import ROOT
from tests.run.copy import collection_copy, environment

DIST = ROOT / "dist"
SHIPPED = {"CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
INVENTORY = "storage:\n  hosts: {localhost: {ansible_connection: local}}\ncompute:\n  hosts: {localhost: {}}\n"


class Wrong(Exception):
    """The tarball is not what it shall be."""


def build() -> None:
    with collection_copy() as copy:
        tool("ansible-galaxy", "collection", "build", "--force", "--output-path", DIST, cwd=copy, collections=copy.parents[2])
    names = members(newest())
    litter = [name for name in names if name.split("/")[0] not in SHIPPED or name.endswith((".pyc", ".xml", ".log")) or "/." in f"/{name}"]
    if litter:
        raise Wrong(f"{newest().name} holds what nobody who installs it needs: {', '.join(litter[:10])}; see build_ignore in galaxy.yml")
    print(f"built {newest().relative_to(ROOT)}: {len(names)} files, {newest().stat().st_size // 1024} KiB")


def check() -> None:
    with tempfile.TemporaryDirectory(prefix="stackless-install-") as temporary:
        place = Path(temporary)
        tool("ansible-galaxy", "collection", "install", "--offline", newest(), "-p", place, cwd=place, collections=place)
        modules, roles, playbooks = shipped(members(newest()))
        documented("module", modules, place)
        documented("role", roles, place)
        (place / "inventory.yml").write_text(INVENTORY)
        for playbook in playbooks:
            for look in ("--syntax-check", "--list-tasks"):
                tool("ansible-playbook", "-i", "inventory.yml", look, playbook, cwd=place, collections=place)
    print(f"installed off line: {len(modules)} modules, {len(roles)} roles and {len(playbooks)} playbooks are there and documented")


def shipped(names: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The full names of the modules, roles and playbooks in the tarball; none of a kind is wrong."""
    paths = [Path(name) for name in names]
    modules = sorted(p.stem for p in paths if p.match("plugins/modules/*.py"))
    roles = sorted({p.parts[1] for p in paths if p.parts[0] == "roles" and len(p.parts) > 2})
    playbooks = sorted(p.stem for p in paths if len(p.parts) == 2 and p.match("playbooks/*.yml"))
    for kind, found in (("modules", modules), ("roles", roles), ("playbooks", playbooks)):
        if not found:
            raise Wrong(f"{newest().name} holds no {kind}")
    return tuple([f"stackless.block.{name}" for name in found] for found in (modules, roles, playbooks))


def documented(kind: str, names: list[str], place: Path) -> None:
    """ansible-doc shows each of them, with options or entry points."""
    said = json.loads(tool("ansible-doc", "--json", "-t", kind, *names, cwd=place, collections=place))
    for name in names:
        shown = said.get(name) or {}
        if not (shown.get("doc") or shown.get("entry_points")):
            raise Wrong(f"ansible-doc -t {kind} {name} shows nothing; give it documentation (roles: meta/argument_specs.yml)")


def members(tarball: Path) -> list[str]:
    with tarfile.open(tarball) as opened:
        return [member.name for member in opened if member.isfile()]


def newest() -> Path:
    found = sorted(DIST.glob("stackless-block-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Wrong("dist/ holds no tarball; run `make build` first")
    return found[-1]


def tool(name: str, *arguments: object, cwd: Path, collections: Path) -> str:
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(collections), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{name} {' '.join(command[1:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    try:
        for act in sys.argv[1:]:
            {"build": build, "check": check}[act]()
    except Wrong as wrong:
        sys.exit(f"FAILED: {wrong}")
