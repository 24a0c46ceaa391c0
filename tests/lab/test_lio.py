# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The LIO back end on a real kernel: beside the fake, killed between any two writes, and what initiators see of it."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _manage_target
from ansible_collections.stackless.block.plugins.module_utils._model.data import as_data
from tests.rig.fake_targets import FakeLio

pytestmark = pytest.mark.long  # the walk in `make test` meets only a part of this

IQN = "iqn.2026-01.org.example:volume-1"
SERIAL = "0b5e7a1c-2222-4222-8333-444455556666"
WWID = "naa.60014050b5e7a1c22224222833344445"
STRANGER = "iqn.2026-01.org.example:stranger"
SAVECONFIG = "/etc/rtslib-fb-target/saveconfig.json"
CONFIGFS = "/sys/kernel/config/target"
MIB = 1 << 20
SECRET, OTHER_SECRET, TARGETS_SECRET = "given-secret-of-A", "given-secret-of-B", "the-target-itself"

Options = dict[str, Any]

FRESH = f"""
iscsiadm -m node -u >/dev/null 2>&1 || true
test -d {CONFIGFS} && targetctl clear
rm -rf {SAVECONFIG}* /srv/lio-*
for name in lio-a lio-b lio-c; do
    test -e /dev/volumes/$name && lvremove -q -y volumes/$name >/dev/null
    lvcreate -q -y -W n -L 32M -n $name volumes >/dev/null
done
truncate -s 16M /srv/lio-file
"""
DEVICE, SECOND, THIRD, FILE = "/dev/volumes/lio-a", "/dev/volumes/lio-b", "/dev/volumes/lio-c", "/srv/lio-file"
SIZES = {DEVICE: 32 * MIB, SECOND: 32 * MIB, THIRD: 32 * MIB, FILE: 16 * MIB}


@pytest.fixture
def storage(lab: Any) -> Iterator[Any]:
    """A storage host without targets, with three volumes and a file."""
    logged_out(lab)
    lab.storage.run(FRESH)
    yield lab.storage
    logged_out(lab)
    lab.storage.run("for name in lio-a lio-b lio-c; do lvremove -q -y volumes/$name >/dev/null; done; rm -f /srv/lio-*" if clear(lab) else "false")


def logged_out(lab: Any) -> None:
    lab.compute.run("iscsiadm -m node -u; rm -rf /etc/iscsi/nodes/*; iscsiadm -m session", check=False)


def clear(lab: Any) -> bool:
    lab.storage.run(f"if test -d {CONFIGFS}; then targetctl clear; fi; rm -f {SAVECONFIG}*")
    return True


@pytest.fixture
def me(lab: Any) -> str:
    """The name of the initiator that can log in."""
    return lab.compute.run("sed -n s/^InitiatorName=//p /etc/iscsi/initiatorname.iscsi").strip()


@pytest.fixture
def wish(storage: Any, me: str) -> Options:
    return {
        "helper": "lio", "target_iqn": IQN, "portals": [{"ip": storage.address}], "luns": [{"path": DEVICE, "serial": SERIAL}],
        "acls": [{"initiator": me}], "return_secrets": True,
    }  # fmt: skip


def done(host: Any, options: Options, **how: Any) -> Options:
    answer = host.module("iscsi_target", options, **how)
    assert not answer.get("failed"), answer["msg"]
    return answer


def refused(host: Any, options: Options, **how: Any) -> str:
    answer = host.module("iscsi_target", options, **how)
    assert answer.get("failed") and not answer.get("steps"), answer
    assert "Traceback" not in json.dumps(answer)
    return answer["msg"]


def info(host: Any, *iqns: str) -> Options:
    return host.module("iscsi_target_info", {"helper": "lio", **({"target_iqns": list(iqns)} if iqns else {})})


def pair(answer: Options) -> tuple[str, str]:
    (found,) = answer["credentials"]
    return found["username"], found["password"]


# Every file of configfs that can be read, and the saved form: what a write would change.
EVERYTHING = f"""
cat {SAVECONFIG} 2>/dev/null || true
stat -c '%n %Y %a' {SAVECONFIG}* 2>/dev/null || true
test ! -d {CONFIGFS} || find {CONFIGFS} -not -path '*statistics/*' -not -name info -type f -perm -400 | sort > /tmp/files
test ! -d {CONFIGFS} || xargs -d '\\n' head -n 99 < /tmp/files 2>/dev/null || true
lsmod | grep -c -e target_core -e iscsi_target || true
"""


def everything(host: Any) -> str:
    return host.run(EVERYTHING)


