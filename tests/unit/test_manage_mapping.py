# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options and results of rbd_device, and what it takes from tasks before it in check mode."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.stackless.block.plugins.module_utils._errors import Invalid, NotFound, Refused, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._manage_mapping import Mappings, mapping_result
from ansible_collections.stackless.block.plugins.module_utils._model.disk import Image
from ansible_collections.stackless.block.plugins.module_utils._model.mapping import LookKey
from ansible_collections.stackless.block.plugins.module_utils._plan_mapping import plan_mapping
from tests.unit.fake_kernel import FSID, IMAGE, MIB, MONITORS, FakeKernel
from tests.unit.test_plan_mapping import QEMU, in_use, mapped, wish

ITEM = {"image": IMAGE, "monitors": [{"ip": "192.0.2.1"}], "username": "cinder", "password": "a2V5"}


def want(**given: Any) -> Any:
    return Mappings({"timeout": 1}).want({**ITEM, **given})


def test_a_wish_is_taken_as_it_is_said() -> None:
    taken = want(monitors=[{"ip": "192.0.2.1", "port": None}, {"ip": "2001:DB8::1", "port": 3300}], size_bytes=MIB, cluster_fsid=FSID.upper())
    assert taken.monitors == (("192.0.2.1", 6789), ("2001:db8::1", 3300)) and taken.cluster == FSID and "a2V5" not in repr(taken)
    assert (taken.present, taken.read_only, taken.shared, taken.keep_in_use) == (True, False, False, False)


@pytest.mark.parametrize(("given", "exclusive"), [({}, True), ({"exclusive": False}, False), ({"shared": True}, False), ({"mode": "ro"}, False)])
def test_nobody_else_may_write_unless_it_is_said(given: dict[str, Any], exclusive: bool) -> None:
    assert want(**given).exclusive is exclusive


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": None}, "can't be the image; write pool/image"),
        ({"image": "a b/c"}, "can't be the image"),
        ({"monitors": []}, "has no monitors; give"),
        ({"username": None, "password": None}, "no username and no password"),
        ({"username": "me,key=other"}, "can't be a Ceph user"),
        ({"monitors": [{"ip": "ceph-1"}]}, "is no IP address"),
        ({"password": "not a key"}, "password is no key of a Ceph user"),
        ({"size_bytes": 5}, "multiple of 512"),
        ({"cluster_fsid": "ceph"}, "can't be the cluster_fsid"),
        ({"shared": True, "exclusive": True}, "both shared and exclusive"),
    ],
)
def test_what_can_not_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        want(**given)
    assert "not a key" not in str(caught.value)


def test_absent_needs_no_more_than_a_name() -> None:
    assert not Mappings({"timeout": 1}).want({"image": IMAGE, "state": "absent"}).present


# ---- what tasks before it predicted ----------------------------------------------------------------------------------


def recorded(size: int = 2 * MIB, name: str = IMAGE) -> dict[str, Any]:
    data = {"name": name, "hosts": [MONITORS[0][0]], "ports": [str(MONITORS[0][1])]}
    return {"size_bytes": size, "connection_info": {"driver_volume_type": "rbd", "data": data}}


@pytest.mark.parametrize("before", [Image(MIB, (), None, FSID, "id-1", 61), Image(error=NotFound("no image"), cluster=FSID)])
def test_an_image_will_be_as_its_record_says(before: Image) -> None:
    host = FakeKernel()
    world = {**host.observe(), LookKey(IMAGE, MONITORS): before}
    assert Mappings({}).assumed({**recorded(), "connection_info": None}, world) == {} == Mappings({}).assumed(recorded(name="volumes/a-10x"), world)
    world.update(Mappings({}).assumed(recorded(), world))
    after = plan_mapping(wish(size_bytes=2 * MIB), world, host).after
    assert (after.size_bytes, after.cluster) == (2 * MIB, FSID)


@pytest.mark.parametrize(("mode", "steps"), [({}, []), ({"read_only": True, "exclusive": False}, ["look at the size of rbd0 again"])])
def test_a_kernel_that_may_write_will_have_seen_its_image_grow(mode: dict[str, Any], steps: list[str]) -> None:
    host = mapped(**mode)
    world = host.observe()
    world.update(Mappings({}).assumed(recorded(), world))
    assert [step.name for step in plan_mapping(wish(size_bytes=2 * MIB, **mode), world, host).steps] == steps


def test_a_cluster_that_does_not_answer_is_not_assumed_away() -> None:
    world: Any = {LookKey(IMAGE, MONITORS): Image(error=Unavailable("silent"))}
    assert Mappings({}).assumed(recorded(), world) == {}


def test_a_domain_that_will_have_let_go_holds_nothing() -> None:
    host = mapped()
    in_use(host)
    world, gone = host.observe(), wish(present=False)
    link = mapping_result(plan_mapping(wish(), world, host).after, FSID)["device_path"]
    unplugged = {"domain": QEMU.name, "live": False, "source": {"type": "block", "path": link}}
    for other in ({**unplugged, "domain": "web-2"}, {**unplugged, "live": True}, {**unplugged, "source": {"type": "block", "path": link + "0"}}):
        with pytest.raises(Refused):
            plan_mapping(gone, {**world, **Mappings({}).assumed(other, world)}, host)
    assert plan_mapping(gone, {**world, **Mappings({}).assumed(unplugged, world)}, host).after is None


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_prediction_names_the_link_that_the_run_returns() -> None:
    host = FakeKernel()
    plan = plan_mapping(wish(), host.observe(), host)
    foretold = mapping_result(plan.after, FSID)
    reached = mapping_result(mapped().observe()[plan.key], FSID)
    assert {**reached, "device": None, "client": None} == foretold and reached["device"] == "/dev/rbd0" and reached["mode"] == "rw"
    assert foretold["device_path"] == f"/dev/stackless-block/rbd/{FSID}/{IMAGE}"
    assert mapping_result(None, "") == {**dict.fromkeys(foretold), "cluster_fsid": None}
