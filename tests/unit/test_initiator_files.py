# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What open-iscsi, the kernel and multipath-tools write, as it was seen on Debian 12, and what we make of it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils._hosts import iscsiadm as files
from ansible_collections.stackless.block.plugins.module_utils._hosts.command import Said, run
from ansible_collections.stackless.block.plugins.module_utils._hosts import multipath, sysfs
from ansible_collections.stackless.block.plugins.module_utils._hosts.initiator import OpenIscsiHost
from ansible_collections.stackless.block.plugins.module_utils._hosts.inquiry import Identity, parse_serial, parse_wwid
from ansible_collections.stackless.block.plugins.module_utils._hosts.iscsiadm import Iscsiadm, meaning, parse_failures, parse_record, record_text, silences
from ansible_collections.stackless.block.plugins.module_utils._hosts.multipath import parse_wwids
from ansible_collections.stackless.block.plugins.module_utils._hosts.sysfs import Sysfs, parse_domain
from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Failed, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.session import Connection, Device, Holder, Map, NodeRecord, Session
from ansible_collections.stackless.block.plugins.module_utils._model.target import Portal

IQN = "iqn.2026-01.org.example:v1"
FOUR, SIX = Portal("10.77.0.13"), Portal("fd00:77::13", 3261)
FOUND = ("00000001-2222-4222-8333-444455556666", "naa.60014050000000122224222833344445")

# As iscsiadm --op new writes it, without lines of no interest here.
RECORD = f"""# BEGIN RECORD 2.1.8
node.name = {IQN}
node.tpgt = 1
node.startup = automatic
node.leading_login = No
iface.iscsi_ifacename = default
iface.prefix_len = 0
iface.transport_name = tcp
node.discovery_type = static
node.session.initial_login_retry_max = 4
node.session.auth.authmethod = CHAP
node.session.auth.username = someone
node.session.auth.password = a=secret #1
node.session.timeo.replacement_timeout = 120
node.session.scan = auto
node.conn[0].address = 10.77.0.13
node.conn[0].port = 3260
node.conn[0].timeo.login_timeout = 30
node.conn[0].iscsi.HeaderDigest = None
# END RECORD
"""

LOGIN = """iscsiadm: default: 1 session requested, but 1 already present.
iscsiadm: Could not login to [iface: default, target: iqn.2026-01.org.example:v9, portal: fd00:77::99,3260].
iscsiadm: initiator reported error (8 - connection timed out)
iscsiadm: Could not login to [iface: default, target: iqn.2026-01.org.example:none, portal: 10.77.0.13,3260].
iscsiadm: initiator reported error (5 - encountered iSCSI login failure)
iscsiadm: Could not login to [iface: default, target: iqn.2026-01.org.example:v4, portal: 10.77.0.13,3260].
iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)
iscsiadm: Could not log into all portals
Logging in to [iface: default, target: iqn.2026-01.org.example:v9, portal: fd00:77::99,3260]
"""

# The VPD pages of a LIO disk, as the kernel keeps them.
PAGE_80 = bytes.fromhex("00800025") + b"00000001-2222-4222-8333-444455556666\0"
PAGE_83 = bytes.fromhex("008300ac01030010" + "60014050000000122224222833344445" + "02010034") + (
    b"LIO-ORG FILEIO:00000001-2222-4222-8333-444455556666\0"
    + bytes.fromhex("51940004000000015195000400000000010600040000000053980024")
    + b"iqn.2026-01.org.example:v1,t,0x0001\0"
    + bytes.fromhex("53a8001c")
    + b"iqn.2026-01.org.example:v1\0\0"
)


# ---- node records ----------------------------------------------------------------------------------------------------


def test_a_record_of_open_iscsi_is_read() -> None:
    record = parse_record(RECORD, IQN, private=True)
    assert (record.portal, record.iface, record.startup, record.scan) == (FOUR, "default", "automatic", "auto")
    assert record.password is not None and (record.username, record.password.reveal()) == ("someone", "a=secret #1")
    assert (record.login_timeout, record.login_retries, record.replacement_timeout) == (30, 4, 120)
    assert ("node.conn[0].iscsi.HeaderDigest", "None") in record.rest


FULL = NodeRecord(IQN, SIX, "default", "automatic", "manual", "someone", Secret("secret"), "it", Secret("its own"), 5, 2, 15, tpgt=3, rest=(("node.x", "1"),))


