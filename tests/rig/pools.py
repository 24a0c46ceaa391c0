# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools for volumes as tests see them, past the modules: what is there, and whether anything was written."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

from tests.rig.ceph import Ceph
from tests.rig.collection import run_module

NUMBERS = itertools.count(1)
MANY = 9 << 20  # bytes, over more than two of the objects that an RBD image consists of


def call(pool: Any, check: bool = False, module: str = "cinder_volume", backend: Any = None, env: Any = None, **options: Any) -> dict[str, Any]:
    """What a module answers about a pool."""
    more = {"env": env} if env else {}
    answer = pool.run(module, {"backend": {**pool.backend, **(backend or {})}, **options}, check=check, **more)
    assert "Traceback" not in str(answer)
    return answer


def good(answer: dict[str, Any]) -> dict[str, Any]:
    assert not answer.get("failed"), answer["msg"]
    return answer


def refusal(answer: dict[str, Any]) -> str:
    assert answer.get("failed"), "it was not refused"
    assert "\n" not in answer["msg"]
    return answer["msg"]


def snapshot(pool: Any, volume: str = "db", name: str = "monday", **options: Any) -> dict[str, Any]:
    """Takes one, or what `options` say."""
    return call(pool, module="cinder_snapshot", volume=volume, name=name, **options)


def volumes(pool: Any) -> dict[str, Any]:
    return {volume["name"]: volume for volume in call(pool, module="cinder_volume_info")["volumes"]}


def snapshots(pool: Any, **options: Any) -> list[Any]:
    return call(pool, module="cinder_snapshot_info", **options)["snapshots"]


def foretold(pool: Any, act: Any, **options: Any) -> dict[str, Any]:
    """What a run answers, once its check has said the same and written nothing."""
    before = pool.traces()
    predicted = act(pool, check=True, **options)
    assert pool.traces() == before, "the check wrote something"
    answer = act(pool, **options)
    assert (answer["steps"], answer["changed"], answer.get("msg")) == (predicted["steps"], predicted["changed"], predicted.get("msg"))
    if answer.get("failed"):
        assert pool.traces() == before, "a refusal wrote something"
    return answer


def settled(pool: Any, act: Any, **options: Any) -> dict[str, Any]:
    """The same, and a second run has nothing to do."""
    answer = good(foretold(pool, act, **options))
    before = pool.traces()
    assert not good(act(pool, **options))["changed"] and pool.traces() == before
    return answer


def content(readable: Any) -> dict[int, bytes]:
    """What of some data is not zeros, by the numbers of its blocks of 4 KiB."""
    found: dict[int, bytearray] = {}
    for at, piece in readable.pieces(3 << 20):
        assert 0 < len(piece) <= 3 << 20
        for number in range(at // 4096, (at + len(piece) - 1) // 4096 + 1):
            begin, start = number * 4096, max(at, number * 4096)
            part = piece[start - at : begin + 4096 - at]
            found.setdefault(number, bytearray(4096))[start - begin : start - begin + len(part)] = part
    return {number: bytes(block) for number, block in found.items() if block.strip(b"\0")}


class DirectoryPool:
    """A directory for the driver file. `allocation` is how its volumes take their space, `other` a way it does not have."""

    driver, allocation, other = "file", "sparse", "thin"
    run = staticmethod(run_module)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backend: dict[str, Any] = {"driver": "file", "path": str(path)}

    def traces(self) -> list[Any]:
        """What every write changes."""
        return sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in self.path.iterdir())

    def volumes(self) -> list[str]:
        """The ids of the volumes whose data is there."""
        return sorted(entry.name.removeprefix("volume-") for entry in self.path.iterdir() if entry.suffix != ".json")

    def size_of(self, path: str) -> int:
        return os.stat(path).st_size

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        with open(path, "r+b") as handle:
            handle.seek(offset)
            handle.write(data)

    def read(self, path: str, size: int, offset: int = 0) -> bytes:
        with open(path, "rb") as handle:
            handle.seek(offset)
            return handle.read(size)


class RbdPool:
    """A namespace of its own in the pool of a cluster, for the driver rbd."""

    driver, allocation, other = "rbd", "thin", "sparse"
    run = staticmethod(run_module)

    def __init__(self, ceph: Ceph, namespace: str | None = None) -> None:
        import rbd

        self.ceph = ceph
        self.namespace = f"n{next(NUMBERS)}" if namespace is None else namespace
        self.backend = {**ceph.backend, "namespace": self.namespace}
        with ceph.pool_of() as io:
            if self.namespace and not rbd.RBD().namespace_exists(io, self.namespace):
                rbd.RBD().namespace_create(io, self.namespace)

    def open(self) -> Any:
        """An ioctx of the administrator's for the namespace, as a context manager."""
        return self.ceph.pool_of(namespace=self.namespace)

    def traces(self) -> list[Any]:
        """Every object with its version, which every write raises."""
        import rados

        found = []
        with self.open() as io:
            for one in io.list_objects():
                with contextlib.suppress(rados.ObjectNotFound):  # only a snapshot has it still
                    io.stat(one.key)
                    found.append((one.key, io.get_last_version()))
        return sorted(found)

    def volumes(self) -> list[str]:
        """The ids of the volumes whose data is there."""
        return sorted(name.removeprefix("volume-") for name in self.images())

    def images(self) -> list[str]:
        """The names of all images; those in the trash in brackets."""
        import rbd

        with self.open() as io:
            return sorted([*rbd.RBD().list(io), *(f"({one['name']})" for one in rbd.RBD().trash_list(io))])

    def records(self) -> list[str]:
        """The texts of all records, in the order of their images."""
        texts = []
        for name in self.images():
            with self.image(name, read_only=True) as image:
                texts.append(image.metadata_get("stackless.record"))
        return texts

    def image(self, name: str, **options: Any) -> Any:
        """An open image, as a context manager: another's hand."""
        import rbd

        @contextlib.contextmanager
        def opened() -> Any:
            with self.open() as io, rbd.Image(io, name, **options) as image:
                yield image

        return opened()

    def size_of(self, path: str) -> int:
        with self._at(path, read_only=True) as image:
            return image.size()

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        with self._at(path) as image:
            image.write(data, offset)

    def read(self, path: str, size: int, offset: int = 0) -> bytes:
        with self._at(path, read_only=True) as image:
            return image.read(offset, size)

    def _at(self, path: str, **options: Any) -> Any:
        prefix, _slash, name = path.rpartition("/")
        assert prefix == f"rbd:{self.ceph.pool}/{self.namespace}".rstrip("/"), path
        return self.image(name, **options)