# What runs, as rtslib dumps it, beside what is saved, both in an order of their own.
COMPARE = f"""
import json, rtslib_fb
def tidy(value):
    if isinstance(value, dict):
        return {{key: tidy(value[key]) for key in sorted(value)}}
    if isinstance(value, list):
        return sorted((tidy(one) for one in value), key=json.dumps)
    return value
live = tidy(rtslib_fb.RTSRoot().dump())
saved = tidy(json.load(open("{SAVECONFIG}")))
print(json.dumps({{"same": live == saved, "targets": len(live["targets"]), "stores": len(live["storage_objects"]), "live": live, "saved": saved}}))
"""


def compared(host: Any) -> Options:
    return json.loads(host.run("python3 -", input=COMPARE))


def assert_saved(host: Any, targets: int, stores: int) -> None:
    found = compared(host)
    assert (found["targets"], found["stores"]) == (targets, stores)
    assert found["same"], f"{found['saved']}\nis saved, and\n{found['live']}\nruns"
    assert host.run(f"stat -c %a {SAVECONFIG}").strip() == "600"


def login(host: Any, portal: str, auth: tuple[str, str] | None, mutual: tuple[str, str] | None = None, iqn: str = IQN) -> str | None:
    """Logs in as open-iscsi does and returns the LUN's device, or None when the door stays shut."""
    lines = {"node.name": iqn, "node.tpgt": "1", "node.startup": "manual", "node.conn[0].address": portal, "node.conn[0].port": "3260"}
    lines.update({"node.session.initial_login_retry_max": "1", "node.conn[0].timeo.login_timeout": "10"})
    if auth:
        lines.update({"node.session.auth.authmethod": "CHAP", "node.session.auth.username": auth[0], "node.session.auth.password": auth[1]})
    if mutual:
        lines.update({"node.session.auth.username_in": mutual[0], "node.session.auth.password_in": mutual[1]})
    folder = f"/etc/iscsi/nodes/{iqn}/{portal},3260,1"
    record = "".join(f"{key} = {value}\n" for key, value in lines.items())
    host.run(f"umask 077; mkdir -p '{folder}'; cat > '{folder}/default'", input=record)
    answer = host.run(f"iscsiadm -m node -T {iqn} -p '{bracketed(portal)}' --login >/dev/null 2>&1 && echo in || echo out", timeout=90).strip()
    return device(host, portal, iqn) if answer == "in" else None


def bracketed(portal: str) -> str:
    return f"[{portal}]" if ":" in portal else portal


def device(host: Any, portal: str, iqn: str = IQN, lun: int = 0) -> str:
    link = f"/dev/disk/by-path/ip-{bracketed(portal)}:3260-iscsi-{iqn}-lun-{lun}"
    return host.run(f"for try in $(seq 100); do test -e '{link}' && break; sleep 0.2; done; readlink -f '{link}'", timeout=40).strip()


def logout(host: Any, iqn: str = IQN) -> None:
    host.run(f"iscsiadm -m node -T {iqn} --logout >/dev/null 2>&1; rm -rf /etc/iscsi/nodes/{iqn}", check=False)


# ---- beside the fake


def stories(storage: Any) -> dict[str, list[Options]]:
    """Wishes one after the other, without anything random in them."""
    a, b = ({"initiator": f"iqn.1993-08.org.debian:01:{name}", "username": name * 4, "password": f"secret-of-{name}-only"} for name in "ab")
    here = [{"ip": address} for address in (*storage.addresses, storage.addresses6[0])]
    first = {"luns": [{"path": DEVICE, "serial": SERIAL}], "portals": here[:1], "acls": [a, b]}
    rich = {
        "luns": [{"lun": 3, "path": SECOND, "read_only": True, "discard": False}, {"lun": 7, "path": FILE, "write_cache": True}],
        "portals": here, "acls": [{**a, "read_only": True, "mutual_username": "target", "mutual_password": TARGETS_SECRET}, {**b, "chap": "none"}],
    }  # fmt: skip
    rich["acls"][1] = {"initiator": b["initiator"], "chap": "none"}
    return {
        "the way in, step by step": [{"luns": first["luns"], "portals": here[:1]}, {"acls": [a]}, {"acls": [b]}],
        "all that there is": [rich, {}],
        "deny one, then the other": [first, *({"acls": [{"initiator": acl["initiator"], "state": "absent"}]} for acl in (a, b))],
        "rotate": [first, {"acls": [{**a, "username": "other", "password": "another-of-a"}]}, {"acls": [{**a, "password": "the-third-of-a"}]}],
        "mutual comes, and changes": [
            first,
            *({"acls": [{**a, "mutual_username": "target", "mutual_password": text}]} for text in (TARGETS_SECRET, "the-target-again")),
        ],
        "open, then closed": [{**first, "acls": [{"initiator": a["initiator"], "chap": "none"}, b]}, {"acls": [a]}],
        "read-only, and not any more": [first, *({"acls": [{"initiator": a["initiator"], "read_only": only}]} for only in (True, False))],
        "purge": [rich, {**first, "acls": [b], "purge_luns": True, "purge_acls": True, "purge_portals": True}],
        "another serial": [first, {"luns": [{"path": DEVICE, "serial": "other-serial"}]}],
        "a LUN more for those who are let in": [first, {"luns": [{"lun": 1, "path": SECOND}]}],
        "attributes": [
            {**first, "attributes": {"default_cmdsn_depth": 32, "ImmediateData": False}},
            {"attributes": {"default_cmdsn_depth": 48}, "luns": [{"path": DEVICE, "discard": False, "attributes": {"emulate_caw": False}}]},
        ],
        "and gone": [rich, {"state": "absent"}],
    }  # fmt: skip


