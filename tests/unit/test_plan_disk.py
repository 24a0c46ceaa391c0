# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner of disks: its laws over many small worlds, and its refusals."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any, Iterator

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _errors as errors
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Disk, DiskKey, DiskSecret, DomainDisk, Image, Record
from ansible_collections.stackless.block.plugins.module_utils._model.disk import SecretKey, Source
from ansible_collections.stackless.block.plugins.module_utils._plan_disk import DiskWish, image_in_question, plan_disk
from tests.unit.fake_host import FakeHost
from tests.unit.laws import Subject, hold

IQN, PORTAL = "iqn.2026-01.org.example:v1", ("192.0.2.1", 3260)
PASSWORD = Secret("right")
CHAP = SecretKey("iscsi", IQN)
FILE = Source("file", path="/srv/v1")
LUN = Source("network", protocol="iscsi", target_iqn=IQN, lun=1, portals=(PORTAL,), initiator="iqn.2026-01.org.example:c1", username="u")
UUID = "5c000000-0000-4000-8000-000000000001"
CEPH = SecretKey("ceph", UUID)
MONITORS = (("192.0.2.1", 6789), ("192.0.2.2", 6789))
IMAGE = Source("network", protocol="rbd", path="volumes/v1", portals=MONITORS, username="cinder", secret_uuid=UUID)
MIB = 1 << 20

WISHES = {
    "file": DiskWish("d", serial="v1", alias="ua-v1", source=FILE, cache="none", volume="v", attachment_id="a"),
    "limits": DiskWish("d", serial="v1", alias="ua-v1", source=FILE, bus="virtio", iotune=(("total_iops_sec", 9),), size_bytes=2 * MIB),
    "iscsi": DiskWish("d", serial="v1", alias="ua-v1", source=LUN, password=PASSWORD, bus="virtio", device="vdc"),
    "rbd": DiskWish("d", serial="v1", alias="ua-v1", source=IMAGE, password=PASSWORD, bus="virtio", device="vdc", size_bytes=2 * MIB),
    "rbd with a secret that is there": DiskWish("d", serial="v1", alias="ua-v1", source=IMAGE, bus="virtio"),
    "rbd absent": DiskWish("d", present=False, serial="v1", alias="ua-v1", source=dataclasses.replace(IMAGE, portals=(), username=None)),
    "live only": DiskWish("d", serial="v1", alias="ua-v1", source=FILE, scope="live"),
    "config only": DiskWish("d", serial="v1", alias="ua-v1", source=FILE, scope="config", io="native", read_only=True),
    "absent": DiskWish("d", present=False, serial="v1", alias="ua-v1"),
    "absent by device": DiskWish("d", present=False, device="vdc"),
    "absent with target": DiskWish("d", present=False, serial="v1", alias="ua-v1", source=Source("network", protocol="iscsi", target_iqn=IQN)),
    "absent config": DiskWish("d", present=False, serial="v1", alias="ua-v1", scope="config"),
}
SHAPES = {"both": (True, True), "stopped": (False, True), "transient": (True, False), "gone": None}
STATES = ("none", "right", "limited", "written back")


def disk_of(source: Source, state: str = "right", **fields: Any) -> Disk:
    made = Disk("vdc", "virtio", source, alias="ua-v1", serial="v1", cache="none", **fields)
    drift: dict[str, dict[str, Any]] = {"right": {}, "limited": {"iotune": (("read_bytes_sec", 5),)}, "written back": {"cache": "writeback"}}
    return dataclasses.replace(made, **drift[state])


def worlds(source: Source) -> Iterator[FakeHost]:
    """Every mix of domain, copies, note and secret, beside a disk of someone else's on vda."""
    key = CEPH if source is IMAGE else CHAP
    named = {name: getattr(source, name) for name in ("target_iqn", "lun", "secret_uuid")}
    for shape, live, config, noted, chap in itertools.product(SHAPES.values(), STATES, STATES, (False, True), ("none", "right", "wrong", "empty")):
        host = FakeHost().add("other")
        if shape is not None:
            host.add("d", *shape).put("d", Disk("vda", "virtio", Source("file", path="/root.img")), *(s for s in ("live", "config") if ("d", s) in host.copies))
        for scope, state in (("live", live), ("config", config)):
            if state != "none" and ("d", scope) in host.copies:
                host.put("d", disk_of(source, state), scope)
            if noted and ("d", scope) in host.records:
                host.records["d", scope]["ua-v1"] = Record("ua-v1", "v1", "vdc", "virtio", **named)
        if chap != "none":
            host.secrets[key] = DiskSecret(key, {"right": PASSWORD, "wrong": Secret("wrong"), "empty": None}[chap], True)
        # QEMU shows a grown source only after it was told; one it opens anew it shows as it is
        host.sizes[source.identity] = MIB if ("d", "live") in host.copies and live != "none" else 2 * MIB
        yield host


