# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of a real Ceph cluster as devices of real kernels: there, back, grown, told apart, refused, killed, and by the playbooks.

The cluster runs on this machine; the lab's hosts are lent its address.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml

from ansible_collections.stackless.block.plugins.module_utils._hosts.krbd import LOCK
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_image import RECORD
from tests.lab.test_walk import plain
from tests.rig.ceph import Ceph
from tests.rig.lab.killer import killed
from tests.rig.lab.scene import bad, device_of, good, guest_device, monitor, write
from tests.rig.lab.watch import watched

MIB, GIB = 1 << 20, 1 << 30
SIZE = 32 * MIB
LINK = "/dev/stackless-block/rbd"

Options = dict[str, Any]

# All that a run can change on the host, but not the lock that it holds meanwhile.
EVERYTHING = f"""
ls -d /sys/bus/rbd/devices/* /dev/rbd* 2>/dev/null || true
find {LINK} 2>/dev/null | sort || true
lsmod | awk '{{print $1}}' | grep -e rbd -e ceph | sort || true
find /run/udev/rules.d -exec stat -c '%n %a %Y' {{}} + 2>/dev/null || true
"""
LEFT = f"udevadm settle; ls -d /sys/bus/rbd/devices/* /dev/rbd[0-9]* 2>/dev/null || true; find {LINK} -type l 2>/dev/null || true"


