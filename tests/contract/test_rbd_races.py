# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hosts at one pool of a real Ceph cluster: what the other one does in the middle of a step; and what clusters keep for themselves."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal

import pytest
from ansible_collections.stackless.block.plugins.module_utils._manage_snapshot import Snapshots
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Volumes
from ansible_collections.stackless.block.plugins.module_utils._volumes._rbd_lineage import Lineage

from tests.contract.test_rbd import killed_after
from tests.contract.test_rbd_clones import of_users
from tests.contract.test_reserve_race import call as call_inside
from tests.rig.ceph import FEATURES
from tests.rig.pools import MANY, RbdPool, call, foretold, good, refusal, settled, snapshot, volumes

CLONED = 256  # a feature bit that Ceph gives to images with clones, and to clones

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def pool(ceph):
    return RbdPool(ceph)


def interrupted(resource, pool, verb, meanwhile, **options):
    """What a run on a host of its own answers, in which somebody else does something just before it calls this verb."""

    class There(resource):
        def __init__(self, given):
            super().__init__(given)
            self.lock_path = None

    plain, did = getattr(Lineage, verb), []

    def act(self, *arguments, **named):
        if not did:
            did.append(True)
            meanwhile()
        return plain(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lineage, verb, act)
        answer = call_inside(There, backend=pool.backend, **{resource.plural: None}, **options)
    assert did, f"nobody called {verb}"
    return answer


def kill(pool, write, resource=Volumes, **options):
    """A run that is killed after so many writes."""
    run = spawn.Process(target=killed_after, args=(write, resource, {**pool.backend, "timeout": 1}, options))
    run.start()
    run.join(60)
    assert run.exitcode == -signal.SIGKILL


def reserve(pool, action="reserve"):
    return good(call(pool, module="cinder_attachment", volume="db", instance="web-1", host="c", action=action))


# ---- the other one is faster


def test_a_volume_is_not_reverted_while_a_snapshot_of_it_is_begun(pool, db):
    good(snapshot(pool, name="old"))
    told = []
    answer = interrupted(Snapshots, pool, "take", lambda: told.append(refusal(call(pool, name="db", revert_to="old"))), volume="db", name="new")
    assert not answer["failed"] and "can't be reverted while its snapshot new is being taken" in told[0]


@pytest.mark.parametrize("meanwhile", ["reverted", "extended"])
def test_a_volume_that_changes_is_not_cloned(pool, db, meanwhile):
    good(snapshot(pool, name="old"))
    good(call(pool, name="db", size_gib=2))

    def other():
        if meanwhile == "extended":
            good(call(pool, name="db", size_gib=3))
        else:
            kill(pool, 2, name="db", revert_to="old")

    answer = interrupted(Volumes, pool, "take", other, name="new", source={"volume": "db"})
    assert "source of volume new was changed by someone else meanwhile" in answer["msg"] and list(volumes(pool)) == ["db"]
    assert [name for name in of_users(pool, db) if name.startswith("clone-")] == []


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("opened", [True, False])
def test_a_revert_that_comes_too_late_overwrites_nothing(pool, shared, opened):
    db = good(call(pool, name="db", size_gib=1, multiattach=shared))
    good(snapshot(pool, name="old"))
    kill(pool, 1, name="db", revert_to="old")
    with contextlib.ExitStack() as guest:

        def other():
            good(call(pool, name="db", revert_to="old"))
            reserve(pool)
            image = guest.enter_context(pool.image(f"volume-{db['id']}"))
            image.write(b"G" * MANY, 0)
            if not opened:
                guest.close()

        assert interrupted(Volumes, pool, "revert", other, name="db", revert_to="old")["failed"]
    assert pool.read(db["path"], MANY) == b"G" * MANY


def test_a_source_that_is_deleted_meanwhile_leaves_nothing(pool, db):
    good(call(pool, name="one", source={"volume": "db"}))
    answer = interrupted(
        Volumes, pool, "take", lambda: good(call(pool, name="db", state="absent", clones="trash")), name="new", source={"volume": "db"}
    )
    assert answer["failed"]
    settled(pool, call, name="one", state="absent")
    assert pool.images() == []


def test_a_snapshot_that_is_deleted_while_it_is_begun_is_no_obstacle(pool, db):
    answer = interrupted(Snapshots, pool, "take", lambda: good(snapshot(pool, state="absent")), volume="db", name="monday")
    assert "changed by someone else meanwhile" in answer["msg"]
    settled(pool, call, name="db", state="absent")
    assert pool.images() == []