@pytest.mark.parametrize("name", WISHES)
def test_laws(name: str) -> None:
    wish = WISHES[name]
    sources = [source for source in (FILE, IMAGE) if wish.source and wish.source.path == source.path] or [LUN]
    crashes = [hold(subject(wish, host)) for host in worlds(sources[0])]
    assert sum(acts > 1 for acts in crashes) > 20, "hardly any world asked for something to be done"


def subject(wish: DiskWish, host: FakeHost) -> Subject:
    def plan(there: FakeHost, world: Any) -> Any:
        planned = plan_disk(wish, world, there)
        if not planned.acts and planned.after is not None:
            assert planned.after.size_bytes in (None, world[planned.key].size_bytes)
        if not planned.acts and planned.after is None and (wish.source or wish.alias in had):
            assert CHAP not in world and CEPH not in world, "a secret is left over"
        return planned

    had = {key.name for key in host.observe() if isinstance(key, DiskKey)}
    return Subject(lambda: copy.deepcopy(host), FakeHost.observe, plan, FakeHost.trace)


def plan_of(wish: DiskWish, host: FakeHost) -> Any:
    return plan_disk(wish, host.observe(), host)


# ---- devices ---------------------------------------------------------------------------------------------------------


def attached(host: FakeHost, **wishes: Any) -> DomainDisk:
    fields = {"serial": "v1", "source": FILE, **wishes}
    return plan_of(DiskWish("d", alias="ua-" + fields["serial"], **fields), host).after


def with_devices(*devices: str) -> FakeHost:
    host = FakeHost().add("d")
    for device in devices:
        host.put("d", Disk(device, "virtio", Source("file", path="/img/" + device)), "live")
    return host


@pytest.mark.parametrize(
    ("taken", "bus", "device"),
    [
        ((), None, "vda"),
        (("vda",), None, "vdb"),
        (("vda", "vdc"), "virtio", "vdb"),
        (("vda",), "scsi", "sda"),
        (tuple("vd" + chr(n) for n in range(ord("a"), ord("z") + 1)), None, "vdaa"),
    ],
)
def test_next_free_device(taken: tuple[str, ...], bus: str | None, device: str) -> None:
    assert attached(with_devices(*taken), bus=bus).live.device == device


def test_a_disk_that_was_lost_gets_its_device_back() -> None:
    host = FakeHost().add("d")
    host.records["d", "config"]["ua-v1"] = Record("ua-v1", "v1", "vdx", "virtio")
    assert attached(host).live.device == "vdx"
    assert attached(host, bus="scsi").live.device == "sda"
    host.put("d", Disk("vdx", "virtio", Source("file", path="/x")), "live")
    assert attached(host).live.device == "vda"


def test_a_device_that_only_the_persistent_copy_has_is_not_free() -> None:
    host = FakeHost().add("d").put("d", Disk("vda", "virtio", Source("file", path="/x")), "config")
    assert attached(host).live.device == "vdb"


def test_taken_device_is_refused_with_its_holder() -> None:
    host = with_devices("vda", "vdb")
    with pytest.raises(errors.Refused, match=r"vdb of domain d is taken by vdb \(/img/vdb\)"):
        attached(host, device="vdb", bus="virtio")


def test_the_missing_copy_needs_its_device_free() -> None:
    host = FakeHost().add("d").put("d", disk_of(FILE), "live").put("d", Disk("vdc", "virtio", Source("file", path="/x")), "config")
    with pytest.raises(errors.Refused, match="vdc of domain d is taken"):
        attached(host)


# ---- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"source": Source("file", path="/srv/v2")}, "with source /srv/v1, not /srv/v2"),
        ({"device": "vdd"}, "with device vdc, not vdd"),
        ({"bus": "scsi"}, "with bus virtio, not scsi"),
    ],
)
def test_another_disk_under_the_alias_is_never_replaced(wishes: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.Conflict, match=says):
        attached(FakeHost().add("d").put("d", disk_of(FILE), "live", "config"), **wishes)


