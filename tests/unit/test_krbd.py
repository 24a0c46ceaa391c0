# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel's driver rbd shows and is told, as it was seen on Debian 12, and how long anybody waits for it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _errors as errors
from ansible_collections.stackless.block.plugins.module_utils._ceph import Client, Place
from ansible_collections.stackless.block.plugins.module_utils._hosts import krbd
from ansible_collections.stackless.block.plugins.module_utils._hosts.apart import apart
from ansible_collections.stackless.block.plugins.module_utils._hosts.command import Said
from ansible_collections.stackless.block.plugins.module_utils._hosts.krbd import Krbd, RbdBus, line_of
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Source
from ansible_collections.stackless.block.plugins.module_utils._model.mapping import Mapping, MappingKey
from ansible_collections.stackless.block.plugins.module_utils._model.session import Holder
from tests.unit.fake_kernel import FSID, MONITORS, OTHER_FSID

SHOWN = {
    "pool": "volumes", "pool_ns": "", "name": "a-1", "image_id": "5e1a6b8b4567", "current_snap": "-", "cluster_fsid": FSID, "client_id": "client4711",
    "config_info": "192.0.2.1:6789 name=cinder,key=client.cinder,noshare,rw,exclusive volumes a-1 -",
}  # fmt: skip


def show(root: Path, number: int, sectors: int = 2048, **given: str) -> None:
    """A device as sysfs has it."""
    for folder, values in (
        (root / f"sys/bus/rbd/devices/{number}", {**SHOWN, **given}),
        (root / f"sys/class/block/rbd{number}", {"size": str(sectors), "ro": "0", "dev": f"252:{number * 16}"}),
    ):
        folder.mkdir(parents=True)
        for name, text in values.items():
            (folder / name).write_text(f"{text}\n")
    (root / "dev").mkdir(exist_ok=True)
    (root / f"dev/rbd{number}").write_text("")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    show(tmp_path, 0)
    for name in ("add", "remove"):
        (tmp_path / "sys/bus/rbd" / name).touch()
    (tmp_path / "sys/bus/rbd/supported_features").write_text("0x1f\n")
    return tmp_path


@pytest.fixture
def host(root: Path) -> Krbd:
    return Krbd(RbdBus(str(root)))


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_a_device_as_the_kernel_shows_it(root: Path) -> None:
    (found,) = RbdBus(str(root)).mappings(closely=False).values()
    assert found == Mapping("volumes/a-1", FSID, 1 << 20, exclusive=True)
    assert (found.image_id, found.number, found.client, found.linked, found.twin) == ("5e1a6b8b4567", 0, "client.4711", False, None)
    link = root / f"dev/stackless-block/rbd/{FSID}/volumes/a-1"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../../rbd0")
    assert found.link == f"/dev/stackless-block/rbd/{FSID}/volumes/a-1" and next(iter(RbdBus(str(root)).mappings(closely=False).values())).linked
    show(root, 7)
    link.unlink()
    link.symlink_to("../../../../rbd7")
    (found,) = RbdBus(str(root)).mappings(closely=False).values()
    assert not found.linked and found.twin == 7


def test_images_are_told_apart_by_all_of_their_names(root: Path) -> None:
    show(root, 1, name="a-10")
    show(root, 2, pool_ns="a-1", name="x")
    show(root, 3, cluster_fsid=OTHER_FSID)
    show(root, 10, current_snap="a-1", name="snapped")
    show(root, 11, pool="volumes-a")
    found = RbdBus(str(root)).mappings(closely=False)
    assert {key: each.number for key, each in found.items()} == {
        MappingKey(FSID, "volumes/a-1"): 0,
        MappingKey(FSID, "volumes/a-10"): 1,
        MappingKey(FSID, "volumes/a-1/x"): 2,
        MappingKey(OTHER_FSID, "volumes/a-1"): 3,
        MappingKey(FSID, "volumes-a/a-1"): 11,
    }
    assert all(each.twin is None for each in found.values())


def test_a_device_that_is_half_there_is_none(root: Path) -> None:
    (root / "sys/class/block/rbd0/size").unlink()
    assert RbdBus(str(root)).mappings(closely=True) == {}


def test_a_driver_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = [errors.Unavailable("modprobe is not installed"), Said(1, ""), Said(0, "")]

    def run(words: Any, timeout: float) -> Said:
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(krbd, "run", run)
    host = Krbd(RbdBus(str(tmp_path)))
    grounds = [host.observe([])[krbd.GROUND] for _turn in range(3)]
    assert [(each.installed, each.loaded, each.features) for each in grounds] == [(False, False, None), (False, False, None), (True, False, None)]


def test_what_the_driver_knows(root: Path) -> None:
    assert RbdBus(str(root)).features() == 0x1F


# ---- telling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "given", "monitors", "line"),
    [
        ("volumes/a-1", {"exclusive": True}, MONITORS, "192.0.2.1:6789 {},rw,exclusive volumes a-1 -"),
        ("volumes/shop/a-1", {}, MONITORS, "192.0.2.1:6789 {},_pool_ns=shop,rw volumes a-1 -"),
        ("volumes/a-1", {"read_only": True}, (("2001:db8::1", 6790), ("192.0.2.1", 3300)), "[2001:db8::1]:6790 {},ro volumes a-1 -"),
        ("volumes/a-1", {}, (("192.0.2.1", 3300), ("192.0.2.2", 3300)), "192.0.2.1:3300,192.0.2.2:3300 {},ms_mode=prefer-crc,rw volumes a-1 -"),
    ],
)
def test_what_the_driver_is_told(image: str, given: dict[str, Any], monitors: Any, line: str) -> None:
    common = "name=cinder,key=client.cinder,noshare,mount_timeout=10,lock_timeout=10"
    assert line_of(Mapping(image, FSID, **given), Source("network", image, "rbd", portals=monitors, username="cinder")) == line.format(common)