def test_what_takes_long_does_not_hold_up_the_host(pool, db):
    good(call(pool, name="one", source={"volume": "db"}))
    other = []
    plain = Lineage.flatten

    def slow(self, clone):
        other.append(call(pool, name="other", size_gib=1, lock_timeout=1))
        return plain(self, clone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lineage, "flatten", slow)
        assert not call_inside(Volumes, backend=pool.backend, volumes=None, name="db", state="absent", clones="flatten")["failed"]
    good(other[0])


# ---- what killed and failed runs leave


def test_a_killed_clone_does_not_keep_its_source(pool, db):
    kill(pool, 2, name="new", source={"volume": "db"})
    assert [name for name in of_users(pool, db) if name.startswith("clone-")]
    settled(pool, call, name="db", state="absent")


def test_a_snapshot_that_is_there_is_finished_whoever_has_the_volume_by_now(pool, db):
    kill(pool, 2, Snapshots, volume="db", name="monday")
    reserve(pool)
    assert settled(pool, snapshot)["steps"] == ["take snapshot monday of volume db", "mark snapshot monday of volume db available"]


@pytest.mark.parametrize("why", ["no layering", "first format"])
def test_what_can_not_be_cloned_says_why_and_leaves_nothing(pool, db, why):
    import rbd

    backend = {"features": ["exclusive-lock"]} if why == "no layering" else {}
    source = good(call(pool, name="source", size_gib=1, backend=backend))
    with pool.ceph.pool_of() as io, contextlib.ExitStack() as after:
        if why == "first format":
            rbd.RBD().config_set(io, "rbd_default_clone_format", "1")
            after.callback(rbd.RBD().config_remove, io, "rbd_default_clone_format")
        told = refusal(call(pool, name="new", source={"volume": "source"}, backend=backend))
    assert "can't be cloned: it lacks the feature layering, or pool volumes insists on Ceph's first format" in told
    assert of_users(pool, source) == [] and sorted(volumes(pool)) == ["db", "source"]
    settled(pool, call, name="source", state="absent")


# ---- what Ceph has of its own


def test_a_clone_has_its_own_features(pool):
    good(call(pool, name="shared", size_gib=1, multiattach=True))
    made = good(call(pool, name="new", source={"volume": "shared"}))
    with pool.image(f"volume-{made['id']}", read_only=True) as image:
        assert image.features() == FEATURES + CLONED


def test_a_clone_whose_snapshots_would_go_on_sharing_is_named(pool, db):
    backend = {"features": ["layering"]}
    good(call(pool, name="one", source={"volume": "db"}, backend=backend))
    good(snapshot(pool, volume="one"))
    told = refusal(foretold(pool, call, name="db", state="absent", clones="flatten"))
    assert "the snapshots of clone one would go on sharing its data; delete those first, or keep the data for it with clones=trash" in told
    settled(pool, call, name="db", state="absent", clones="trash")
    settled(pool, call, name="one", state="absent", cascade=True)
    assert pool.images() == []


def test_a_check_knows_the_clones_that_its_own_list_makes(pool, db):
    wishes = [{"name": "new", "source": {"volume": "db"}}, {"name": "db", "state": "absent"}]
    predicted, answer = call(pool, check=True, volumes=wishes), call(pool, volumes=wishes)
    assert predicted["msg"] == answer["msg"] and "clones share its data: new; delete them first" in answer["msg"]


def test_a_volume_of_a_snapshot_is_not_one_of_the_volume(pool, db):
    good(snapshot(pool))
    good(call(pool, name="new", source={"volume": "db", "snapshot": "monday"}))
    assert "was not made from volume db" in refusal(foretold(pool, call, name="new", source={"volume": "db"}))


def test_what_the_pool_keeps_in_its_trash_is_no_obstacle(pool, db):
    import rbd

    wishes = {"rbd_move_to_trash_on_remove": "true", "rbd_move_to_trash_on_remove_expire_seconds": "3600"}
    with pool.ceph.pool_of() as io, contextlib.ExitStack() as after:
        for key, value in wishes.items():
            rbd.RBD().config_set(io, key, value)
            after.callback(rbd.RBD().config_remove, io, key)
        settled(pool, call, name="db", state="absent")
        good(call(pool, name="other", size_gib=1))
        settled(pool, call, name="other", state="absent")
    assert len(pool.images()) == 2 and volumes(pool) == {}


def test_a_host_whose_clock_is_ahead_is_no_obstacle(pool, db):
    import rbd

    good(call(pool, name="one", source={"volume": "db"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lineage, "retire", lambda self, image: rbd.RBD().trash_move(self.io, image.name, 5))
        assert not call_inside(Volumes, backend=pool.backend, volumes=None, name="db", state="absent", clones="trash")["failed"]
    settled(pool, call, name="one", state="absent")