@pytest.mark.parametrize("fields", [{"serial": "v9"}, {"format": "qcow2"}])
def test_another_serial_or_format_is_never_taken_over(fields: dict[str, Any]) -> None:
    wrong = dataclasses.replace(disk_of(FILE), **fields)
    with pytest.raises(errors.Conflict, match=str(list(fields.values())[0])):
        attached(FakeHost().add("d").put("d", wrong, "live"))


def test_a_symbolic_link_is_the_same_source() -> None:
    there = disk_of(dataclasses.replace(FILE, path="/link", real_path="/srv/v1"))
    wish = dataclasses.replace(FILE, real_path="/srv/v1")
    assert attached(FakeHost().add("d").put("d", there, "live", "config"), source=wish).live == there


@pytest.mark.parametrize("scope", ["live", "config"])
@pytest.mark.parametrize("other", ["d", "other"])
def test_no_source_is_attached_twice(scope: str, other: str) -> None:
    host = FakeHost().add("d").add("other").put(other, Disk("vdz", "virtio", FILE, alias="ua-else"), scope)
    with pytest.raises(errors.Refused, match=f"/srv/v1 is already vdz .* of domain {other}"):
        attached(host)
    with pytest.raises(errors.Refused, match="already"):
        attached(host, shareable=True)


def test_a_source_both_call_shareable_is_shared() -> None:
    host = FakeHost().add("d").add("other").put("other", Disk("vdz", "virtio", FILE, alias="ua-else", shareable=True), "live")
    assert attached(host, shareable=True).live.shareable
    with pytest.raises(errors.Refused, match="already"):
        attached(host)


def test_serials_that_a_virtio_guest_cannot_tell_apart() -> None:
    host = FakeHost().add("d").put("d", Disk("vdz", "virtio", Source("file", path="/x"), alias="ua-z", serial="12345678901234567890-a"), "live")
    with pytest.raises(errors.Refused, match="20 characters"):
        attached(host, serial="12345678901234567890-b")
    assert attached(host, serial="12345678901234567890-b", bus="scsi").live.bus == "scsi"


def test_volume_1_is_not_volume_10() -> None:
    host = FakeHost().add("d")
    host.put("d", Disk("vdb", "virtio", Source("file", path="/srv/volume-10"), alias="ua-volume-10", serial="volume-10"), "live", "config")
    assert plan_of(DiskWish("d", present=False, serial="volume-1", alias="ua-volume-1"), host).acts == ()
    assert attached(host, serial="volume-1", source=Source("file", path="/srv/volume-1")).live.device == "vda"


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_portal_less_in_the_wish_is_a_change_but_a_portal_more_is_none() -> None:
    host = FakeHost().add("d").put("d", disk_of(LUN), "live", "config")
    host.secrets[CHAP] = DiskSecret(CHAP, PASSWORD, True)
    more = dataclasses.replace(LUN, portals=(("192.0.2.9", 3260), PORTAL))
    assert attached(host, source=more).live.source == LUN
    with pytest.raises(errors.Refused, match="source of disk ua-v1 of domain d can't change while the domain runs"):
        attached(host, source=dataclasses.replace(LUN, portals=(("192.0.2.9", 3260),)))


def test_a_running_disk_refuses_what_qemu_cannot_change_and_says_how() -> None:
    host = FakeHost().add("d").put("d", disk_of(FILE), "live", "config")
    with pytest.raises(errors.Refused, match="cache and read_only of disk ua-v1 .* set scope=config"):
        attached(host, cache="writeback", read_only=True)
    after = attached(host, cache="writeback", scope="config")
    assert (after.live.cache, after.config.cache) == ("none", "writeback")


def test_shrinking_is_refused() -> None:
    host = FakeHost().add("d").put("d", disk_of(FILE), "live", "config")
    host.sizes[FILE.identity] = 4 * MIB
    with pytest.raises(errors.Refused, match="has 4194304 bytes and can't shrink to 2097152"):
        attached(host, size_bytes=2 * MIB)


def test_scope_that_is_not_there_is_refused() -> None:
    with pytest.raises(errors.Refused, match="does not run"):
        attached(FakeHost().add("d", active=False), scope="live")
    with pytest.raises(errors.Refused, match="transient"):
        attached(FakeHost().add("d", persistent=False), scope="config")