def test_only_the_very_device_is_unmapped(root: Path, host: Krbd) -> None:
    remove = root / "sys/bus/rbd/remove"
    there = next(iter(host.bus.mappings(closely=False).values()))
    for other in (Mapping("volumes/a-10", FSID), Mapping("volumes/a", FSID), Mapping("volumes/a-1", OTHER_FSID), Mapping("volumes/a-1", FSID, number=1)):
        host.unmap(other)
        assert remove.read_text() == ""
    host.unmap(there)
    assert remove.read_text() == "0"
    (root / "sys/bus/rbd/remove_single_major").write_text("")
    host.unmap(Mapping("volumes/a-1", FSID))
    assert (root / "sys/bus/rbd/remove_single_major").read_text() == "0"


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ETIMEDOUT, errors.Unavailable, "no answer of its cluster in time"),
        (errno.EPERM, errors.Failed, "not let in by its cluster"),
        (errno.ENOENT, errors.NotFound, "gone since it was looked at"),
        (errno.EROFS, errors.Conflict, "mapped exclusively"),
        (errno.ENXIO, errors.Refused, "features"),
        (errno.ESHUTDOWN, errors.Conflict, "blocklist"),
        (errno.EIO, errors.Failed, "Input/output error; look at the kernel's log"),
    ],
)
def test_what_the_kernel_answers_is_one_sentence(host: Krbd, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], told: str) -> None:
    def answer(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(krbd, "apart", answer)
    with pytest.raises(kind, match=rf"^image volumes/a-1 can't be mapped: .*{told}"):
        host.map(Mapping("volumes/a-1", FSID), Source("network", "volumes/a-1", "rbd", portals=MONITORS, username="cinder"), Secret("a2V5"), shared=True)


def test_a_device_that_can_not_be_taken_away_says_who_has_it(host: Krbd, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(krbd, "apart", busy)
    monkeypatch.setattr(host.bus, "holders", lambda *names: {name: (Holder("domain", "web-1", 7),) for name in names})
    with pytest.raises(errors.Busy, match=r"a-1 \(rbd0\) can't be unmapped: it is in use by domain web-1 \(pid 7\)"):
        host.unmap(Mapping("volumes/a-1", FSID))


def test_what_is_not_taken_by_a_silent_cluster_leaves_the_device(host: Krbd, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "late")

    monkeypatch.setattr(krbd, "apart", silent)
    with pytest.raises(errors.Unavailable, match="volumes/a-1 stays mapped: its cluster has not taken what .* within 30 s"):
        host.flush(Mapping("volumes/a-1", FSID, number=0))


def test_udevs_rule_is_written_in_one_change_for_everybody_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = tmp_path / "rules.d" / "60.rules"
    monkeypatch.setattr(krbd, "_RULE", str(rule))
    told: list[list[str]] = []
    monkeypatch.setattr(krbd, "run", lambda words, timeout: told.append(words) or Said(0, ""))
    host = Krbd(RbdBus(str(tmp_path)))
    assert not host.observe([])[krbd.GROUND].ruled
    host.write_rule()
    assert host.observe([])[krbd.GROUND].ruled and stat.S_IMODE(rule.stat().st_mode) == 0o644 and os.listdir(rule.parent) == ["60.rules"]
    assert [words for words in told if words[0] != "modprobe"] == [["udevadm", "control", "--reload"]]
    lines = [line for line in rule.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 2 and all('SYMLINK+="stackless-block/rbd/$attr{cluster_fsid}/$attr{pool}/$attr{' in line for line in lines)


def test_a_lock_that_the_kernel_keeps_is_told_to_who_would_grow_the_image() -> None:
    client = Client.__new__(Client)
    client.place, client._opened, client._client = Place("volumes"), [], SimpleNamespace(conf_get=lambda key: "192.0.2.1")
    told = client._meaning("grow image a-1", OSError(errno.EROFS, "Read-only file system"))
    assert isinstance(told, errors.Conflict) and "asked to grow image a-1, but someone has it mapped exclusively (rbd status says who); detach" in str(told)


# ---- apart -----------------------------------------------------------------------------------------------------------


def test_what_is_done_apart_ends_as_it_would_here(tmp_path: Path) -> None:
    apart(5, (tmp_path / "done").write_text, "x")
    assert (tmp_path / "done").read_text() == "x"
    with pytest.raises(OSError) as caught:
        apart(5, os.rmdir, str(tmp_path))
    assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(FileNotFoundError):
        apart(5, os.rmdir, str(tmp_path / "none"))
    with pytest.raises(OSError):
        apart(5, lambda: 1 / 0)


def test_what_hangs_is_not_waited_for_and_holds_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        apart(0.3, time.sleep, 60)
    assert time.monotonic() - began < 5
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        apart(5, holds_no_file, lock.fileno())


def holds_no_file(number: int) -> None:
    """Raises when a file of the process that began it is open here."""
    opened = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]
    if any("lock" in path for path in opened) or opened[:3] != [os.devnull] * 3:
        raise OSError(errno.EMFILE, "open")
