# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-test sanity, so that a pass means something.

    python -m tests.run.sanity [PYTHON]       PYTHON: the interpreter of another virtual environment

It runs on a copy outside the checkout (inside one, ansible-test skips every target and calls it a success), with
nothing ignored, and afterwards has to find an error that was planted.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.run.copy import NOT_RUN, collection_copy, environment

# ansible-test makes virtual environments without pip and gets pip's installer from a host outside the package
# registries. Python brings a pip along: this stands in for that installer, in the cache where it is looked for.
GET_PIP = """\
import os, subprocess, sys
if __name__ == '__main__':
    env = {k: v for k, v in os.environ.items() if k != 'GET_PIP'}
    args = [a for a in sys.argv[1:] if a not in ('--no-setuptools', '--no-wheel')]
    subprocess.check_call([sys.executable, '-m', 'ensurepip'], env=env, stdout=open(os.devnull, 'w'))
    sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install'] + args, env=env))
"""
GET_PIP_NAMES = ("get_pip_24_2.py", "get_pip_25_2.py")
PLANTED = Path("plugins/module_utils/_planted.py")
LEAST_TESTS = 15


def main(python: str) -> int:
    seed_get_pip()
    with collection_copy() as copy:
        if any(line.strip() for path in copy.glob("tests/sanity/ignore-*.txt") for line in path.read_text().splitlines()):
            return fail("tests/sanity/ignore-*.txt is not empty; mend what it hides")
        code, said = sanity(copy, python)
        print(said, flush=True)
        if code:
            found = re.findall(r"^(?:ERROR|FATAL): .*", said, re.MULTILINE)
            return fail("\n  ".join([f"ansible-test ended with {code}", *found]))
        ran = set(re.findall(r"Running sanity test ['\"]([\w-]+)['\"]", said))
        if len(ran) < LEAST_TESTS or "All targets skipped" in said:
            return fail(f"only {len(ran)} tests ran: {', '.join(sorted(ran))}")
        (copy / PLANTED).write_text("import  os\nx=1\n")
        code, said = sanity(copy, python, "--test", "pep8", str(PLANTED))
        if code == 0:
            return fail(f"a planted error in {PLANTED} was not found, so this run proves nothing:\n{said}")
    print(f"{len(ran)} sanity tests ran, and a planted error was found")
    return 0


def sanity(copy: Path, python: str, *arguments: str) -> tuple[int, str]:
    """The exit status and the words of one run; what it skipped for want of an interpreter is named at the end."""
    tool = Path(python).with_name("ansible-test")
    command = [python, tool, "sanity", "--local", "--color", "no", *arguments]
    env = environment(copy.parents[2], python)
    done = subprocess.run(command, cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    missing = sorted(set(re.findall(r"WARNING: (Skipping .*)", done.stdout)))
    return done.returncode, done.stdout + "".join(f"{NOT_RUN}sanity: {line}\n" for line in missing)


def seed_get_pip() -> None:
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in GET_PIP_NAMES:
        if not (cache / name).exists():
            (cache / name).write_text(GET_PIP)


def fail(why: str) -> int:
    print(f"FAILED: {why}")
    return 1


if __name__ == "__main__":
    # not resolved: a virtual environment's interpreter is a link whose place matters
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else sys.executable))