def test_an_unknown_domain_is_told_with_those_there_are() -> None:
    host = FakeHost()
    for number in range(10):
        host.add(f"web-{number}")
    with pytest.raises(errors.NotFound, match="no domain d at test:///fake; .* web-0, web-1, .*, web-7 and 2 more"):
        attached(host)


def test_a_disk_without_a_source_needs_one() -> None:
    with pytest.raises(errors.Invalid, match="needs a source"):
        attached(FakeHost().add("d"), source=None)


# ---- secrets and absence ---------------------------------------------------------------------------------------------


def test_a_secret_of_someone_else_is_used_but_never_changed_nor_removed() -> None:
    host = FakeHost().add("d")
    host.secrets[CHAP] = DiskSecret(CHAP, PASSWORD, False)
    plan = plan_of(WISHES["iscsi"], host)
    assert [step.name for step in plan.steps if "secret" in step.name] == []
    host.put("d", disk_of(LUN), "live", "config")
    assert "secret" not in str([step.name for step in plan_of(WISHES["absent"], host).acts])
    host.secrets[CHAP] = DiskSecret(CHAP, None, False)
    with pytest.raises(errors.Conflict, match="someone else made"):
        plan_of(WISHES["iscsi"], host)


@pytest.mark.parametrize("scope", ["live", "config"])
def test_the_secret_stays_while_another_disk_needs_it(scope: str) -> None:
    host = FakeHost().add("d").add("other").put("d", disk_of(LUN), "live", "config")
    host.put("other", Disk("vdb", "virtio", dataclasses.replace(LUN, lun=2), alias="ua-v2"), scope)
    host.secrets[CHAP] = DiskSecret(CHAP, PASSWORD, True)
    assert "secret" not in str([step.name for step in plan_of(WISHES["absent"], host).acts])
    host.copies["other", scope].clear()
    assert plan_of(WISHES["absent"], host).closing[0].name == f"remove the CHAP secret for target {IQN}"


def test_what_still_serves_the_guest_waits_until_it_has_let_go() -> None:
    host = FakeHost().add("d").put("d", disk_of(LUN), "live", "config")
    host.secrets[CHAP] = DiskSecret(CHAP, PASSWORD, True)
    host.records["d", "live"]["ua-v1"] = Record("ua-v1", target_iqn=IQN)
    plan = plan_of(WISHES["absent"], host)
    assert [step.act.__name__ for step in plan.steps] == ["detach", "unplug"]
    assert [step.act.__name__ for step in plan.closing] == ["drop_secret", "drop_record"]


def test_absent_names_a_disk_exactly() -> None:
    host = FakeHost().add("d").put("d", Disk("vdb", "virtio", FILE, alias="virtio-disk1", serial="S"), "live")
    by = {"serial": {"serial": "S", "alias": "ua-S"}, "device": {"device": "vdb"}}
    for fields in by.values():
        assert plan_of(DiskWish("d", present=False, **fields), host).key == DiskKey("d", "vdb")
    for fields in ({"serial": "s", "alias": "ua-s"}, {"device": "vdbb"}, {"serial": "T", "alias": "ua-T", "device": "vdb"}):
        assert plan_of(DiskWish("d", present=False, **fields), host).acts == ()


def test_absent_refuses_when_names_disagree() -> None:
    host = FakeHost().add("d").put("d", disk_of(FILE), "live", "config")
    with pytest.raises(errors.Conflict, match=r"ua-v1 of domain d is vdc .*, not vdb"):
        plan_of(DiskWish("d", present=False, serial="v1", alias="ua-v1", device="vdb"), host)
    with pytest.raises(errors.Conflict, match="has /srv/v1 as source"):
        plan_of(WISHES["absent with target"], host)


def test_a_cdrom_is_left_alone() -> None:
    host = FakeHost().add("d").put("d", Disk("sda", "sata", Source("file", path="/x.iso"), kind="cdrom"), "live", "config")
    with pytest.raises(errors.Refused, match="sda of domain d is a cdrom"):
        plan_of(DiskWish("d", present=False, device="sda"), host)


