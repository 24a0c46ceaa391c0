# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt_disk, libvirt_disk_info and connector_info on a real libvirtd, real QEMU and a real tgtd."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.rig.collection import collections_path, run_module
from tests.rig.libvirtd import Libvirtd
from tests.rig.tgtd import Tgtd

MIB = 1 << 20
SERIAL = "0b5e7a1c-2222-4222-8333-444455556666"
ALIAS = "ua-" + SERIAL
INITIATOR, USER, PASSWORD = "iqn.2026-01.org.example:compute-1", "user-1", "a Secret <&> \"'"
LIVE, CONFIG = 0, 2  # flags of virDomain.XMLDesc: the running domain, VIR_DOMAIN_XML_INACTIVE

Options = dict[str, Any]


pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return new_image(tmp_path / "volume-1")


def new_image(path: Path, size: int = 16 * MIB) -> Path:
    with path.open("wb") as handle:
        handle.truncate(size)
    return path


@pytest.fixture(scope="module")
def storage() -> Iterator[Tgtd]:
    with Tgtd() as running:
        yield running


class Export:
    """One LUN behind CHAP and an ACL, made by tgtadm itself."""

    tid = 0

    def __init__(self, tgtd: Tgtd, path: Path) -> None:
        Export.tid += 1
        self.tgtd, self.path, self.number = tgtd, path, str(Export.tid)
        self.iqn, self.user = f"iqn.2026-01.org.example:volume-{Export.tid}", f"{USER}-{Export.tid}"
        tgtd.adm("--op", "new", "--mode", "target", "--tid", self.number, "-T", self.iqn)
        tgtd.adm("--op", "new", "--mode", "logicalunit", "--tid", self.number, "--lun", "1", "-b", str(path))
        tgtd.adm("--op", "new", "--mode", "account", "--user", self.user, "--password", PASSWORD)
        tgtd.adm("--op", "bind", "--mode", "account", "--tid", self.number, "--user", self.user)
        tgtd.adm("--op", "bind", "--mode", "target", "--tid", self.number, "-Q", INITIATOR)

    @property
    def source(self) -> Options:
        who = {"initiator": INITIATOR, "username": self.user, "password": PASSWORD}
        return {"type": "network", "protocol": "iscsi", "target_iqn": self.iqn, "lun": 1, "portals": self.tgtd.portal_options, **who}

    @property
    def sessions(self) -> str:
        return self.tgtd.adm("--op", "show", "--mode", "conn", "--tid", self.number).strip()


@pytest.fixture
def export(storage: Tgtd, image: Path) -> Iterator[Export]:
    made = Export(storage, image)
    yield made
    made.tgtd.adm("--op", "delete", "--mode", "target", "--tid", made.number, "--force")
    made.tgtd.adm("--op", "delete", "--mode", "account", "--user", made.user)


def file_disk(path: Path, domain: str = "d", **options: Any) -> Options:
    return {"domain": domain, "serial": SERIAL, "bus": "scsi", "source": {"type": "file", "path": str(path)}, **options}


def iscsi_disk(export: Export, domain: str = "d", **options: Any) -> Options:
    return {"domain": domain, "serial": SERIAL, "bus": "scsi", "source": export.source, **options}


def absent(options: Options, **more: Any) -> Options:
    return {"domain": options["domain"], "serial": options["serial"], "state": "absent", **more}


def run(daemon: Libvirtd, options: Options, check: bool = False) -> Options:
    """What the module says, or the test fails with its sentence; what went in is not asked for."""
    answer = attempt(daemon, options, check)
    assert not answer.get("failed"), answer["msg"]
    return answer


def attempt(daemon: Libvirtd, options: Options, check: bool = False) -> Options:
    answer = run_module("libvirt_disk", {"uri": daemon.uri, **options}, check=check)
    answer.pop("invocation", None)
    return answer


def refusal(daemon: Libvirtd, options: Options) -> str:
    """The sentence of a failing run."""
    answer = attempt(daemon, options)
    assert answer.get("failed") and "Traceback" not in answer["msg"], answer
    return answer["msg"]


def state_of(daemon: Libvirtd, domain: str = "d") -> list[str]:
    """All that a run could have touched."""
    found = daemon.connection.lookupByName(domain)
    secrets = [secret.XMLDesc() for secret in daemon.connection.listAllSecrets()]
    return [found.XMLDesc(LIVE), found.XMLDesc(CONFIG), *secrets]


