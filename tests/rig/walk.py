# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ground of a walk for tests: one storage host, some compute hosts with guests that need no boot, and Ansible for them."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.rig.collection import collections_path
from tests.rig.libvirtd import Libvirtd
from tests.rig.pools import RbdPool
from tests.rig.tgtd import Tgtd

HERE = Path(__file__).parent


@dataclasses.dataclass
class Played:
    """What a play said: its exit status, all it printed, and every task result."""

    status: int
    output: str
    tasks: list[dict[str, Any]]
    steps: list[str]

    @property
    def changed(self) -> list[str]:
        return [f"{task['host']}: {task['name']}" for task in self.tasks if task["changed"]]

    def result(self, name: str) -> dict[str, Any]:
        """The last result of the task whose name ends so."""
        return [task["result"] for task in self.tasks if task["name"].endswith(name) and task["status"] != "skipped"][-1]

    def told(self) -> list[str]:
        return self.result("Tell what became of every attachment")["msg"]

    def module_runs(self) -> dict[str, int]:
        """How often each module of the collection ran."""
        runs: dict[str, int] = {}
        for task in self.tasks:
            if task["action"].startswith("stackless.block.") and task["runs"]:
                short = task["action"].rpartition(".")[2]
                runs[short] = runs.get(short, 0) + task["runs"]
        return runs


class Plays:
    """Playbooks of the collection, run on the inventory `hosts.yml` in a directory, in which each leaves what it said."""

    directory: Path

    def play(self, playbook: str, *arguments: str, check: bool = False, env: dict[str, str] | None = None, **variables: Any) -> Played:
        """Runs a playbook of the collection with these extra variables, to its end or to its death."""
        here = Path(tempfile.mkdtemp(prefix="play-", dir=self.directory))
        extra = here / "vars.json"
        extra.write_text(json.dumps(variables))
        tool = Path(sys.executable).with_name("ansible-playbook")
        name = playbook if "/" in playbook else f"stackless.block.{playbook}"
        command = [str(tool), "-i", str(self.directory / "hosts.yml"), name, "-e", f"@{extra}", "--diff", *arguments]
        with (here / "output").open("w") as output:
            process = subprocess.Popen(
                command + (["--check"] if check else []), cwd=here, env=self.environment(here, env or {}),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            (here / "controller").write_text(str(process.pid))
            try:
                status = process.wait(300)
            finally:
                if process.poll() is None:
                    process.kill()
        tasks = [json.loads(line) for line in _lines(here / "record")]
        return Played(status, (here / "output").read_text(), tasks, _lines(here / "steps"))

    def environment(self, here: Path, more: dict[str, str]) -> dict[str, str]:
        ours = {
            "ANSIBLE_COLLECTIONS_PATH": str(collections_path()),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_LOCAL_TEMP": str(here / "tmp"),
            "ANSIBLE_REMOTE_TMP": str(here / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "STACKLESS_RECORD": str(here / "record"),
            "STACKLESS_STEPS": str(here / "steps"),
            "STACKLESS_CONTROLLER": str(here / "controller"),
            "STACKLESS_PACKED": packed(),
            "PYTHONPATH": str(HERE / "kill"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return {**os.environ, **ours, **more}


@functools.cache
def packed() -> str:
    """Where the plays of this process keep the modules that were packed for one of them."""
    directory = tempfile.mkdtemp(prefix="packed-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


class Walk(Plays):
    """Hosts, inventory and plays in a directory of their own; `close` ends all of it."""

    def __init__(self, computes: int = 1, **options: Any) -> None:
        self.opened = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="walk-", dir="/tmp"))
        self.opened.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.volumes = self.directory / "volumes"
        self.volumes.mkdir(mode=0o700)
        self.tgtd = Tgtd(*options.get("ips", ("127.0.0.1",)))
        self.opened.callback(self.tgtd.stop)
        self.tgtd.start()
        self.libvirtds = [Libvirtd() for number in range(computes)]
        for libvirtd in self.libvirtds:
            self.opened.callback(libvirtd.stop)
            libvirtd.start()
        self.write_inventory()

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *caught: object) -> None:
        self.opened.close()

    @property
    def libvirtd(self) -> Libvirtd:
        return self.libvirtds[0]

    @property
    def backend(self) -> dict[str, Any]:
        return {"driver": "file", "path": str(self.volumes)}

    def write_inventory(self, **storage: Any) -> None:
        """(Re)writes the inventory; `storage` replaces variables of the storage host."""
        store = {
            "backend": self.backend,
            "iscsi_portals": self.tgtd.portal_options,
            "iscsi_tgt": self.tgtd.options,
            **storage,
        }
        compute = {
            f"compute-{n}": {
                "libvirt_uri": libvirtd.uri,
                "volume_transport": "qemu",
                "connector_ip": "127.0.0.1",
                "connector_initiator": f"iqn.2026-01.org.example:compute-{n}",
            }
            for n, libvirtd in enumerate(self.libvirtds, 1)
        }
        hosts = {
            "all": {"vars": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}},
            "storage": {"hosts": {"storage-1": store}},
            "compute": {"hosts": compute},
        }
        (self.directory / "hosts.yml").write_text(json.dumps(hosts, indent=1))

    # ---- what is there, in a form that two runs share

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.volumes.glob("volume-*.json"))]

    def traces(self) -> dict[str, Any]:
        """All that a walk can leave behind, with the random parts (ids, CHAP names) taken out."""
        text = {
            "volumes": sorted(plain(path.read_text()) for path in self.volumes.glob("*.json")),
            "files": sorted(plain(path.name) for path in self.volumes.iterdir()),
            "targets": self.named(self.tgtd.adm("--mode", "target", "--op", "show")),
            "accounts": len(self.tgtd.adm("--mode", "account", "--op", "show").split()) - 2 if self.accounts() else 0,
            "saved": sorted((plain(path.name), oct(path.stat().st_mode & 0o777)) for path in self.tgtd.config_dir.iterdir()),
            "secrets": [len(libvirtd.connection.listAllSecrets()) for libvirtd in self.libvirtds],
            "disks": [disks(domain) for libvirtd in self.libvirtds for domain in sorted(libvirtd.connection.listAllDomains(), key=lambda d: d.name())],
        }
        return text

    def accounts(self) -> list[str]:
        return self.tgtd.adm("--mode", "account", "--op", "show").split()[2:]

    def named(self, shown: str) -> list[str]:
        """What tgtd shows, without its ids, sessions, sizes and made-up account names."""
        kept = []
        account = False
        for line in shown.splitlines():
            word = line.strip()
            account = word == "Account information:" or (account and line.startswith("        "))
            if word.startswith(("Target ", "LUN:", "SCSI", "Backing store path", "iqn.")):
                kept.append(plain(re.sub(r"^Target \d+", "Target", word)))
            elif account and line.startswith("        "):
                kept.append("an account")
        return sorted(kept)