def test_a_domain_that_is_gone_holds_nothing_unless_it_was_renamed() -> None:
    host = FakeHost().add("renamed")
    plan = plan_of(WISHES["absent"], host)
    assert plan.acts == () and "no domain d" in plan.warnings[0]
    host.put("renamed", disk_of(FILE), "config")
    with pytest.raises(errors.Conflict, match="but domain renamed has ua-v1"):
        plan_of(WISHES["absent"], host)


# ---- images of Ceph --------------------------------------------------------------------------------------------------


RBD = WISHES["rbd"]


def running_host(image: Image | None = None) -> FakeHost:
    host = FakeHost().add("d")
    if image:
        host.images["volumes/v1"] = image
    return host


def test_qemu_gets_a_configuration_only_where_it_may_read_one() -> None:
    host = running_host()
    plan = plan_of(RBD, host)
    assert plan.after.live.source.config == host.rbd_config
    assert "write /etc/rbd.conf, which bounds how long QEMU waits for Ceph" in [step.name for step in plan.steps]
    host.rbd_config = None
    assert plan_of(RBD, host).after.live.source.config is None and not any("write" in step.name for step in plan_of(RBD, host).steps)
    own = dataclasses.replace(RBD, source=dataclasses.replace(IMAGE, config="/etc/ceph/mine.conf"))
    assert plan_of(own, host).after.live.source.config == "/etc/ceph/mine.conf"


def test_an_image_is_looked_at_when_qemu_would_open_or_close_it_and_only_then() -> None:
    host, absent = running_host(), dataclasses.replace(WISHES["rbd absent"], source=None)
    assert image_in_question(RBD, host.observe()) == IMAGE and image_in_question(absent, host.observe()) is None
    assert image_in_question(dataclasses.replace(RBD, scope="config"), host.observe()) is None
    assert image_in_question(WISHES["file"], host.observe()) is None
    host.put("d", disk_of(IMAGE), "config")
    assert image_in_question(dataclasses.replace(RBD, source=None), host.observe()) == IMAGE
    host.put("d", disk_of(IMAGE), "live")
    assert image_in_question(RBD, host.observe()) is None and image_in_question(absent, host.observe()) == IMAGE
    host.domains["d"] = dataclasses.replace(host.domains["d"], active=False)
    assert image_in_question(absent, host.observe()) is None


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (Image(error=errors.NotFound("there is no image")), errors.NotFound, "can't be attached: there is no image"),
        (Image(error=errors.Unavailable("no answer")), errors.Unavailable, "can't be attached: no answer"),
        (Image(MIB), errors.Conflict, "has 1048576 bytes, not 2097152"),
    ],
)
def test_what_qemu_could_not_open_is_refused_before_anything_is_done(image: Image, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        plan_of(RBD, running_host(image))


def test_who_has_an_image_open_is_told_and_does_not_matter_to_those_who_share_it() -> None:
    host = running_host(Image(2 * MIB, ("192.0.2.7 (client.7)",)))
    assert "open at 192.0.2.7 (client.7)" in str(plan_of(RBD, host).warnings)
    assert plan_of(dataclasses.replace(RBD, shareable=True), host).warnings == ()


def test_a_guest_keeps_its_disk_while_the_cluster_is_silent() -> None:
    host = running_host(Image(error=errors.Unavailable("no answer"))).put("d", disk_of(IMAGE), "live", "config")
    with pytest.raises(errors.Unavailable, match="is left attached, because its guest would hang"):
        plan_of(WISHES["rbd absent"], host)
    host.images["volumes/v1"] = Image(error=errors.NotFound("there is no image"))
    assert plan_of(WISHES["rbd absent"], host).after is None


def test_a_monitor_more_or_less_is_no_change_but_another_user_is() -> None:
    host = running_host().put("d", disk_of(IMAGE), "live", "config")
    host.secrets[CEPH] = DiskSecret(CEPH, PASSWORD, True)
    moved = dataclasses.replace(IMAGE, portals=(MONITORS[1], ("192.0.2.3", 6789)))
    same = dataclasses.replace(RBD, source=moved, size_bytes=None)
    assert [step.name for step in plan_of(same, host).steps] == ["note ua-v1 in the running and persistent metadata of domain d"]
    for other in (dataclasses.replace(IMAGE, username="eve"), dataclasses.replace(IMAGE, portals=(("198.51.100.1", 6789),))):
        with pytest.raises(errors.Refused, match="source of disk ua-v1 of domain d can't change while the domain runs"):
            plan_of(dataclasses.replace(same, source=other), host)
