# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Defines and starts domains on a compute host: domains.py [--running NAME] NAME…

The plain ones are paused, have 16 MiB and a SCSI controller, from which disks come out without a guest's help.
--running NAME boots the bare-metal guest (/var/lib/lab/guest.elf) and waits until it can be asked.
"""

from __future__ import annotations

import argparse
import time

import libvirt

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    {kernel}
  </os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <controller type='scsi' model='virtio-scsi'/>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {console}
  </devices>
</domain>
"""
CONSOLE = """
    <serial type='unix'>
      <source mode='bind' path='/run/lab-{name}.sock'/>
      <log file='/var/log/lab-{name}.console' append='off'/>
      <target port='0'/>
    </serial>
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--running", default=[], action="append")
    parser.add_argument("paused", nargs="*")
    wanted = parser.parse_args()
    connection = libvirt.open("qemu:///system")
    for name in wanted.paused:
        connection.defineXML(DOMAIN.format(name=name, kernel="", console="")).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    for name in wanted.running:
        kernel = "<kernel>/var/lib/lab/guest.elf</kernel>"
        connection.defineXML(DOMAIN.format(name=name, kernel=kernel, console=CONSOLE.format(name=name))).create()
    for name in wanted.running:
        wait_until_ready(name, time.monotonic() + 400)


def wait_until_ready(name: str, deadline: float) -> None:
    log = f"/var/log/lab-{name}.console"
    while True:
        with open(log, encoding="ascii", errors="replace") as said:
            if "GUEST-READY" in said.read():
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} did not boot within 400 s")
        time.sleep(0.2)


main()
