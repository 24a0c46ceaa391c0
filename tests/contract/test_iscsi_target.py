# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iscsi_target and iscsi_target_info on a real tgtd; whether a door opens is asked of libiscsi and of QEMU's own initiator."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.rig.collection import run_module
from tests.rig.tgtd import Tgtd, free_port

IQN = "iqn.2026-01.org.example:volume-1"
LONGER = "iqn.2026-01.org.example:volume-10"
SERIAL = "0b5e7a1c-2222-4222-8333-444455556666"
A, B = "iqn.1993-08.org.debian:01:a", "iqn.1993-08.org.debian:01:b"
MIB = 1 << 20
SECRET, OTHER_SECRET = "given-secret-of-A", "given-secret-of-B"

Options = dict[str, Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[Tgtd]:
    with Tgtd("127.0.0.1", "::1") as running:
        yield running


@pytest.fixture
def tgtd(shared: Tgtd) -> Iterator[Tgtd]:
    """A tgtd that knows nothing yet."""
    for path in shared.config_dir.iterdir():
        path.unlink()
    shared.restart()
    yield shared


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return sized(tmp_path / "volume-1", 16 * MIB)


@pytest.fixture
def wish(tgtd: Tgtd, volume: Path) -> Options:
    """One LUN, one portal, one initiator with a generated pair."""
    luns = [{"path": str(volume), "serial": SERIAL}]
    return {**tgtd.options, "target_iqn": IQN, "portals": tgtd.portal_options[:1], "luns": luns, "acls": [{"initiator": A}], "return_secrets": True}


def sized(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def done(options: Options, **how: Any) -> Options:
    answer = run_module("iscsi_target", options, **how)
    assert not answer.get("failed"), answer["msg"]
    return answer


def refused(options: Options, **how: Any) -> str:
    answer = run_module("iscsi_target", options, **how)
    assert answer.get("failed") and not answer.get("steps"), answer
    assert "Traceback" not in json.dumps(answer)
    return answer["msg"]


def pair(answer: Options, initiator: str = A) -> tuple[str, str]:
    found = next(c for c in answer["credentials"] if c["initiator"] == initiator)
    return found["username"], found["password"]


def inquiry(tgtd: Tgtd, initiator: str, auth: tuple[str, str] | None, page: int | None = None, lun: int = 1, portal: int = 0) -> bytes | None:
    """What libiscsi's iscsi-inq prints of a LUN, or None when it is not let in."""
    ip, port = tgtd.portals[portal]
    where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    secrets = {"LIBISCSI_CHAP_USERNAME": auth[0], "LIBISCSI_CHAP_PASSWORD": auth[1]} if auth else {}
    evpd = ["-e", "1", "-c", str(page)] if page else []
    called = subprocess.run(
        ["iscsi-inq", "-i", initiator, *evpd, f"iscsi://{where}/{IQN}/{lun}"],
        capture_output=True, timeout=20, check=False, env={**os.environ, **secrets},
    )  # fmt: skip
    return called.stdout if called.returncode == 0 else None


@contextlib.contextmanager
def logged_in(tgtd: Tgtd, initiator: str, auth: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """QEMU's own initiator, with LUN 1 open, as long as the block lasts."""
    ip, port = tgtd.portals[0]
    drive = f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={ip}:{port},file.target={IQN},file.lun=1,file.initiator-name={initiator}"
    secret = tgtd.directory / "secret"
    secret.write_text(auth[1])
    with subprocess.Popen(
        ["qemu-io", "--object", f"secret,id=chap,file={secret}", "--image-opts", f"{drive},file.user={auth[0]},file.password-secret=chap"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdin.write("length\n")
        process.stdin.flush()
        assert "16 MiB" in process.stdout.readline()
        yield process
        process.stdin.write("quit\n")
        process.stdin.close()
        process.wait(10)


def everything(tgtd: Tgtd) -> tuple[Any, ...]:
    """All that a write would change: the daemon's state, and the files with their inodes and times."""
    shown = [tgtd.adm("--op", "show", "--mode", mode) for mode in ("target", "portal", "account")]
    return shown, {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_mode) for path in tgtd.config_dir.iterdir()}


def saved_file(tgtd: Tgtd) -> Path:
    return tgtd.config_dir / "iqn.2026-01.org.example_volume-1.conf"


# ---- the way in and out


def test_check_mode_tells_the_whole_way_and_writes_nothing(tgtd: Tgtd, wish: Options) -> None:
    before = everything(tgtd)
    predicted = done(wish, check=True)
    assert everything(tgtd) == before
    real = done(wish)
    assert predicted["steps"] == real["steps"] and predicted["changed"] and real["changed"]
    assert predicted["luns"] == real["luns"] and predicted["portals"] == real["portals"] == wish["portals"]


def test_a_second_run_changes_and_writes_nothing(tgtd: Tgtd, wish: Options) -> None:
    first = done(wish)
    before = everything(tgtd)
    for check in (False, True):
        again = done(wish, check=check)
        assert not again["changed"] and again["steps"] == [] and again["diff"] == []
        assert again["credentials"] == first["credentials"]
    assert everything(tgtd) == before


def test_the_door_opens_for_the_one_pair_and_initiator_only(tgtd: Tgtd, wish: Options) -> None:
    answer = done({**wish, "portals": tgtd.portal_options})
    username, password = pair(answer)
    assert len(username) == 20 and len(password) == 16
    assert inquiry(tgtd, A, (username, password)) and inquiry(tgtd, A, (username, password), portal=1)
    assert inquiry(tgtd, A, (username, password + "x")) is None
    assert inquiry(tgtd, A, ("someone", password)) is None
    assert inquiry(tgtd, A, None) is None
    assert inquiry(tgtd, B, (username, password)) is None


def test_initiators_see_the_serial_and_the_wwid(tgtd: Tgtd, wish: Options) -> None:
    answer = done(wish)
    assert SERIAL.encode() in inquiry(tgtd, A, pair(answer), page=0x80)
    designator = bytes.fromhex(answer["luns"][0]["wwid"][len("naa.") :])
    assert b"[" + designator.split(b"\0")[0] + b"]" in inquiry(tgtd, A, pair(answer), page=0x83)  # iscsi-inq prints it as text


def test_denying_one_host_leaves_the_other_its_door(tgtd: Tgtd, wish: Options) -> None:
    answer = done({**wish, "acls": [{"initiator": A}, {"initiator": B}]})
    denied = done({**wish, "acls": [{"initiator": A, "state": "absent"}]})
    assert [acl["initiator"] for acl in denied["acls"]] == [B]
    assert inquiry(tgtd, A, pair(answer, A)) is None
    assert inquiry(tgtd, B, pair(answer, B))
    assert pair(answer, A)[0] not in tgtd.adm("--op", "show", "--mode", "account") + saved_file(tgtd).read_text()


def test_nothing_is_left_of_a_removed_target(tgtd: Tgtd, wish: Options) -> None:
    before = everything(tgtd)
    done({**wish, "acls": [{"initiator": A, "mutual_username": "target", "mutual_password": OTHER_SECRET}]})
    gone = done({**tgtd.options, "target_iqn": IQN, "state": "absent"})
    assert gone["changed"] and gone["target"] is None
    assert everything(tgtd) == before
    assert not done({**tgtd.options, "target_iqn": IQN, "state": "absent"})["changed"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_file_left_by_a_killed_save_is_taken_away(tgtd: Tgtd, wish: Options, state: str) -> None:
    left = tgtd.config_dir / f".{saved_file(tgtd).name}.new"
    left.write_text(SECRET)
    assert done({**wish, "state": state})["changed"] and not left.exists()
    done(wish)
    left.write_text(SECRET)
    assert done({**wish, "state": state}, check=True)["changed"] and left.exists()
    assert done({**wish, "state": state})["changed"] and not left.exists()
    assert not done({**wish, "state": state})["changed"]


def test_a_name_is_never_taken_for_a_longer_one(tgtd: Tgtd, wish: Options) -> None:
    done({**wish, "target_iqn": LONGER})
    assert not done({**tgtd.options, "target_iqn": IQN, "state": "absent"})["changed"]
    info = run_module("iscsi_target_info", {**tgtd.options, "target_iqns": [IQN, LONGER]})
    assert [target["target_iqn"] for target in info["targets"]] == [LONGER]


def test_data_goes_through_qemus_initiator(tgtd: Tgtd, wish: Options, volume: Path) -> None:
    with logged_in(tgtd, A, pair(done(wish))) as qemu:
        qemu.stdin.write("write -P 0x5a 0 1M\nflush\n")
        qemu.stdin.flush()
        assert "wrote 1048576/1048576" in qemu.stdout.readline()
    assert volume.read_bytes()[:MIB] == b"\x5a" * MIB


def test_a_read_only_lun_refuses_writing(tgtd: Tgtd, wish: Options) -> None:
    wish["luns"][0].update(read_only=True, bstype="aio", write_cache=False)
    shown = done(wish)["luns"][0]
    assert (shown["read_only"], shown["bstype"], shown["write_cache"]) == (True, "aio", False)
    assert "Readonly: Yes" in tgtd.adm("--op", "show", "--mode", "target")
    assert not done(wish)["changed"]


# ---- drift


def change_password(tgtd: Tgtd, answer: Options) -> None:
    username = pair(answer)[0]
    tgtd.adm("--op", "delete", "--mode", "account", "--user", username)
    tgtd.adm("--op", "new", "--mode", "account", "--user", username, "--password", "changed-by-hand")
    tgtd.adm("--op", "bind", "--mode", "account", "--tid", "1", "--user", username)


DRIFTS: dict[str, tuple[Callable[[Tgtd, Options], Any], list[str]]] = {
    "the password changed": (change_password, [f"set the CHAP secret of {A} at {IQN}"]),
    "the door shut": (lambda tgtd, _: tgtd.adm("--op", "unbind", "--mode", "target", "--tid", "1", "-Q", A), [f"admit {A} to {IQN}"]),
    "the account gone": (lambda tgtd, answer: tgtd.adm("--op", "delete", "--mode", "account", "--user", pair(answer)[0]), [f"admit {A} to {IQN}"]),
    "the LUN gone": (lambda tgtd, _: tgtd.adm("--op", "delete", "--mode", "logicalunit", "--tid", "1", "--lun", "1"), ["add LUN 1"]),
    "another serial": (
        lambda tgtd, _: tgtd.adm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "scsi_sn=other"),
        ["remove LUN 1", "add LUN 1"],
    ),
    "the file edited": (lambda tgtd, _: saved_file(tgtd).write_text(saved_file(tgtd).read_text().replace("lun 1", "lun 2")), ["save target"]),
    "the file readable": (lambda tgtd, _: saved_file(tgtd).chmod(0o644), ["save target"]),
    "tgtd restarted": (lambda tgtd, _: tgtd.restart(), ["create target", "add LUN 1", "admit"]),
    "the volume grown": (lambda tgtd, answer: os.truncate(answer["luns"][0]["path"], 32 * MIB), ["remove LUN 1", "add LUN 1"]),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_told_and_repaired_with_the_same_secrets(tgtd: Tgtd, wish: Options, drift: str) -> None:
    first = done(wish)
    befall, expected = DRIFTS[drift]
    befall(tgtd, first)
    before = everything(tgtd)
    told = done(wish, check=True)
    assert everything(tgtd) == before
    assert len(told["steps"]) == len(expected) and all(step.startswith(words) for step, words in zip(told["steps"], expected)), told["steps"]
    repaired = done(wish)
    assert repaired["steps"] == told["steps"] and repaired["credentials"] == first["credentials"]
    assert inquiry(tgtd, A, pair(first)), "the door does not open again"
    assert not done(wish)["changed"]


def test_a_portal_too_few_is_told_and_added_live(tgtd: Tgtd, wish: Options) -> None:
    done(wish)
    more = {**wish, "portals": [*wish["portals"], {"ip": "::1", "port": free_port("::1")}, {"ip": "127.0.0.1", "port": free_port("127.0.0.1")}]}
    told = done(more, check=True)
    assert [step.split()[0] for step in told["steps"]] == ["save", "listen", "listen"]
    assert done(more)["steps"] == told["steps"]
    assert not done(more)["changed"]
    tgtd.restart()  # knows the portals of its command line only
    assert [step for step in done(wish)["steps"] if step.startswith("listen")] == told["steps"][1:]


def test_a_wrong_mutual_secret_is_noticed(tgtd: Tgtd, wish: Options) -> None:
    wish["acls"] = [{"initiator": A, "mutual_username": "target", "mutual_password": OTHER_SECRET}]
    done(wish)
    for line in (["delete"], ["new", "--password", "changed-by-hand"], ["bind", "--tid", "1", "--outgoing"]):
        tgtd.adm("--op", line[0], "--mode", "account", "--user", "target", *line[1:])
    assert done(wish, check=True)["steps"] == [f"set the CHAP secret of {A} at {IQN}"]
    done(wish)
    assert not done(wish)["changed"]


def test_tgt_admin_brings_back_an_equal_target_which_does_not_let_everybody_in(tgtd: Tgtd, wish: Options) -> None:
    wish["luns"][0].update(read_only=True, write_cache=False, bstype="aio")
    wish["acls"] = [{"initiator": name, "mutual_username": "target", "mutual_password": OTHER_SECRET} for name in (A, B)]
    first = done(wish)
    tgtd.restart()
    done_by_hand = subprocess.run(
        ["tgt-admin", "-C", str(tgtd.control_port), "-c", str(saved_file(tgtd)), "--execute"],
        capture_output=True, text=True, timeout=60, check=False, env=tgtd.environment,
    )  # fmt: skip
    assert done_by_hand.returncode == 0, done_by_hand.stderr
    assert "ALL" not in tgtd.adm("--op", "show", "--mode", "target")
    assert inquiry(tgtd, A, pair(first)) and inquiry(tgtd, "iqn.2026-01.org.example:stranger", pair(first)) is None
    again = done(wish)
    assert not again["changed"] and again["target"] == first["target"]


# ---- refusals


def test_what_is_in_use_stays(tgtd: Tgtd, wish: Options, volume: Path) -> None:
    answer = done(wish)
    with logged_in(tgtd, A, pair(answer)) as qemu:
        before = everything(tgtd)
        sized(volume, 32 * MIB)
        for change in (
            {"acls": [{"initiator": A, "state": "absent"}], "luns": []},
            {"purge_acls": True, "acls": []},
            {"state": "absent"},
            {"purge_luns": True, "luns": []},
            {},
        ):
            assert A in refused({**wish, **change}) and A in refused({**wish, **change}, check=True)
        assert everything(tgtd) == before
        info = run_module("iscsi_target_info", tgtd.options)
        assert info["targets"][0]["sessions"] == [{"initiator": A, "ip": "127.0.0.1"}]
        qemu.stdin.write("read 0 4k\n")
        qemu.stdin.flush()
        assert "read 4096/4096" in qemu.stdout.readline()
    assert wait_for_logout(tgtd)
    assert done({**wish, "acls": [{"initiator": A, "state": "absent"}]})["changed"]


def wait_for_logout(tgtd: Tgtd) -> bool:
    deadline = time.monotonic() + 10
    while "Initiator:" in tgtd.adm("--op", "show", "--mode", "target") and time.monotonic() < deadline:
        time.sleep(0.05)
    return time.monotonic() < deadline


BAD = {
    "no name": ({"target_iqn": "volume-1"}, "is no iSCSI name"),
    "upper case": ({"target_iqn": "iqn.2026-01.org.example:Volume"}, "in lower case"),
    "300 characters": ({"target_iqn": "iqn.2026-01.org.example:" + "v" * 300}, "at most 223 characters"),
    "a quote": ({"target_iqn": "iqn.2026-01.org.example:v'; reboot"}, "is no iSCSI name"),
    "unicode": ({"target_iqn": "iqn.2026-01.org.example:größe"}, "is no iSCSI name"),
    "a line break": ({"target_iqn": IQN + "\n"}, "is no iSCSI name"),
    "initiator": ({"acls": [{"initiator": "compute 1"}]}, "initiatorname.iscsi"),
    "host name": ({"portals": [{"ip": "storage.example"}]}, "is no IP address"),
    "port": ({"portals": [{"ip": "127.0.0.1", "port": 70000}]}, "port 70000"),
    "a portal of another host": ({"portals": [{"ip": "192.0.2.1"}]}, "nobody can listen at portal 192.0.2.1:3260"),
    "LUN 0": ({"luns": [{"lun": 0, "path": "/srv/x"}]}, "LUN 0"),
    "LUN twice": ({"luns": [{"path": "/srv/x"}, {"path": "/srv/y"}]}, "LUN 1 stands twice"),
    "initiator twice": ({"acls": [{"initiator": A}, {"initiator": A}]}, f"initiator {A} stands twice"),
    "no data": ({"luns": [{"path": "/srv/none"}]}, "no file or block device /srv/none"),
    "a directory": ({"luns": [{"path": "/srv"}]}, "no file or block device /srv"),
    "a comma": ({"luns": [{"path": "/srv/a,readonly=1"}]}, "can't hold others"),
    "a blank": ({"luns": [{"path": "/srv/a b"}]}, "can't hold others"),
    "a long serial": ({"luns": [{"path": "/srv/x", "serial": "s" * 37}]}, "1 to 36"),
    "bstype": ({"luns": [{"path": "/dev/null", "bstype": "rbd"}]}, "/dev/null"),
    "a short password": ({"acls": [{"initiator": A, "username": "a", "password": "short"}]}, "12 to 128"),
    "no password": ({"acls": [{"initiator": A, "username": "a"}]}, "both username and password"),
    "none and a password": ({"acls": [{"initiator": A, "chap": "none", "username": "a", "password": SECRET}]}, "chap is none"),
    "mutual as incoming": (
        {"acls": [{"initiator": A, "username": "a", "password": SECRET, "mutual_username": "t", "mutual_password": SECRET}]},
        "either side play the other",
    ),
    "purged portals": ({"purge_portals": True, "portals": []}, "serves all targets"),
    "no tgtd": ({"control_port": 99}, "tgtd does not answer"),
    "no directory": ({"config_dir": "/srv/none"}, "config_dir /srv/none does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_before_anything_is_changed(tgtd: Tgtd, wish: Options, case: str) -> None:
    change, words = BAD[case]
    before = everything(tgtd)
    message = refused({**wish, **change})
    assert words in message and "\n" not in message and SECRET not in message
    assert everything(tgtd) == before


def test_a_file_of_someone_else_is_not_overwritten(tgtd: Tgtd, wish: Options) -> None:
    saved_file(tgtd).write_text(f"<target {IQN}>\n</target>\n")
    assert "is not of this collection" in refused(wish)
    assert "is not of this collection" in refused({**wish, "state": "absent"})
    assert saved_file(tgtd).read_text() == f"<target {IQN}>\n</target>\n"


def test_a_target_of_someone_else_keeps_its_parts_when_it_is_named(tgtd: Tgtd, wish: Options, tmp_path: Path) -> None:
    foreign = sized(tmp_path / "foreign", MIB)
    tgtd.adm("--op", "new", "--mode", "target", "--tid", "1", "-T", IQN)
    tgtd.adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "5", "-b", str(foreign))
    tgtd.adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
    answer = done(wish)
    assert "from ALL" in json.dumps(answer["warnings"])
    assert [lun["lun"] for lun in answer["luns"]] == [1, 5] and inquiry(tgtd, A, pair(answer), lun=5)
    assert "foreign" not in saved_file(tgtd).read_text()
    purged = done({**wish, "purge_acls": True, "purge_luns": True})
    assert [lun["lun"] for lun in purged["luns"]] == [1] and "ALL" not in tgtd.adm("--op", "show", "--mode", "target")


# ---- many, predicted, and secret


def test_many_targets_in_one_task_fail_one_by_one(tgtd: Tgtd, wish: Options) -> None:
    top = {key: value for key, value in wish.items() if key != "target_iqn"}
    iqns = [f"iqn.2026-01.org.example:many-{n}" for n in range(30)]
    targets = [{"target_iqn": iqn} for iqn in iqns]
    targets[7]["luns"] = [{"path": "/srv/none"}]
    answer = run_module("iscsi_target", {**top, "targets": targets})
    assert answer["failed"] and answer["msg"].startswith("1 of 30 failed")
    assert [result["failed"] for result in answer["results"]] == [n == 7 for n in range(30)]
    info = run_module("iscsi_target_info", tgtd.options)
    assert {target["target_iqn"] for target in info["targets"]} == set(iqns) - {iqns[7]}


def test_the_cost_of_a_target_does_not_grow_with_their_number(tgtd: Tgtd, wish: Options) -> None:
    top = {key: value for key, value in wish.items() if key != "target_iqn"}

    def seconds(first: int, count: int) -> float:
        begun = time.monotonic()
        done({**top, "targets": [{"target_iqn": f"iqn.2026-01.org.example:many-{n}"} for n in range(first, first + count)]})
        return time.monotonic() - begun

    one = seconds(0, 1)
    assert seconds(1, 100) < 3 * one + 1


def test_check_mode_builds_on_what_earlier_tasks_predicted(tgtd: Tgtd, wish: Options, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    made = run_module("cinder_volume", {"backend": {"driver": "file", "path": str(tmp_path / "pool")}, "name": "db", "size_gib": 1}, check=True)
    assert not Path(made["path"]).exists()
    wish["luns"] = [{"path": made["path"], "serial": made["id"]}]
    wish.update(acls=[])
    assert "no file or block device" in refused(wish, check=True)
    exported = done({**wish, "assume": made["results"]}, check=True)
    assert exported["luns"][0]["size_bytes"] == 1 << 30
    admitted = done({**tgtd.options, "target_iqn": IQN, "acls": [{"initiator": A}], "assume": [*made["results"], *exported["results"]]}, check=True)
    assert admitted["steps"] == [f"save target {IQN}", f"admit {A} to {IQN}"]
    again = done({**tgtd.options, "target_iqn": IQN, "acls": [{"initiator": A}], "assume": admitted["results"]}, check=True)
    assert again["steps"] == []
    gone = done({**tgtd.options, "target_iqn": IQN, "state": "absent", "assume": admitted["results"]}, check=True)
    assert gone["changed"] and everything(tgtd)[1] == {}


def test_secrets_are_in_no_command_line_result_or_readable_file(tgtd: Tgtd, wish: Options) -> None:
    wish["acls"] = [{"initiator": A, "username": "someone", "password": SECRET, "mutual_username": "target", "mutual_password": OTHER_SECRET}]
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = [done({**wish, "return_secrets": False, "state": state}) for state in ("present", "absent", "present")]
        mode = stat.S_IMODE(saved_file(tgtd).stat().st_mode)
    finally:
        stop.set()
        watcher.join(10)
    assert any("iscsi_target" in line for line in seen), "the watcher saw nothing"
    for secret in (SECRET, OTHER_SECRET):
        assert not [line for line in seen if secret in line]
        assert secret not in json.dumps(answers) and secret in saved_file(tgtd).read_text()
    assert mode == 0o600 and "credentials" not in answers[0]


def test_who_asks_for_secrets_gets_those_too_that_he_gave(wish: Options) -> None:
    """Core masks in an answer what came in as a secret, and the next step would log in with the mask."""
    wish["acls"] = [{"initiator": A, "username": "someone", "password": SECRET, "mutual_username": "target", "mutual_password": OTHER_SECRET}]
    answer = done(wish)
    (told,) = answer["credentials"]
    assert (told["password"], told["mutual_password"]) == (SECRET, OTHER_SECRET)
    rest = json.dumps({key: value for key, value in answer.items() if key != "credentials"})
    assert "invocation" in answer and SECRET not in rest and OTHER_SECRET not in rest
