# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole walk by its playbooks, on a real tgtd, libvirtd and QEMU: forwards, again, backwards, and everything that gets in its way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path

import pytest

from tests.rig.collection import run_module
from tests.rig.walk import Walk

VOLUMES = [{"name": "db-data", "size_gib": 1}, {"name": "db-data-1", "size_gib": 1}]
ATTACHMENTS = [{"volume": "db-data", "instance": "web-1", "bus": "scsi"}, {"volume": "db-data-1", "instance": "web 'two'", "bus": "scsi"}]
WISH = {"volumes": VOLUMES, "attachments": ATTACHMENTS}
ONE = {"volumes": VOLUMES[:1], "attachments": ATTACHMENTS[:1]}
BACK = {"attachments": ATTACHMENTS}


@pytest.fixture(scope="module")
def ground():
    with Walk() as walk:
        for name in ("web-1", "web 'two'"):
            walk.libvirtd.paused_domain(name)
        yield walk


@pytest.fixture
def walk(ground):
    """The ground, empty before and after: what a test leaves is taken away by the plays themselves."""
    empty = ground.traces()
    yield ground
    assert good(ground.play("detach", attachments=ATTACHMENTS))
    assert good(ground.play("volume", volumes=[{"name": r["name"]} for r in ground.records()], volume_state="absent"))
    assert ground.traces() == empty, "the walk left something behind"


def good(played):
    assert played.status == 0, played.output[-3000:]
    return played


def bad(played, *words):
    assert played.status != 0, "the play should have failed"
    for word in words:
        assert word in played.output, played.output[-3000:]
    assert "Traceback" not in played.output
    return played


def statuses(walk):
    return {record["name"]: record["status"] for record in walk.records()}


def test_there_and_back(walk):
    before = walk.traces()
    assert good(walk.play("attach", **WISH)).changed
    assert statuses(walk) == {"db-data": "in-use", "db-data-1": "in-use"}
    after = walk.traces()
    assert [len(d["live"]) for d in after["disks"]] == [2, 2]  # the disk and our metadata
    before_again = stamps(walk)

    again = good(walk.play("attach", **WISH))
    assert again.changed == [] and again.steps == []
    assert stamps(walk) == before_again, "the second run wrote something"

    check = good(walk.play("attach", check=True, **WISH))
    assert check.changed == [] and walk.traces() == after

    back = good(walk.play("detach", **BACK))
    assert back.changed
    assert statuses(walk) == {"db-data": "available", "db-data-1": "available"}
    assert {**walk.traces(), "volumes": [], "files": []} == {**before, "volumes": [], "files": []}
    assert good(walk.play("detach", **BACK)).changed == []


def stamps(walk):
    """When each file and directory that a walk can write to was last written."""
    folders = (walk.volumes, walk.tgtd.config_dir, walk.libvirtd.directory / "etc", walk.libvirtd.directory / "run")
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): path.stat().st_mtime_ns for path in paths if path.suffix != ".xml" or "run" not in path.parts}


def test_check_mode_on_an_empty_system_predicts_the_walk_and_writes_nothing(walk):
    before, files = walk.traces(), stamps(walk)
    predicted = good(walk.play("attach", check=True, **WISH))
    assert walk.traces() == before and stamps(walk) == files
    real = good(walk.play("attach", **WISH))
    assert predicted.changed == real.changed
    assert plain(predicted.told()) == plain(real.told())
    assert plain(diffs(predicted)) == plain(diffs(real))
    predicted = good(walk.play("detach", check=True, **BACK))
    assert statuses(walk) == {"db-data": "in-use", "db-data-1": "in-use"}
    real = good(walk.play("detach", **BACK))
    assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())


