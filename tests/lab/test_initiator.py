# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initiator on real kernels: open-iscsi and dm-multipath against LIO, there and back, grown, degraded, refused, and killed."""

from __future__ import annotations

import importlib
import json
from typing import Any, Iterator

import pytest
import yaml

from ansible_collections.stackless.block.plugins.module_utils._hosts.initiator import LOCK
from tests.rig.lab.killer import killed

MIB = 1 << 20
SIZE = 32 * MIB
NUMBERS = range(1, 6)
LUN = 1
SECRET = "given-secret-%d"

Options = dict[str, Any]

# All that a run can change on the host, but not the lock that it holds meanwhile.
EVERYTHING = """
find /etc/iscsi /var/lib/iscsi /etc/multipath -exec stat -c '%n %a %Y' {} + 2>/dev/null | sort || true
lsmod | awk '{print $1}' | grep -e iscsi -e dm_ | sort || true
ls /sys/class/iscsi_session /sys/class/scsi_disk 2>/dev/null || true
"""
LEFT = """
ls -d /sys/class/iscsi_session/* /sys/class/scsi_disk/* /etc/iscsi/nodes/* /sys/block/dm-* 2>/dev/null || true
grep -h ^/ /etc/multipath/wwids 2>/dev/null || true
"""


def iqn(number: int) -> str:
    return f"iqn.2026-01.org.example:ini-{number}"


def serial(number: int) -> str:
    return f"{number:08d}-2222-4222-8333-444455556666"


def wwid(number: int) -> str:
    return "naa.6001405" + serial(number).replace("-", "")[:25]


def chap(number: int) -> Options:
    return {"username": f"user-{number}", "password": SECRET % number}


@pytest.fixture(scope="module")
def exports(lab: Any) -> Any:
    """Five volumes, each exported at all addresses of the storage host to the first compute host."""
    names = " ".join(f"ini-{number}" for number in NUMBERS)
    lab.storage.run(f"for name in {names}; do lvcreate -q -y -W n -L 32M -n $name volumes >/dev/null; done")
    lab.compute.run("systemctl stop multipathd.socket multipathd 2>/dev/null || true")
    me = lab.compute.run("sed -n s/^InitiatorName=//p /etc/iscsi/initiatorname.iscsi").strip()
    targets = [
        {
            "target_iqn": iqn(number), "portals": [{"ip": ip} for ip in addresses(lab)], "acls": [{"initiator": me, **chap(number)}],
            "luns": [{"path": f"/dev/volumes/ini-{number}", "serial": serial(number), "lun": LUN}],
        }
        for number in NUMBERS
    ]  # fmt: skip
    answer = lab.storage.module("iscsi_target", {"helper": "lio", "targets": targets})
    assert not answer.get("failed"), answer["msg"]
    assert [result["luns"][0]["wwid"] for result in answer["results"]] == [wwid(number) for number in NUMBERS]
    return lab


def addresses(lab: Any) -> list[str]:
    return [*lab.storage.addresses, *lab.storage.addresses6]


@pytest.fixture
def host(exports: Any) -> Iterator[Any]:
    """The compute host, and afterwards one without sessions again."""
    yield exports.compute
    exports.compute.run("umount /mnt 2>/dev/null; pkill -x holder; dmsetup remove held 2>/dev/null; true", check=False)
    done(exports.compute, [gone(number) for number in NUMBERS])
    assert exports.compute.run(LEFT) == ""


@pytest.fixture
def multipath(host: Any) -> Iterator[Any]:
    host.run("modprobe dm_multipath; systemctl start multipathd", timeout=90)
    yield host
    done(host, [gone(number) for number in NUMBERS])
    host.run("systemctl stop multipathd.socket multipathd", timeout=90)


def item(lab: Any, number: int, **given: Any) -> Options:
    identity = {"serial": serial(number), "wwid": wwid(number), "size_bytes": SIZE}
    return {"target_iqn": iqn(number), "lun": LUN, "portals": [{"ip": lab.storage.address}], **identity, **chap(number), "login_timeout": 5, **given}


