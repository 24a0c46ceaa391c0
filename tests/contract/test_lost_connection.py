# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A volume that takes long to make goes on being made when its controller is killed; the next play finds it made."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import pytest

from tests.rig.images import MIB
from tests.rig.pools import DirectoryPool, volumes
from tests.rig.walk import Plays
from tests.rig.web import Served, Web

DISK = os.urandom(8 * MIB)


class Storage(Plays):
    """One storage host, which is this one."""

    def __init__(self, directory, backend):
        self.directory = directory
        own = {"backend": backend, "image_cache": {"path": str(directory / "cache")}}
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **own}
        (directory / "hosts.yml").write_text(json.dumps({"storage": {"hosts": {"storage-1": host}}}))


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "volumes").mkdir()
    return DirectoryPool(tmp_path / "volumes")


def until(true):
    for _look in range(1200):
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true")


def test_the_job_ends_without_its_controller(pool, tmp_path):
    storage = Storage(tmp_path, pool.backend)
    with Web() as web:
        web.files["/disk"] = Served(DISK, pause=0.1)
        source = {"image": f"{web.url}/disk", "format": "raw"}
        wish = [{"name": "db", "size_gib": 1, "source": source}]
        options = {"volumes": wish, "volume_async": 300, "volume_poll": 1, "env": {"ANSIBLE_ASYNC_DIR": str(tmp_path / "jobs")}}
        checked = storage.play("volume", check=True, **options)
        assert checked.status == 0 and "record volume db as downloading" in checked.output + str(checked.tasks) and web.got() == []
        lost = threading.Thread(target=storage.play, args=("volume",), kwargs=options)
        lost.start()
        found = until(lambda: volumes(pool).get("db"))
        assert found["status"] == "downloading"
        controller = max(tmp_path.glob("play-*/controller"), key=lambda path: path.stat().st_mtime)
        os.killpg(int(controller.read_text()), signal.SIGKILL)
        lost.join(30)
        assert 0 < until(lambda: volumes(pool)["db"]["progress"]) < 100
        made = until(lambda: [one for one in volumes(pool).values() if one["status"] == "available"])[0]
        assert pool.read(made["path"], len(DISK)) == DISK and [path for path, _part in web.got()] == ["/disk"]
        again = storage.play("volume", **options)
        assert again.status == 0 and not again.changed and web.got() == []