class CephWalk(Walk):
    """The same ground with its volumes in the pool of a Ceph cluster."""

    def __init__(self, pool: RbdPool, computes: int = 1) -> None:
        self.pool = pool
        super().__init__(computes)

    @property
    def backend(self) -> dict[str, Any]:
        return self.pool.backend

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.pool.records()]

    def traces(self) -> dict[str, Any]:
        records = sorted(re.sub(r'"image": "[0-9a-f]+"', "", plain(text)) for text in self.pool.records())
        return {**super().traces(), "volumes": records, "files": [plain(name) for name in self.pool.images()]}


def disks(domain: Any) -> dict[str, Any]:
    """A domain's disks and our metadata, live and persistent, as plain text."""
    import libvirt

    found = {"name": domain.name()}
    for name, flag in (("live", 0), ("config", libvirt.VIR_DOMAIN_XML_INACTIVE)):
        tree = ElementTree.fromstring(domain.XMLDesc(flag))
        shown = [_disk(element) for element in tree.findall("devices/disk")]
        metadata = tree.find("metadata")
        found[name] = sorted(shown) + ([plain(ElementTree.tostring(metadata, "unicode"))] if metadata is not None and len(metadata) else [])
    return found


def _disk(element: ElementTree.Element) -> str:
    for noise in ("address", "backingStore", "privateData"):
        for child in element.findall(noise):
            element.remove(child)
    for source in element.iter("source"):
        source.attrib.pop("index", None)
    for auth in element.iter("auth"):
        auth.set("username", "someone")
    for secret in element.iter("secret"):
        secret.set("uuid", "a-secret")
    return plain(re.sub(r"\s+", " ", ElementTree.tostring(element, "unicode")))


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def plain(text: str) -> str:
    text = UUID.sub("an-id", text)
    return re.sub(r"SCSI ID: .*", "SCSI ID", text)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