def gone(number: int, **given: Any) -> Options:
    return {"target_iqn": iqn(number), "state": "absent", **given}


def ask(host: Any, items: list[Options], **how: Any) -> Options:
    answer = host.module("iscsi_initiator", {"sessions": items, "timeout": 60}, **{"timeout": 180, **how})
    assert SECRET[:12] not in json.dumps({key: value for key, value in answer.items() if key != "invocation"})
    assert "Traceback" not in json.dumps(answer)
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
    names = ("target_iqn", "lun", "device_path", "wwid", "serial", "size_bytes", "steps", "changed", "degraded", "sessions", "initiator")
    return {name: result[name] for name in names}


# ---- there and back --------------------------------------------------------------------------------------------------


def test_there_and_back_as_foretold(exports: Any, host: Any) -> None:
    wish = [item(exports, 1)]
    before = host.run(EVERYTHING)
    (foretold,) = done(host, wish, check=True)
    assert host.run(EVERYTHING) == before, "check mode wrote something"
    (there,) = done(host, wish)
    assert stable(there) == stable(foretold) and there["device_path"] == f"/dev/disk/by-id/wwn-0x{wwid(1)[4:]}"
    assert there["by_path"] == [f"/dev/disk/by-path/ip-{exports.storage.address}:3260-iscsi-{iqn(1)}-lun-{LUN}"]
    assert host.run("find /etc/iscsi/nodes -mindepth 1 -printf '%m '").split() == ["700", "700", "600"]
    assert not done(host, wish)[0]["changed"] and not done(host, wish, check=True)[0]["changed"]
    host.run(f"printf 'written on the compute host' | dd of={there['device_path']} bs=512 conv=sync,fsync status=none")
    assert exports.storage.run("head -c 27 /dev/volumes/ini-1") == "written on the compute host"
    (foretold,) = done(host, [gone(1, serial=serial(1))], check=True)
    (back,) = done(host, [gone(1, serial=serial(1))])
    assert stable(back) == stable(foretold) and back["device_path"] is None
    assert [step.split(" ")[0] for step in back["steps"]] == ["flush", "delete", "log", "remove"]
    assert host.run(LEFT) == "" and not done(host, [gone(1)])[0]["changed"]


def test_many_at_once_and_nobody_elses(exports: Any, host: Any) -> None:
    """A record of someone else that would be logged in by -L all is left alone, to the byte."""
    foreign = f"/etc/iscsi/nodes/iqn.2026-01.org.example:foreign/{exports.storage.address},3260,1"
    text = f"node.name = iqn.2026-01.org.example:foreign\nnode.conn[0].address = {exports.storage.address}\n"
    host.run(f"mkdir -p {foreign}; cat > {foreign}/default", input=text)
    before = host.run(f"stat -c '%Y %a' {foreign}/default; sha256sum {foreign}/default; iscsiadm -m node | grep foreign")
    results = done(host, [item(exports, number) for number in NUMBERS])
    assert [result["device_path"] for result in results] == [f"/dev/disk/by-id/wwn-0x{wwid(number)[4:]}" for number in NUMBERS]
    found = host.module("iscsi_initiator_info", {"target_iqns": [iqn(2)]})["targets"]
    assert found[0]["luns"][0]["serial"] == serial(2) and found[0]["luns"][0]["holders"] == [] and len(found[0]["records"]) == 1
    done(host, [gone(number) for number in NUMBERS])
    assert host.run(f"stat -c '%Y %a' {foreign}/default; sha256sum {foreign}/default; iscsiadm -m node | grep foreign") == before
    host.run("rm -r /etc/iscsi/nodes/iqn.2026-01.org.example:foreign")


