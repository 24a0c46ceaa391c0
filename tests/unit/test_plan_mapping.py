# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the planner of kernel mappings, on every pair of a start and a wish; its refusals; the gate."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Callable

import pytest

from ansible_collections.stackless.block.plugins.module_utils import _errors as errors
from ansible_collections.stackless.block.plugins.module_utils._hosts.krbd import options_of
from ansible_collections.stackless.block.plugins.module_utils._model.data import Secret
from ansible_collections.stackless.block.plugins.module_utils._model.mapping import Mapping
from ansible_collections.stackless.block.plugins.module_utils._model.session import Holder
from ansible_collections.stackless.block.plugins.module_utils._plan_mapping import MappingWish, arrived, plan_mapping, waiting_for
from ansible_collections.stackless.block.plugins.module_utils._reconcile import Plan
from tests.unit.fake_kernel import FSID, IMAGE, MIB, MONITORS, OTHER_FSID, FakeKernel
from tests.unit.laws import Subject, hold

QEMU = Holder("domain", "web-1", 4711)
FOREIGN = "192.0.2.9 (client.9)"


def wish(**given: Any) -> MappingWish:
    return MappingWish(**{"image": IMAGE, "monitors": MONITORS, "username": "cinder", "password": Secret("key"), "size_bytes": MIB, **given})


WISHES = {
    "mapped": wish(),
    "by its cluster": wish(cluster=FSID),
    "for reading": wish(read_only=True, exclusive=False),
    "shared": wish(shared=True, exclusive=False),
    "not exclusively": wish(exclusive=False),
    "grown": wish(size_bytes=2 * MIB),
    "whatever its size": wish(size_bytes=None),
    "gone": wish(present=False),
    "gone from its cluster": wish(present=False, cluster=FSID),
    "gone, if nobody uses it": wish(present=False, keep_in_use=True),
}


def plan(host: FakeKernel, want: MappingWish) -> Plan:
    return plan_mapping(want, host.observe(), host)


def run(found: Plan) -> None:
    for step in found.acts:
        step.act(*step.args)


def mapped(**given: Any) -> FakeKernel:
    host = FakeKernel()
    run(plan(host, wish(**given)))
    return host


def change(host: FakeKernel, **given: Any) -> None:
    host.images[IMAGE] = dataclasses.replace(host.images[IMAGE], **given)


def change_device(host: FakeKernel, **given: Any) -> None:
    host.devices[0] = dataclasses.replace(host.devices[0], **given)


def grow(host: FakeKernel) -> None:
    change(host, size_bytes=2 * MIB)


def in_use(host: FakeKernel) -> None:
    host.held[0] = (QEMU,)


DRIFTS: dict[str, Callable[[FakeKernel], None]] = {
    "as it was left": lambda host: None,
    "rebooted": lambda host: (host.unmap(host.devices[0]), setattr(host, "ground", dataclasses.replace(host.ground, loaded=False, ruled=False))),
    "its rule lost": lambda host: setattr(host, "ground", dataclasses.replace(host.ground, ruled=False)),
    "its link lost": lambda host: host.unlinked.add(0),
    "grown": grow,
    "grown, in use": lambda host: (grow(host), in_use(host)),
    "in use": in_use,
    "mapped for reading": lambda host: change_device(host, read_only=True, exclusive=False),
    "mapped without the lock": lambda host: change_device(host, exclusive=False),
    "mapped without the lock, in use": lambda host: (change_device(host, exclusive=False), in_use(host)),
    "another image by now": lambda host: change(host, image_id="id-2"),
    "another image by now, in use": lambda host: (change(host, image_id="id-2"), in_use(host)),
    "fenced": lambda host: change(host, holders=()),
    "fenced, in use": lambda host: (change(host, holders=()), in_use(host)),
    "open elsewhere too": lambda host: change(host, holders=(*host.images[IMAGE].holders, FOREIGN)),
    "mapped a second time": lambda host: host.devices.update({5: dataclasses.replace(host.devices[0], number=5)}),
    "another cluster's beside it": lambda host: host.devices.update({5: dataclasses.replace(host.devices[0], number=5, cluster=OTHER_FSID)}),
    "another image's beside it": lambda host: host.devices.update({5: dataclasses.replace(host.devices[0], number=5, image="volumes/a-10")}),
    "another namespace's beside it": lambda host: host.devices.update({5: dataclasses.replace(host.devices[0], number=5, image="volumes/a/1")}),
}
STARTS: dict[str, Callable[[], FakeKernel]] = {
    "nothing": FakeKernel,
    "a kernel without its driver": lambda: FakeKernel(loaded=False, ruled=False),
    "an image without the feature": lambda: drifted(FakeKernel(), lambda host: change(host, features=1)),
    **{name: lambda drift=drift: drifted(mapped(), drift) for name, drift in DRIFTS.items()},
}