@contextlib.contextmanager
def lent(cluster: Ceph, *hosts: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(host.lend(cluster.ip, cluster.ports))
        yield


@pytest.fixture(scope="module")
def ceph(lab: Any) -> Iterator[Ceph]:
    with Ceph() as cluster, lent(cluster, lab.compute, lab.compute2):
        make(cluster, "a-1")
        make(cluster, "a-10")
        yield cluster


@pytest.fixture
def host(lab: Any, ceph: Ceph) -> Iterator[Any]:
    """The compute host, and afterwards one without devices again."""
    yield lab.compute
    lab.compute.run("umount /mnt 2>/dev/null; pkill -x sleep; true", check=False)
    for each in (lab.compute, lab.compute2):
        names = each.run("cd /sys/bus/rbd/devices 2>/dev/null && ls || true").split()
        images = ["/".join(filter(None, each.run(f"cd /sys/bus/rbd/devices/{name}; cat pool pool_ns name").split("\n"))) for name in names]
        done(each, [gone(image) for image in images]) if images else None
        assert each.run(LEFT) == ""


def make(cluster: Ceph, name: str, namespace: str = "", **options: Any) -> None:
    import rbd

    with cluster.pool_of(namespace=namespace) as io:
        rbd.RBD().create(io, name, SIZE, old_format=False, **options)


@contextlib.contextmanager
def opened(cluster: Ceph, name: str, namespace: str = "", **options: Any) -> Iterator[Any]:
    import rbd

    with cluster.pool_of(namespace=namespace) as io, rbd.Image(io, name, **options) as image:
        yield image


def holds(cluster: Ceph, name: str, text: bytes, namespace: str = "", offset: int = 0) -> bool:
    """What stands in an image, past every kernel."""
    with opened(cluster, name, namespace, read_only=True) as image:
        return image.read(offset, len(text)) == text


def item(cluster: Ceph, image: str = "volumes/a-1", **given: Any) -> Options:
    who = {"username": "cinder", "password": cluster.key("client.cinder")}
    return {"image": image, "monitors": [{"ip": cluster.ip}], **who, **given}


def gone(image: str = "volumes/a-1", **given: Any) -> Options:
    return {"image": image, "state": "absent", **given}


def ask(host: Any, items: list[Options], **how: Any) -> Options:
    answer = host.module("rbd_device", {"devices": items, "timeout": how.pop("patience", 60)}, **{"timeout": 180, **how})
    said = json.dumps(answer)
    assert "Traceback" not in said and not any(item["password"] in said for item in items if item.get("password"))
    return answer


def done(host: Any, items: list[Options], **how: Any) -> list[Options]:
    answer = ask(host, items, **how)
    assert not answer.get("failed"), answer["msg"]
    return answer["results"]


def refused(host: Any, items: list[Options], **how: Any) -> list[str]:
    """The messages of items that all failed."""
    answer = ask(host, items, **how)
    assert all(result["failed"] for result in answer["results"]), answer
    return [result["msg"] for result in answer["results"]]


def stable(result: Options) -> Options:
    """What a prediction and the run have in common."""
    return {name: value for name, value in result.items() if name not in ("device", "client")}


def put(host: Any, path: str, text: str) -> None:
    host.run(f"printf '{text}' | dd of={path} bs=512 conv=sync,fsync status=none")


# ---- there and back --------------------------------------------------------------------------------------------------


def test_there_and_back_as_foretold(ceph: Ceph, host: Any) -> None:
    wish = [item(ceph, size_bytes=SIZE)]
    before = host.run(EVERYTHING)
    (foretold,) = done(host, wish, check=True)
    assert host.run(EVERYTHING) == before, "check mode wrote something"
    (there,) = done(host, wish)
    assert stable(there) == stable(foretold) and there["device_path"] == f"{LINK}/{there['cluster_fsid']}/volumes/a-1" and there["exclusive"]
    assert there["steps"][-2:] == ["load the kernel's driver rbd", "map image volumes/a-1"] and there["client"] in ceph_status(ceph)
    assert int(host.run(f"blockdev --getsize64 {there['device_path']}")) == SIZE
    assert not done(host, wish)[0]["changed"] and not done(host, wish, check=True)[0]["changed"]
    put(host, there["device_path"], "written on the compute host")
    (foretold,) = done(host, [gone()], check=True)
    (back,) = done(host, [gone()])
    assert stable(back) == stable(foretold) and back["steps"] == ["flush the buffers of rbd0", "unmap image volumes/a-1 (rbd0)"]
    assert host.run(LEFT) == "" and not done(host, [gone()])[0]["changed"]
    assert holds(ceph, "a-1", b"written on the compute host") and ceph_status(ceph) == []


def ceph_status(cluster: Ceph, name: str = "a-1") -> list[str]:
    with opened(cluster, name, read_only=True) as image:
        return [f"client.{one['id']}" for one in image.watchers_list()]


def test_names_are_told_apart_and_so_are_clusters(ceph: Ceph, host: Any) -> None:
    """a-1 is not a-10, nor a-1 of a namespace, nor that of another cluster; what was mapped past us stays."""
    import rbd

    with ceph.pool_of() as io:
        rbd.RBD().namespace_create(io, "shop")
    make(ceph, "a-1", "shop")
    with Ceph() as other, lent(other, host):
        make(other, "a-1")
        results = done(host, [item(ceph), item(ceph, "volumes/a-10"), item(ceph, "volumes/shop/a-1")])
        (foreign,) = done(host, [item(other)])
        paths = [result["device_path"] for result in (*results, foreign)]
        assert len(set(paths)) == 4 == len({host.run(f"realpath {path}") for path in paths})
        for number, path in enumerate(paths):
            put(host, path, f"bytes of {number}")
        assert holds(ceph, "a-1", b"bytes of 0") and holds(ceph, "a-10", b"bytes of 1")
        assert holds(ceph, "a-1", b"bytes of 2", "shop") and holds(other, "a-1", b"bytes of 3")
        (told,) = refused(host, [gone()])
        assert "is mapped from several clusters" in told and "cluster_fsid" in told
        done(host, [gone(cluster_fsid=results[0]["cluster_fsid"])])
        assert not host.run(f"ls {paths[0]} 2>/dev/null || true") and [host.run(f"ls {path}").strip() for path in paths[1:]] == paths[1:]
        (told,) = refused(host, [item(other, cluster_fsid=results[0]["cluster_fsid"])])
        assert f"lead to the cluster {foreign['cluster_fsid']}" in told
        done(host, [gone(cluster_fsid=foreign["cluster_fsid"]), gone("volumes/a-10"), gone("volumes/shop/a-1")])


def test_a_device_that_somebody_mapped_by_hand_is_taken_as_it_is_or_made_anew(ceph: Ceph, host: Any) -> None:
    (there,) = done(host, [item(ceph, exclusive=False)])
    again = done(host, [item(ceph, exclusive=False)])
    assert not again[0]["changed"]
    (anew,) = done(host, [item(ceph)])
    assert [step.split(" ")[0] for step in anew["steps"]] == ["unmap", "map"] and anew["exclusive"] and anew["client"] != there["client"]
    (reading,) = done(host, [item(ceph, mode="ro")])
    assert reading["mode"] == "ro" and host.run("dd if=/dev/zero of=/dev/rbd0 count=1 oflag=direct 2>&1 || true").strip() and ceph_status(ceph) == []


def test_the_examples_run(ceph: Ceph, host: Any) -> None:
    """As they stand in the documentation, but for addresses."""
    text = importlib.import_module("ansible_collections.stackless.block.plugins.modules.rbd_device").EXAMPLES
    make(ceph, "volume-0b5e7a1c-2222-4222-8333-444455556666")
    make(ceph, "templates")
    make(ceph, "templates", "shop")
    for task in yaml.safe_load(text.replace("192.0.2.10", ceph.ip).replace("{{ cephx_key }}", ceph.key("client.cinder"))):
        answer = host.module("rbd_device", task["stackless.block.rbd_device"])
        assert not answer.get("failed"), answer["msg"]
    assert host.run(LEFT) == ""


# ---- growth ----------------------------------------------------------------------------------------------------------


def test_a_grown_image_is_taken_over_unless_the_lock_keeps_it_from_growing(ceph: Ceph, host: Any) -> None:
    import rbd

    make(ceph, "grows")
    (there,) = done(host, [item(ceph, "volumes/grows", size_bytes=SIZE)])
    with pytest.raises(rbd.Error) as caught, opened(ceph, "grows") as image:
        image.resize(2 * SIZE)
    assert abs(caught.value.errno or 0) == 30, "what the module is told of is EROFS"
    (there,) = done(host, [item(ceph, "volumes/grows", exclusive=False)])
    with opened(ceph, "grows") as image:
        image.resize(2 * SIZE)
    (told,) = refused(host, [item(ceph, "volumes/grows", exclusive=False, size_bytes=SIZE)])
    assert f"has {2 * SIZE} bytes, not {SIZE}" in told
    (grown,) = done(host, [item(ceph, "volumes/grows", exclusive=False, size_bytes=2 * SIZE)])
    assert grown["size_bytes"] == 2 * SIZE == int(host.run(f"blockdev --getsize64 {there['device_path']}"))
    assert grown["client"] == there["client"], "it was made anew"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_in_use_is_refused_by_the_name_of_its_holder(ceph: Ceph, host: Any) -> None:
    (there,) = done(host, [item(ceph)])
    path = there["device_path"]
    host.run(f"(exec sleep 300 < {path}) > /dev/null 2>&1 & sleep 1")
    (told,) = refused(host, [gone()])
    assert re.search(r"image volumes/a-1 \(rbd0\) is in use by process sleep \(pid \d+\); let it go there first", told)
    answer = ask(host, [gone(if_in_use="keep")])
    assert not answer.get("failed") and "so it stays mapped" in str(answer["warnings"])
    answer = ask(host, [item(ceph, exclusive=False)])
    assert not answer["changed"] and "is mapped exclusively, and stays so until it is let go by process sleep" in str(answer["warnings"])
    host.run("pkill -x sleep")
    host.run(f"mke2fs -q {path} && mount {path} /mnt", timeout=90)
    (told,) = refused(host, [gone()])
    assert "is in use by the file system at /mnt" in told
    host.run("umount /mnt")
    done(host, [gone()])


@pytest.mark.long
def test_what_others_have_is_refused_by_their_name(lab: Any, ceph: Ceph, host: Any) -> None:
    with opened(ceph, "a-1"):
        answer = ask(host, [item(ceph)], check=True)
        assert not answer.get("failed") and "it is mapped only when that has ended" in str(answer["warnings"])
        (told,) = refused(host, [item(ceph)], patience=1)
        assert re.search(r"image volumes/a-1 is open at 127\.[\d.]+ \(client\.\d+\)", told)
    (there,) = done(lab.compute2, [item(ceph)])
    (told,) = refused(host, [item(ceph)], patience=1)
    assert f"({there['client']})" in told and host.run(LEFT) == ""
    # who does not look first meets the lock
    (told,) = refused(host, [item(ceph, shared=True)], patience=1)
    assert "someone has it mapped exclusively" in told and host.run(LEFT) == ""
    done(lab.compute2, [gone()])
    shared = [done(each, [item(ceph, shared=True)])[0] for each in (host, lab.compute2)]
    assert not any(result["exclusive"] for result in shared)
    put(host, shared[0]["device_path"], "from one host")
    assert lab.compute2.run(f"dd if={shared[1]['device_path']} iflag=direct bs=512 count=1 status=none | head -c 13") == "from one host"


def test_each_failure_has_its_words_and_leaves_nothing(ceph: Ceph, host: Any) -> None:
    make(ceph, "plain", features=1)
    make(ceph, "journalled", features=1 | 4 | 64)
    bad_items = [
        item(ceph, password=ceph.key("client.admin")),
        item(ceph, "volumes/none"),
        item(ceph, "volumes/a-1", size_bytes=2 * SIZE),
        item(ceph, "volumes/plain"),
        item(ceph, "volumes/journalled"),
    ]
    words = ["refuses client.cinder", "there is no image volumes/none", f"has {SIZE} bytes", "without the feature exclusive-lock", "features that the kernel"]
    for (wish, word) in zip(bad_items, words):
        (told,) = refused(host, [wish])
        assert word in told, told
    assert host.run(LEFT) == ""


@pytest.mark.long
def test_a_silent_cluster_is_told_in_bounded_time(host: Any) -> None:
    with Ceph() as own, lent(own, host):
        make(own, "a-1")
        for silent in ("mon", "osd"):
            own.pause(silent)
            began = time.monotonic()
            (told,) = refused(host, [item(own)])
            assert "within 5 s" in told and time.monotonic() - began < 60, told
            own.resume(silent)
        (there,) = done(host, [item(own)])
        own.pause("osd")
        host.run(f"(dd if=/dev/urandom of={there['device_path']} bs=64k count=4 status=none) > /dev/null 2>&1 & sleep 2")
        (told,) = refused(host, [gone()], timeout=150)
        assert "image volumes/a-1 stays mapped: its cluster has not taken what the kernel holds back for rbd0 within 30 s" in told
        own.resume("osd")
        host.run("while fuser -s /dev/rbd0; do sleep 0.5; done")
        own.pause("osd")
        began = time.monotonic()
        (told,) = refused(host, [gone()], timeout=150)
        assert "can't be unmapped: its cluster does not answer" in told and time.monotonic() - began < 90
        own.resume("osd")
        host.run("while ls /sys/bus/rbd/devices/* 2>/dev/null; do sleep 0.5; done")  # what the kernel had begun it ends now
        assert not done(host, [gone()])[0]["changed"] and host.run(LEFT) == ""


# ---- who is killed ---------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_killed_after_every_step_the_next_run_finishes(ceph: Ceph, host: Any) -> None:
    wish = [item(ceph)]
    host.run("rm -f /run/udev/rules.d/60-stackless-block-rbd.rules; modprobe -r rbd", check=False)
    steps = len(done(host, wish, check=True)[0]["steps"])
    assert steps == 3
    for after in range(steps + 1):
        killed(host, "rbd_device", {"devices": wish}, after)
        (there,) = done(host, wish)
        assert host.run(f"realpath {there['device_path']}").strip() == there["device"]
        killed(host, "rbd_device", {"devices": [gone()]}, after % 3)
        done(host, [gone()])
        assert host.run(LEFT) == "", f"after a kill behind step {after}"
        host.run("rm -f /run/udev/rules.d/60-stackless-block-rbd.rules; modprobe -r rbd", check=False)


def test_the_lock_is_held_while_a_run_works(ceph: Ceph, host: Any) -> None:
    host.run(f"(flock -x {LOCK} sleep 20) > /dev/null 2>&1 & sleep 1")
    answer = host.module("rbd_device", {"devices": [gone()], "lock_timeout": 1})
    assert answer["failed"] and f"another run holds the lock {LOCK}" in answer["msg"]


# ---- the walk --------------------------------------------------------------------------------------------------------

VOLUMES = [{"name": "db-data", "size_gib": 1}, {"name": "db-log", "size_gib": 1}]
ATTACHMENTS = [{"volume": "db-data", "instance": "guest-1"}, {"volume": "db-log", "instance": "web-1", "bus": "scsi", "transport": "krbd"}]
WISH = {"volumes": VOLUMES, "attachments": ATTACHMENTS}


class Walk:
    """The playbooks on the lab's compute hosts, with this machine as the storage host: it is a client of the cluster as any other."""

    def __init__(self, lab: Any, ceph: Ceph, directory: Path) -> None:
        self.lab, self.ceph, self.inventory = lab, ceph, directory / "ceph.yml"
        here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3", "ansible_remote_tmp": str(directory / "tmp")}
        self.inventory.write_text(json.dumps({"all": {"hosts": {"ceph-1": {**here, "backend": ceph.backend}}}}))

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Any:
        common = {"storage_hosts": ["ceph-1"], "volume_transport": "krbd"}
        return self.lab.play(playbook, "-i", str(self.inventory), *arguments, **{**common, **variables})

    def records(self) -> dict[str, Options]:
        found = {}
        with self.ceph.pool_of() as io:
            import rbd

            for name in rbd.RBD().list(io):
                if name.startswith("volume-"):
                    with rbd.Image(io, name, read_only=True) as image, contextlib.suppress(KeyError):
                        record = json.loads(image.metadata_get(RECORD))
                        found[record["name"]] = record
        return found

    def id(self, name: str) -> str:
        return self.records()[name]["id"]

    def statuses(self) -> dict[str, str]:
        return {name: record["status"] for name, record in self.records().items()}


@pytest.fixture(scope="module")
def walk(lab: Any, ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(lab, ceph, tmp_path_factory.mktemp("krbd"))


@pytest.fixture
def attached(walk: Walk) -> None:
    """The volumes are where they belong, whichever tests have run before."""
    good(walk.play("attach", **(WISH if not walk.records() else {"attachments": ATTACHMENTS})))


def test_a_check_predicts_the_walk_and_no_key_is_seen_on_it(lab: Any, walk: Walk) -> None:
    predicted = good(walk.play("attach", check=True, **WISH))
    assert walk.records() == {} and lab.compute.run(LEFT) == ""
    with watched(lab.compute):
        real = good(walk.play("attach", "-vvv", **WISH))
    assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())
    assert walk.statuses() == {"db-data": "in-use", "db-log": "in-use"}
    key = walk.ceph.key("client.cinder")
    assert key not in real.output
    seen = lab.compute.run("cat /run/seen; journalctl -b --no-pager -o cat; cat /sys/bus/rbd/devices/*/config_info")
    assert "python3" in seen and "key=client.cinder" in seen and key not in seen
    assert lab.compute.run(f"grep -rlF '{key}' /etc /run /tmp /root /var/log /var/lib/libvirt 2>/dev/null || true") == ""
    again = good(walk.play("attach", **WISH))
    assert again.changed == [] and again.module_runs()["rbd_device"] == 1


def test_what_a_guest_writes_is_on_its_own_image(lab: Any, walk: Walk) -> None:
    data, log = walk.id("db-data"), walk.id("db-log")
    lab.guest.run(f"write {guest_device(lab, data)} 0 first-light")
    write(lab.compute, "web-1", log, 0x5A)
    assert device_of(lab.compute, "web-1", log).endswith(f"/volumes/volume-{log}")
    assert holds(walk.ceph, f"volume-{data}", b"first-light") and holds(walk.ceph, f"volume-{log}", b"\x5a" * 65536)
    (told,) = refused(lab.compute, [gone(f"volumes/volume-{log}")])
    assert "is in use by domain web-1" in told


@pytest.mark.long
@pytest.mark.usefixtures("attached")
def test_what_keeps_the_lock_is_not_extended_and_what_does_not_is(lab: Any, walk: Walk) -> None:
    bad(walk.play("extend", volumes=[{"name": "db-log", "size_gib": 2}]), "mapped exclusively", "exclusive: false")
    assert walk.records()["db-log"]["size_bytes"] == GIB
    good(walk.play("detach", attachments=ATTACHMENTS[:1]))
    good(walk.play("attach", attachments=ATTACHMENTS[:1], rbd_map={"exclusive": False}))
    predicted = good(walk.play("extend", check=True, volumes=[{"name": "db-data", "size_gib": 2}], rbd_map={"exclusive": False}))
    real = good(walk.play("extend", volumes=[{"name": "db-data", "size_gib": 2}], rbd_map={"exclusive": False}))
    assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())
    assert lab.guest.wait_for(rf"^DISK-SIZE \w+ .*size={2 * GIB}$") and walk.records()["db-data"]["size_bytes"] == 2 * GIB


