# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks on beside whatever connects COUNT disks: when the kernel has them all, and when udev has made their links.

Prints lines of JSON, each with a name and the host's monotonic clock in seconds: began, disks, links.
"""

from __future__ import annotations

import json
import os
import sys
import time

PLACES = {"disks": ("/sys/class/scsi_disk", ""), "links": ("/dev/disk/by-id", "wwn-0x")}


def count(place: str, start: str) -> int:
    return sum(name.startswith(start) for name in os.listdir(place)) if os.path.isdir(place) else 0


def tell(name: str) -> None:
    print(json.dumps([name, time.monotonic()]), flush=True)


wanted = {name: count(*place) + int(sys.argv[1]) for name, place in PLACES.items()}
tell("began")
for name, place in PLACES.items():
    while count(*place) < wanted[name]:
        time.sleep(0.1)
    tell(name)
