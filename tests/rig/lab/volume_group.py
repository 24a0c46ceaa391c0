# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The storage host's volume group as tests see it, past the modules: what is there, and whether anything was written."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.rig.lab.host import Host


class LvmPool:
    """The volume group `volumes` of the lab's storage host, for the driver lvm; `allocation` is how its volumes take their space."""

    # What only a write changes: LVM counts every one, and keeps a copy of what was before it.
    WRITES = "vgs --noheadings -o vg_seqno volumes; find /etc/lvm/archive /etc/lvm/backup -type f -exec sha256sum {} + | sort; dmsetup table | sort"
    REMOVE_ALL = "lvs --noheadings -o vg_name,lv_name volumes | awk '$2 != \"thin\" {print $1 \"/\" $2}' | xargs -r lvremove -qq -y -f"

    def __init__(self, host: Host, allocation: str = "thin") -> None:
        self.host, self.allocation = host, allocation
        self.backend = {"driver": "lvm", "pool": "volumes", "thin_pool": "thin", "allocation": allocation}

    def run(self, name: str, options: dict[str, Any], check: bool = False) -> dict[str, Any]:
        return self.host.module(name, options, check, timeout=300)

    def traces(self) -> str:
        """What every write changes."""
        return self.host.run(self.WRITES)

    def names(self) -> list[str]:
        """Of all logical volumes but the thin pool."""
        return sorted(set(self.host.run("lvs --noheadings -o lv_name volumes").split()) - {"thin"})

    def volumes(self) -> list[str]:
        """The ids of the volumes and snapshots whose data is there."""
        return sorted(name.split("-", 1)[1] for name in self.names())

    def size_of(self, path: str) -> int:
        return int(self.host.run(f"blockdev --getsize64 {path}"))

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        self.host.run(f"dd of={path} bs=1M seek={offset} oflag=seek_bytes conv=notrunc,fsync iflag=fullblock status=none", input=data)

    def read(self, path: str, size: int, offset: int = 0) -> bytes:
        options = f"bs=1M count={size} skip={offset} iflag=count_bytes,skip_bytes,fullblock status=none"
        return base64.b64decode(self.host.run(f"dd if={path} {options} | base64 -w0"))

    def clear(self) -> None:
        self.host.run(self.REMOVE_ALL, timeout=300)


def image(host: Host, letter: str = "i", mib: int = 48) -> dict[str, Any]:
    """A qcow2 of 64 MiB on the storage host, with letters at its begin."""
    host.run(
        f"head -c {mib}M /dev/zero | tr '\\0' {letter} > /root/raw; truncate -s 64M /root/raw; rm -f /root/disk.qcow2; "
        "qemu-img convert -f raw -O qcow2 /root/raw /root/disk.qcow2; rm /root/raw"
    )
    return {"source": {"image": "/root/disk.qcow2", "format": "qcow2"}}


# What an image needs of Python beside the distribution's: oslo.utils, as pip would install it.
NEEDED = """
import sys
before = set(sys.modules)
from oslo_utils.imageutils import format_inspector
found = {name.split(".")[0] for name in set(sys.modules) - before if "site-packages" in str(getattr(sys.modules[name], "__file__", ""))}
print("\\n".join(sys.modules[name].__file__ for name in found))
"""


def install_inspector(host: Host) -> None:
    """Gives a host the inspector of images."""
    said = subprocess.run([sys.executable, "-c", NEEDED], capture_output=True, text=True, check=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as archive:
        for line in said.stdout.splitlines():
            found = Path(line)
            found = found.parent if found.name == "__init__.py" else found
            archive.add(found, arcname=found.name, filter=lambda one: None if "__pycache__" in one.name or "/tests" in one.name else one)
    place = f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/dist-packages"
    host.run(f"mkdir -p {place}; tar -xzf - -C {place}; python3 -c 'from oslo_utils.imageutils import format_inspector'", 120, input=packed.getvalue())