def test_a_session_that_is_there_is_used(exports: Any, host: Any) -> None:
    done(host, [item(exports, 1)])
    sessions = host.run("ls /sys/class/iscsi_session")
    host.run("echo 1 > /sys/class/scsi_device/*:0:0:1/device/delete; rm -r /etc/iscsi/nodes/*")
    (there,) = done(host, [item(exports, 1)])
    assert [step.split(" ")[0] for step in there["steps"]] == ["write", "scan"] and host.run("ls /sys/class/iscsi_session") == sessions


def test_the_examples_run(exports: Any, host: Any) -> None:
    """As they stand in the documentation, but for names and sizes of this lab."""
    text = importlib.import_module("ansible_collections.stackless.block.plugins.modules.iscsi_initiator").EXAMPLES
    changes = {"192.0.2.10": exports.storage.address, "iqn.2026-01.org.example:volume-0b5e7a1c-2222-4222-8333-444455556666": iqn(1),
               "0b5e7a1c-2222-4222-8333-444455556666": serial(1), "username: compute-1": "username: user-1", "{{ chap_password }}": SECRET % 1,
               '"{{ 2 * 1024 ** 3 }}"': str(SIZE)}  # fmt: skip
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for task in yaml.safe_load(text):
        answer = host.module("iscsi_initiator", task["stackless.block.iscsi_initiator"])
        assert not answer.get("failed"), answer["msg"]
    assert host.run(LEFT) == ""


# ---- what fails ------------------------------------------------------------------------------------------------------


def test_each_failure_has_its_words_and_leaves_nothing(exports: Any, host: Any) -> None:
    bad = [
        item(exports, 1, password="not-the-right-one"),
        item(exports, 2, lun=7),
        item(exports, 3, serial="another-volume"),
        item(exports, 4, size_bytes=2 * SIZE),
        item(exports, 6),
    ]
    answer = ask(host, [*bad, item(exports, 5)])
    *failed, good = answer["results"]
    assert [result["failed"] for result in answer["results"]] == [True] * 5 + [False]
    told = [
        "or the CHAP username or password is wrong",
        "shows this host no LUN 7",
        f"with serial {serial(3)}, not another-volume",
        f"with size_bytes {SIZE}, not {2 * SIZE}",
        "the portal answers, but has no such target",
    ]
    for result, words in zip(failed, told):
        assert words in result["msg"] and not result.get("device_path")
    there = host.run("ls /etc/iscsi/nodes; ls /sys/class/iscsi_session | wc -l; ls /sys/class/scsi_disk | wc -l").split()
    assert good["device_path"] and there == [iqn(5), "1", "1"]


def test_portals_that_do_not_answer_are_told_in_bounded_time(exports: Any, host: Any) -> None:
    portals = [{"ip": exports.storage.address, "port": 3999}, {"ip": "10.77.0.250"}]
    for check in (True, False):
        (told,) = refused(host, [item(exports, 1, portals=portals)], check=check, timeout=60)
        assert f"{exports.storage.address}:3999 (Connection refused)" in told and "10.77.0.250:3260 (" in told
    assert host.run(LEFT) == ""


def test_one_of_two_portals_is_enough_without_multipath(exports: Any, host: Any) -> None:
    portals = [{"ip": exports.storage.address, "port": 3999}, {"ip": exports.storage.addresses6[0]}]
    (there,) = done(host, [item(exports, 1, portals=portals)])
    assert [session["portal"] for session in there["sessions"]] == [f"[{exports.storage.addresses6[0]}]:3260"] and not there["degraded"]
    assert not done(host, [item(exports, 1, portals=portals)])[0]["changed"]


def test_iscsid_stopped(exports: Any, host: Any) -> None:
    host.run("systemctl kill -s KILL iscsid; systemctl stop iscsid.socket iscsid", check=False, timeout=120)
    try:
        (told,) = refused(host, [item(exports, 1)], check=True)
        assert told == refused(host, [item(exports, 1)])[0] and "iscsid does not run on this host" in told
        assert host.run(LEFT) == "" and not done(host, [gone(1)])[0]["changed"]
    finally:
        host.run("systemctl start iscsid.socket")


