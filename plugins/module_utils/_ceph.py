# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The way to a pool of a Ceph cluster through librados and librbd: every question bounded in time, every failure one of our errors."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import errno
import json
import os
import typing as t
import weakref

from ._errors import Conflict, Failed, NotFound, StorageError, Unavailable
from ._model.data import Secret

try:
    import rados
    import rbd
except ImportError:
    rados = rbd = None

_OF_SOURCE = {"pool": "image", "namespace": "image", "conf": "monitors", "keyring": "password"}  # by the options of a back end


@dataclasses.dataclass(frozen=True)
class Place:
    """Where images are, who asks, for how many seconds each question may take, and how new images are made.

    `features`: by Ceph's names, empty for the default of the pool or of Ceph. `monitors` and `key` stand for `conf` and
    `keyring` where a host has none, as for the source of a disk; `options` is what the names of a task's options begin with there.
    """

    pool: str
    namespace: str = ""
    data_pool: t.Optional[str] = None
    features: t.Tuple[str, ...] = ()
    user: str = "cinder"
    conf: str = "/etc/ceph/ceph.conf"
    keyring: t.Optional[str] = None
    timeout: int = 10
    monitors: t.Tuple[t.Tuple[str, int], ...] = ()
    key: t.Optional[Secret] = None
    options: str = "source."

    def option(self, name: str) -> str:
        """What a person can correct: an option of the back end, or what has its place where monitors are given."""
        return f"{self.options}{_OF_SOURCE.get(name, name)}" if self.monitors else f"backend.{name}"

    @property
    def addresses(self) -> str:
        """Where those of the monitors stand."""
        return self.option("conf") if self.monitors else f"mon_host in {self.conf}"

    @property
    def path(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool


class Seen(t.NamedTuple):
    """What a look at an image finds: its size in bytes, who has it open for writing or locked, its id and its features."""

    size_bytes: int
    holders: t.Tuple[str, ...]
    image_id: str
    features: int


class NoLibrary(Unavailable):
    """This host can't ask any cluster."""


class Client:
    """One pool, or one namespace of it. Nothing is asked before the first use."""

    def __init__(self, place: Place) -> None:
        if rbd is None:
            raise NoLibrary("the Python libraries rados and rbd are missing on this host; install the packages python3-rados and python3-rbd")
        self.place = place
        self._client: t.Any = None
        self._pool: t.Any = None
        self._opened: t.List[t.Callable[[], None]] = []
        weakref.finalize(self, _close, self._opened)

    @property
    def name(self) -> str:
        """The cluster as a person would call it."""
        return f"the Ceph cluster of {self.client.conf_get('mon_host')}"

    @property
    def fsid(self) -> str:
        """The cluster's own name for itself."""
        return str(self.client.get_fsid())

    @property
    def keyring(self) -> str:
        """The files where the key may be, separated by commas."""
        return self.client.conf_get("keyring")

    @property
    def key(self) -> t.Optional[Secret]:
        """The key of the user, as keyrings write it; None when no file that this host may read has it."""
        given = self.client.conf_get("key")
        found = given or next(filter(None, (_key_in(path, self.place.user) for path in self.keyring.split(","))), None)
        return Secret(found) if found else None

    @property
    def client(self) -> t.Any:
        """The connection."""
        if self._client is None:
            self._client = _connected(self.place, self._configured())
            self._opened.append(self._client.shutdown)
        return self._client

    @property
    def io(self) -> t.Any:
        """The pool."""
        if self._pool is None:
            self._pool = self._open()
            self._opened.append(self._pool.close)
        return self._pool

    def _configured(self) -> t.Any:
        place = self.place
        limits = {key: str(place.timeout) for key in ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")}
        if place.monitors:
            hosts = ",".join(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in place.monitors)
            return rados.Rados(rados_id=place.user, conf={**limits, "mon_host": hosts, "keyring": "", "key": place.key.reveal() if place.key else ""})
        own = {"keyring": place.keyring} if place.keyring else {}
        try:
            with open(place.conf, "rb"):
                pass
            return rados.Rados(conffile=place.conf, rados_id=place.user, conf={**limits, **own})
        except OSError as error:
            raise Unavailable(f"the Ceph configuration {place.conf} can't be read: {error.strerror}; bring it here, or correct backend.conf") from error
        except rados.Error as error:
            raise Unavailable(f"the Ceph configuration {place.conf} can't be understood: {_said(error)}; mend it, or correct backend.conf") from error

    def _open(self) -> t.Any:
        place = self.place
        with self.asked(f"open pool {place.pool}"):
            for option, name in (("data_pool", place.data_pool), ("pool", place.pool)):
                if name and not self.client.pool_exists(name):
                    make = f"make it (ceph osd pool create {name}, rbd pool init {name})"
                    raise NotFound(f"there is no pool {name} in {self.name}; {make}, or correct {place.option(option)}")
            pool = self.client.open_ioctx(place.pool)
            if place.namespace and not rbd.RBD().namespace_exists(pool, place.namespace):
                make = f"make it (rbd namespace create {place.path})"
                raise NotFound(f"there is no namespace {place.namespace} in pool {place.pool} of {self.name}; {make}, or correct {place.option('namespace')}")
            pool.set_namespace(place.namespace)
            if hasattr(pool, "set_osdmap_full_try"):
                pool.set_osdmap_full_try()  # a full pool says so, instead of letting wait
        return pool

    @contextlib.contextmanager
    def asked(self, what: str) -> t.Iterator[None]:
        """Turns what librados and librbd say meanwhile into our errors."""
        try:
            yield
        except (rados.Error, rbd.Error) as error:
            raise self._meaning(what, error) from error

    def _meaning(self, what: str, error: Exception) -> StorageError:
        place, number = self.place, number_of(error)
        asked = f"{self.name} was asked to {what}"
        if number == errno.ETIMEDOUT:
            return Unavailable(f"{asked} and did not answer within {place.timeout} s: see with ceph -s which OSDs or monitors are down, and run again")
        if number in (errno.EPERM, errno.EACCES):
            where = f"pool={place.pool}" + (f" namespace={place.namespace}" if place.namespace else "")
            may = f"mon 'profile rbd' osd 'profile rbd {where}'"
            return Failed(f"{asked} and does not let client.{place.user} do that; grant it beside what it has (ceph auth caps, with {may})")
        if number in (errno.EDQUOT, errno.ENOSPC):
            return Failed(f"{asked} and has no room: pool {place.pool} is full; raise its quota, add OSDs or delete volumes (ceph health detail)")
        if number == errno.EROFS:
            who = "someone has it mapped exclusively (rbd status says who)"
            return Conflict(f"{asked}, but {who}; detach it there first, or have it mapped with exclusive: false")
        return Failed(f"{asked} and said no: {_said(error)}; see with ceph -s whether it is well, and run again")

    def ask(self, prefix: str, **words: str) -> t.Any:
        """What the monitors answer to a command, as data; None when they don't let us ask."""
        with self.asked(f"tell {prefix}"):
            status, answer, _words = self.client.mon_command(json.dumps({"prefix": prefix, "format": "json", **words}), b"")
        if status == -errno.ETIMEDOUT:
            raise Unavailable(f"the monitors of {self.name} did not answer within {self.place.timeout} s; see with ceph -s, and run again")
        return json.loads(answer) if status == 0 else None

    def tell(self, prefix: str, **words: t.Any) -> None:
        """Has the monitors do something."""
        with self.asked(f"do {prefix}"):
            status, _answer, said = self.client.mon_command(json.dumps({"prefix": prefix, **words}), b"")
        if status:
            raise Failed(f"{self.name} was asked to {prefix} and said no: {said or os.strerror(-status)}; see what client.{self.place.user} may do")

    def look(self, name: str) -> Seen:
        """The image of exactly this name. NotFound when it is not there."""
        with self.asked(f"tell who has image {name} open"):
            try:
                with rbd.Image(self.io, name, read_only=True) as opened:
                    holders = _holders(list(opened.watchers_list()), opened.list_lockers() or {})
                    return Seen(opened.size(), holders, opened.id(), opened.features())
            except rbd.ImageNotFound as error:
                raise NotFound(f"there is no image {self.place.path}/{name} in {self.name}; make it, or correct {self.place.option('pool')}") from error


def host_of(address: str) -> str:
    """The IP address in one of Ceph's, such as 192.0.2.7:0/1234 or [2001:db8::7]:0/1234."""
    return address.rpartition(":")[0].strip("[]")


def _holders(watchers: t.Sequence[t.Mapping[str, t.Any]], locks: t.Mapping[str, t.Any]) -> t.Tuple[str, ...]:
    """The addresses of clients by Ceph's names for them. The lock that librbd takes by itself counts only while its owner watches."""
    found = {f"client.{one['id']}": one["addr"] for one in watchers}
    found.update({client: address for client, cookie, address in locks.get("lockers", ()) if not cookie.startswith("auto ")})
    return tuple(f"{host_of(address)} ({client})" for client, address in sorted(found.items()))


def _key_in(path: str, user: str) -> t.Optional[str]:
    """The key of a user in a keyring."""
    keyring = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    try:
        keyring.read(path)
        return keyring.get(f"client.{user}", "key", fallback=None)
    except (OSError, configparser.Error, UnicodeDecodeError):
        return None


def _close(opened: t.List[t.Callable[[], None]]) -> None:
    """Ends what was opened, the last first: a pool that outlives its connection takes the process along."""
    while opened:
        opened.pop()()


def _connected(place: Place, client: t.Any) -> t.Any:
    """The client, connected; Unavailable with why it did not come about."""
    try:
        client.connect()
        return client
    except rados.Error as error:
        keyring = client.conf_get("keyring")
        closed = [path for path in keyring.split(",") if os.path.exists(path) and not os.access(path, os.R_OK)]
        why = _why_not(number_of(error), place, client.conf_get("mon_host"), keyring or place.option("keyring"), closed)
        client.shutdown()
        raise Unavailable(why) from error


def number_of(error: Exception) -> int:
    return abs(getattr(error, "errno", None) or 0)


def _said(error: Exception) -> str:
    """What librados or librbd says, without the names of its own functions."""
    return str(error).partition(" (")[0]


def _why_not(number: int, place: Place, monitors: str, keyring: str, closed: t.Sequence[str] = ()) -> str:
    """The sentence for a connection that did not come about."""
    user, cluster = f"client.{place.user}", f"the Ceph cluster of {monitors or place.conf}"
    mend = f"or correct {place.option('conf')}"
    if number == errno.ETIMEDOUT:
        return f"{cluster} does not answer {user} within {place.timeout} s; check that its monitors run and can be reached from here, {mend}"
    if not monitors:
        return f"the Ceph configuration {place.conf} names no monitors; give mon_host there, {mend}"
    if number in (errno.EACCES, errno.EPERM) and closed:
        return f"the key of {user} in {closed[0]} can't be read; let this task's user read it, run the task with become: true, or correct backend.keyring"
    if number in (errno.EACCES, errno.EPERM):
        return f"{cluster} refuses {user}: it does not know it or has another key; compare `ceph auth get {user}` with {keyring}"
    if number in (errno.ENOENT, errno.EIO):
        put = f"put it there (ceph auth get {user}), readable for this task, or correct {place.option('keyring')}"
        return f"there is no key of {user} for {cluster} in {keyring}; {put}"
    return f"{cluster} can't be spoken to by {user}: {os.strerror(number)}; check {place.addresses} and that its monitors run"
