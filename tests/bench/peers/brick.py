# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""os-brick's connector as Nova uses it, volume by volume: connection properties as a JSON list on stdin, marks in time on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from oslo_concurrency import lockutils
from oslo_config import cfg

lockutils.set_defaults("/run/brick")

import os_brick  # noqa: E402
from os_brick import privileged  # noqa: E402
from os_brick.initiator import connector  # noqa: E402

os_brick.setup(cfg.CONF)
privileged.default.set_client_mode(False)  # root already: no helper process has to be asked
iscsi = connector.InitiatorConnector.factory("ISCSI", None, use_multipath=False, device_scan_attempts=10)
wanted = json.load(sys.stdin)

marks = {"began": time.monotonic()}
devices = [iscsi.connect_volume(properties) for properties in wanted]
marks["connected"] = time.monotonic()
subprocess.run(["udevadm", "settle"], check=True)  # whoever looks on sees the links before they go
marks["parted"] = time.monotonic()
for properties, device in zip(wanted, devices):
    iscsi.disconnect_volume(properties, device)
marks["disconnected"] = time.monotonic()
print(json.dumps(marks))
