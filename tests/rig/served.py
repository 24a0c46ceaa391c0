# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules in children of a process that has imported them already, here or on a host of the lab: that takes longer than what they do."""

from __future__ import annotations

import json
import select
import shlex
import subprocess
import threading
from typing import Any, Sequence

SERVER = """
import atexit, importlib, io, json, os, sys, traceback

def run(module, arguments, environ, out, err):
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = io.TextIOWrapper(io.BytesIO(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()))
    if environ is not None:
        os.environ.clear()
        os.environ.update(environ)
    try:
        module.main()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)

for line in sys.stdin:
    name, arguments, environ = json.loads(line)
    module = importlib.import_module("ansible_collections.stackless.block.plugins.modules." + name)
    reader, writer = os.pipe()
    errors = os.memfd_create("stderr")
    pid = os.fork()
    if pid == 0:
        run(module, arguments, environ, writer, errors)
    os.close(writer)
    with os.fdopen(reader) as said:
        answer = said.read()
    os.waitpid(pid, 0)
    os.lseek(errors, 0, os.SEEK_SET)
    with os.fdopen(errors, errors="replace") as said:
        answer = answer or said.read()
    print(json.dumps(answer), flush=True)
"""


class Served:
    """One such process, started by its first call. One call at a time.

    `words`: a command that runs one of the shell's at the place, such as ["ssh", "host"] or ["sh", "-c"].
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._process: subprocess.Popen[str] | None = None
        self._start_command = ""
        self._busy = threading.Lock()

    def run(self, python: str, name: str, arguments: dict[str, Any], timeout: float, environ: dict[str, str] | None = None) -> str | None:
        """What a module prints under `python`, the shell's words that start one which finds the collection; None while another call is under way.

        `environ`: all of its environment, if that is not the one of the process's start.
        """
        if not self._busy.acquire(blocking=False):
            return None
        try:
            return self._ask(python, json.dumps([name, arguments, environ]), timeout)
        finally:
            self._busy.release()

    def _ask(self, python: str, question: str, timeout: float) -> str:
        if self._process is None or python != self._start_command:
            self._start(python)
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            if select.select([self._process.stdout], [], [], timeout)[0]:
                return json.loads(self._process.stdout.readline())
            self.stop()  # or its answer is taken for the next one's
            return f"no answer within {timeout:g} s"
        except (OSError, ValueError) as error:
            self.stop()
            return f"the process that serves modules was lost: {error}"

    def _start(self, python: str) -> None:
        self.stop()
        self._process = subprocess.Popen([*self.words, f"{python} -c {shlex.quote(SERVER)}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._start_command = python

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