HOLDERS = {
    "mkfs.ext4 -q {0} && mount {0} /mnt": "the file system at /mnt",
    "(exec -a holder sleep 300 < {0}) > /dev/null 2>&1 & sleep 1": "process sleep (pid ",
    "dmsetup create held --table \"0 100 linear {0} 0\"": "the block device held",
    "mkswap -q {0} > /dev/null && swapon {0}": "swap /dev/sd",
}  # fmt: skip


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_device_in_use_stays_and_its_holder_is_named(exports: Any, host: Any, hold: str) -> None:
    (there,) = done(host, [item(exports, 1)])
    host.run(hold.format(there["device_path"]))
    try:
        (told,) = refused(host, [gone(1)])
        assert told == refused(host, [gone(1)], check=True)[0] and HOLDERS[hold] in told
        assert not done(host, [gone(1, if_in_use="keep")])[0]["changed"] and host.run("ls /sys/class/scsi_disk")
    finally:
        host.run("swapoff -a; umount /mnt; dmsetup remove held; pkill -x sleep; true", check=False)


# ---- another volume in the place of ours -----------------------------------------------------------------------------

SWAP = """
import sys
import rtslib_fb as lio

old, new, number = sys.argv[1:]
tpg = next(tpg for target in lio.RTSRoot().targets if target.wwn == old for tpg in target.tpgs)
next(iter(tpg.luns)).delete()
store = next(store for store in lio.RTSRoot().storage_objects if store.wwn == new)
lun = lio.LUN(tpg, int(number), store)
for acl in tpg.node_acls:
    lio.MappedLUN(acl, int(number), lun)
"""


def swap(lab: Any, target: int, volume: int) -> None:
    """Gives a target another volume under the same number, behind the back of who is logged in."""
    lab.storage.run(f"python3 - {iqn(target)} {serial(volume)} {LUN}", input=SWAP)


def test_a_device_that_became_another_volume_is_never_handed_over(exports: Any, host: Any) -> None:
    """What the kernel remembers is not believed; the device is found anew when free, and refused when held."""
    (there,) = done(host, [item(exports, 1)])
    try:
        swap(exports, 1, 2)
        assert host.run("tr -d '\\0' < /sys/class/scsi_disk/*/device/vpd_pg80").endswith(serial(1)), "the kernel noticed by itself, the test shows nothing"
        host.run(f"(exec sleep 300 < {there['device_path']}) > /dev/null 2>&1 & sleep 1")
        (told,) = refused(host, [item(exports, 1)])
        assert f"with serial {serial(2)}" in told and "it is in use by process sleep" in told
        host.run("pkill -x sleep")
        (told,) = refused(host, [item(exports, 1)])
        assert f"with serial {serial(2)}" in told and "handed to nobody" in told
        (other,) = done(host, [item(exports, 1, serial=serial(2), wwid=wwid(2))])
        assert other["device_path"].endswith(wwid(2)[4:])
        swap(exports, 1, 1)
        (ours,) = done(host, [item(exports, 1)])
        assert ours["device_path"].endswith(wwid(1)[4:]) and "delete the SCSI device" in ours["steps"][0]
    finally:
        swap(exports, 1, 1)


# ---- multipath -------------------------------------------------------------------------------------------------------


def everywhere(lab: Any) -> list[Options]:
    return [{"ip": ip} for ip in addresses(lab)]