def drifted(host: FakeKernel, drift: Callable[[FakeKernel], Any]) -> FakeKernel:
    drift(host)
    return host


@pytest.mark.parametrize(("start", "want"), list(itertools.product(STARTS, WISHES)))
def test_the_laws_hold(start: str, want: str) -> None:
    hold(Subject(STARTS[start], lambda host: host.observe(), lambda host, world: plan_mapping(WISHES[want], world, host), lambda host: host.trace()))


def steps(host: FakeKernel, want: MappingWish) -> list[str]:
    return [step.name for step in plan(host, want).acts]


def test_the_way_there_and_back() -> None:
    host = FakeKernel(loaded=False, ruled=False)
    assert steps(host, wish()) == ["write /rules, by which udev names RBD devices", "load the kernel's driver rbd", f"map image {IMAGE}"]
    run(plan(host, wish()))
    assert steps(host, wish()) == []
    assert steps(host, wish(present=False)) == ["flush the buffers of rbd0", f"unmap image {IMAGE} (rbd0)"]


def test_who_has_an_image_open_is_told_and_waited_for() -> None:
    host = drifted(FakeKernel(), lambda host: change(host, holders=(FOREIGN,)))
    found = plan(host, wish())
    assert found.warnings == (f"image {IMAGE} is open at {FOREIGN}; it is mapped only when that has ended",) and len(found.steps) == 1
    assert plan(host, WISHES["shared"]).warnings == ()
    there = STARTS["open elsewhere too"]()
    in_use(there)
    assert plan(there, wish()).warnings == (f"image {IMAGE} is open at {FOREIGN} too",) and steps(there, wish()) == []


def test_what_a_run_made_is_taken_back_and_no_more() -> None:
    host = FakeKernel()
    found = plan(host, wish())
    run(found)
    (undo,) = found.undo
    undo.act(*undo.args)
    assert host.devices == {}
    assert plan(mapped(), wish()).undo == ()