def plain(value):
    """Without what nobody can predict: random ids and CHAP names."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|naa\.[0-9a-f]{32}", "ID", str(value))
    return re.sub(r"('username': |\"username\": )['\"][^'\"]+['\"]", "USER", text)


def diffs(played):
    return [r.get("diff") for task in played.tasks for r in task["result"].get("results", [task["result"]]) if r.get("diff")]


def test_module_runs_do_not_grow_with_the_volumes(walk):
    one = good(walk.play("attach", **ONE)).module_runs()
    two = good(walk.play("attach", **WISH)).module_runs()
    assert one == two == {"cinder_volume": 1, "connector_info": 1, "cinder_attachment": 2, "iscsi_target": 2, "libvirt_disk": 1}
    back = good(walk.play("detach", **BACK)).module_runs()
    assert back == {"connector_info": 1, "cinder_attachment": 3, "libvirt_disk": 1, "iscsi_target": 1}


class TestDrift:
    """Something changed behind our back: a check names exactly that, and the run mends it."""

    @pytest.fixture
    def attached(self, walk):
        good(walk.play("attach", **ONE))
        yield walk

    def mends(self, walk, *told):
        whole = self.whole
        check = good(walk.play("attach", check=True, **ONE))
        said = [line.strip() for line in check.told()[1:]]
        assert len(said) == len(told), said
        for line, word in zip(said, told):
            assert word in line, said
        real = good(walk.play("attach", **ONE))
        assert plain(real.told()) == plain(check.told())
        assert walk.traces() == whole
        assert good(walk.play("attach", **ONE)).changed == []

    def test_a_disk_that_is_missing_only_in_the_persistent_xml(self, attached):
        self.whole = attached.traces()
        import libvirt

        domain = attached.libvirtd.connection.lookupByName("web-1")
        xml = re.search(r"<disk type='network'.*?</disk>", domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), re.DOTALL).group(0)
        domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        self.mends(attached, "persistent")

    def test_a_chap_secret_that_was_changed_in_the_target(self, attached):
        self.whole = attached.traces()
        (user,) = attached.accounts()
        attached.tgtd.adm("--mode", "account", "--op", "delete", "--user", user)
        attached.tgtd.adm("--mode", "account", "--op", "new", "--user", user, "--password", "another-secret")
        attached.tgtd.adm("--mode", "account", "--op", "bind", "--tid", "1", "--user", user)
        check = good(attached.play("attach", check=True, **ONE))
        assert [line.strip().partition(" at ")[0] for line in check.told()[1:]] == ["set the CHAP secret of iqn.2026-01.org.example:compute-1"]
        assert "another-secret" not in check.output
        good(attached.play("attach", **ONE))
        assert attached.traces() == self.whole
        assert good(attached.play("attach", **ONE)).changed == []

    def test_a_portal_too_few(self, attached):
        self.whole = attached.traces()
        second = {"ip": "127.0.0.1", "port": attached.tgtd.portals[0][1] + 1}
        attached.write_inventory(iscsi_portals=[*attached.tgtd.portal_options, second])
        try:
            self.mends(attached, "save target", f"listen at portal 127.0.0.1:{second['port']}")
            assert f"127.0.0.1:{second['port']}" in attached.tgtd.adm("--mode", "portal", "--op", "show")
        finally:
            attached.write_inventory()
            attached.tgtd.restart()  # knows the portals of its command line only
            good(attached.play("attach", **ONE))

    def test_an_acl_that_is_gone(self, attached):
        self.whole = attached.traces()
        attached.tgtd.adm("--mode", "target", "--op", "unbind", "--tid", "1", "-Q", "iqn.2026-01.org.example:compute-1")
        attached.tgtd.adm("--mode", "target", "--op", "bind", "--tid", "1", "-Q", "iqn.2026-01.org.example:somebody")
        check = good(attached.play("attach", check=True, **ONE))
        assert any("iqn.2026-01.org.example:compute-1" in line for line in check.told()[1:]), check.told()
        good(attached.play("attach", **ONE))
        assert "iqn.2026-01.org.example:compute-1" in attached.tgtd.adm("--mode", "target", "--op", "show")
        attached.tgtd.adm("--mode", "target", "--op", "unbind", "--tid", "1", "-Q", "iqn.2026-01.org.example:somebody")
        assert attached.traces() == self.whole

    def test_a_tgtd_that_was_restarted_and_knows_nothing(self, attached):
        self.whole = attached.traces()
        attached.tgtd.restart()
        good(attached.play("attach", **ONE))
        assert attached.traces() == self.whole
        assert good(attached.play("attach", **ONE)).changed == []


def test_one_that_fails_is_taken_back_and_the_others_go_on(walk):
    taken = {"volume": "db-data-1", "instance": "web-1", "bus": "scsi", "device": "sda"}
    wish = {"volumes": VOLUMES, "attachments": [{**ATTACHMENTS[0], "device": "sda"}, taken, {"volume": "nope", "instance": "web-1"}]}
    played = bad(walk.play("attach", **wish), "db-data-1 -> web-1 | attach | ", "nope -> web-1 | reserve | there is no volume nope")
    assert any(line.startswith("db-data -> web-1: sda on compute-1, changed") for line in played.told())
    assert statuses(walk) == {"db-data": "in-use", "db-data-1": "available"}
    assert len([line for line in walk.traces()["targets"] if line.startswith("Target")]) == 1 and len(walk.accounts()) == 1
    assert walk.traces()["secrets"] == [1]


def test_a_guest_that_does_not_let_go_keeps_its_disk_and_its_export(walk):
    wish = {"volumes": VOLUMES[:1], "attachments": [{"volume": "db-data", "instance": "web-1", "bus": "virtio"}]}
    good(walk.play("attach", **wish))
    targets = walk.traces()["targets"]
    began = time.monotonic()
    played = bad(walk.play("detach", attachments=wish["attachments"], volume_detach_timeout=4), "db-data -> web-1 | detach | ")
    assert time.monotonic() - began < 40
    assert statuses(walk) == {"db-data": "detaching"} and walk.traces()["targets"] == targets
    (attachment,) = walk.records()[0]["attachments"]
    assert attachment["step"] == "detach" and attachment["reason"] and attachment["reason"] in played.output
    bad(walk.play("attach", **wish), "is being detached from web-1")
    assert walk.traces()["targets"] == targets
    domain = walk.libvirtd.connection.lookupByName("web-1")
    domain.destroy()  # the guest lets go
    domain.createWithFlags(1)
    good(walk.play("detach", attachments=wish["attachments"]))
    assert statuses(walk) == {"db-data": "available"}


@pytest.mark.parametrize(
    "attachment,words",
    [
        ({"volume": "db-data", "instance": "nobody"}, "no domain nobody"),
        ({"volume": "db-dat", "instance": "web-1"}, "there is no volume db-dat at"),
        ({"volume": "a b", "instance": "web-1"}, "can't be a volume's name"),
        ({"volume": "a'; touch x; '", "instance": "web-1"}, "can't be a volume's name"),
        ({"volume": "../etc/passwd", "instance": "web-1"}, "can't be a volume's name"),
        ({"volume": "größe", "instance": "web-1"}, "can't be a volume's name"),
        ({"volume": "x" * 300, "instance": "web-1"}, "can't be a volume's name"),
        ({"volume": "db-data"}, "give both volume and instance"),
        ({"volume": "db-data", "instance": "web-1", "host": "compute-9"}, "compute-9 has no domain web-1"),
    ],
)
def test_bad_wishes_get_one_sentence_and_change_nothing(walk, attachment, words):
    good(walk.play("volume", volumes=VOLUMES[:1]))
    before = walk.traces()
    bad(walk.play("attach", attachments=[attachment]), words)
    assert walk.traces() == before


def test_services_that_are_down_are_named(walk):
    good(walk.play("volume", volumes=VOLUMES[:1]))
    walk.tgtd.kill()
    try:
        bad(walk.play("attach", **ONE), "db-data -> web-1 | export | ", "tgtd")
    finally:
        walk.tgtd.start()
    (attachment,) = walk.records()[0]["attachments"]
    assert (attachment["status"], attachment["step"]) == ("reserved", "export") and "tgtd" in attachment["reason"]
    good(walk.play("attach", **ONE))
    assert statuses(walk) == {"db-data": "in-use"}


def test_no_secret_is_seen_anywhere(walk):
    """Not in any process's arguments while the walk runs, not in what is printed with -vvv, not in a readable file."""
    seen, stop = set(), threading.Event()
    watcher = threading.Thread(target=watch, args=(seen, stop))
    watcher.start()
    try:
        plays = [walk.play("attach", "-vvv", **ONE), walk.play("attach", "-vvv", check=True, **ONE)]
        saved = list(walk.tgtd.config_dir.iterdir())
        secrets = {line.split()[2].strip('"') for path in saved for line in path.read_text().splitlines() if "incominguser" in line}
        plays.append(walk.play("detach", "-vvv", **BACK))
    finally:
        stop.set()
        watcher.join(10)
    assert secrets and all(len(secret) >= 12 for secret in secrets)
    for secret in secrets:
        assert not [line for line in seen if secret in line]
        for played in plays:
            assert good(played) and secret not in played.output
    log = (walk.libvirtd.directory / "libvirtd.log").read_text() + (walk.tgtd.directory / "log").read_text()
    assert not [secret for secret in secrets if secret in log]
    assert any("ansible-playbook" in line for line in seen)