def has_disk(domain: Any, flags: int) -> bool:
    return ALIAS in re.sub("<metadata>.*</metadata>", "", domain.XMLDesc(flags), flags=re.DOTALL)


def wait_until_gone(domain: Any) -> None:
    deadline = time.monotonic() + 10
    while domain.isActive() and has_disk(domain, LIVE) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_clean(daemon: Libvirtd, domain: Any) -> bool:
    return not any(word in text for text in state_of(daemon, domain.name()) for word in (ALIAS, "stackless", "iscsi"))


def settled_checks(daemon: Libvirtd, options: Options) -> Options:
    """Runs the options in check mode and for real, and holds one against the other; then there is nothing left to do."""
    before = state_of(daemon, options["domain"])
    said = run(daemon, options, check=True)
    assert state_of(daemon, options["domain"]) == before, "check mode wrote something"
    done = run(daemon, options)
    assert known_before(said) == known_before(done)
    again = run(daemon, options)
    assert (again["changed"], again["steps"]) == (False, [])
    return done


def known_before(answer: Options) -> Options:
    """All of an answer but the size, which shows only when QEMU has opened the disk."""
    return {**answer, "size_bytes": None, "results": [{**result, "size_bytes": None} for result in answer["results"]]}


# ---- attach and detach -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_file_there_and_back(daemon: Libvirtd, image: Path, machine: str) -> None:
    domain = daemon.paused_domain("d", machine)
    done = settled_checks(daemon, file_disk(image, volume="db", attachment_id="a-1", size_bytes=16 * MIB))
    assert (done["device"], done["alias"], done["scope"], done["size_bytes"]) == ("sda", ALIAS, "both", 16 * MIB)
    daemon.qemu_io(domain, ALIAS, "write -P 0x5a 0 64k")
    daemon.qemu_io(domain, ALIAS, "flush")
    assert image.read_bytes()[: 1 << 16] == b"\x5a" * (1 << 16)
    assert settled_checks(daemon, absent(done))["changed"]
    assert is_clean(daemon, domain)


def test_iscsi_with_chap_there_and_back(daemon: Libvirtd, export: Export) -> None:
    domain = daemon.paused_domain("d")
    done = settled_checks(daemon, iscsi_disk(export))
    assert PASSWORD not in json.dumps(done) and json.dumps(PASSWORD)[1:-1] not in json.dumps(done)
    assert PASSWORD.split()[0] + " Sec" not in "".join(state_of(daemon))
    assert "password" not in done["source"] and export.sessions
    daemon.qemu_io(domain, ALIAS, "write -P 0xa5 0 64k")
    daemon.qemu_io(domain, ALIAS, "flush")
    assert export.path.read_bytes()[: 1 << 16] == b"\xa5" * (1 << 16)
    settled_checks(daemon, absent(done))
    assert is_clean(daemon, domain) and not export.sessions


def test_attributes_reach_both_copies(daemon: Libvirtd, image: Path) -> None:
    domain = daemon.paused_domain("d")
    wishes = {"cache": "none", "io": "native", "discard": "unmap", "read_only": True, "shareable": True, "iotune": {"total_iops_sec": 7}}
    settled_checks(daemon, file_disk(image, device="sdc", **wishes))
    for flags in (LIVE, CONFIG):
        xml = domain.XMLDesc(flags)
        driver = ("cache='none'", "io='native'", "discard='unmap'", "type='raw'")
        for part in (*driver, "<readonly/>", "<shareable/>", "<total_iops_sec>7<", f"<serial>{SERIAL}<", "dev='sdc'"):
            assert part in xml


