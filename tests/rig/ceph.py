# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Ceph cluster of one's own: one monitor, one OSD and, where capacity matters, one manager, with cephx.

    with Ceph() as ceph:
        run_module("cinder_volume", {"backend": ceph.backend, "name": "db", "size_gib": 1})

Every cluster has an address of its own in 127.0.0.0/8, so that any number of them run side by side on Ceph's own
ports. On other ports librados tries both of its protocols, and a wrong key would only be told after a timeout.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

PORTS = (3300, 6789)
STORES = ("memstore", "bluestore")
FEATURES = 61  # layering, exclusive-lock, object-map, fast-diff, deep-flatten: the default of Ceph's clients

# Who there is, and what each may do. The keys are made before the monitor's first start, which takes them along.
USERS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
    "client.cinder": {"mon": "profile rbd", "osd": "profile rbd", "mgr": "profile rbd"},
}

CONF = """\
[global]
fsid = {fsid}
mon host = [v2:{ip}:3300,v1:{ip}:6789]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
public addr = {ip}
cluster addr = {ip}
ms bind ipv6 = false
run dir = {directory}
admin socket = {directory}/$name.$pid.asok
log file =
crash dir = {directory}
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data avail warn = 2
mon data avail crit = 1
[client]
rbd default features = {features}
[client.admin]
keyring = {directory}/client.admin.keyring
[client.cinder]
keyring = {directory}/client.cinder.keyring
[mon.a]
mon data = {directory}/mon
paxos propose interval = 0.1
paxos min wait = 0.02
[osd.0]
osd data = {directory}/osd
keyring = {directory}/osd.0.keyring
osd objectstore = {store}
osd fast shutdown = {fast_shutdown}
memstore device bytes = {size}
bluestore block size = {size}
bluestore block db create = false
bluestore block wal create = false
osd memory target = 939524096
osd class update on start = false
osd numa auto affinity = false
osd mclock skip benchmark = true
[mgr.x]
mgr data = {directory}/mgr
keyring = {directory}/mgr.x.keyring
mgr initial modules =
mgr module path = {directory}/mgr
"""


