# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several processes want one volume at the same moment: one gets it, the others are told who has it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing

import pytest
from ansible_collections.stackless.block.plugins.module_utils._manage_volume import Attachments, Volumes
from ansible_collections.stackless.block.plugins.module_utils._reconcile import reconcile

ROUNDS, RACERS = 100, 4

# librados does not survive a fork
spawn = multiprocessing.get_context("spawn")


class Answered(Exception):
    pass


class Module:
    """What the engine needs of AnsibleModule, in a process that lives for all rounds."""

    check_mode = False

    def __init__(self, **params):
        self.no_log_values = set()
        self.params = {"timeout": 10, "lock_timeout": 10, "assume": [], **params}

    def exit_json(self, **answer):
        raise Answered({"failed": False, **answer})

    fail_json = exit_json

    def warn(self, text):
        raise AssertionError(text)


def call(resource, **params):
    try:
        reconcile(Module(**params), resource)
    except Answered as answered:
        return answered.args[0]
    raise AssertionError("the engine ended without an answer")


class AttachmentsElsewhere(Attachments):
    """As on hosts of their own, which have no lock in common."""

    def __init__(self, options):
        super().__init__(options)
        self.lock_path = None


class VolumesElsewhere(Volumes):
    def __init__(self, options):
        super().__init__(options)
        self.lock_path = None


def attachment(resource, backend, racer, action):
    return call(resource, backend=backend, attachments=None, volume="db", instance=f"web-{racer}", host=f"c{racer}", action=action)


def reserve(backend, racer, start, end, answers, resource, rounds):
    for number in range(rounds):
        start.wait(30)
        answer = attachment(resource, backend, racer, "reserve")
        answers.put((number, racer, answer["failed"], answer.get("msg", "")))
        end.wait(30)
        if not answer["failed"]:
            assert not attachment(resource, backend, racer, "terminate")["failed"]
            assert not attachment(resource, backend, racer, "release")["failed"]


def make(backend, racer, start, end, answers, resource, rounds):
    for number in range(rounds):
        start.wait(30)
        answer = call(resource, backend=backend, volumes=None, name="db", size_gib=1)
        won = answer["changed"] and not answer["failed"]
        answers.put((number, racer, not won, answer.get("msg") or answer["id"]))
        end.wait(30)
        if won:
            assert call(resource, backend=backend, volumes=None, name="db", state="absent")["changed"]


def told_in(contest, backend, resource, rounds=ROUNDS):
    """What every racer was told in every round: (round, racer, whether he lost, what he was told)."""
    start, end, answers = spawn.Barrier(RACERS), spawn.Barrier(RACERS), spawn.Queue()
    racers = [spawn.Process(target=contest, args=(backend, racer, start, end, answers, resource, rounds)) for racer in range(RACERS)]
    for racer in racers:
        racer.start()
    try:
        told = [answers.get(timeout=60) for answer in range(rounds * RACERS)]
        for racer in racers:
            racer.join(30)
        assert [racer.exitcode for racer in racers] == [0] * RACERS
    finally:
        for racer in racers:
            racer.kill()
    return [[answer for answer in told if answer[0] == number] for number in range(rounds)]


@pytest.mark.parametrize(
    "pool,resource", [("file", Attachments), ("rbd", AttachmentsElsewhere)], indirect=["pool"], ids=["file", "rbd, from several hosts"]
)
def test_one_winner_in_every_round(run_module, pool, resource):
    assert not run_module("cinder_volume", {"backend": pool.backend, "name": "db", "size_gib": 1})["failed"]
    for mine in told_in(reserve, pool.backend, resource):
        winners = [racer for number, racer, failed, msg in mine if not failed]
        assert len(winners) == 1, mine
        allowed = [f"held by web-{winners[0]} on c{winners[0]} (reserved)"]
        if resource is AttachmentsElsewhere:
            allowed.append("volume db was changed by someone else meanwhile")
        assert all(any(words in msg for words in allowed) for number, racer, failed, msg in mine if failed), mine


@pytest.mark.parametrize("pool", ["rbd"], indirect=True)
def test_of_several_hosts_that_make_a_volume_of_one_name_one_does(pool):
    for mine in told_in(make, pool.backend, VolumesElsewhere, rounds=30):
        winners = [told for number, racer, failed, told in mine if not failed]
        assert len(winners) == 1, mine
        # the others came too late to begin, looked when it was there already, or found it half made
        late = f"volume db was made by someone else meanwhile, at rbd:{pool.ceph.pool}/{pool.namespace}/volume-{winners[0]}"
        allowed = (late, winners[0], "volume db was changed by someone else")
        assert all(any(words in told for words in allowed) for number, racer, failed, told in mine if failed), mine
    assert pool.images() == []


@pytest.mark.parametrize("number", range(5))
def test_one_winner_among_whole_modules(run_module, pool, number):
    backend = pool.backend
    assert not run_module("cinder_volume", {"backend": backend, "name": "db", "size_gib": 1})["failed"]
    options = [{"backend": backend, "volume": "db", "instance": f"web-{n}", "host": "c", "action": "reserve"} for n in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda o: run_module("cinder_attachment", o), options))
    assert sorted(answer["failed"] for answer in told) == [False, True, True]
