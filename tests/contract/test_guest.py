# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest of the demo: what it says, it has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from tests.rig.collection import ROOT
from tests.rig.guest import Guest, GuestError
from tests.rig.libvirtd import Libvirtd

MIB = 1 << 20
DISK = "<disk type='file'><driver name='qemu' type='raw'/><source file='{path}'/><target dev='{device}'/><serial>{serial}</serial></disk>"


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Libvirtd() as libvirtd:
        guest = Guest(libvirtd.connection, ROOT / ".cache" / "guest", libvirtd.directory, "web & <1>")
        try:
            guest.start()
            yield guest
        finally:
            guest.stop()


def test_it_runs_commands_and_returns_what_they_print(guest: Guest) -> None:
    assert guest.run("echo one; echo two") == "one\ntwo\n"


def test_a_command_that_fails_is_an_error_with_its_words(guest: Guest) -> None:
    with pytest.raises(GuestError, match="ended with 7: so it is"):
        guest.run("echo so it is; (exit 7)")


def test_what_it_never_says_is_an_error_in_time(guest: Guest) -> None:
    with pytest.raises(GuestError, match="did not say"):
        guest.wait_for("NEVER", timeout=0.2)


@pytest.mark.parametrize(("device", "serial", "seen"), [("vdb", "a" * 36, "a" * 20), ("sdb", "b" * 36, "b" * 36)])
def test_it_tells_of_a_disk_that_comes_grows_and_goes(guest: Guest, tmp_path: Path, device: str, serial: str, seen: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB))
    disk = DISK.format(path=path, device=device, serial=serial)
    since = len(guest.said())
    guest.domain.attachDevice(disk)
    name = guest.wait_for(rf"^DISK-ADD (\w+) serial={seen} size={MIB}\n", since=since).group(1)
    guest.domain.blockResize(device, 2 * MIB, 1)
    if device.startswith("sd"):
        guest.run(f"echo 1 >/sys/block/{name}/device/rescan")
    guest.wait_for(rf"^DISK-SIZE {name} serial={seen} size={2 * MIB}\n", since=since)
    guest.run(f"echo written >/dev/{name}; sync")
    assert path.read_bytes().startswith(b"written\n")
    guest.domain.detachDevice(disk)
    guest.wait_for(rf"^DISK-DEL {name}\n", since=since)


def test_a_line_that_came_torn_is_not_run(guest):
    since = len(guest.said())
    with guest._console() as console:
        console.sendall(b"18 cho one >/torn\n")
        guest.wait_for(r"^COMMAND-TORN\n", since=since)
    assert guest.run("ls / | grep -c torn || true") == "0\n"
