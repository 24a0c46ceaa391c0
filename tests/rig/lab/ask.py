# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a compute host: tells the bare-metal guest one command, prints its answer, and ends with its status.

    ask.py GUEST SECONDS COMMAND…
"""

from __future__ import annotations

import re
import socket
import sys
import time


def main(name: str, seconds: str, *command: str) -> int:
    log = f"/var/log/lab-{name}.console"
    with open(log, encoding="ascii", errors="replace", newline="") as said, socket.socket(socket.AF_UNIX) as console:
        since = said.read().rfind("\n") + 1
        console.connect(f"/run/lab-{name}.sock")
        # the empty line ends whatever an earlier one has left unfinished
        console.sendall(f"\n{' '.join(command)}\n".encode())
        deadline = time.monotonic() + float(seconds)
        # the connection stays until the answer is there: what a slow guest has not read is lost with it
        while time.monotonic() < deadline:
            said.seek(0)
            answer = said.read()[since:].replace("\r", "")
            done = re.search(r"^COMMAND-DONE (\d)\n", answer, re.MULTILINE)
            if done:
                lines = answer[: done.start()].splitlines(keepends=True)
                print("".join(line for line in lines if not re.match("DISK-|COUNT-|GUEST-", line)), end="")
                return int(done.group(1))
            time.sleep(0.02)
    print(f"{name} did not answer within {seconds} s; it said {answer[-300:]!r}", file=sys.stderr)
    return 1


sys.exit(main(*sys.argv[1:]))
