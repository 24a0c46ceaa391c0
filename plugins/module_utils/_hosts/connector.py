# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""What a compute host is to a storage: its connector. Nothing here creates anything.

The dictionary is the one that os-brick's get_connector_properties returns and Cinder takes
(os_brick/initiator/connector.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import re
import socket
import sys
import typing as t

from .._errors import Unavailable
from .._model.disk import check_iqn

INITIATOR_FILE = "/etc/iscsi/initiatorname.iscsi"
_IQN_PREFIX = "iqn.2026-01.org.stackless:"
_SOMEWHERE = "192.0.2.1"  # TEST-NET-1 of RFC 5737: routed like the rest of the world, never reached
_PLAIN_HOST = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


def find_connector(options: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The connector of this host and, unless `libvirt` is false, its domains."""
    host = options.get("host") or socket.gethostname()
    connector = {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": options.get("my_ip") or source_address(options.get("storage_ip")),
        "host": host,
        "initiator": check_iqn(options.get("initiator") or configured_initiator() or derived_initiator(host), "initiator of this host"),
        "multipath": runs("multipathd"),
        "do_local_attach": False,
    }
    return {"connector": connector, "domains": _domains(options["uri"]) if options["libvirt"] else []}


def _domains(uri: str) -> t.List[t.Dict[str, t.Any]]:
    from .libvirt import LibvirtHost

    return [dataclasses.asdict(domain) for domain in sorted(LibvirtHost(uri).domains(), key=lambda domain: domain.name)]


def source_address(towards: t.Optional[str]) -> str:
    """The address this host speaks from to `towards`, or to the rest of the world; sends nothing.

    A host without a default route is given its loopback address, which is right when it is alone.
    """
    target = towards or _SOMEWHERE
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(target, 3260, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return probe.getsockname()[0]
    except OSError as error:
        if towards is None:
            return "127.0.0.1"
        raise Unavailable(f"this host has no way to storage_ip {towards}: {error.strerror}; add a route, correct storage_ip, or set my_ip") from error


def configured_initiator(path: str = INITIATOR_FILE) -> t.Optional[str]:
    """The name that open-iscsi has on this host, if it has one."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = [line.split("=", 1)[1].strip() for line in handle if line.startswith("InitiatorName=")]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} can't be read: {error.strerror}; run the task as root, or set initiator") from error
    return found[-1] if found and found[-1] else None


def derived_initiator(host: str) -> str:
    """A name for a host without one: always the same, and another one for every host."""
    if _PLAIN_HOST.fullmatch(host):
        return _IQN_PREFIX + host
    plain = re.sub(r"[^a-z0-9.-]+", "-", host.lower()).strip("-.")[:40]
    mark = hashlib.sha256(host.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return _IQN_PREFIX + "-".join(part for part in (plain, mark) if part)


def runs(program: str) -> bool:
    """Whether a process of this name runs on the host."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as handle:
                if handle.read().strip() == program:
                    return True
    return False
