# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt_disk with images of a real Ceph cluster, on a real libvirtd and real QEMU."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.contract.test_libvirt_disk import ALIAS, CONFIG, DRIFTS, LIVE, MIB, SERIAL, absent, attempt, has_disk, killed_everywhere, refusal, repaired
from tests.contract.test_libvirt_disk import run, settled_checks, state_of
from tests.rig.ceph import Ceph
from tests.rig.collection import collections_path, run_module
from tests.rig.libvirtd import Libvirtd

Options = dict[str, Any]


pytestmark = pytest.mark.usefixtures("nothing_is_left")


@dataclasses.dataclass
class Image:
    """One image of a cluster, made past the modules."""

    ceph: Ceph
    name: str
    size: int = 16 * MIB

    def __enter__(self) -> Image:
        import rbd

        with self.ceph.pool_of() as io:
            rbd.RBD().create(io, self.name, self.size, old_format=False)
        return self

    def __exit__(self, *_: object) -> None:
        import rbd

        deadline = time.monotonic() + 60
        while True:
            try:
                with self.ceph.pool_of() as io:
                    return rbd.RBD().remove(io, self.name)
            except rbd.ImageBusy:
                assert time.monotonic() < deadline, "a domain has the image open"
                time.sleep(0.2)

    @contextlib.contextmanager
    def opened(self, **options: Any) -> Iterator[Any]:
        import rbd

        with self.ceph.pool_of() as io, rbd.Image(io, self.name, **options) as image:
            yield image

    @property
    def source(self) -> Options:
        who = {"username": "cinder", "password": self.ceph.key("client.cinder")}
        monitors = [{"ip": self.ceph.ip, "port": 6789}]
        return {"type": "network", "protocol": "rbd", "image": f"{self.ceph.pool}/{self.name}", "monitors": monitors, **who}

    def disk(self, domain: str = "d", **options: Any) -> Options:
        return {"domain": domain, "serial": SERIAL, "bus": "scsi", "source": self.source, **options}


@pytest.fixture
def image(daemon: Libvirtd, ceph: Ceph) -> Iterator[Image]:
    with Image(ceph, "volume-" + SERIAL) as made:
        yield made
        daemon.remove_domains()


def is_clean(daemon: Libvirtd, domain: Any) -> bool:
    return not any(word in text for text in state_of(daemon, domain.name()) for word in (ALIAS, "stackless", "ceph", "rbd"))


# ---- there and back --------------------------------------------------------------------------------------------------


