# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes from images, made by the real qemu-img on a real file system and in a real Ceph pool; and images that lead elsewhere."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Refused
from ansible_collections.stackless.block.plugins.module_utils._images import ImageFile
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Volumes
from ansible_collections.stackless.block.plugins.module_utils._model.image import ImageWish

from tests.contract.test_reserve_race import call as call_inside
from tests.rig.images import MIB, SIZE, content, evil, image, opened, qemu_img
from tests.rig.pools import DirectoryPool, call, foretold, good, refusal, settled, volumes

GIB = 1 << 30
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx")
NAMES = [
    "backing file", "data file", "unknown feature", "unknown version", "encrypted", "no size", "odd size", "said to be raw", "said to be qcow2",
    "encrypted disk", "descriptor with a path", "descriptor inside", "empty", "cut off", "pipe", "device", "directory",
]  # fmt: skip

spawn = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same disk in every format, by format."""
    raw = content(tmp_path_factory.mktemp("images") / "disk")
    return {"raw": raw, **{format: image(raw, format) for format in FORMATS[1:]}}


@pytest.fixture(scope="module")
def evils(tmp_path_factory):
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_bytes(b"secret" * 1000)
    return evil(tmp_path_factory.mktemp("evil"), secret), secret


def source(path, format, **more):
    return {"source": {"image": str(path), "format": format, **more}}


@pytest.mark.parametrize("format", FORMATS)
def test_a_volume_from_an_image(pool, images, format):
    made = settled(pool, call, name="db", size_gib=2, **source(images[format], format))
    assert f"write image {images[format]} to volume db" in made["steps"] and made["source_image"] == str(images[format])
    assert pool.read(made["path"], SIZE) == images["raw"].read_bytes() and pool.size_of(made["path"]) == 2 * GIB
    assert pool.read(made["path"], MIB, SIZE) == bytes(MIB) and pool.read(made["path"], MIB, 2 * GIB - MIB) == bytes(MIB)
    assert not good(call(pool, name="db"))["changed"] and volumes(pool)["db"]["record"]["source_image"] == str(images[format])
    settled(pool, call, name="db", state="absent")
    assert pool.volumes() == []


def test_what_the_volume_is_given_and_what_it_keeps(pool, images, tmp_path_factory):
    here = tmp_path_factory.mktemp("moved") / "disk.qcow2"
    shutil.copy(images["qcow2"], here)
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    for words, options in (
        ("its sha256 is " + digest, source(here, "qcow2", checksum="sha256:" + "0" * 64)),
        ("give an algorithm and the digest", source(here, "qcow2", checksum=digest)),
        ("give an algorithm and the digest", source(here, "qcow2", checksum="crc32:00")),
        ("give source.format, one of raw, qcow2", {"source": {"image": str(here)}}),
        ("must be one thing", {"source": {"image": str(here), "format": "qcow2", "volume": "db"}}),
        ("must be one thing", {"source": {"format": "qcow2"}}),
        ("is no absolute path", source("disk.qcow2", "qcow2")),
        (f"there is no image {here}.gone on this host", source(f"{here}.gone", "qcow2")),
    ):
        assert words in refusal(foretold(pool, call, name="db", **options))
    made = settled(pool, call, name="db", **source(here, "qcow2", checksum=f"sha256:{digest.upper()}"))
    assert made["size_gib"] == 1, "the smallest whole number of GiB"
    here.unlink()
    assert not good(call(pool, name="db", **source(here, "qcow2")))["changed"], "what was made does not need its image any more"
    assert "was not made from image /other" in refusal(foretold(pool, call, name="db", **source("/other", "qcow2")))
    assert "was not made from image" in refusal(foretold(pool, call, name="db", source={"image": "/x", "format": "raw"}))


def test_an_image_that_is_larger_than_the_volume(pool, tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "3G")
    told = refusal(foretold(pool, call, name="db", size_gib=2, **source(path, "qcow2")))
    assert told == f"volume db can't have 2 GiB, as image {path} needs 3; make it at least as large"


# ---- images that lie, or lead elsewhere


@pytest.mark.parametrize("name", NAMES)
def test_an_evil_image_is_refused_and_nothing_of_the_host_is_opened(pool, evils, name):
    format, path, words = evils[0][name]
    with opened(evils[1]) as was_opened:
        told = refusal(foretold(pool, call, name="db", size_gib=1, **source(path, format)))
        assert f"image {path} is refused: " in told and words in told and "Traceback" not in told
        assert not was_opened() and pool.volumes() == []


def test_all_evil_images_are_named_above(evils):
    assert sorted(evils[0]) == sorted(NAMES)


@pytest.mark.parametrize("name", ["backing file", "descriptor with a path"])
def test_what_would_have_happened(evils, tmp_path, name):
    format, path, _words = evils[0][name]
    with opened(evils[1]) as was_opened:
        subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", str(path), str(tmp_path / "out")], capture_output=True, check=False)
        assert was_opened()


@pytest.mark.parametrize("how", ["replaced", "written to"])
def test_what_was_inspected_is_what_is_read(images, evils, tmp_path, how):
    path, evil_one = tmp_path / "disk.qcow2", evils[0]["backing file"][1]
    shutil.copy(images["qcow2"], path)
    inspected = ImageFile(ImageWish(str(path), "qcow2"))
    if how == "replaced":
        shutil.copy(evil_one, tmp_path / "evil")
        os.replace(tmp_path / "evil", path)
    else:
        with path.open("r+b") as handle:
            handle.write(evil_one.read_bytes())
    with opened(evils[1]) as was_opened:
        with pytest.raises(Refused, match="it was written to or replaced since it was inspected"):
            inspected.convert("-O", "raw", str(tmp_path / "out"))
        assert not was_opened()


@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_one_that_says_two_sizes_makes_no_volume_of_the_larger(pool, tmp_path_factory):
    """QEMU believes another field of a VHD's footer than the inspector."""
    path = tmp_path_factory.mktemp("images") / "disk.vhd"
    qemu_img("create", "-q", "-f", "vpc", "-o", "force_size=on", path, "20G")
    data = bytearray(path.read_bytes())
    for at in (0, len(data) - 512):
        data[at + 40 : at + 48] = struct.pack(">Q", GIB)
        data[at + 64 : at + 68] = bytes(4)
        data[at + 64 : at + 68] = struct.pack(">I", ~sum(data[at : at + 512]) & 0xFFFFFFFF)
    path.write_bytes(data)
    assert "holds more than its header says" in refusal(call(pool, name="db", **source(path, "vhd"))) and pool.volumes() == []