def test_an_image_that_looks_like_qcow2_stays_raw(daemon: Libvirtd, image: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", str(image), "1M"], check=True)
    domain = daemon.paused_domain("d")
    run(daemon, file_disk(image))
    assert "backingStore type" not in domain.XMLDesc(LIVE) and "qcow2" not in domain.XMLDesc(LIVE)


@pytest.mark.parametrize("name", ["two words", "quote'\"<&>", "größe-雪", "n" * 200])
def test_any_name_a_domain_can_have(daemon: Libvirtd, image: Path, name: str) -> None:
    domain = daemon.paused_domain(name, running=False)
    options = file_disk(image, name, volume="vol <&> 'ü'")
    assert settled_checks(daemon, options)["volume"] == "vol <&> 'ü'"
    settled_checks(daemon, absent(options))
    assert "stackless" not in domain.XMLDesc(CONFIG)


def test_a_domain_that_does_not_run_gets_the_persistent_copy(daemon: Libvirtd, image: Path) -> None:
    domain = daemon.paused_domain("d", running=False)
    done = settled_checks(daemon, file_disk(image))
    assert (done["scope"], done["live"], done["persistent"]) == ("config", False, True)
    domain.createWithFlags(1)  # started, paused
    assert run(daemon, file_disk(image))["changed"] is False
    assert "does not run" not in refusal(daemon, file_disk(image, cache="unsafe"))


def test_a_transient_domain_gets_the_running_copy(daemon: Libvirtd, image: Path) -> None:
    domain = daemon.paused_domain("d", persistent=False)
    done = run(daemon, file_disk(image))
    assert (done["scope"], done["live"], done["persistent"]) == ("live", True, False)
    assert run(daemon, file_disk(image))["changed"] is False
    run(daemon, absent(done))
    assert "stackless" not in domain.XMLDesc(LIVE) and not has_disk(domain, LIVE)


@pytest.mark.parametrize(("scope", "flags"), [("live", LIVE), ("config", CONFIG)])
def test_one_scope_leaves_the_other_alone(daemon: Libvirtd, image: Path, scope: str, flags: int) -> None:
    domain = daemon.paused_domain("d")
    settled_checks(daemon, file_disk(image, scope=scope))
    assert [has_disk(domain, LIVE), has_disk(domain, CONFIG)] == [flags == LIVE, flags == CONFIG]
    settled_checks(daemon, file_disk(image))
    settled_checks(daemon, absent(file_disk(image), scope=scope))
    assert [has_disk(domain, LIVE), has_disk(domain, CONFIG)] == [flags != LIVE, flags != CONFIG]


# ---- drift -----------------------------------------------------------------------------------------------------------


def detach_config(domain: Any) -> None:
    domain.detachDeviceAlias(ALIAS, 2)


def detach_live(domain: Any) -> None:
    domain.detachDeviceAlias(ALIAS, 1)
    wait_until_gone(domain)


def forget(domain: Any) -> None:
    domain.setMetadata(2, None, "stackless", "https://stackless.org/xmlns/block/1", 2)


def recache(domain: Any) -> None:
    disk = re.search("<disk.*?</disk>", domain.XMLDesc(CONFIG), re.DOTALL)
    assert disk
    domain.updateDeviceFlags(disk.group().replace("cache='none'", "cache='unsafe'"), 2)


def limit(domain: Any) -> None:
    domain.setBlockIoTune("sda", {"total_bytes_sec": 1000000}, 1)


DRIFTS = pytest.mark.parametrize(
    ("drift", "step"),
    [
        (detach_config, f"attach {ALIAS} as sda to the persistent domain d"),
        (detach_live, f"attach {ALIAS} as sda to the running domain d"),
        (forget, f"note {ALIAS} in the persistent metadata of domain d"),
        (recache, "change cache of sda in the persistent domain d"),
        (limit, "set the I/O limits of sda in the running domain d"),
    ],
)


@DRIFTS
def test_exactly_the_drift_is_repaired(daemon: Libvirtd, image: Path, drift: Callable[[Any], None], step: str) -> None:
    repaired(daemon, file_disk(image, cache="none", iotune={"total_iops_sec": 9}), drift, step)


def repaired(daemon: Libvirtd, options: Options, drift: Callable[[Any], None], step: str) -> None:
    """After this one step the domain is again as it was before it had drifted."""
    domain = daemon.paused_domain("d")
    run(daemon, options)
    right = state_of(daemon)
    drift(domain)
    assert settled_checks(daemon, options)["steps"] == [step]
    assert [re.sub(" index='[0-9]+'", "", text) for text in state_of(daemon)] == [re.sub(" index='[0-9]+'", "", text) for text in right]


def test_a_password_changed_behind_our_back(daemon: Libvirtd, export: Export) -> None:
    daemon.paused_domain("d")
    run(daemon, iscsi_disk(export))
    daemon.connection.listAllSecrets()[0].setValue(b"other")
    done = settled_checks(daemon, iscsi_disk(export))
    assert done["steps"] == [f"set the CHAP secret for target {export.iqn}"]
    assert "other" not in json.dumps(done) and "(old)" in json.dumps(done["diff"])
    assert daemon.connection.listAllSecrets()[0].value() == PASSWORD.encode()
    run(daemon, absent(iscsi_disk(export)))


def test_limits_change_while_the_domain_runs(daemon: Libvirtd, image: Path) -> None:
    daemon.paused_domain("d")
    run(daemon, file_disk(image, iotune={"total_bytes_sec": 10 * MIB, "total_bytes_sec_max": 20 * MIB, "total_bytes_sec_max_length": 3}))
    for limits in ({"read_bytes_sec": MIB, "write_iops_sec": 50, "size_iops_sec": 4096}, {}):
        assert settled_checks(daemon, file_disk(image, iotune=limits))["iotune"] == limits


def test_grow_and_never_shrink(daemon: Libvirtd, image: Path) -> None:
    daemon.paused_domain("d")
    run(daemon, file_disk(image, size_bytes=16 * MIB))
    os.truncate(image, 32 * MIB)
    done = settled_checks(daemon, file_disk(image, size_bytes=32 * MIB))
    assert done["size_bytes"] == 32 * MIB and done["steps"] == [f"grow sda of the running domain d to {32 * MIB} bytes"]
    assert "can't shrink" in refusal(daemon, file_disk(image, size_bytes=16 * MIB))


def test_a_lun_that_has_not_grown_says_what_to_do(daemon: Libvirtd, export: Export) -> None:
    daemon.paused_domain("d")
    run(daemon, iscsi_disk(export))
    assert "extend the volume and its export on the storage host first" in refusal(daemon, iscsi_disk(export, size_bytes=32 * MIB))
    run(daemon, absent(iscsi_disk(export)))


def test_a_disk_of_another_size_is_not_the_volume(daemon: Libvirtd, image: Path) -> None:
    daemon.paused_domain("d")
    assert f"has {16 * MIB} bytes, not {8 * MIB}; check that it is the right volume" in refusal(daemon, file_disk(image, size_bytes=8 * MIB))


# ---- a guest that refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["reset", "destroy"])
def test_a_guest_that_does_not_let_go(daemon: Libvirtd, export: Export, release: str) -> None:
    domain = daemon.paused_domain("d")
    done = run(daemon, iscsi_disk(export, bus="virtio"))
    for _attempt in range(2):
        began = time.monotonic()
        said = refusal(daemon, absent(done, timeout=1))
        assert "has not let go within 1 s of vda" in said and "run the same play again" in said
        assert time.monotonic() - began < 5
        assert has_disk(domain, LIVE) and not has_disk(domain, CONFIG)
        assert export.sessions and [secret.usageID() for secret in daemon.connection.listAllSecrets()] == [export.iqn]
        assert "stackless" in domain.XMLDesc(LIVE), "the note is the journal: it goes last"
    getattr(domain, release)()
    wait_until_gone(domain)
    settled_checks(daemon, absent(done))
    assert is_clean(daemon, domain) and not export.sessions


def test_a_list_has_one_deadline_and_the_willing_go_on(daemon: Libvirtd, tmp_path: Path) -> None:
    disks = []
    for name, bus in (("a", "virtio"), ("b", "scsi"), ("c", "virtio")):
        daemon.paused_domain(name)
        disks.append(file_disk(new_image(tmp_path / name), name, bus=bus))
    run(daemon, {"disks": disks})
    began = time.monotonic()
    answer = attempt(daemon, {"disks": [absent(disk) for disk in disks], "timeout": 2})
    assert time.monotonic() - began < 2 * 2
    assert [result["failed"] for result in answer["results"]] == [True, False, True]
    assert answer["msg"].startswith("2 of 3 failed: the guest of domain a has not let go")


# ---- killed ----------------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from ansible_collections.stackless.block.plugins.module_utils._manage_disk import Disks
options = json.load(sys.stdin)
disks = Disks(options)
want = disks.want(options)
plan = disks.plan(want, disks.observe([want]))
for number, step in enumerate(plan.acts):
    if number == options["stop"]:
        os.kill(os.getpid(), signal.SIGKILL)
    step.act(*step.args)
    while number == len(plan.steps) - 1 and plan.closing and not disks.settled(plan, disks.observe([want])):
        disks.wait(0.05)
"""


def killed_run(daemon: Libvirtd, options: Options, stop: int) -> bool:
    """Runs the acts before number `stop` in a process that kills itself there; False when there are not so many."""
    given = {"uri": daemon.uri, "timeout": 10, **options, "stop": stop}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(given), text=True, capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(collections_path()), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def timeless(texts: list[str]) -> list[str]:
    """XML without what differs between two domains of the same wish."""
    return [re.sub("<uuid>.*?</uuid>| index='[0-9]+'| id='[0-9]+'|domain-[0-9]+-d", "", text) for text in texts]


def killed_everywhere(daemon: Libvirtd, attach: Options, detach: Options) -> None:
    """Attach and detach, each killed before every step, end as if nothing had happened."""
    run(daemon, attach)
    attached = timeless(state_of(daemon))
    run(daemon, detach)
    empty = timeless(state_of(daemon))
    for options, start, end in ((attach, detach, attached), (detach, attach, empty)):
        stop = 0
        while True:
            run(daemon, start)
            if not killed_run(daemon, options, stop):
                break
            run(daemon, options)
            assert timeless(state_of(daemon)) == end, f"{options.get('state', 'present')} killed before step {stop}"
            stop += 1
        assert stop >= 3
    run(daemon, detach)


def test_killed_between_any_two_steps(daemon: Libvirtd, export: Export) -> None:
    domain = daemon.paused_domain("d")
    killed_everywhere(daemon, iscsi_disk(export, volume="db"), absent(iscsi_disk(export)))
    assert is_clean(daemon, domain)


def test_an_attach_that_was_killed_can_be_given_up(daemon: Libvirtd, export: Export) -> None:
    domain = daemon.paused_domain("d")
    for stop in (1, 2):
        assert killed_run(daemon, iscsi_disk(export), stop)
        assert not is_clean(daemon, domain)
        run(daemon, absent(iscsi_disk(export)))
        assert is_clean(daemon, domain)


# ---- bad wishes and bad worlds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"password": "wrong"}, "check username and password"),
        ({"username": "nobody"}, "check username and password"),
        ({"username": None, "password": None}, "check username and password"),
        ({"initiator": "iqn.2026-01.org.example:stranger"}, "does not admit this initiator"),
        ({"target_iqn": "iqn.2026-01.org.example:missing"}, "the target is not there"),
        ({"lun": 7}, "has no such LUN"),
        ({"portals": [{"ip": "127.0.0.1", "port": 1}]}, "nobody answers at the portal"),
    ],
)
def test_storage_that_says_no(daemon: Libvirtd, export: Export, wrong: Options, says: str) -> None:
    domain = daemon.paused_domain("d")
    options = iscsi_disk(export)
    options["source"] = {**options["source"], **wrong}
    said = refusal(daemon, options)
    assert says in said and PASSWORD not in said
    assert not has_disk(domain, LIVE) and not has_disk(domain, CONFIG)
    run(daemon, absent(options))
    assert is_clean(daemon, domain)


def test_a_device_that_is_taken(daemon: Libvirtd, tmp_path: Path) -> None:
    daemon.paused_domain("d")
    run(daemon, file_disk(new_image(tmp_path / "1"), device="sdb"))
    before = state_of(daemon)
    said = refusal(daemon, {**file_disk(new_image(tmp_path / "2"), device="sdb"), "serial": "other"})
    assert f"device sdb of domain d is taken by sdb ({tmp_path}/1 with serial {SERIAL})" in said
    assert state_of(daemon) == before


def test_no_double_attach(daemon: Libvirtd, image: Path, tmp_path: Path) -> None:
    for name in ("d", "e"):
        daemon.paused_domain(name)
    run(daemon, file_disk(image))
    (tmp_path / "link").symlink_to(image)
    for other in (file_disk(image, "e"), {**file_disk(image), "serial": "other"}, file_disk(tmp_path / "link", "e")):
        assert "is already sda" in refusal(daemon, other)


def test_a_link_attached_first_is_known_by_its_end(daemon: Libvirtd, image: Path, tmp_path: Path) -> None:
    for name in ("d", "e"):
        daemon.paused_domain(name)
    (tmp_path / "link").symlink_to(image)
    run(daemon, file_disk(tmp_path / "link"))
    assert "is already sda" in refusal(daemon, file_disk(image, "e"))
    assert run(daemon, file_disk(image))["changed"] is False


def test_disks_of_one_domain_do_not_disturb_each_other(daemon: Libvirtd, tmp_path: Path) -> None:
    domain = daemon.paused_domain("d")
    disks = [{**file_disk(new_image(tmp_path / name), volume=name), "serial": name} for name in ("volume-1", "volume-10")]
    both = settled_checks(daemon, {"domain": "d", "disks": disks})["results"]
    assert [(disk["device"], disk["volume"]) for disk in both] == [("sda", "volume-1"), ("sdb", "volume-10")]
    settled_checks(daemon, absent(disks[0]))
    found = run_module("libvirt_disk_info", {"uri": daemon.uri})["disks"]
    assert [(disk["serial"], disk["volume"], disk["ours"], disk["scope"]) for disk in found] == [("volume-10", "volume-10", True, "both")]
    settled_checks(daemon, absent(disks[1]))
    assert is_clean(daemon, domain)


def test_shared_by_both_wills(daemon: Libvirtd, image: Path) -> None:
    disks = []
    for name in ("d", "e"):
        daemon.paused_domain(name)
        disks.append(file_disk(image, name, shareable=True, cache="none"))
    run(daemon, {"disks": disks})
    assert run(daemon, {"disks": disks})["changed"] is False
    assert run(daemon, absent(disks[0]))["changed"]
    assert has_disk(daemon.connection.lookupByName("e"), LIVE)


def test_no_free_pci_slot(daemon: Libvirtd, image: Path) -> None:
    daemon.paused_domain("d", spare_ports=1)
    assert "use bus=scsi, or give the domain more pcie-root-port" in refusal(daemon, file_disk(image, bus="virtio"))
    run(daemon, file_disk(image))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"domain": "dd"}, "there is no domain dd at .*; define it first, or choose one of: d$"),
        ({"domain": "x/y"}, "there is no domain x/y"),
        ({"domain": None}, "names no domain"),
        ({"serial": None}, "has no name"),
        ({"serial": None, "device": "sdb"}, "has no serial"),
        ({"serial": "x" * 37}, "can't be a disk's serial"),
        ({"serial": "ä'\"/ "}, "can't be a disk's serial"),
        ({"alias": "disk1"}, "it must be ua-"),
        ({"device": "sdb'"}, "can't be a device"),
        ({"device": "sdb", "bus": "virtio"}, "not on the virtio bus"),
        ({"size_bytes": 0}, "size_bytes is 0"),
        ({"volume": "a\nb"}, "volume of the disk must be"),
        ({"iotune": {"total_bytes_sec": 5, "read_bytes_sec": 5}}, "both total_bytes_sec and read_bytes_sec"),
        ({"iotune": {"total_bytes_sec_max": 5}}, "needs iotune.total_bytes_sec"),
        ({"source": None}, "needs a source"),
        ({"source": {"type": "file", "path": "/nowhere/at all"}}, "make it first, or correct source.path"),
        ({"source": {"type": "file"}}, "needs the absolute path"),
        ({"source": {"type": "network", "target_iqn": "IQN X"}}, "can't be the source.target_iqn"),
        ({"source": {"type": "network", "target_iqn": "iqn.2026-01.org.example:a"}}, "has no lun and no portals"),
        ({"source": {"type": "network", "target_iqn": "iqn.2026-01.org.example:a", "lun": -1, "portals": [{"ip": "127.0.0.1"}]}}, "source.lun of"),
        ({"source": {"type": "network", "target_iqn": "iqn.2026-01.org.example:a", "lun": 1, "portals": [{"ip": "host'"}]}}, "is no IP address"),
    ],
)
def test_bad_input_changes_nothing(daemon: Libvirtd, image: Path, wrong: Options, says: str) -> None:
    domain = daemon.paused_domain("d", running="path" in (wrong.get("source") or {}))
    assert re.search(says, refusal(daemon, {**file_disk(image), **wrong}))
    assert not has_disk(domain, CONFIG)


def test_a_domain_that_is_gone_needs_no_detaching(daemon: Libvirtd, image: Path) -> None:
    answer = run(daemon, absent(file_disk(image, "gone")))
    assert not answer["changed"] and "there is no domain gone" in str(answer["warnings"])


def test_someone_elses_disk_is_only_removed_by_its_exact_name(daemon: Libvirtd, image: Path) -> None:
    domain = daemon.paused_domain("d")
    source = f"<driver name='qemu' type='raw'/><source file='{image}'/>"
    domain.attachDeviceFlags(f"<disk type='file' device='disk'>{source}<target dev='sdb' bus='scsi'/></disk>", 3)
    assert not run(daemon, {"domain": "d", "serial": "sdb", "state": "absent"})["changed"]
    assert run_module("libvirt_disk_info", {"uri": daemon.uri, "domains": ["d"]})["disks"][0]["ours"] is False
    assert settled_checks(daemon, {"domain": "d", "device": "sdb", "state": "absent"})["changed"]
    assert "sdb" not in domain.XMLDesc(LIVE) + domain.XMLDesc(CONFIG)


def test_libvirtd_that_is_down(image: Path, tmp_path: Path) -> None:
    down = {"uri": f"qemu:///system?socket={tmp_path}/none"}
    for name, options in (("libvirt_disk", file_disk(image)), ("libvirt_disk_info", {}), ("connector_info", {})):
        answer = run_module(name, {**down, **options})
        assert "libvirt does not answer at" in answer["msg"] and "start libvirtd" in answer["msg"]


def test_libvirtd_that_dies_while_a_guest_is_asked(image: Path) -> None:
    with Libvirtd() as own:
        own.paused_domain("d")
        run(own, file_disk(image, bus="virtio"))
        death = threading.Timer(1.5, own.kill)
        death.start()
        assert "went away" in refusal(own, absent(file_disk(image), timeout=20))
        death.join()
        own.start()
        domain = own.connection.lookupByName("d")
        assert has_disk(domain, LIVE) and "has not let go" in refusal(own, absent(file_disk(image), timeout=1))
        domain.destroy()
        run(own, absent(file_disk(image)))
        assert is_clean(own, domain)


def test_a_missing_library_is_named(image: Path, tmp_path: Path) -> None:
    (tmp_path / "libvirt.py").write_text("raise ImportError('no libvirt')")
    answer = run_module("libvirt_disk", file_disk(image), env={"PYTHONPATH": f"{tmp_path}:{collections_path()}"})
    assert answer["failed"] and "install the package python3-libvirt" in answer["msg"]


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_info_shows_the_same_shape(daemon: Libvirtd, image: Path) -> None:
    daemon.paused_domain("d")
    daemon.paused_domain("e", running=False)
    done = run(daemon, file_disk(image, volume="db"))
    before = state_of(daemon)
    found = run_module("libvirt_disk_info", {"uri": daemon.uri})["disks"]
    assert found == [{**{key: done[key] for key in found[0] if key != "ours"}, "ours": True}]
    assert run_module("libvirt_disk_info", {"uri": daemon.uri, "domains": ["e"]})["disks"] == []
    assert "no domain x" in run_module("libvirt_disk_info", {"uri": daemon.uri, "domains": ["x", "d"]})["msg"]
    assert state_of(daemon) == before


def test_connector(daemon: Libvirtd) -> None:
    domain = daemon.paused_domain("web 'ü'")
    daemon.paused_domain("b", running=False)
    daemon.paused_domain("t", persistent=False)
    answer = run_module("connector_info", {"uri": daemon.uri, "host": "c1", "storage_ip": "127.0.0.1", "initiator": INITIATOR})
    assert answer["connector"] == {
        "platform": os.uname().machine, "os_type": "linux", "ip": "127.0.0.1", "host": "c1",
        "initiator": INITIATOR, "multipath": False, "do_local_attach": False,
    }  # fmt: skip
    assert [(d["name"], d["active"], d["persistent"]) for d in answer["domains"]] == [("b", False, True), ("t", True, False), ("web 'ü'", True, True)]
    assert answer["domains"][2]["uuid"] == domain.UUIDString() and not answer["changed"]
    assert run_module("connector_info", {"libvirt": False, "my_ip": "192.0.2.7"})["connector"]["ip"] == "192.0.2.7"