@pytest.mark.long
@pytest.mark.usefixtures("attached")
def test_a_host_that_restarts_gets_back_what_is_attached(lab: Any, walk: Walk) -> None:
    lab.guest.run(f"write {guest_device(lab, walk.id('db-data'))} 0 first-light")
    lab.compute.reboot(hard=True)
    with lent(walk.ceph, lab.compute):
        assert lab.compute.run(LEFT) == ""
        recovered = good(walk.play("recover"))
        assert "db-data -> guest-1" in "\n".join(recovered.told()) and len(lab.compute.run("ls /sys/bus/rbd/devices").split()) == 2
        lab.compute.run("virsh start guest-1", timeout=90)
        assert lab.guest.run(f"read {guest_device(lab, walk.id('db-data'))} 0").strip() == "first-light"
        assert good(walk.play("recover")).changed == []
        predicted = good(walk.play("detach", check=True, attachments=ATTACHMENTS))
        real = good(walk.play("detach", attachments=ATTACHMENTS))
        assert predicted.changed == real.changed and plain(predicted.told()) == plain(real.told())
        assert lab.compute.run(LEFT) == "" and walk.statuses() == {"db-data": "available", "db-log": "available"}


@pytest.mark.long
def test_a_lost_host_is_kept_from_a_volume_before_that_goes_elsewhere(lab: Any, walk: Walk) -> None:
    good(walk.play("attach", volumes=VOLUMES[1:], attachments=[{"volume": "db-log", "instance": "db-1", "bus": "scsi"}]))
    log = walk.id("db-log")
    write(lab.compute2, "db-1", log, 0x11)
    lab.compute2.freeze()
    time.sleep(35)  # by now its OSD has given up on it, and only the lock tells whose the image was
    fenced = good(walk.play("fence", lost_host="compute-2"))
    assert re.search(r"keep 127[\d.:/]+ of compute-2 from volume db-log for good", fenced.output) and walk.statuses()["db-log"] == "available"
    lab.compute2.thaw()
    with contextlib.suppress(AssertionError):  # its guest gets errors
        monitor(lab.compute2, "db-1", log, "write -P 34 0 64k")
    assert holds(walk.ceph, f"volume-{log}", b"\x11" * 65536), "a fenced client has written"
