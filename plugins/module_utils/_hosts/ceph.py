# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Ceph as a host with domains sees it: the images of their disks, and the configuration that QEMU connects with.

QEMU opens and closes an image while nobody can talk to it, and without a limit in time. So this host looks at the image
first, with a connection of its own that has one.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._ceph import Client, NoLibrary, Place
from .._errors import Busy, NotFound, StorageError, Unavailable
from .._model.data import Secret
from .._model.disk import Image, Source
from .files import holds, publish

_SECONDS = 5  # for each question to a cluster
_PAUSE = 15  # seconds after a question without an answer: a hundred disks shall not wait for the same cluster one after the other
_CONFIG = """\
# Made by stackless.block for QEMU. Without it the monitor of a guest waits 300 s for a Ceph cluster that does not answer.
[global]
client mount timeout = 5
"""


class Images:
    """Looks at images through the monitors of their sources, as their users. Connections are kept.

    `options` is what the names of a task's options begin with that say where an image is.
    """

    def __init__(self, options: str = "source.") -> None:
        self._options = options
        self._clients: t.Dict[Place, Client] = {}
        self._silent: t.Dict[Place, t.Tuple[float, StorageError]] = {}  # until when nobody asks again, and why

    def look(self, source: Source, key: t.Optional[Secret]) -> Image:
        """The image as it is; why it can't be looked at stands in its `error`. Nothing is known without a key, which libvirt may hide."""
        if key is None:
            return Image()
        path, _slash, name = str(source.path).rpartition("/")
        pool, _slash, namespace = path.partition("/")
        place = Place(pool, namespace, user=source.username or "admin", timeout=_SECONDS, monitors=source.portals, key=key, options=self._options)
        until, why = self._silent.get(place, (0.0, None))
        return Image(error=why) if time.monotonic() < until else self._ask(place, name)

    def _ask(self, place: Place, name: str) -> Image:
        try:
            client = self._clients.setdefault(place, Client(place))
            seen = client.look(name)
            return Image(seen.size_bytes, seen.holders, None, client.fsid, seen.image_id, seen.features)
        except Unavailable as error:
            self._clients.pop(place, None)
            self._silent[place] = (time.monotonic() + _PAUSE, error)
            return Image(error=error)
        except NotFound as error:
            return Image(error=error, cluster=client.fsid)
        except StorageError as error:
            return Image(error=error)

    def check_alone(self, source: Source, key: t.Optional[Secret]) -> None:
        """Busy while someone has the image open, or locked; raises what keeps this host from knowing."""
        image = self.look(source, key)
        if image.error:
            raise image.error
        if image.holders:
            raise Busy(f"{source} is open at {', '.join(image.holders)}; end that first (a host that died lets go within 30 s)")

    def is_silent(self, source: Source, key: t.Optional[Secret]) -> bool:
        """Whether this host knows that the cluster does not answer."""
        error = self.look(source, key).error
        return isinstance(error, Unavailable) and not isinstance(error, NoLibrary)

    def check_answer(self, source: Source, key: t.Optional[Secret]) -> None:
        """Unavailable when the cluster does not answer."""
        error = self.look(source, key).error
        if isinstance(error, Unavailable):
            raise error


def config_path() -> str:
    folder = "/etc" if os.geteuid() == 0 else os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "stackless-block", "rbd.conf")


def has_config() -> bool:
    return holds(config_path(), _CONFIG)


def write_config() -> None:
    """For QEMU, whoever runs it."""
    publish(config_path(), _CONFIG, ", or name a configuration for QEMU in source.config")