STORIES = ["the way in, step by step", "all that there is", "deny one, then the other", "rotate", "mutual comes, and changes", "open, then closed"]
STORIES += ["read-only, and not any more", "purge", "another serial", "a LUN more for those who are let in", "attributes", "and gone"]


def told_by(fake: FakeLio, options: Options, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any]:
    """What the module would do and return, were the fake its back end."""
    monkeypatch.setattr(_manage_target, "open_targets", lambda options: fake)
    resource = _manage_target.Targets(options)
    want = resource.want(options)
    plan = resource.plan(want, resource.observe([want]))
    for step in plan.steps:
        step.act(*step.args)
    state = resource.observe([want]).get(want.iqn)
    assert state == plan.after
    return [step.name for step in plan.steps], as_data(state)


@pytest.mark.parametrize("name", STORIES)
def test_the_fake_tells_the_same_story(storage: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLio(SIZES)
    for part in stories(storage)[name]:
        options = {"helper": "lio", "target_iqn": IQN, "return_secrets": False, **part}
        steps, state = told_by(fake, options, monkeypatch)
        predicted = done(storage, options, check=True)
        real = done(storage, options)
        assert predicted["steps"] == real["steps"] == steps
        assert predicted["target"] == real["target"] == state
        again = done(storage, options)
        assert not again["changed"] and again["target"] == real["target"]
    assert_saved(storage, targets=0 if name == "and gone" else 1, stores=len(fake.live[IQN].luns) if IQN in fake.live else 0)


# For every number of writes: starts over, dies instead of the write after so many, runs again, and tells what came of it. Each
# mkdir, rmdir, symlink, unlink, rename and file opened for writing is a write. One process, because starting it costs most.
KILLER = """
import builtins, json, os, sys, subprocess
sys.path.insert(0, ".")
import rtslib_fb, rtslib_fb.root, rtslib_fb.tcm, rtslib_fb.utils
from ansible_collections.stackless.block.plugins.module_utils._manage_target import Targets
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret, as_data
order = json.load(sys.stdin)
saveconfig = rtslib_fb.root.default_save_file

def converge(item):
    resource = Targets({"helper": "lio", "saveconfig": None, "return_secrets": False, **item})
    want = resource.want(item)
    plan = resource.plan(want, resource.observe([want]))
    for step in plan.steps:
        step.act(*step.args)
    resource.flush()
    return resource, resource.observe([want]).get(want.iqn) == plan.after, bool(plan.steps)

def start_over():
    rtslib_fb.RTSRoot().clear_existing(confirm=True)
    for path in (saveconfig, saveconfig + ".stackless-block"):
        if os.path.exists(path):
            os.unlink(path)
    for item in order["before"]:
        converge(item)

def die_after(writes):
    left = iter(range(writes))
    def counted(act, counts):
        def once(*a, **k):
            if counts(*a, **k) and next(left, None) is None:
                os.kill(os.getpid(), 9)
            return act(*a, **k)
        return once
    for name in ("mkdir", "rmdir", "symlink", "unlink", "replace"):
        setattr(os, name, counted(getattr(os, name), lambda *a, **k: True))
    builtins.open = counted(builtins.open, lambda path, mode="r", *a, **k: mode == "w" and (isinstance(path, int) or "/config/target/" in path))
    os.open = counted(os.open, lambda path, flags, *a, **k: bool(flags & os.O_CREAT) and "saveconfig" in path)
    converge(order["item"])

def tidy(value):
    if isinstance(value, dict):
        return {key: tidy(value[key]) for key in sorted(value) if key != "alias"}
    return sorted((tidy(one) for one in value), key=json.dumps) if isinstance(value, list) else value

def finish():
    _resource, settled, _changed = converge(order["item"])
    _resource, _settled, changed = converge(order["item"])
    live, saved = tidy(rtslib_fb.RTSRoot().dump()), tidy(json.load(open(saveconfig)))
    files = os.listdir(os.path.dirname(saveconfig))
    print(json.dumps({"settled": settled, "changed": changed, "same": live == saved, "live": live, "files": files}), flush=True)

def forked(act, *arguments):
    child = os.fork()
    if child == 0:
        try:
            act(*arguments)
            os._exit(0)
        except BaseException as error:
            print(json.dumps({"error": repr(error)}), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for writes in [-1, *range(order["first"], 1000, order["stride"])]:
    if forked(start_over):
        break
    if writes >= 0 and forked(die_after, writes) != -9:
        break
    if forked(finish):
        break
"""


def ends(host: Any, before: list[Options], item: Options, first: int, stride: int) -> list[Options]:
    """What came of a run that was not killed, then of those that were."""
    order = json.dumps({"before": before, "item": item, "first": first, "stride": stride})
    place = host.checkout()
    host.run(f"cat > {place}/killer.py", input=KILLER)
    found = [json.loads(line) for line in host.run(f"cd {place} && python3 killer.py", timeout=500, input=order).splitlines()]
    assert not [one for one in found if "error" in one], found[-1]
    return found


KILLED = {"made": ("all that there is", 1, 5), "shrunk": ("purge", 2, 4), "rotated": ("rotate", 2, 1), "withdrawn": ("and gone", 2, 3)}


@pytest.mark.parametrize("case", KILLED)
def test_killed_between_any_two_writes_it_ends_the_same(storage: Any, case: str) -> None:
    name, parts, stride = KILLED[case]
    *before, last = ({"target_iqn": IQN, **part} for part in stories(storage)[name][:parts])
    undisturbed, *killed = ends(storage, before, {"helper": "lio", **last}, 0, stride)
    assert len(killed) > 5, "no write was ever cut off"
    for count, one in enumerate(killed):
        assert one == undisturbed, f"killed instead of write {count * stride + 1}"
    assert undisturbed["settled"] and undisturbed["same"] and not undisturbed["changed"]
    assert "saveconfig.json.stackless-block" not in undisturbed["files"]
    assert case != "withdrawn" or undisturbed["live"]["storage_objects"] == []


def test_what_a_killed_run_made_and_never_saved_goes_with_a_withdrawal(storage: Any, wish: Options) -> None:
    done(storage, {**wish, "state": "absent"})
    place = storage.checkout()
    storage.run(f"cat > {place}/killer.py", input=KILLER.partition("for writes in")[0] + "forked(die_after, order['first'])")
    for writes in (3, 8, 12, 16, 20, 26):
        order = json.dumps({"before": [], "item": {key: wish[key] for key in ("target_iqn", "portals", "luns")}, "first": writes})
        storage.run(f"cd {place} && python3 killer.py", input=order)
        half_made = storage.run(f"ls -d {CONFIGFS}/iscsi/iqn* {CONFIGFS}/core/*_*/* 2>/dev/null || true")
        done(storage, {**wish, "state": "absent"})
        assert half_made and storage.run(f"ls -d {CONFIGFS}/iscsi/iqn* {CONFIGFS}/core/*_*/*/ 2>/dev/null || true") == "", f"after write {writes}"


# ---- what initiators see


def test_the_door_opens_for_the_right_secret_only_and_the_disk_is_what_was_said(storage: Any, lab: Any, wish: Options, me: str) -> None:
    answer = done(storage, wish)
    assert answer["luns"] == [
        {"lun": 0, "path": DEVICE, "serial": SERIAL, "wwid": WWID, "size_bytes": 32 * MIB, "read_only": False, "bstype": "block",
         "write_cache": answer["luns"][0]["write_cache"], "discard": True, "attributes": []}
    ]  # fmt: skip
    username, password = pair(answer)
    assert login(lab.compute, storage.address, (username, "wrong-" + password)) is None
    assert login(lab.compute, storage.address, None) is None
    disk = login(lab.compute, storage.address, (username, password))
    name = disk.rpartition("/")[2]
    assert lab.compute.run(f"cat /sys/block/{name}/device/wwid").strip() == WWID
    page = lab.compute.run(f"od -An -tx1 /sys/block/{name}/device/vpd_pg80 | tr -d ' \\n'")
    assert SERIAL.encode().hex() in page
    size, read_only, discard = lab.compute.run(f"blockdev --getsize64 --getro {disk}; cat /sys/block/{name}/queue/discard_max_bytes").split()
    assert (size, read_only) == (str(32 * MIB), "0") and discard != "0"
    lab.compute.run(f"printf 'a pattern' | dd of={disk} bs=512 seek=3 conv=sync oflag=direct status=none")
    assert storage.run(f"dd if={DEVICE} bs=512 skip=3 count=1 iflag=direct status=none | head -c 9") == "a pattern"
    assert [s["initiator"] for s in info(storage, IQN)["targets"][0]["sessions"]] == [me]


@pytest.mark.parametrize("serial", ["volume-1", "0123456789abcdef0123456789abcdef", "Zz-A", "0b5e7a1c222242228333444455556666abcd"])
def test_the_wwid_is_what_the_kernel_makes_of_the_serial(storage: Any, lab: Any, wish: Options, serial: str) -> None:
    answer = done(storage, {**wish, "luns": [{"path": FILE, "serial": serial}]})
    disk = login(lab.compute, storage.address, pair(answer))
    assert lab.compute.run(f"cat /sys/block/{disk.rpartition('/')[2]}/device/wwid").strip() == answer["luns"][0]["wwid"]


def test_mutual_chap_both_ways(storage: Any, lab: Any, wish: Options) -> None:
    wish["acls"][0].update(username="someone", password=SECRET, mutual_username="target", mutual_password=TARGETS_SECRET)
    done(storage, wish)
    assert login(lab.compute, storage.address, ("someone", SECRET), ("target", OTHER_SECRET)) is None
    assert login(lab.compute, storage.address, ("someone", SECRET), ("target", TARGETS_SECRET))


def test_portals_of_both_kinds_reach_the_same_disk(storage: Any, lab: Any, wish: Options) -> None:
    wish["portals"] = [{"ip": storage.addresses[1]}, {"ip": storage.addresses6[0]}]
    answer = done(storage, wish)
    assert login(lab.compute, storage.addresses6[0], pair(answer))
    assert info(storage, IQN)["targets"][0]["sessions"][0]["ip"]
    logout(lab.compute)
    assert login(lab.compute, storage.addresses[1], pair(answer))
    assert "close portal" in json.dumps(run_out(storage, lab, {**wish, "portals": wish["portals"][:1], "purge_portals": True}))
    assert login(lab.compute, storage.addresses6[0], pair(answer)) is None


def run_out(storage: Any, lab: Any, options: Options) -> list[str]:
    """Refused while someone is logged in, done when nobody is."""
    assert "in use by" in refused(storage, options)
    logout(lab.compute)
    return done(storage, options)["steps"]


def test_read_only_for_all_and_for_one(storage: Any, lab: Any, wish: Options, me: str) -> None:
    answer = done(storage, {**wish, "acls": [{"initiator": me, "read_only": True}]})
    disk = login(lab.compute, storage.address, pair(answer))
    assert lab.compute.run(f"blockdev --getro {disk}").strip() == "1"
    logout(lab.compute)
    done(storage, {**wish, "acls": [{"initiator": me, "read_only": False}]})
    disk = login(lab.compute, storage.address, pair(answer))
    assert lab.compute.run(f"blockdev --getro {disk}").strip() == "0"
    logout(lab.compute)
    for path in (DEVICE, FILE):
        done(storage, {**wish, "state": "absent"})
        made = done(storage, {**wish, "luns": [{"path": path, "serial": SERIAL, "read_only": True}]})
        disk = login(lab.compute, storage.address, pair(made))
        assert lab.compute.run(f"blockdev --getro {disk}").strip() == "1", path
        logout(lab.compute)


def test_an_open_door_beside_a_closed_one(storage: Any, lab: Any, wish: Options, me: str) -> None:
    done(storage, {**wish, "acls": [{"initiator": me, "chap": "none"}, {"initiator": STRANGER}]})
    assert login(lab.compute, storage.address, None)
    logout(lab.compute)
    closed = done(storage, {**wish, "acls": [{"initiator": me}], "return_secrets": False})
    assert closed["changed"] and login(lab.compute, storage.address, None) is None
    assert storage.run(f"cat {CONFIGFS}/iscsi/{IQN}/tpgt_1/attrib/authentication").strip() == "1"


def test_secrets_rotate_under_a_session(storage: Any, lab: Any, wish: Options, me: str) -> None:
    old = pair(done(storage, wish))
    disk = login(lab.compute, storage.address, old)
    done(storage, {**wish, "acls": [{"initiator": me, "username": "rotated", "password": OTHER_SECRET}]})
    lab.compute.run(f"dd if={disk} of=/dev/null bs=4k count=1 iflag=direct status=none")
    logout(lab.compute)
    assert login(lab.compute, storage.address, old) is None
    assert login(lab.compute, storage.address, ("rotated", OTHER_SECRET))


def test_what_is_in_use_stays_and_still_grows(storage: Any, lab: Any, wish: Options, me: str) -> None:
    answer = done(storage, wish)
    disk = login(lab.compute, storage.address, pair(answer))
    before = everything(storage)
    for change in (
        {"acls": [{"initiator": me, "state": "absent"}]},
        {"acls": [], "purge_acls": True},
        {"luns": [], "purge_luns": True},
        {"luns": [{"path": DEVICE, "serial": "another"}]},
        {"portals": [{"ip": storage.addresses[1]}], "purge_portals": True},
        {"state": "absent"},
    ):
        assert me in refused(storage, {**wish, **change}) and me in refused(storage, {**wish, **change}, check=True), change
    assert everything(storage) == before
    storage.run("lvextend -q -L 48M volumes/lio-a >/dev/null")
    grown = done(storage, wish)
    assert not grown["changed"] and grown["luns"][0]["size_bytes"] == 48 * MIB
    lab.compute.run(f"echo 1 > /sys/block/{disk.rpartition('/')[2]}/device/rescan")
    assert lab.compute.run(f"blockdev --getsize64 {disk}").strip() == str(48 * MIB)
    logout(lab.compute)
    gone = done(storage, {**wish, "state": "absent"})
    assert gone["changed"]
    storage.run("lvremove -q -y volumes/lio-a && lvcreate -q -y -W n -L 32M -n lio-a volumes")  # nothing holds it any more


# ---- nothing is done by looking


def test_check_mode_on_an_untouched_host_loads_and_writes_nothing(storage: Any, wish: Options) -> None:
    storage.run(f"""
        if test -d {CONFIGFS}; then
            rmdir {CONFIGFS}/iscsi {CONFIGFS}/core/* 2>/dev/null || true; rmdir {CONFIGFS}/* 2>/dev/null || true
            modules="iscsi_target_mod target_core_iblock target_core_file target_core_pscsi target_core_user target_core_mod"
            for try in 1 2 3; do modprobe -rq $modules || true; done
        fi
        rm -rf /etc/rtslib-fb-target
        ! grep -q target_core_mod /proc/modules""")  # fmt: skip
    before = everything(storage)
    assert before.strip() == "0"
    told = done(storage, wish, check=True)
    assert info(storage)["targets"] == []
    assert everything(storage) == before and storage.run("ls -d /etc/rtslib-fb-target || true").strip() == ""
    made = done(storage, wish)
    assert made["steps"] == told["steps"] and masked(made) == masked(told)
    looked = everything(storage)
    assert not done(storage, wish, check=True)["changed"] and info(storage)["targets"]
    assert done(storage, {**wish, "state": "absent"}, check=True)["changed"]
    assert everything(storage) == looked


def masked(answer: Options) -> str:
    """The diff without the random name of the account."""
    names = [acl["username"] for acl in answer["acls"]]
    text = json.dumps(answer["diff"])
    for name in names:
        text = text.replace(name, "NAME")
    return text


# ---- the saved form, and what a restore makes of it


def test_targets_of_others_stay_as_they_are_live_and_saved(storage: Any, wish: Options) -> None:
    by_hand = f"""
        targetcli /backstores/block create name=disk1 dev={SECOND} >/dev/null
        targetcli /iscsi create {STRANGER} >/dev/null
        targetcli /iscsi/{STRANGER}/tpg1/portals delete 0.0.0.0 3260 >/dev/null
        targetcli /iscsi/{STRANGER}/tpg1/luns create /backstores/block/disk1 >/dev/null
        targetcli /iscsi/{STRANGER}/tpg1/acls create iqn.1993-08.org.debian:01:b >/dev/null
        targetcli saveconfig >/dev/null"""
    storage.run(by_hand, timeout=120)
    theirs = [part for part in compared(storage)["live"]["targets"] if part["wwn"] == STRANGER]
    done(storage, wish)
    assert_saved(storage, targets=2, stores=2)
    assert f"{SECOND} for LUN 0 of {IQN}-2 is already the backstore block/disk1 of someone else" in refused(
        storage, {**wish, "target_iqn": IQN + "-2", "luns": [{"path": SECOND}]}, check=True
    )
    done(storage, {**wish, "state": "absent"})
    found = compared(storage)
    assert found["same"] and found["live"]["targets"] == theirs
    adopted = done(storage, {"helper": "lio", "target_iqn": STRANGER, "acls": [{"initiator": "iqn.1993-08.org.debian:01:b"}]})
    assert [lun["path"] for lun in adopted["luns"]] == [SECOND] and adopted["steps"][-1].startswith("save")
    done(storage, {"helper": "lio", "target_iqn": STRANGER, "state": "absent"})
    assert storage.run(f"ls {CONFIGFS}/core/*/ -d; ls -d {CONFIGFS}/core/*/disk1").strip().endswith("disk1")


def test_targetctl_restores_what_was_saved_and_a_run_finds_nothing_to_do(storage: Any, wish: Options, me: str) -> None:
    rich = {
        **wish, "portals": [{"ip": storage.address}, {"ip": storage.addresses6[0]}], "attributes": {"default_cmdsn_depth": 32},
        "luns": [{"path": DEVICE, "serial": SERIAL, "discard": False}, {"lun": 4, "path": FILE, "write_cache": True, "read_only": True}],
        "acls": [{"initiator": me, "mutual_username": "target", "mutual_password": TARGETS_SECRET, "read_only": True}, {"initiator": STRANGER, "chap": "none"}],
    }  # fmt: skip
    first = done(storage, rich)
    storage.run("targetctl clear; targetctl restore", timeout=120)
    again = done(storage, rich)
    assert not again["changed"] and again["target"] == first["target"] and again["credentials"] == first["credentials"]


def test_a_restore_that_came_up_short_is_told_repaired_and_never_saved_over(storage: Any, lab: Any, wish: Options) -> None:
    first = done(storage, {**wish, "luns": [{"path": DEVICE, "serial": SERIAL, "attributes": {"emulate_caw": False}}]})
    other = {**wish, "target_iqn": IQN + "-2", "luns": [{"path": SECOND}]}
    done(storage, other)
    storage.run("targetctl clear; lvchange -an volumes/lio-a; targetctl restore", timeout=120)
    saved = storage.run(f"cat {SAVECONFIG}")
    incomplete = {target["target_iqn"]: target["incomplete"] for target in info(storage)["targets"]}
    assert incomplete == {IQN: [f"LUN 0 ({DEVICE})"], IQN + "-2": []}
    assert f"no file or block device {DEVICE} for LUN 0" in refused(storage, wish)
    assert storage.run(f"cat {SAVECONFIG}") == saved
    done(storage, {**other, "acls": [{"initiator": STRANGER}]})
    kept = [store for store in json.loads(storage.run(f"cat {SAVECONFIG}"))["storage_objects"] if store["wwn"] == SERIAL]
    assert kept, "the next save lost what the restore left out"
    storage.run("lvchange -ay volumes/lio-a")
    repaired = done(storage, {"helper": "lio", "target_iqn": IQN})
    luns = [{**lun, "attributes": []} for lun in first["luns"]]  # told as far as they are asked for
    assert repaired["steps"][0] == f"add LUN 0 ({DEVICE}) to {IQN}" and repaired["luns"] == luns
    assert info(storage, IQN)["targets"][0]["incomplete"] == [] and compared(storage)["same"]
    assert [store["attributes"]["emulate_caw"] for store in compared(storage)["live"]["storage_objects"] if store["wwn"] == SERIAL] == [0]
    assert login(lab.compute, storage.address, pair(first))
    logout(lab.compute)
    storage.run("targetctl clear")
    assert info(storage, IQN)["targets"][0]["incomplete"] == [f"target {IQN}"]
    whole = done(storage, {"helper": "lio", "target_iqn": IQN, "return_secrets": True})
    assert whole["luns"] == luns and whole["credentials"] == first["credentials"]
    assert login(lab.compute, storage.address, pair(first))


def test_a_change_that_nobody_saved_is_noticed(storage: Any, wish: Options) -> None:
    done(storage, wish)
    storage.run(f"echo 7 > {CONFIGFS}/iscsi/{IQN}/tpgt_1/attrib/login_timeout; chmod 644 {SAVECONFIG}")
    assert done(storage, wish)["steps"] == [f"save target {IQN}"]
    assert_saved(storage, targets=1, stores=1)


BAD = {
    "a broken file": (lambda host: host.run(f"mkdir -p /etc/rtslib-fb-target; echo '{{' > {SAVECONFIG}"), {}, f"{SAVECONFIG} can't be read"),
    "an underscore": (None, {"acls": [{"initiator": "iqn.1993-08.org.debian:01:a_b"}]}, "take no underscore"),
    "a portal of another host": (None, {"portals": [{"ip": "203.0.113.77"}]}, "nobody can listen at portal 203.0.113.77:3260"),
    "LUN 256": (None, {"luns": [{"lun": 256, "path": DEVICE}]}, "choose a number from 0 to 255"),
    "no data": (None, {"luns": [{"path": "/dev/volumes/none"}]}, "no file or block device /dev/volumes/none for LUN 0"),
    "a mounted device": (lambda host: host.run(f"mkfs.ext4 -q {THIRD}; mount {THIRD} /mnt"), {"luns": [{"path": THIRD}]}, "or mounted"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_before_anything_is_changed(storage: Any, wish: Options, case: str) -> None:
    befall, change, words = BAD[case]
    if befall:
        befall(storage)
    before = everything(storage)
    try:
        for check in (True, False):
            message = refused(storage, {**wish, **change}, check=check)
            assert words in message and "\n" not in message
        assert everything(storage) == before
    finally:
        storage.run("umount /mnt 2>/dev/null || true")


def test_an_attribute_that_the_kernel_does_not_have_is_named(storage: Any, wish: Options) -> None:
    answer = storage.module("iscsi_target", {**wish, "attributes": {"no_such_attribute": 1}})
    assert answer["failed"] and "no_such_attribute" in answer["msg"] and "Traceback" not in json.dumps(answer)


def test_a_host_without_rtslib_is_told_which_package_is_missing(storage: Any, wish: Options) -> None:
    storage.run("mv /usr/lib/python3/dist-packages/rtslib_fb /usr/lib/python3/dist-packages/rtslib_fb.away")
    try:
        assert "install the package python3-rtslib-fb" in refused(storage, wish)
    finally:
        storage.run("mv /usr/lib/python3/dist-packages/rtslib_fb.away /usr/lib/python3/dist-packages/rtslib_fb")


# ---- many, and secret


def test_twenty_targets_cost_one_save_and_little_more_than_their_share(storage: Any, wish: Options) -> None:
    storage.run("for n in $(seq 40); do truncate -s 1M /srv/lio-$n; done")

    def targets(first: int, count: int) -> Options:
        items = [{"target_iqn": f"{IQN}-{n}", "luns": [{"path": f"/srv/lio-{n}"}]} for n in range(first, first + count)]
        return {"helper": "lio", "portals": wish["portals"], "acls": wish["acls"], "targets": items}

    def seconds(options: Options) -> float:
        begun = time.monotonic()
        assert len(done(storage, options)["results"]) == len(options["targets"])
        return time.monotonic() - begun

    renamed = storage.run(f"stat -c %i {SAVECONFIG} 2>/dev/null || true")
    one = seconds(targets(1, 1))
    twenty = seconds(targets(2, 20))
    assert storage.run(f"stat -c %i {SAVECONFIG}") != renamed
    assert twenty < 20 * one / 3
    again = seconds(targets(22, 1))
    assert again < 2.5 * one + 1, "the cost of one grew with what exists"
    assert_saved(storage, targets=22, stores=22)
    assert not done(storage, targets(1, 22))["changed"]
    done(storage, {**targets(1, 22), "state": "absent"})
    assert_saved(storage, targets=0, stores=0)


def test_secrets_are_in_no_command_line_result_or_readable_file(storage: Any, wish: Options) -> None:
    wish["acls"][0].update(username="someone", password=SECRET, mutual_username="target", mutual_password=TARGETS_SECRET)
    watcher = "( timeout 40 sh -c 'while test ! -e /tmp/stop; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr \"\\0\" \" \"; done' > /tmp/seen ) >/dev/null 2>&1 &"
    storage.run(f"rm -f /tmp/stop /tmp/seen; {watcher} sleep 0.2")
    answers = [done(storage, {**wish, "return_secrets": False, "state": state}) for state in ("present", "absent", "present")]
    storage.run("touch /tmp/stop; sleep 0.5")
    assert storage.run("grep -ac iscsi_target /tmp/seen || true").strip() != "0", "the watcher saw nothing"
    for secret in (SECRET, TARGETS_SECRET):
        assert storage.run(f"grep -ac {secret} /tmp/seen || true").strip() == "0"
        assert secret not in json.dumps(answers) and secret in storage.run(f"cat {SAVECONFIG}")
    assert storage.run(f"stat -c %a {SAVECONFIG}").strip() == "600"
