# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""Keeps domains from writing through their guest agents, or by pausing them.

Each is held by a process of its own, which outlives the task and lets go by itself when the time is up: a guest whose file
systems stay frozen because a controller died would be worse off than one that was never asked. That process has the file
stackless-block-quiesced-<uuid> locked for as long as it holds, so that everybody can see whether it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import typing as t
import xml.etree.ElementTree as ET

from .._errors import Failed, StorageError
from .._model.quiesce import Guest, Hold
from .._reconcile import World, try_lock
from . import QuiesceHost
from .apart import let_go_of_all_but
from .libvirt import asking, connect, libvirt, run_directory

_AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']"
_AGENT_SECONDS = 5  # for a guest agent to answer in
_ANSWER_SECONDS = 30  # for the holding process to say that the domain is quiet
_TRIES = 60  # to let go of a domain whose agent does not answer, each some seconds long
_QUIET = b"quiet"


class Quiescer(QuiesceHost):
    """The domains of the libvirt behind a URI."""

    def __init__(self, uri: str) -> None:
        self.where = uri
        self._connection = connect(uri)

    def observe(self) -> World:
        with asking("look at the domains", self.where):
            return {domain.name(): _look(domain) for domain in self._connection.listAllDomains()}

    def quiesce(self, domain: str, way: str, at_most: int) -> None:
        with asking(f"find domain {domain}", self.where):
            uuid = self._connection.lookupByName(domain).UUIDString()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _Holder(self.where, uuid, way, at_most, writing).live()
        os.close(writing)
        try:
            heard = os.read(reading, 4096) if select.select([reading], [], [], _ANSWER_SECONDS)[0] else f"no answer within {_ANSWER_SECONDS} s".encode()
        finally:
            os.close(reading)
        if heard != _QUIET:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            why = heard.decode(errors="replace") or "what holds it was killed"
            raise Failed(f"domain {domain} can't be kept from writing: {why}; start qemu-guest-agent in its guest anew, and run again")

    def release(self, domain: str) -> None:
        with asking(f"find domain {domain}", self.where):
            found = self._connection.lookupByName(domain)
        path = _path(found.UUIDString())
        hold, pid = _hold(path)
        if hold and hold.state == "holding":
            os.kill(pid, signal.SIGTERM)
        elif hold:
            if hold.state == "broken":
                with asking(f"let domain {domain} write again", self.where):
                    _go(found, hold.way)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _look(domain: t.Any) -> Guest:
    running = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    agent = running and ET.fromstring(domain.XMLDesc()).find(_AGENT) is not None
    return Guest(domain.name(), running, agent, _hold(_path(domain.UUIDString()))[0])


def _path(uuid: str) -> str:
    return os.path.join(run_directory(), f"stackless-block-quiesced-{uuid}")


def _hold(path: str) -> t.Tuple[t.Optional[Hold], int]:
    """What holds a domain, by its file, and the process that does. A file without a word is of somebody who has done nothing yet."""
    try:
        with open(path, encoding="utf-8") as handle:
            state = "broken" if try_lock(handle.fileno()) else "holding"
            told = json.loads(handle.read() or "{}")
    except FileNotFoundError:
        told = {}
    if not told:
        return None, 0
    return Hold(told["way"], told["state"] if state == "broken" else state, told.get("reason")), told["pid"]


class _Holder:
    """The process that holds one domain. It says on `writing` that the domain is quiet, or why it can't be."""

    def __init__(self, uri: str, uuid: str, way: str, at_most: int, writing: int) -> None:
        self.uri, self.uuid, self.way, self.at_most, self.writing = uri, uuid, way, at_most, writing
        self.path = _path(uuid)

    def live(self) -> t.NoReturn:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            let_go_of_all_but(self.writing, self.handle)
            self._hold()
        except (OSError, StorageError, libvirt.libvirtError) as error:
            self._say(str(error).encode())
        finally:
            os._exit(0)

    def _hold(self) -> None:
        if not try_lock(self.handle):
            return self._say(b"another process holds it already")
        self._note("broken")  # what it is once nobody has the lock any more
        domain = connect(self.uri).lookupByUUIDString(self.uuid)
        if not self._stop(domain):
            return
        self._say(_QUIET)
        told = signal.sigtimedwait([signal.SIGTERM], self.at_most)
        self._let_go(domain, expired=told is None)

    def _stop(self, domain: t.Any) -> bool:
        try:
            _keep(domain, self.way)
        except libvirt.libvirtError as error:
            self._say(str(error).encode())
            # an agent that did not answer in time may do late what it was asked for
            self._let_go(domain, expired=False)
            return False
        return True

    def _let_go(self, domain: t.Any, expired: bool) -> None:
        """Lets the domain write again, and tries on while its agent does not answer; why it does not is in the file meanwhile."""
        for _attempt in range(_TRIES):
            try:
                _go(domain, self.way)
            except libvirt.libvirtError as error:
                self._note("broken", str(error))
                expired = signal.sigtimedwait([signal.SIGTERM], 1) is None and expired
            else:
                return self._note("expired") if expired else os.unlink(self.path)
        return None

    def _note(self, state: str, reason: t.Optional[str] = None) -> None:
        text = json.dumps({"way": self.way, "state": state, "reason": reason, "pid": os.getpid()}).encode()
        os.pwrite(self.handle, text.ljust(512), 0)

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.writing, words)
            os.close(self.writing)


def _keep(domain: t.Any, way: str) -> None:
    if way == "paused":
        domain.suspend()
        return
    domain.agentSetResponseTimeout(_AGENT_SECONDS)
    domain.fsFreeze()


def _go(domain: t.Any, way: str) -> None:
    """Nothing is left to do for a domain that was ended meanwhile."""
    if not domain.isActive():
        return
    if way == "frozen":
        domain.agentSetResponseTimeout(_AGENT_SECONDS)
        domain.fsThaw()
    elif domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