@pytest.mark.parametrize("pool", ["file"], indirect=True)
def test_the_image_of_a_run_that_was_killed_may_be_another_one_by_now(pool, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1G")
    made = good(call(pool, name="db", size_gib=1, **source(path, "qcow2")))
    record = Path(f"{made['path']}.json")
    record.write_text(record.read_text().replace('"available"', '"downloading"'))
    os.unlink(made["path"])
    qemu_img("create", "-q", "-f", "qcow2", path, "5G")
    assert "can't have 1 GiB, as image" in refusal(foretold(pool, call, name="db", size_gib=1, **source(path, "qcow2")))
    assert not os.path.exists(made["path"])


def test_good_ones_of_a_list_are_made(pool, images, evils):
    _format, path, _words = evils[0]["backing file"]
    wishes = [{"name": "good", **source(images["qcow2"], "qcow2")}, {"name": "evil", **source(path, "qcow2")}, {"name": "plain"}]
    answer = call(pool, volumes=wishes, size_gib=1)
    assert [result["failed"] for result in answer["results"]] == [False, True, False] and sorted(volumes(pool)) == ["good", "plain"]


def test_without_the_library_it_is_said_what_to_install(pool, images, tmp_path_factory):
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "oslo_utils").mkdir()
    (hidden / "oslo_utils" / "__init__.py").write_text("raise ImportError('hidden')\n")
    from tests.rig.collection import collections_path

    told = refusal(call(pool, name="db", **source(images["raw"], "raw"), env={"PYTHONPATH": f"{hidden}:{collections_path()}"}))
    assert "oslo.utils" in told and "install the package python3-oslo.utils" in told
    told = refusal(call(pool, name="db", **source(images["raw"], "raw"), env={"PATH": "/nowhere"}))
    assert told == "qemu-img is not installed on this host; install the package qemu-utils" and pool.volumes() == []


# ---- what gets in the way


def test_what_fails_is_taken_back(images, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "none", str(tmp_path)], check=True)
    try:
        pool = DirectoryPool(tmp_path)
        answer = call(pool, name="db", size_gib=1, **source(images["qcow2"], "qcow2"))
        assert "qemu-img says: " in refusal(answer) and answer["steps"][-1] == "remove volume db again" and pool.traces() == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def write(backend, path):
    call_inside(Volumes, backend=backend, volumes=None, name="db", size_gib=1, source={"image": str(path), "format": "raw"})


@pytest.mark.parametrize("pool", ["file", pytest.param("rbd", marks=pytest.mark.long)], indirect=True)
def test_killed_while_it_writes_nobody_is_left_who_does_and_the_next_run_finishes(pool, tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big"
    with path.open("wb") as disk:
        for _piece in range(96):
            disk.write(os.urandom(MIB))
    for _attempt in range(5):
        run = spawn.Process(target=write, args=(pool.backend, path))
        run.start()
        writer = child_named(run.pid, "qemu-img")
        os.kill(run.pid, signal.SIGKILL)
        run.join(10)
        if writer:
            break
    assert writer, "no kill met the writing"
    for _look in range(100):
        if not os.path.exists(f"/proc/{writer}"):
            break
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{writer}")
    assert "half made from image" in refusal(foretold(pool, call, name="db", size_gib=1))
    made = settled(pool, call, name="db", size_gib=1, **source(path, "raw"))
    assert pool.read(made["path"], 96 * MIB) == path.read_bytes() and len(pool.volumes()) == 1


@pytest.mark.parametrize("pool", ["rbd"], indirect=True)
def test_a_second_run_waits_for_the_first_and_writes_nothing_over_it(pool, tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big"
    with path.open("wb") as disk:
        for _piece in range(96):
            disk.write(os.urandom(MIB))
    run = spawn.Process(target=write, args=(pool.backend, path))
    run.start()
    writer = child_named(run.pid, "qemu-img")
    os.kill(writer, signal.SIGSTOP)  # also when it has not opened the image yet
    try:
        told = refusal(call(pool, name="db", size_gib=1, timeout=1, **source(path, "raw")))
        assert "volume db can't be written to, its image is open at 127." in told
    finally:
        os.kill(writer, signal.SIGCONT)
    run.join(60)
    assert run.exitcode == 0 and volumes(pool)["db"]["status"] == "available"
    assert not good(call(pool, name="db", size_gib=1, **source(path, "raw")))["changed"]


def child_named(pid, name):
    """The pid of a child of a process, as soon as there is one of this name."""
    for _look in range(20000):
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as handle:
                children = handle.read().split()
            for child in children:
                with open(f"/proc/{child}/comm", encoding="ascii") as handle:
                    if handle.read().strip() == name:
                        return int(child)
        except FileNotFoundError:
            return None
        time.sleep(0.001)
    return None