def watch(seen, stop):
    while not stop.is_set():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(path.read_text(errors="replace"))
        time.sleep(0.005)


def test_saved_files_are_private(walk):
    good(walk.play("attach", **ONE))
    files = list(walk.tgtd.config_dir.iterdir())
    assert files and {os.stat(path).st_mode & 0o777 for path in files} == {0o600}


def test_a_group_of_snapshots_is_taken_whole_or_not_at_all(walk):
    good(walk.play("volume", volumes=VOLUMES))
    wish = {"snapshots": [{"volume": volume, "name": "monday"} for volume in ("db-data", "db-data-1", "db-data-11")], "snapshot_group": True}
    told = bad(walk.play("snapshot", **wish), "there is no volume db-data-11").result("Take back what was taken of a group that is not whole")
    assert [result["steps"] for result in told["results"][0]["results"]] and snapshots(walk) == {"db-data": [], "db-data-1": []}
    good(walk.play("snapshot", snapshots=wish["snapshots"][:1]))
    two = {**wish, "snapshots": wish["snapshots"][:2]}
    bad(walk.play("snapshot", **two), "the snapshots of db-data are there, and the others of the group would be of another moment")
    assert snapshots(walk) == {"db-data": ["monday"], "db-data-1": []}, "as a run that was killed may leave them"
    good(walk.play("snapshot", **{**two, "snapshot_state": "absent"}))
    assert good(walk.play("snapshot", **two)).changed and not good(walk.play("snapshot", **two)).changed
    assert snapshots(walk) == {"db-data": ["monday"], "db-data-1": ["monday"]}
    good(walk.play("snapshot", **{**two, "snapshot_state": "absent"}))