@pytest.mark.parametrize("record", [FULL, NodeRecord(IQN, FOUR), parse_record(RECORD, IQN, True)])
def test_a_record_is_written_as_it_is_read(record: NodeRecord) -> None:
    again = parse_record(record_text(record), IQN, True)
    assert (again, again.tpgt, again.rest) == (record, record.tpgt, record.rest)


def test_a_pair_without_chap_is_not_used() -> None:
    assert parse_record(RECORD.replace("authmethod = CHAP", "authmethod = None"), IQN, True).username is None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/iscsi/nodes").mkdir(parents=True, mode=0o755)
    return tmp_path


def kept(root: Path) -> dict[str, int]:
    """Every path below the nodes, with its mode."""
    nodes = root / "etc/iscsi/nodes"
    return {str(path.relative_to(nodes)): stat.S_IMODE(path.stat().st_mode) for path in sorted(nodes.rglob("*"))}


def test_a_record_is_a_file_of_its_own_that_only_root_reads(root: Path) -> None:
    old = os.umask(0)
    try:
        Iscsiadm(str(root)).write(FULL)
    finally:
        os.umask(old)
    assert kept(root) == {IQN: 0o700, f"{IQN}/fd00:77::13,3261,3": 0o700, f"{IQN}/fd00:77::13,3261,3/default": 0o600}
    assert Iscsiadm(str(root)).records(IQN) == (FULL,)
    assert not [path for path in (root / "etc/iscsi").iterdir() if path.name != "nodes"], "a draft is left"


def test_the_draft_that_a_killed_run_left_behind_is_taken_over(root: Path) -> None:
    draft = root / "etc/iscsi" / files._DRAFT
    draft.write_text("node.session.auth.password = of another run")
    draft.chmod(0o644)
    Iscsiadm(str(root)).write(FULL)
    assert not draft.exists() and Iscsiadm(str(root)).records(IQN) == (FULL,)


def test_a_record_that_others_can_read_is_seen_as_such(root: Path) -> None:
    Iscsiadm(str(root)).write(FULL)
    (root / f"etc/iscsi/nodes/{IQN}/fd00:77::13,3261,3/default").chmod(0o644)
    assert [record.private for record in Iscsiadm(str(root)).records(IQN)] == [False]


def test_a_record_takes_the_place_of_all_of_its_portal(root: Path) -> None:
    folder = root / f"etc/iscsi/nodes/{IQN}"
    folder.mkdir()
    (folder / "10.77.0.13,3260").write_text(RECORD)
    (folder / "10.77.0.13,3260,2").mkdir()
    (folder / "10.77.0.13,3260,2/default").write_text(RECORD)
    (folder / "10.77.0.14,3260").write_text(RECORD.replace("0.13", "0.14"))
    host = Iscsiadm(str(root))
    assert len(host.records(IQN)) == 3
    host.write(NodeRecord(IQN, FOUR))
    assert sorted(kept(root)) == [IQN, f"{IQN}/10.77.0.13,3260,1", f"{IQN}/10.77.0.13,3260,1/default", f"{IQN}/10.77.0.14,3260"]


def test_a_dropped_record_leaves_no_empty_directory_and_no_other_record_goes(root: Path) -> None:
    host = Iscsiadm(str(root))
    for record in (FULL, NodeRecord(IQN, FOUR), NodeRecord(IQN + "0", FOUR)):
        host.write(record)
    host.drop(IQN, SIX, "default")
    host.drop(IQN, SIX, "default")
    assert [record.portal for record in host.records(IQN)] == [FOUR]
    host.drop(IQN, FOUR, "default")
    assert host.targets() == {IQN + "0"}
    host.drop(IQN + "0", FOUR, "default")
    assert host.targets() == set() and (root / "etc/iscsi/nodes").is_dir()


def test_a_record_of_an_interface_holds_what_the_interface_says(root: Path) -> None:
    (root / "etc/iscsi/ifaces").mkdir()
    (root / "etc/iscsi/ifaces/bond0").write_text("# BEGIN\niface.iscsi_ifacename = bond0\niface.net_ifacename = eth1\niface.transport_name = tcp\n")
    host = Iscsiadm(str(root))
    assert host.ifaces() == {"default", "iser", "bond0"}
    host.write(NodeRecord(IQN, FOUR, "bond0"))
    text = (root / f"etc/iscsi/nodes/{IQN}/10.77.0.13,3260,1/bond0").read_text()
    assert "iface.iscsi_ifacename = bond0\niface.net_ifacename = eth1\n" in text