def test_a_map_over_all_portals_and_its_growth(exports: Any, multipath: Any) -> None:
    wish = item(exports, 1, portals=everywhere(exports))
    (foretold,) = done(multipath, [wish], check=True)
    (there,) = done(multipath, [wish])
    assert there["device_path"] == foretold["device_path"] == f"/dev/disk/by-id/dm-uuid-mpath-3{wwid(1)[4:]}"
    assert len(there["paths"]) == len(addresses(exports)) and there["multipath"] and not there["degraded"]
    assert not done(multipath, [wish])[0]["changed"]
    try:
        exports.storage.run("lvextend -q -L 64M volumes/ini-1 > /dev/null")
        (grown,) = done(multipath, [{**wish, "size_bytes": 2 * SIZE}])
        assert grown["size_bytes"] == 2 * SIZE == int(multipath.run(f"blockdev --getsize64 {there['device_path']}"))
        assert not done(multipath, [{**wish, "size_bytes": 2 * SIZE}])[0]["changed"]
        (back,) = done(multipath, [gone(1)])
        count = len(there["paths"])
        assert [step.split(" ")[0] for step in back["steps"]] == ["have", "flush"] + ["flush", "delete"] * count + ["log"] + ["remove"] * count
        assert multipath.run(LEFT) == ""
    finally:
        exports.storage.run("lvreduce -q -f -y -L 32M volumes/ini-1 > /dev/null")


def test_a_lost_portal_is_a_warning_and_heals(exports: Any, multipath: Any) -> None:
    wish = item(exports, 1, portals=everywhere(exports)[:2], replacement_timeout=5)
    second = exports.storage.addresses[1]
    device = exports.storage.run(f"ip -o addr show to {second} | awk '{{print $2, $4}}'").split()
    exports.storage.run(f"ip addr del {device[1]} dev {device[0]}")
    try:
        answer = ask(multipath, [wish])
        assert not answer.get("failed") and answer["results"][0]["degraded"] and second in json.dumps(answer["warnings"])
        again = ask(multipath, [wish])
        assert not again["changed"] and again["results"][0]["degraded"]
    finally:
        exports.storage.run(f"ip addr add {device[1]} dev {device[0]}")
    (healed,) = done(multipath, [wish])
    assert not healed["degraded"] and len(healed["paths"]) == 2 and healed["changed"]


# ---- what goes away under it, and who is killed ----------------------------------------------------------------------


def test_a_target_that_is_gone_is_cleaned_away(exports: Any, host: Any) -> None:
    done(host, [item(exports, 5, replacement_timeout=3)])
    exports.storage.run("python3 -", input=f"import rtslib_fb as lio\nnext(t for t in lio.RTSRoot().targets if t.wwn == '{iqn(5)}').delete()")
    try:
        host.run("for i in $(seq 60); do grep -qx transport-offline /sys/class/scsi_disk/*/device/state && exit 0; sleep 0.5; done; exit 1", timeout=60)
        (told,) = refused(host, [item(exports, 5)])
        assert "has no such target" in told
        done(host, [gone(5)])
        assert host.run(LEFT) == ""
    finally:
        exports.storage.run("targetctl restore > /dev/null 2>&1", timeout=120, check=False)


@pytest.mark.long
def test_killed_after_every_step_the_next_run_finishes(exports: Any, multipath: Any) -> None:
    wish = [item(exports, 1, portals=everywhere(exports)[:2])]
    steps = len(done(multipath, wish, check=True)[0]["steps"])
    for after in range(steps + 1):
        killed(multipath, "iscsi_initiator", {"sessions": wish}, after)
        (there,) = done(multipath, wish)
        assert there["device_path"] and len(there["paths"]) == 2
        killed(multipath, "iscsi_initiator", {"sessions": [gone(1)]}, after + 3 * (after % 2))  # there are more steps back than there
        done(multipath, [gone(1)])
        assert multipath.run(LEFT) == "", f"after a kill behind step {after}"


def test_the_lock_is_held_while_a_run_works(exports: Any, host: Any) -> None:
    """Another run waits for it, and no longer than it is told to."""
    host.run(f"(flock -x {LOCK} sleep 20) > /dev/null 2>&1 & sleep 1")
    answer = host.module("iscsi_initiator", {"sessions": [gone(1)], "lock_timeout": 1})
    assert answer["failed"] and f"another run holds the lock {LOCK}" in answer["msg"]
    host.run("pkill -x sleep")
