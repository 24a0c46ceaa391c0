# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block devices that are read, copied and overwritten, on real loop devices: every byte, nothing written in vain, and one at a time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Failed, Refused
from ansible_collections.stackless.block.plugins.module_utils._images import ImageFile
from ansible_collections.stackless.block.plugins.module_utils._model.image import ImageWish
from ansible_collections.stackless.block.plugins.module_utils._volumes import _block

from tests.rig.images import MIB, SIZE, content, image

ODD = 3584  # bytes beyond whole pieces: LVM's extents need not be as large as these


@pytest.fixture
def device(tmp_path):
    """Makes a device of so many bytes, and tells its path and its file."""
    with contextlib.ExitStack() as devices:

        def make(size, fill=b""):
            backing = tmp_path / f"disk-{len(os.listdir(tmp_path))}"
            with backing.open("wb") as handle:
                handle.write(fill * (size // max(1, len(fill))))
                handle.truncate(size)
            path = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=True).stdout.strip()
            devices.callback(subprocess.run, ["losetup", "--detach", path], check=True)
            return path, backing

        yield make


def blocks(backing):
    return os.stat(backing).st_blocks


@pytest.mark.parametrize("changed_only", [True, False])
def test_a_copy_is_every_byte_and_leaves_the_rest(device, changed_only):
    size = 9 * MIB + ODD
    source, origin = device(size, os.urandom(512))
    with origin.open("r+b") as handle:
        handle.seek(4 * MIB)
        handle.write(bytes(4 * MIB))
    path, backing = device(12 * MIB, b"o" * 512)
    with _block.alone(path) as handle:
        _block.copy(source, handle, size, changed_only)
    found = backing.read_bytes()
    assert found[:size] == origin.read_bytes() and found[size:] == b"o" * (12 * MIB - size)


def test_what_is_there_already_is_not_written(device):
    source, origin = device(12 * MIB)
    with origin.open("r+b") as handle:
        handle.seek(5 * MIB)
        handle.write(b"data")
    path, backing = device(12 * MIB)
    with _block.alone(path) as handle:
        _block.copy(source, handle, 12 * MIB, True)
    assert blocks(backing) * 512 <= 4 * MIB + 4096 and backing.read_bytes() == origin.read_bytes()


def test_zeros_are_where_they_should_be(device):
    path, backing = device(130 * MIB, b"o" * 4096)
    with _block.alone(path) as handle:
        _block.zero(handle, MIB, 129 * MIB + 512)
    found = backing.read_bytes()
    assert set(found[MIB : 129 * MIB + 512]) == {0} and set(found[:MIB] + found[129 * MIB + 512 :]) == {ord("o")}


@pytest.mark.parametrize("discards", [True, False])
def test_an_emptied_device_is_all_zeros(device, monkeypatch, discards):
    """Also where it takes no discards, as in a pool that ignores them."""
    if not discards:
        monkeypatch.setattr(_block, "_BLKDISCARD", 0x12FF)
    path, backing = device(9 * MIB + ODD, b"o" * 512)
    with _block.alone(path) as handle:
        _block.empty(handle, 9 * MIB + ODD)
    assert not any(backing.read_bytes()) and (not discards or blocks(backing) <= 8)


def test_what_is_read_is_what_is_there(device):
    """From any byte on, whatever the page cache holds."""
    size = 9 * MIB + ODD
    path, backing = device(size)
    whole = os.urandom(size)
    backing.write_bytes(whole)
    with _block.reading(path) as data:
        assert data.size_bytes == size and b"".join(piece for _at, piece in data.pieces(4 * MIB)) == whole
        for start, count in ((4095, 5000), (4096, 1), (size - 10, 10)):
            assert data.read(start, count) == whole[start : start + count]
    with pytest.raises(Failed, match=f"{path}-no can't be read: No such file"), _block.reading(f"{path}-no"):
        pass


@pytest.mark.parametrize("emptied", [True, False])
def test_pieces_are_all_that_is_there(device, emptied):
    size = 80 * MIB
    path, backing = device(size, b"" if emptied else b"o" * 4096)
    pieces = [(65536, b"a" * 4096), (5 * MIB, b"b" * (9 * MIB + 8192)), (size - 8192, b"c" * 5000)]
    with _block.alone(path) as handle:
        _block.write(handle, size, iter(pieces), emptied)
    wanted = bytearray(size)
    for start, piece in pieces:
        wanted[start : start + len(piece)] = piece
    assert backing.read_bytes() == wanted
    assert not emptied or blocks(backing) * 512 < 10 * MIB, "zeros were written where there were zeros"


def test_one_at_a_time(device):
    path, _backing = device(MIB)
    with _block.alone(path) as handle:
        with pytest.raises(Refused, match=f"{path} can't be overwritten: it is in use by "), _block.alone(path):
            pass
        os.fstat(handle)
    with _block.alone(path):
        pass
    with pytest.raises(Failed, match=f"{path}-no can't be overwritten: No such file"), _block.alone(f"{path}-no"):
        pass


def test_a_writer_of_an_image_holds_the_device_for_as_long_as_it_lives(device, tmp_path):
    path, backing = device(2 * SIZE, b"o" * 4096)
    raw = content(tmp_path / "raw")
    found = ImageFile(ImageWish(str(image(raw, "qcow2")), "qcow2"))
    with _block.alone(path) as handle:
        _block.zero(handle, SIZE, 2 * SIZE)
        found.convert("-n", "-O", "raw", f"/proc/self/fd/{handle}", kept=(handle,))
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(handle,))
    try:
        with pytest.raises(Refused, match="in use"), _block.alone(path):
            pass
    finally:
        child.communicate(b"")
    assert backing.read_bytes() == raw.read_bytes() + bytes(SIZE)