def test_no_secret_is_on_a_command_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(files, "run", lambda words, timeout, before=None, meanwhile=None: seen.append((words, timeout)) or Said(0, ""))
    Iscsiadm(str(root)).log_in([FULL], lambda: None)
    assert [words for words, _timeout in seen] == [["iscsiadm", "-m", "node", "-L", "all"]]
    assert 5 * 3 <= seen[0][1] < 120


def test_what_became_of_each_login_is_read_from_the_lines() -> None:
    failures = parse_failures(LOGIN)
    assert failures == {
        ("iqn.2026-01.org.example:v9", Portal("fd00:77::99")): "8 connection timed out",
        ("iqn.2026-01.org.example:none", FOUR): "5 encountered iSCSI login failure",
        ("iqn.2026-01.org.example:v4", FOUR): "24 iSCSI login failed due to authorization failure",
    }


@pytest.mark.parametrize(
    ("failure", "silent", "told"),
    [
        ("24 x", None, "its ACL does not let iqn.me in, or the CHAP username or password is wrong"),
        ("8 x", None, "the portal answers, but has no such target"),
        ("5 x", "Connection refused", "the portal is not reached (Connection refused)"),
        ("18 x", None, "iscsid does not answer"),
        ("12 some words", None, "iscsiadm says: some words (12)"),
    ],
)
def test_a_failed_login_is_told_with_what_it_means(failure: str, silent: Any, told: str) -> None:
    assert told in meaning(failure, "iqn.me", silent)


# ---- portals and tools -----------------------------------------------------------------------------------------------


def test_portals_that_answer_are_told_from_those_that_do_not() -> None:
    with socket.socket() as server, socket.socket() as closed:
        server.bind(("127.0.0.1", 0))
        server.listen()
        closed.bind(("127.0.0.1", 0))
        good, bad = (Portal("127.0.0.1", each.getsockname()[1]) for each in (server, closed))
        assert silences([good, bad]) == {bad: "Connection refused"}