@pytest.mark.parametrize(
    ("start", "want", "kind", "told"),
    [
        ("in use", "gone", errors.Refused, r"a-1 \(rbd0\) is in use by domain web-1 \(pid 4711\); let it go"),
        ("another image by now, in use", "mapped", errors.Conflict, r"rbd0 is image volumes/a-1 as it was .*id id-1.* in use by domain web-1"),
        ("mapped a second time", "mapped", errors.Conflict, "mapped twice on this host, as rbd0 and rbd5"),
        ("mapped a second time", "gone", errors.Conflict, "mapped twice"),
        ("another cluster's beside it", "gone", errors.Conflict, f"{FSID} and {OTHER_FSID}; say which"),
        ("open elsewhere too", "mapped", errors.Conflict, r"open at 192.0.2.9 \(client.9\), and mapped on this host as rbd0, which nobody uses"),
        ("nothing", "grown", errors.Conflict, f"has {MIB} bytes, not {2 * MIB}"),
        ("an image without the feature", "mapped", errors.Refused, "without the feature exclusive-lock"),
    ],
)
def test_what_is_refused(start: str, want: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        plan(STARTS[start](), WISHES[want])


def test_an_image_that_is_not_there_and_a_cluster_that_is_another_one() -> None:
    with pytest.raises(errors.NotFound, match="image volumes/none can't be mapped: there is no image"):
        plan(FakeKernel(), wish(image="volumes/none"))
    with pytest.raises(errors.Conflict, match=f"lead to the cluster {FSID}, not to {OTHER_FSID}"):
        plan(FakeKernel(), wish(cluster=OTHER_FSID))


@pytest.mark.parametrize(
    ("ground", "kind", "told"),
    [
        ({"installed": False, "loaded": False}, errors.Unavailable, "no driver rbd .*linux-modules-extra"),
        ({"keyring": False}, errors.Unavailable, "install the package libkeyutils1"),
        ({"features": 0x1F}, errors.Refused, r"does not know \(0x20\)"),
    ],
)
def test_a_host_that_can_not(ground: dict[str, Any], kind: type[Exception], told: str) -> None:
    host = drifted(FakeKernel(), lambda host: setattr(host, "ground", dataclasses.replace(host.ground, **ground)))
    with pytest.raises(kind, match=told):
        plan(host, wish())
    assert steps(host, wish(present=False)) == []
    there = drifted(mapped(), lambda host: setattr(host, "ground", dataclasses.replace(host.ground, **ground)))
    assert steps(there, wish()) == []


@pytest.mark.parametrize("beside", ["another cluster's beside it", "another image's beside it", "another namespace's beside it"])
def test_what_is_anothers_stays(beside: str) -> None:
    host = STARTS[beside]()
    run(plan(host, wish()))
    run(plan(host, wish(present=False, cluster=FSID)))
    assert list(host.devices) == [5]


def test_what_is_in_use_stays_as_it_is_with_a_word_of_it() -> None:
    for start, told in (
        ("mapped without the lock, in use", "is not mapped exclusively, and stays so until it is let go by domain web-1"),
        ("fenced, in use", "is mapped by client.4001, which its cluster does not know any more"),
    ):
        found = plan(STARTS[start](), wish())
        assert found.steps == () and told in found.warnings[0]
    found = plan(STARTS["in use"](), wish(present=False, keep_in_use=True))
    assert found.steps == () and "so it stays mapped" in found.warnings[0]


@pytest.mark.parametrize("start", ["mapped for reading", "mapped without the lock", "another image by now", "fenced"])
def test_what_nobody_uses_is_made_anew(start: str) -> None:
    assert steps(STARTS[start](), wish()) == [f"unmap image {IMAGE} (rbd0)", f"map image {IMAGE}"]


def test_the_gate() -> None:
    after = Mapping(IMAGE, FSID, MIB, exclusive=True, image_id="id-1")
    there = dataclasses.replace(after, number=3, linked=True)
    assert arrived(after, there) and not arrived(after, None)
    for given, told in (({"size_bytes": 2 * MIB}, "bytes, not"), ({"linked": False}, "the link of rbd3 has not come")):
        assert not arrived(after, dataclasses.replace(there, **given))
        assert told in waiting_for(after, dataclasses.replace(there, **given))
    assert not arrived(after, dataclasses.replace(there, read_only=True)) and "no device" in waiting_for(after, None)
    with pytest.raises(errors.Conflict, match=r"exchanged for another one while it was mapped \(rbd3\)"):
        arrived(after, dataclasses.replace(there, image_id="id-2"))


def test_what_the_driver_shows_of_its_options() -> None:
    assert options_of("192.0.2.1:6789 name=cinder,key=client.cinder,rw,exclusive volumes a-1 -") >= {"exclusive", "rw"}
    assert "exclusive" not in options_of("192.0.2.1:6789 name=exclusive,ro volumes exclusive -") and options_of(None) == frozenset()
