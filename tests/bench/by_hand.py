# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same work as an administrator types it: `rbd` and `virsh`, once per volume. The yardstick of `make bench-ceph`.

It makes an image and attaches it. It neither looks nor waits nor records anything, and does not know what to do a second time.
"""

from __future__ import annotations

import base64
import subprocess

from tests.rig.walk import CephWalk

UUID = "5c000000-0000-4000-8000-00000000000a"
DISK = """<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>
<source protocol='rbd' name='{pool}/by-hand-{n}'><host name='{ip}' port='6789'/>
<auth username='cinder'><secret type='ceph' uuid='{uuid}'/></auth></source>
<target dev='sda' bus='scsi'/><serial>by-hand-{n}</serial></disk>"""


def attach(walk: CephWalk, size: int) -> None:
    ceph = walk.pool.ceph
    for n in range(1, size + 1):
        (walk.directory / f"disk-{n}.xml").write_text(DISK.format(pool=ceph.pool, n=n, ip=ceph.ip, uuid=UUID))
    each(walk, size, f"rbd -c {ceph.conf} --id cinder create {ceph.pool}/by-hand-$n --size 1G", "attach-device web-$n {disk} --live --config")


def detach(walk: CephWalk, size: int) -> None:
    each(walk, size, ":", "detach-device web-$n {disk} --live --config")


def clear(walk: CephWalk, size: int) -> None:
    ceph = walk.pool.ceph
    each(walk, size, f"rbd -c {ceph.conf} --id cinder rm --no-progress {ceph.pool}/by-hand-$n", "domstate web-$n")


def each(walk: CephWalk, size: int, rbd: str, virsh: str) -> None:
    command = virsh.format(disk=f"{walk.directory}/disk-$n.xml")
    script = f"set -e; for n in $(seq {size}); do {rbd}; virsh -q -c '{walk.libvirtd.uri}' {command}; done"
    subprocess.run(["bash", "-c", script], check=True, stdout=subprocess.DEVNULL, timeout=1800)


def make_secret(walk: CephWalk) -> None:
    """As every guide to libvirt and Ceph tells to do once for a host."""
    usage = "<usage type='ceph'><name>client.cinder by hand</name></usage>"
    secret = walk.libvirtd.connection.secretDefineXML(f"<secret ephemeral='no' private='no'><uuid>{UUID}</uuid>{usage}</secret>")
    secret.setValue(base64.b64decode(walk.pool.ceph.key("client.cinder")))
