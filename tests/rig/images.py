# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images as honest people and others make them, and who opened a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 1 << 20
SIZE = 64 * MIB
IN_OPEN = 0x20

QEMU = {"vhd": "vpc"}  # QEMU's own name of a format, where that is another one
HEADER = {"version": (4, ">I"), "size": (24, ">Q"), "encryption": (32, ">I"), "incompatible features": (72, ">Q")}  # of qcow2: where, how
DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=8f5a4a3e
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {sectors} {extent}

# The Disk Data Base
ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "1"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
"""


def qemu_img(*arguments: str | Path) -> None:
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def content(path: Path) -> Path:
    """A raw disk with bytes at its begin, in its middle and at its end."""
    with path.open("wb") as disk:
        disk.truncate(SIZE)
        for at in (0, SIZE // 2 + 4096, SIZE - 4096):
            disk.seek(at)
            disk.write(os.urandom(4096))
    return path


def image(raw: Path, format: str) -> Path:
    """The disk as an image of a format."""
    path = raw.with_suffix(f".{format}")
    qemu_img("convert", "-f", "raw", "-O", QEMU.get(format, format), *(["-o", "force_size=on"] if format == "vhd" else []), raw, path)
    return path


def patched(path: Path, **fields: int) -> Path:
    """The same qcow2 with other values in its header."""
    with path.open("r+b") as handle:
        for name, value in fields.items():
            at, how = HEADER[name.replace("_", " ")]
            handle.seek(at)
            handle.write(struct.pack(how, value))
    return path


def evil(here: Path, secret: Path) -> dict[str, tuple[str, Path, str]]:
    """By name: the format that it is said to have, the image, and what it is refused for. Each leads to a secret of the host, or lies."""
    raw = content(here / "disk")
    plain = image(raw, "qcow2")

    def qcow2(name: str, **fields: int) -> Path:
        path = here / f"{name}.qcow2"
        path.write_bytes(plain.read_bytes())
        return patched(path, **fields)

    def text(name: str, kind: str, extent: str) -> Path:
        path = here / f"{name}.vmdk"
        path.write_text(DESCRIPTOR.format(kind=kind, sectors=SIZE // 512, extent=extent))
        return path

    backed, outside, inside = here / "backed.qcow2", here / "outside.qcow2", here / "inside.vmdk"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", "-u", backed, str(SIZE))
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={here}/data,data_file_raw=on", outside, str(SIZE))
    honest = image(raw, "vmdk").read_bytes()
    sparse = f'RW {SIZE // 512} SPARSE "disk.vmdk"'.encode()
    assert sparse in honest
    flat = f'RW {SIZE // 512} FLAT "{secret}" 0'.encode()
    inside.write_bytes(honest.replace(sparse + b"\n", flat + b"\n", 1)[: len(honest)])
    luks = here / "luks"
    luks.write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(SIZE - 8))
    (here / "empty").write_bytes(b"")
    (here / "short").write_bytes(plain.read_bytes()[:60])
    (here / "odd").write_bytes(bytes(SIZE + 7))
    os.mkfifo(here / "pipe")
    return {
        "backing file": ("qcow2", backed, "it builds upon another file"),
        "data file": ("qcow2", outside, "it keeps its data in another file"),
        "unknown feature": ("qcow2", qcow2("feature", incompatible_features=1 << 40), "it has features that nobody knows here"),
        "unknown version": ("qcow2", qcow2("version", version=9), "it has features that nobody knows here"),
        "encrypted": ("qcow2", qcow2("encrypted", encryption=2), "it is encrypted"),
        "no size": ("qcow2", qcow2("nothing", size=0), "its size of 0 bytes"),
        "odd size": ("raw", here / "odd", f"its size of {SIZE + 7} bytes"),
        "said to be raw": ("raw", plain, "it is said to be raw, and is qcow2"),
        "said to be qcow2": ("qcow2", raw, "it is said to be qcow2, and is raw"),
        "encrypted disk": ("raw", luks, "it is said to be raw, and is luks"),
        "descriptor with a path": ("vmdk", text("flat", "monolithicFlat", f'FLAT "{secret}" 0'), ""),
        "descriptor inside": ("vmdk", inside, "its descriptor names other files"),
        "empty": ("raw", here / "empty", "its size of 0 bytes"),
        "cut off": ("qcow2", here / "short", "it is said to be qcow2, and is raw"),
        "pipe": ("raw", here / "pipe", "it is no regular file"),
        "device": ("raw", Path("/dev/zero"), "it is no regular file"),
        "directory": ("raw", here, "it is no regular file"),
    }


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Callable[[], bool]]:
    """Yields what tells whether anybody has opened a file since (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert handle >= 0 and libc.inotify_add_watch(handle, os.fsencode(path), IN_OPEN) >= 0

    def was_opened() -> bool:
        try:
            return bool(os.read(handle, 4096))
        except BlockingIOError:
            return False

    try:
        yield was_opened
    finally:
        os.close(handle)