def test_there_and_back_and_the_bytes_are_on_the_cluster(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    options = image.disk(volume="db", size_bytes=16 * MIB, discard="unmap", iotune={"total_iops_sec": 700})
    done = settled_checks(daemon, options)
    assert (done["scope"], done["size_bytes"], done["iotune"], done["discard"]) == ("both", 16 * MIB, {"total_iops_sec": 700}, "unmap")
    assert done["source"]["image"] == image.source["image"] and done["source"]["monitors"] == [{"ip": image.ceph.ip, "port": 6789}]
    daemon.qemu_io(domain, ALIAS, "write -P 0xa5 0 64k")
    daemon.qemu_io(domain, ALIAS, "flush")
    with image.opened(read_only=True) as there:
        assert there.read(0, 1 << 16) == b"\xa5" * (1 << 16)
    settled_checks(daemon, absent(done))
    assert is_clean(daemon, domain)
    with image.opened(read_only=True) as there:
        assert list(there.watchers_list()) == []


def test_no_key_is_told_anywhere(daemon: Libvirtd, image: Image) -> None:
    daemon.paused_domain("d")
    key = image.source["password"]
    answers = [run(daemon, image.disk(), check=True), run(daemon, image.disk()), run_module("libvirt_disk_info", {"uri": daemon.uri})]
    assert key not in json.dumps(answers) and key not in "".join(state_of(daemon))
    assert "password" not in answers[1]["source"] and "********" in json.dumps(answers[1]["diff"])
    run(daemon, absent(image.disk()))


def test_grow(daemon: Libvirtd, image: Image) -> None:
    daemon.paused_domain("d")
    run(daemon, image.disk(size_bytes=16 * MIB))
    with image.opened() as there:
        there.resize(32 * MIB)
    done = settled_checks(daemon, {"domain": "d", "serial": SERIAL, "size_bytes": 32 * MIB})
    assert done["size_bytes"] == 32 * MIB and done["steps"] == [f"grow sda of the running domain d to {32 * MIB} bytes"]
    run(daemon, absent(image.disk()))


def test_qemu_waits_no_longer_for_a_monitor_than_our_configuration_says(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    run(daemon, image.disk())
    named = re.search("<config file='(.*?)'/>", domain.XMLDesc(CONFIG))
    assert named and "client mount timeout = 5" in Path(named.group(1)).read_text()
    run(daemon, absent(image.disk()))
    Path(named.group(1)).unlink()
    done = settled_checks(daemon, image.disk())
    assert f"write {named.group(1)}, which bounds how long QEMU waits for Ceph" in done["steps"] and Path(named.group(1)).exists()
    run(daemon, absent(image.disk()))


@DRIFTS
def test_exactly_the_drift_is_repaired(daemon: Libvirtd, image: Image, drift: Callable[[Any], None], step: str) -> None:
    options = image.disk(cache="none", iotune={"total_iops_sec": 9})
    repaired(daemon, options, drift, step)
    run(daemon, absent(options))


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_shared_and_goes_with_the_last_disk(daemon: Libvirtd, image: Image) -> None:
    for name in ("d", "e"):
        daemon.paused_domain(name)
    with Image(image.ceph, "volume-2") as second:
        other = {**second.disk("e"), "serial": "volume-2"}
        run(daemon, {"disks": [image.disk(), other]})
        assert len(daemon.connection.listAllSecrets()) == 1
        run(daemon, absent(image.disk()))
        assert len(daemon.connection.listAllSecrets()) == 1
        run(daemon, absent(other))
        assert daemon.connection.listAllSecrets() == []


def test_a_key_that_changed_is_brought_up_to_date(daemon: Libvirtd, image: Image) -> None:
    daemon.paused_domain("d")
    run(daemon, image.disk())
    secret = daemon.connection.listAllSecrets()[0]
    secret.setValue(b"something else")
    done = settled_checks(daemon, image.disk())
    assert done["steps"] == [f"set the Ceph secret {secret.UUIDString()}"] and "(old)" in json.dumps(done["diff"])
    run(daemon, absent(image.disk()))


def test_a_secret_of_the_administrators_is_used_and_stays(daemon: Libvirtd, image: Image) -> None:
    import base64

    daemon.paused_domain("d")
    uuid = "5c000000-0000-4000-8000-000000000001"
    options = image.disk()
    options["source"] = {**options["source"], "password": None, "secret_uuid": uuid}
    assert f"libvirt does not have the Ceph secret {uuid}; give password" in refusal(daemon, options)
    usage = "<usage type='ceph'><name>client.cinder secret</name></usage>"
    theirs = daemon.connection.secretDefineXML(f"<secret ephemeral='no' private='no'><uuid>{uuid}</uuid>{usage}</secret>")
    theirs.setValue(base64.b64decode(image.source["password"]))
    settled_checks(daemon, options)
    run(daemon, absent(options))
    wrong = image.ceph.key("client.admin")
    said = refusal(daemon, {**options, "source": {**options["source"], "password": wrong}})
    assert "which someone else made in libvirt" in said and wrong not in said
    theirs.undefine()


def test_a_key_that_libvirt_hides_lets_nobody_look_first(daemon: Libvirtd, image: Image) -> None:
    import base64

    daemon.paused_domain("d")
    uuid = "5c000000-0000-4000-8000-000000000002"
    usage = "<usage type='ceph'><name>hidden</name></usage>"
    hidden = daemon.connection.secretDefineXML(f"<secret ephemeral='no' private='yes'><uuid>{uuid}</uuid>{usage}</secret>")
    hidden.setValue(base64.b64decode(image.source["password"]))
    options = image.disk(source={**image.source, "password": None, "secret_uuid": uuid})
    assert f"because libvirt hides the Ceph secret {uuid}; give password" in str(settled_checks(daemon, options)["warnings"])
    run(daemon, absent(options))
    hidden.undefine()


# ---- the right image, and nobody else's ------------------------------------------------------------------------------


def test_another_image_is_not_the_volume(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    before = state_of(daemon)
    for options, says in (
        (image.disk(size_bytes=8 * MIB), f"has {16 * MIB} bytes, not {8 * MIB}"),
        (image.disk(source={**image.source, "image": f"{image.ceph.pool}/missing"}), f"there is no image {image.ceph.pool}/missing in the Ceph cluster of"),
        (image.disk(source={**image.source, "image": "nowhere/missing"}), "there is no pool nowhere in"),
        (image.disk(source={**image.source, "image": f"{image.ceph.pool}/nowhere/missing"}), "there is no namespace nowhere in pool"),
        (image.disk(source={**image.source, "password": image.ceph.key("client.admin")}), "refuses client.cinder"),
        (image.disk(source={**image.source, "username": "nobody"}), "refuses client.nobody"),
    ):
        for check in (True, False):
            answer = attempt(daemon, options, check)
            assert answer["failed"] and says in answer["msg"] and image.source["password"] not in json.dumps(answer), answer["msg"]
    assert state_of(daemon) == before and is_clean(daemon, domain)


def test_an_image_that_someone_has_open_is_refused_by_name_until_it_is_closed(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    with image.opened():
        said = refusal(daemon, image.disk(timeout=1))
        assert re.search(rf"image {image.source['image']} is open at 127\.[\d.]+ \(client\.\d+\)", said)
        assert not has_disk(domain, LIVE) and not has_disk(domain, CONFIG)
        assert "is attached only when that has ended" in str(run(daemon, image.disk(), check=True)["warnings"])
    run(daemon, image.disk())
    run(daemon, absent(image.disk()))
    assert is_clean(daemon, domain)


def test_a_run_waits_for_who_lets_go(daemon: Libvirtd, image: Image) -> None:
    daemon.paused_domain("d")
    closed = threading.Event()

    def hold() -> None:
        with image.opened():
            closed.wait(3)

    other = threading.Thread(target=hold)
    other.start()
    time.sleep(0.5)
    run(daemon, image.disk(timeout=30))
    other.join()
    run(daemon, absent(image.disk()))


def test_a_lock_of_a_persons_is_told(daemon: Libvirtd, image: Image) -> None:
    daemon.paused_domain("d")
    with image.opened() as there:
        there.update_features(1 << 2 | 1 << 3 | 1 << 4, False)  # what locks by itself: exclusive-lock, object-map, fast-diff
        there.lock_exclusive("maintenance")
    assert "is open at" in refusal(daemon, image.disk(timeout=1))
    run(daemon, absent(image.disk()))


def test_several_domains_share_what_all_call_shareable(daemon: Libvirtd, image: Image) -> None:
    with image.opened() as there:
        there.update_features(1 << 2 | 1 << 3 | 1 << 4, False)
    disks = []
    for name in ("d", "e"):
        daemon.paused_domain(name)
        disks.append(image.disk(name, shareable=True))
    run(daemon, {"disks": disks})
    daemon.paused_domain("f")
    assert "is already sda" in refusal(daemon, image.disk("f"))
    run(daemon, {"disks": [absent(disk) for disk in disks]})


def test_a_namespace_needs_a_libvirt_that_knows_of_them(daemon: Libvirtd, ceph: Ceph) -> None:
    import rbd

    domain = daemon.paused_domain("d")
    with ceph.pool_of() as io:
        rbd.RBD().namespace_create(io, "apart")
    with ceph.pool_of(namespace="apart") as io:
        rbd.RBD().create(io, "one", 16 * MIB, old_format=False)
    there = Image(ceph, "apart/one")
    answer = attempt(daemon, there.disk())
    if answer.get("failed"):
        assert "where it is in a namespace, this libvirt is too old for that: use a pool without" in answer["msg"]
    else:
        assert answer["live"] and answer["size_bytes"] == 16 * MIB
    run(daemon, absent(there.disk()))
    assert is_clean(daemon, domain)


# ---- clusters that do not answer -------------------------------------------------------------------------------------


@pytest.fixture
def own(daemon: Libvirtd) -> Iterator[Image]:
    with Ceph() as ceph, Image(ceph, "volume-" + SERIAL) as made:
        yield made
        daemon.remove_domains()


@pytest.mark.parametrize("silent", ["mon", "osd"])
def test_a_silent_cluster_is_told_in_bounded_time_and_the_guest_goes_on(daemon: Libvirtd, own: Image, silent: str) -> None:
    domain = daemon.paused_domain("d")
    own.ceph.pause(silent)
    began = time.monotonic()
    said = refusal(daemon, own.disk())
    assert "did not answer within 5 s" in said or "does not answer client.cinder within 5 s" in said
    assert time.monotonic() - began < 25
    assert not has_disk(domain, LIVE) and domain.blockStats("") is not None
    own.ceph.resume(silent)
    run(daemon, own.disk())
    own.ceph.pause(silent)
    said = refusal(daemon, absent(own.disk()))
    assert "is left attached, because its guest would hang" in said
    assert has_disk(domain, LIVE) and has_disk(domain, CONFIG) and len(daemon.connection.listAllSecrets()) == 1
    assert domain.isActive() and domain.blockStats("")
    own.ceph.resume(silent)
    run(daemon, absent(own.disk()))
    assert is_clean(daemon, domain)


# ---- a guest that refuses, and kills ---------------------------------------------------------------------------------


def test_a_guest_that_does_not_let_go(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    done = run(daemon, image.disk(bus="virtio"))
    said = refusal(daemon, absent(done, timeout=1))
    assert "has not let go within 1 s of vda" in said
    assert has_disk(domain, LIVE) and len(daemon.connection.listAllSecrets()) == 1
    domain.destroy()
    run(daemon, absent(done))
    assert "stackless" not in domain.XMLDesc(CONFIG) and daemon.connection.listAllSecrets() == []


def test_killed_between_any_two_steps(daemon: Libvirtd, image: Image) -> None:
    domain = daemon.paused_domain("d")
    killed_everywhere(daemon, image.disk(volume="db"), absent(image.disk()))
    assert is_clean(daemon, domain)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": None}, "can't be the source.image"),
        ({"image": "volumes"}, "write pool/image"),
        ({"image": "a/b:conf=/etc/shadow"}, "can't be the source.image"),
        ({"monitors": None}, "has no monitors"),
        ({"username": None}, "has no username"),
        ({"monitors": [{"ip": "ceph-1"}]}, "is no IP address"),
        ({"secret_uuid": "mine"}, "can't be the source.secret_uuid"),
        ({"password": "not a key"}, "is no key of a Ceph user"),
    ],
)
def test_bad_input_changes_nothing(daemon: Libvirtd, image: Image, wrong: Options, says: str) -> None:
    domain = daemon.paused_domain("d")
    said = refusal(daemon, image.disk(source={**image.source, **wrong}))
    assert says in said and is_clean(daemon, domain)


def test_a_missing_library_is_named(daemon: Libvirtd, image: Image, tmp_path: Path) -> None:
    daemon.paused_domain("d")
    (tmp_path / "rbd.py").write_text("raise ImportError('no rbd')")
    env = {"PYTHONPATH": f"{tmp_path}:{collections_path()}"}
    answer = run_module("libvirt_disk", {"uri": daemon.uri, **image.disk()}, env=env)
    assert answer["failed"] and "install the packages python3-rados and python3-rbd" in answer["msg"]