def test_a_portal_of_a_family_that_the_kernel_lacks_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ipv6.disable=1."""
    real = socket.socket

    def without_six(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "")
        return real(family, kind)

    monkeypatch.setattr(files.socket, "socket", without_six)
    assert silences([SIX]) == {SIX: "Address family not supported by protocol"}


# ---- what was gathered -----------------------------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> OpenIscsiHost:
    """A host on which nothing is really done; `done` tells what would have been."""
    made = OpenIscsiHost()
    made.done = []
    for verb in ("_log_out", "_log_in", "_scan"):
        monkeypatch.setattr(made, verb, lambda asked, *_more, verb=verb: made.done.append((verb, len(asked))))
    seen = {IQN: Connection(devices=(Device(1, FOUR, wwid=FOUND[1], name="sdb"),))}
    monkeypatch.setattr(made.sysfs, "connections", lambda iqns, closely: seen)
    monkeypatch.setattr(made.multipath, "claimed", frozenset)
    return made


def refuse(*_args: Any) -> None:
    raise Failed("multipathd says no")


def test_what_was_gathered_is_done_once_even_where_it_fails(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_scan", refuse)
    host.log_in(IQN, (FOUR,), "default", True)
    host.scan(IQN, 1)
    with pytest.raises(Failed):
        host.flush()
    host.log_out(IQN, (FOUR,))
    host.flush()
    assert host.done == [("_log_in", 1), ("_log_out", 1)]


def test_portals_are_tried_in_turn_until_one_lets_this_host_in(monkeypatch: pytest.MonkeyPatch) -> None:
    host, tried = OpenIscsiHost(), []

    def attempt(asked: Any, _meanwhile: Any) -> None:
        tried.append([(login.iqn, portal) for login, portal in asked])
        host._failed.update({(login.iqn, portal): "no" for login, portal in asked if login.iqn == IQN and portal == FOUR})

    monkeypatch.setattr(host, "_try", attempt)
    host.log_in(IQN, (FOUR, SIX), "default", False)
    host.log_in(IQN + "0", (FOUR, SIX), "default", False)
    host.log_in(IQN + "1", (FOUR, SIX), "default", True)
    host.flush()
    assert tried == [[(IQN, FOUR), (IQN + "0", FOUR), (IQN + "1", FOUR), (IQN + "1", SIX)], [(IQN, SIX)]]


def test_a_map_that_is_refused_is_an_error_of_its_target_alone(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.multipath, "claim", refuse)
    host.make_map(IQN, 1)
    host.flush()
    assert (host.unmapped(IQN), host.unmapped(IQN + "0")) == ("multipathd says no", None)


def test_a_tool_that_is_missing_or_hangs_is_an_error_of_its_own() -> None:
    with pytest.raises(Unavailable, match="no-such-tool is not installed"):
        run(["no-such-tool"], 5)
    with pytest.raises(Failed, match="has not ended after 0.1 s"):
        run(["sleep", "5"], 0.1)
    assert run(["sh", "-c", "echo out; echo err >&2; exit 3"], 5) == Said(3, "out\nerr\n")


def test_while_a_tool_runs_something_else_is_done_and_nothing_it_prints_is_lost() -> None:
    turns: list[int] = []
    said = run(["sh", "-c", "seq 100000; sleep 0.7; echo end"], 5, meanwhile=lambda: turns.append(1))
    assert said.status == 0 and said.text.endswith("100000\nend\n") and said.text.startswith("1\n2\n")
    assert 1 <= len(turns) <= 4
    with pytest.raises(Failed, match="has not ended after 0.5 s"):
        run(["sleep", "5"], 0.5, meanwhile=lambda: None)
    with pytest.raises(Failed, match="multipathd says no"):
        run(["sleep", "5"], 5, meanwhile=refuse)


def test_a_session_is_scanned_as_soon_as_it_is_there_and_once_more_where_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    host, scanned = OpenIscsiHost(), []
    there = [Session(FOUR, sid=1, host=1), Session(SIX, sid=2, host=2, state="FREE")]
    monkeypatch.setattr(host.sysfs, "sessions", lambda iqns: {IQN: there})
    monkeypatch.setattr(host.sysfs, "shows", lambda session, lun: session.sid == 3)
    monkeypatch.setattr(host.sysfs, "scan", lambda session, lun: scanned.append((session.sid, lun)))

    def log_in(records: Any, meanwhile: Any) -> Any:
        for _turn in range(3):
            meanwhile()
        assert scanned == [(1, 5)]
        there[1] = Session(SIX, sid=2, host=2)
        there.append(Session(SIX, sid=3, host=3))
        return {}, ""

    monkeypatch.setattr(host.iscsiadm, "log_in", log_in)
    host.log_in(IQN, (FOUR, SIX), "default", True)
    host.scan(IQN, 5)
    host.flush()
    assert sorted(scanned) == [(1, 5), (1, 5), (2, 5), (2, 5)]


def test_known_wwids_without_those_that_were_taken_back() -> None:
    assert parse_wwids("# Valid WWIDs:\n#36001/\n/36002/\n") == {"36002"}


# ---- what a disk says ------------------------------------------------------------------------------------------------


def test_identity_of_a_lio_disk() -> None:
    assert parse_serial(PAGE_80) == "00000001-2222-4222-8333-444455556666"
    assert parse_wwid(PAGE_83) == "naa.60014050000000122224222833344445"


@pytest.mark.parametrize("page", [b"", b"\0\x80", b"\0\x00\0\4abcd", PAGE_83[:20]])
def test_pages_that_are_none_or_cut_off(page: bytes) -> None:
    assert parse_serial(page) is None and parse_wwid(page) is None


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "guest=web-1,debug-threads=on"], "web-1"),
        (["qemu-kvm", "-name", "guest=a,,b,debug-threads=on"], "a,b"),
        (["qemu-system-x86_64", "-name", "plain"], "plain"),
        (["qemu-system-x86_64", "-name"], None),
        (["vim", "-name", "guest=web-1"], None),
    ],
)
def test_the_domain_that_a_process_runs(words: list[str], name: Any) -> None:
    assert parse_domain(words) == name


# ---- a kernel's files ------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A session with one disk that is mounted, in swap, open in a process and below another device, as /sys and /proc show it."""
    host = "sys/devices/platform/host7/session3"
    disk = f"{host}/target7:0:0/7:0:0:1"
    write(tmp_path, f"{host}/iscsi_session/session3/targetname", IQN)
    write(tmp_path, f"{host}/iscsi_session/session3/state", "LOGGED_IN")
    write(tmp_path, f"{host}/iscsi_session/session3/ifacename", "default")
    write(tmp_path, f"{host}/connection3:0/iscsi_connection/connection3:0/persistent_address", "fd00:77::13")
    write(tmp_path, f"{host}/connection3:0/iscsi_connection/connection3:0/persistent_port", "3261")
    files_of_disk = {"state": "running", "type": "0", "wwid": "naa.60014050000000122224222833344445", "block/sdb/size": "2048", "block/sdb/dev": "8:16"}
    for name, text in files_of_disk.items():
        write(tmp_path, f"{disk}/{name}", text)
    (tmp_path / disk / "vpd_pg80").write_bytes(PAGE_80)
    write(tmp_path, f"{host}/target7:0:0/7:0:0:0/type", "12")
    link(tmp_path, "sys/class/iscsi_session/session3", f"{host}/iscsi_session/session3")
    link(tmp_path, f"{host}/iscsi_session/session3/device", host)
    link(tmp_path, "sys/class/iscsi_connection/connection3:0", f"{host}/connection3:0/iscsi_connection/connection3:0")
    link(tmp_path, "sys/class/block/sdb", f"{disk}/block/sdb")
    link(tmp_path, "dev/disk/by-id/wwn-0x60014050000000122224222833344445", "dev/sdb")
    write(tmp_path, "proc/self/mountinfo", "36 35 8:16 / /mnt/x rw - ext4 /dev/sdb rw\n")
    (tmp_path / f"{disk}/block/sdb/holders/dm-3").mkdir(parents=True)
    write(tmp_path, "sys/class/block/dm-3/dm/name", "secret-crypt")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def link(root: Path, path: str, target: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(os.path.relpath(root / target, (root / path).parent))


def test_sessions_and_disks_are_seen_in_sys(kernel: Path) -> None:
    found = Sysfs(str(kernel)).connections({IQN}, closely=True)[IQN]
    (session,), (device,) = found.sessions, found.devices
    assert session == Session(SIX) and (session.sid, session.host, session.alive) == (3, 7, True)
    assert device == Device(1, SIX, "00000001-2222-4222-8333-444455556666", "naa.60014050000000122224222833344445", 1 << 20)
    assert (device.name, device.hctl, device.links) == ("sdb", "7:0:0:1", ("/dev/disk/by-id/wwn-0x60014050000000122224222833344445",))
    assert device.holders == (Holder("device", "secret-crypt"), Holder("mount", "/mnt/x"))


@pytest.mark.parametrize(
    ("told", "exchanged"),
    [
        (None, None),
        (FOUND, None),
        ((FOUND[0], None), None),
        (("other", FOUND[1]), "serial other"),
        ((FOUND[0], "naa.6001405f"), "wwid naa.6001405f"),
        ((None, None), "serial none"),
    ],
)
def test_a_disk_that_says_to_be_another_is_still_what_its_users_take_it_for(kernel: Path, monkeypatch: Any, told: Any, exchanged: bool) -> None:
    monkeypatch.setattr(sysfs, "identity", lambda path: told and Identity(*told))
    (device,) = Sysfs(str(kernel)).connections({IQN}, closely=True)[IQN].devices
    assert (device.exchanged, device.serial, device.wwid) == (exchanged, *FOUND)


@pytest.mark.parametrize(("resolved", "portals"), [(FOUR.ip, [FOUR]), (None, [])])
def test_a_session_that_somebody_made_by_a_host_name_is_where_that_leads(kernel: Path, resolved: str | None, portals: list[Portal]) -> None:
    at = "sys/class/iscsi_connection/connection3:0"
    write(kernel, f"{at}/persistent_address", "filer.example.com")
    write(kernel, f"{at}/persistent_port", "3260")
    if resolved:
        write(kernel, f"{at}/address", resolved)
        write(kernel, f"{at}/port", "3260")
    found = Sysfs(str(kernel)).connections({IQN}, closely=False)
    assert [session.portal for seen in found.values() for session in seen.sessions] == portals


def test_other_targets_are_not_looked_at(kernel: Path) -> None:
    assert Sysfs(str(kernel)).connections({IQN + "0"}, closely=True) == {}
    assert Sysfs(str(kernel)).targets() == {IQN}


def test_the_one_lun_is_scanned_for_and_only_that(kernel: Path) -> None:
    write(kernel, "sys/class/scsi_host/host7/scan", "")
    Sysfs(str(kernel)).scan(Session(SIX, host=7), 1)
    assert (kernel / "sys/class/scsi_host/host7/scan").read_text() == "0 0 1"


@pytest.mark.parametrize(("said", "kind"), [("419.25 | 36001: map in use", Busy), ("36001: failed to remove multipath map", Failed)])
def test_a_map_that_somebody_has_open_for_a_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]) -> None:
    """By the engine, which knows for how long."""
    monkeypatch.setattr(multipath, "run", lambda *_words: Said(1, said))
    with pytest.raises(kind, match="to remove the multipath map 36001 failed"):
        multipath.Multipath().drop(Map("naa.6001", name="36001"), dead=False)
