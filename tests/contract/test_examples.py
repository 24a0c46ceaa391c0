# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example of every module's documentation runs, as it stands there but for addresses and paths."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.rig.collection import ROOT
from tests.rig.images import qemu_img
from tests.rig.walk import Walk
from tests.rig.web import Served, Web

ID = "0b5e7a1c-2222-4222-8333-444455556666"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
# Logging in and mapping take a kernel of one's own: these run in the lab (tests/lab/test_initiator.py, test_krbd.py).
IN_THE_LAB = {"iscsi_initiator", "rbd_device"}
MODULES = sorted({path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")} - IN_THE_LAB)
VOLUMES = [{"name": "db-data", "size_gib": 1}, {"name": "db-log", "size_gib": 1}]

# What has to be there before a module's examples, and their order where it is not that of the page: each is fit for a
# machine of its own, and some would undo what the next one needs.
BEFORE = {
    "cinder_attachment": [
        {"stackless.block.cinder_volume": {"backend": "{{ backend }}", "volumes": VOLUMES}},
        {"stackless.block.cinder_attachment": {"backend": "{{ backend }}", "volume": "db-log", "instance": "web-1", "host": "c", "action": "reserve"}},
    ],
    "cinder_backup": [
        {"stackless.block.cinder_volume": {"backend": "{{ backend }}", "volumes": VOLUMES}},
        {"stackless.block.cinder_volume": {"backend": {"driver": "rbd", "pool": "volumes"}, "volumes": VOLUMES}},
        {"stackless.block.cinder_snapshot": {"backend": "{{ backend }}", "volume": "db-data", "name": "monday"}},
    ],
    "cinder_backup_info": [
        {"stackless.block.cinder_volume": {"backend": "{{ backend }}", "volumes": VOLUMES}},
        {"stackless.block.cinder_backup": {"backend": "{{ backend }}", "repository": "{{ repository }}", "volume": "db-data", "name": "first"}},
    ],
    "cinder_image": [
        {"stackless.block.cinder_volume": {"backend": "{{ backend }}", "volumes": VOLUMES}},
        {"stackless.block.cinder_volume": {"backend": {"driver": "rbd", "pool": "volumes"}, "volumes": VOLUMES}},
    ],
    "cinder_snapshot": [{"stackless.block.cinder_volume": {"backend": {"driver": "rbd", "pool": "volumes"}, "volumes": VOLUMES}}],
}
# The inspector of images, which older distributions don't package, is in the Python of the tests.
PYTHON = {"cinder_volume": {"ansible_python_interpreter": sys.executable}}
ORDER = {"libvirt_disk": [0, 3, 4, 1, 2]}


@pytest.fixture(scope="module")
def web():
    with Web() as server:
        yield server


@pytest.fixture(scope="module")
def walk(web):
    with Walk() as ground:
        qemu_img("create", "-q", "-f", "qcow2", ground.directory / "debian-12.qcow2", "2G")
        web.files["/debian-12.qcow2"] = Served(Path(ground.directory, "debian-12.qcow2").read_bytes())
        for name in ("web-1", "web-2", "web-3"):
            ground.libvirtd.paused_domain(name, running=False)
        yield ground


def examples(module):
    text = importlib.import_module(f"ansible_collections.stackless.block.plugins.modules.{module}").EXAMPLES
    return yaml.safe_load(text)


def volumes(walk, module):
    """A directory with the one file of data that examples name."""
    path = walk.volumes / module
    path.mkdir()
    with (path / f"volume-{ID}").open("wb") as data:
        data.truncate(20 << 30)
    return str(path)


def placed(walk, ceph, web, path, task):
    """The task with this machine's addresses and paths."""
    ip, port = walk.tgtd.portals[0]
    text = json.dumps(task).replace("/srv/volumes", path).replace("/srv/backups", f"{path}-backups").replace("/srv/images", str(walk.directory))
    text = text.replace("https://images.example.com", web.url).replace(DIGEST, hashlib.sha256(web.files["/debian-12.qcow2"].data).hexdigest())
    text = text.replace('"driver": "rbd", ', f'"driver": "rbd", "conf": "{ceph.conf}", ')
    return json.loads(text.replace('{"ip": "192.0.2.10"}', json.dumps({"ip": ip, "port": port})).replace("192.0.2.10", ip))


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(walk, ceph, web, module):
    tasks = examples(module)
    ordered = [tasks[n] for n in ORDER.get(module, range(len(tasks)))]
    assert tasks and len(ordered) == len(tasks)
    libvirt = {"uri": walk.libvirtd.uri}
    folder = volumes(walk, module)
    play = {
        "hosts": "storage-1",
        "gather_facts": False,
        "vars": {
            "chap_password": "not-a-secret-1",
            "cephx_key": ceph.key("client.cinder"),
            "backend": {"driver": "file", "path": folder},
            "backup_password": "not-a-secret-2",
            "repository": {"location": f"{folder}-backups", "password": "not-a-secret-2", "create": True},
            **PYTHON.get(module, {}),
        },
        "module_defaults": {
            **{f"stackless.block.{name}": walk.tgtd.options for name in ("iscsi_target", "iscsi_target_info")},
            "stackless.block.cinder_volume": {"image_cache": {"path": str(walk.directory / "images")}},
            **{f"stackless.block.{name}": libvirt for name in ("libvirt_disk", "libvirt_disk_info", "libvirt_quiesce", "connector_info")},
        },
        "tasks": [placed(walk, ceph, web, folder, task) for task in [*BEFORE.get(module, []), *ordered]],
    }
    path = Path(walk.directory, f"{module}.yml")
    path.write_text(yaml.safe_dump([play], sort_keys=False))
    played = walk.play(str(path))
    assert played.status == 0, played.output[-3000:]
    assert len([task for task in played.tasks if task["status"] == "ok"]) == len(play["tasks"])