class Ceph:
    """One private cluster, run as the user of the tests, with the pool `volumes` and the user client.cinder.

    `store` is memstore, which loses everything when its OSD is killed, or bluestore, which does not.
    `size`: how many bytes the OSD holds.
    """

    pool = "volumes"

    def __init__(self, store: str = "memstore", manager: bool = False, size: int = 2 << 30) -> None:
        assert store in STORES, store
        # short, because sockets live in it: their paths have at most 107 characters
        self.directory = Path(tempfile.mkdtemp(prefix="ceph-", dir="/tmp"))
        self.conf = self.directory / "ceph.conf"
        self.ip = free_address()
        self.names = ["mon", "osd", *(["mgr"] if manager else [])]
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        fast = "false" if store == "memstore" else "true"  # the fast way out would not save what is in memory
        self.conf.write_text(CONF.format(
            fsid=uuid.uuid4(), ip=self.ip, directory=self.directory, store=store, size=size, fast_shutdown=fast, features=FEATURES,
        ))  # fmt: skip

    def __enter__(self) -> Ceph:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def backend(self) -> dict[str, Any]:
        """The option `backend` for the pool of this cluster."""
        return {"driver": "rbd", "pool": self.pool, "conf": str(self.conf), "timeout": 5}

    @property
    def ports(self) -> list[int]:
        """Where its monitor and its OSD answer, as long as they run."""
        (osd,) = json.loads(self.command({"prefix": "osd dump"}))["osds"]
        return [*PORTS, *(int(address["addr"].rpartition(":")[2]) for address in osd["public_addrs"]["addrvec"])]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values()]

    # ---- daemons

    def start(self) -> None:
        """Makes the cluster and returns when client.cinder can use its pool."""
        self._make_keys()
        monmap = self.directory / "monmap"
        addresses = f"[v2:{self.ip}:3300,v1:{self.ip}:6789]"
        run("monmaptool", "--create", "--clobber", "--fsid", self._setting("fsid"), "--addv", "a", addresses, str(monmap))
        run("ceph-mon", "-c", str(self.conf), "-i", "a", "--mkfs", "--monmap", str(monmap), "--keyring", str(self.directory / "all.keyring"))
        self.launch("mon")
        self.wait_until(lambda: self.command({"prefix": "osd new", "uuid": self.osd_uuid, "id": 0}) is not None, "the monitor does not answer")
        run("ceph-osd", "-c", str(self.conf), "-i", "0", "--mkfs", "--osd-uuid", self.osd_uuid)
        for name in self.names[1:]:
            self.launch(name)
        self.make_pool(self.pool)

    @functools.cached_property
    def osd_uuid(self) -> str:
        return str(uuid.uuid4())

    def _setting(self, key: str) -> str:
        return next(line.split(" = ", 1)[1] for line in self.conf.read_text().splitlines() if line.startswith(f"{key} = "))

    def _make_keys(self) -> None:
        for folder in ("osd", "mgr"):
            (self.directory / folder).mkdir()
        everybody = self.directory / "all.keyring"
        for name, may in USERS.items():
            own = self.directory / f"{name}.keyring"
            caps = [word for what, cap in may.items() for word in ("--cap", what, cap)]
            run("ceph-authtool", "-C", str(own), "--gen-key", "-n", name, *caps)
            run("ceph-authtool", str(everybody), *([] if everybody.exists() else ["-C"]), "--import-keyring", str(own))

    def key(self, user: str) -> str:
        """The key of a user, as its keyring has it."""
        text = (self.directory / f"{user}.keyring").read_text()
        return next(line.partition("=")[2].strip() for line in text.splitlines() if line.strip().startswith("key"))

    def launch(self, name: str) -> None:
        """Starts one daemon (mon, osd or mgr) that does not run."""
        program = {"mon": ["ceph-mon", "-i", "a"], "osd": ["ceph-osd", "-i", "0"], "mgr": ["ceph-mgr", "-i", "x"]}[name]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*program, "-c", str(self.conf), "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """Ends one daemon with SIGKILL."""
        self._end(name, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """Makes one daemon silent, without its connections being closed; `resume` lets it go on."""
        os.kill(self._running[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Lets a silent daemon go on, and returns when every part of the pool answers again.

        An OSD that was silent for longer than its read lease, 16 s, and has no peer may keep what waits for the lease
        for ever (Ceph before 18.2, https://tracker.ceph.com/issues/53806). It begins anew when it is told that it was
        down, which is the last means only: its clients have to find it again.
        """
        os.kill(self._running[name].pid, signal.SIGCONT)
        with self.pool_of() as io:
            try:
                self.wait_until(lambda: list(io.list_objects()), "no answer", timeout=10)
            except RuntimeError:
                self.command({"prefix": "osd down", "ids": ["0"]})
                self.wait_until(lambda: list(io.list_objects()), f"no answer after the silence of {name}")

    def stop(self) -> None:
        """Ends all daemons and removes every trace. May be called twice, and after `kill`."""
        self._disconnect()
        for name in reversed(list(self._running)):
            self._end(name, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, name: str, sign: signal.Signals) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.kill(process.pid, sign)
            process.wait(10)

    def wait_until(self, true: Any, why: str, timeout: float = 60) -> None:
        """Waits until something is so; what was tried and refused meanwhile does not count."""
        import rados

        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(rados.Error):
                if true():
                    return
            dead = [name for name, process in self._running.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.directory.glob("*.log")))
                raise RuntimeError(f"{why}; ended by themselves: {dead}\n{logs}")
            time.sleep(0.05)

    # ---- the administrator's hand, for tests

    @functools.cached_property
    def admin(self) -> Any:
        """A connection of client.admin."""
        import rados

        short = {"client_mount_timeout": "5", "rados_mon_op_timeout": "5", "rados_osd_op_timeout": "20"}
        cluster = rados.Rados(conffile=str(self.conf), name="client.admin", conf=short)
        cluster.connect()
        return cluster

    def _disconnect(self) -> None:
        if "admin" in vars(self):
            self.__dict__.pop("admin").shutdown()

    def command(self, words: dict[str, Any]) -> str:
        """What the monitor answers to a command, as JSON."""
        status, answer, said = self.admin.mon_command(json.dumps({**words, "format": "json"}), b"")
        if status:
            raise RuntimeError(f"{words}: {said}")
        return answer.decode()

    def make_pool(self, name: str) -> None:
        import rbd

        self.command({"prefix": "osd pool create", "pool": name, "pg_num": 8, "pgp_num": 8})
        with self.pool_of(name) as io:
            self.wait_until(lambda: rbd.RBD().pool_init(io, True) is None, f"pool {name} can't be used")

    @contextlib.contextmanager
    def pool_of(self, name: str | None = None, namespace: str = "") -> Any:
        """An ioctx of client.admin for a pool, with `rbd.Image` and `rbd.RBD()` in mind."""
        io = self.admin.open_ioctx(name or self.pool)
        io.set_namespace(namespace)
        try:
            yield io
        finally:
            io.close()


def free_address() -> str:
    """An address of this machine that nobody has a monitor on."""
    for _attempt in range(50):
        ip = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(2, 254)}"
        with contextlib.suppress(OSError):
            for port in PORTS:
                with socket.socket() as probe:
                    probe.bind((ip, port))
            return ip
    raise RuntimeError("no address of 127.0.0.0/8 has the ports of a monitor free")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
