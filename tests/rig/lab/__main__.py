# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab on the command line; its name is that of --name, or of LAB_NAME, or `lab`.

    python -m tests.rig.lab up                starts it and leaves it running
    python -m tests.rig.lab ssh HOST [WORD…]  a shell, or one command, on storage-1, compute-1 or compute-2
    python -m tests.rig.lab reset             takes all of it back to how it was after `up`
    python -m tests.rig.lab status            what runs
    python -m tests.rig.lab down              ends it; `down all` ends all labs of this checkout
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from tests.rig.collection import ROOT
from tests.rig.lab.cache import CACHE, LabError
from tests.rig.lab.lab import Lab, labs

DEFAULT = "lab"
# of the lab with that name
INVENTORY = CACHE / "hosts.yml"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=os.environ.get("LAB_NAME", DEFAULT))
    parser.add_argument("act", choices=("up", "down", "ssh", "status", "reset"))
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    try:
        return globals()[given.act](Lab(given.name), given.words) or 0
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def up(lab: Lab, _words: list[str]) -> None:
    began = time.monotonic()
    lab.start(keep=True)
    if lab.name == DEFAULT:
        INVENTORY.unlink(missing_ok=True)
        INVENTORY.symlink_to(lab.inventory)
    print(f"the lab {lab.name} runs, after {time.monotonic() - began:.0f} s; try")
    for line in hints(lab):
        print(f"    {line}")


def hints(lab: Lab) -> list[str]:
    inventory = os.path.relpath(INVENTORY if lab.name == DEFAULT else lab.inventory, ROOT)
    me = f"{os.path.relpath(sys.executable, ROOT)} -m tests.rig.lab{'' if lab.name == DEFAULT else f' --name {lab.name}'}"
    wish = '{"volumes": [{"name": "data", "size_gib": 1}], "attachments": [{"volume": "data", "instance": "guest-1"}]}'
    return [
        f"ANSIBLE_COLLECTIONS_PATH=.cache/collections .venv/bin/ansible-playbook -i {inventory} stackless.block.attach -e '{wish}'",
        f"{me} ssh compute-1 virsh domblklist guest-1",
    ]


def down(lab: Lab, words: list[str]) -> None:
    for one in labs() if words == ["all"] else [lab]:
        one.stop()
    if not INVENTORY.exists():  # it points to nothing any more
        INVENTORY.unlink(missing_ok=True)


def reset(lab: Lab, _words: list[str]) -> None:
    lab.find().reset()


def ssh(lab: Lab, words: list[str]) -> int:
    lab.find()
    return subprocess.run(["ssh", "-F", str(lab.ssh_config), *words], check=False).returncode


def status(_lab: Lab, _words: list[str]) -> None:
    for lab in labs():
        try:
            lab.find()
            print(f"{lab.name}: runs; ssh on 127.0.0.1, " + ", ".join(f"{host.name}: port {host.machine.port}" for host in lab.hosts))
        except LabError as error:
            print(f"{lab.name}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
