# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules on a host of the lab, in children of a process that has imported them already: that takes an emulated processor longer than what they do."""

from __future__ import annotations

import json
import select
import shlex
import subprocess
import threading
from typing import Any, Sequence

SERVER = """
import atexit, importlib, io, json, os, sys, traceback

def run(module, arguments, out):
    os.dup2(out, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = io.TextIOWrapper(io.BytesIO(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()))
    try:
        module.main()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)

for line in sys.stdin:
    name, arguments = json.loads(line)
    module = importlib.import_module("ansible_collections.stackless.block.plugins.modules." + name)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        run(module, arguments, writer)
    os.close(writer)
    with os.fdopen(reader) as said:
        answer = said.read()
    os.waitpid(pid, 0)
    print(json.dumps(answer), flush=True)
"""


class Served:
    """One such process on a host, started by its first call. One call at a time."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)  # that run a command on the host
        self._process: subprocess.Popen[str] | None = None
        self._place = ""
        self._busy = threading.Lock()

    def run(self, place: str, name: str, arguments: dict[str, Any], timeout: float) -> str | None:
        """What a module of the checkout in `place` prints; None while another call is under way."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            return self._ask(place, json.dumps([name, arguments]), timeout)
        finally:
            self._busy.release()

    def _ask(self, place: str, question: str, timeout: float) -> str:
        if self._process is None or place != self._place:
            self._start(place)
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            heard = select.select([self._process.stdout], [], [], timeout)[0]
            return json.loads(self._process.stdout.readline()) if heard else f"no answer within {timeout:g} s"
        except (OSError, ValueError) as error:
            self.stop()
            return f"the process that serves modules was lost: {error}"

    def _start(self, place: str) -> None:
        self.stop()
        command = f"cd {place} && PYTHONPATH=. exec python3 -c {shlex.quote(SERVER)}"
        self._process = subprocess.Popen([*self.words, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._place = place

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