def snapshots(walk):
    return {record["name"]: [snapshot["name"] for snapshot in record.get("snapshots", ())] for record in walk.records()}


def test_backups_of_each_storage_host_are_in_its_own_repository(walk, tmp_path):
    def host(name):
        (tmp_path / name).mkdir()
        backend = {"driver": "file", "path": str(tmp_path / name)}
        return {"backend": backend, "repository": {"location": str(tmp_path / f"{name}-backups"), "password": f"of {name}", "create": True}}

    hosts = {"s1": host("s1"), "s2": host("s2")}
    here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"vars": here}, "storage": {"hosts": hosts}}))
    names = {"s1": "one", "s2": "two"}
    homes = [{"storage_host": home, "volume": name} for home, name in names.items()]
    there = ("-i", str(inventory), "--limit", "s1,s2")
    good(walk.play("volume", *there, volumes=[{"name": w["volume"], "size_gib": 1, "storage_host": w["storage_host"]} for w in homes]))
    good(walk.play("backup", *there, backups=[{**wish, "name": "monday"} for wish in homes], storage_hosts=["s1", "s2"]))
    for home, name in names.items():
        found = run_module("cinder_backup_info", {"repository": hosts[home]["repository"]})["backups"]
        assert [one["volume"] for one in found] == [name]


def test_backups_and_back_by_the_playbooks(walk, tmp_path):
    repository = {"location": str(tmp_path / "kept"), "password": "correct horse", "create": True}
    good(walk.play("attach", volumes=VOLUMES, attachments=ATTACHMENTS[:1]))
    (free,) = [record for record in walk.records() if record["name"] == "db-data-1"]
    data = walk.volumes / f"volume-{free['id']}"
    fill(data, b"monday")
    wish = {"repository": repository, "backups": [{"volume": volume["name"], "name": "monday"} for volume in VOLUMES]}
    told = bad(walk.play("backup", **wish), "backup monday of volume db-data can't be taken", "web-1")
    assert "write backup monday of volume db-data-1" in told.output and repository["password"] not in told.output
    good(walk.play("detach", **BACK))
    predicted = good(walk.play("backup", check=True, **wish))
    taken = good(walk.play("backup", **wish))
    assert predicted.changed == taken.changed and len(taken.changed) == 1
    assert good(walk.play("backup", **wish)).changed == []

    fill(data, b"tuesday")
    later = {**wish, "backups": [{**backup, "name": "tuesday"} for backup in wish["backups"][1:]]}
    rotated = good(walk.play("backup", backup_keep={"last": 1}, **later))
    assert rotated.result("Tell what was done")["msg"] == rotated.steps[:-1]
    assert rotated.result("Tell what was deleted")["msg"] == ["delete the backups monday of volume db-data-1"] == rotated.steps[-1:]
    bad(walk.play("restore_backup", repository=repository, backups=wish["backups"][1:]), "choose one of: tuesday")
    back = {"repository": repository, "backups": [{**later["backups"][0], "to": "db-old"}]}
    assert good(walk.play("restore_backup", **back)).changed and good(walk.play("restore_backup", **back)).changed == []
    (old,) = [record for record in walk.records() if record["name"] == "db-old"]
    assert (walk.volumes / f"volume-{old['id']}").read_bytes()[:4096] == b"tuesday".ljust(4096, b"\0")


def fill(path, word):
    with path.open("r+b") as file:
        file.write(word.ljust(4096, b"\0"))
