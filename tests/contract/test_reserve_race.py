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


class Answered(Exception):
    pass


class Module:
    """What the engine needs of AnsibleModule, in a process that lives for all rounds."""

    check_mode = False

    def __init__(self, **params):
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


def attachment(backend, racer, action):
    return call(Attachments, backend=backend, attachments=None, volume="db", instance=f"web-{racer}", host=f"c{racer}", action=action)


def race(backend, racer, start, end, answers):
    for number in range(ROUNDS):
        start.wait(30)
        answer = attachment(backend, racer, "reserve")
        answers.put((number, racer, answer["failed"], answer.get("msg", "")))
        end.wait(30)
        if not answer["failed"]:
            assert not attachment(backend, racer, "terminate")["failed"]
            assert not attachment(backend, racer, "release")["failed"]


def test_one_winner_in_every_round(tmp_path):
    backend = {"driver": "file", "path": str(tmp_path), "allocation": "sparse"}
    assert not call(Volumes, backend=backend, volumes=None, name="db", size_gib=1)["failed"]
    fork = multiprocessing.get_context("fork")
    start, end, answers = fork.Barrier(RACERS), fork.Barrier(RACERS), fork.Queue()
    racers = [fork.Process(target=race, args=(backend, racer, start, end, answers)) for racer in range(RACERS)]
    for racer in racers:
        racer.start()
    told = [answers.get(timeout=60) for answer in range(ROUNDS * RACERS)]
    for racer in racers:
        racer.join(30)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    for number in range(ROUNDS):
        mine = [t for t in told if t[0] == number]
        winners = [racer for number, racer, failed, msg in mine if not failed]
        assert len(winners) == 1, mine
        holder = f"held by web-{winners[0]} on c{winners[0]} (reserved)"
        assert all(holder in msg for number, racer, failed, msg in mine if failed), mine


@pytest.mark.parametrize("number", range(5))
def test_one_winner_among_whole_modules(run_module, tmp_path, number):
    backend = {"driver": "file", "path": str(tmp_path)}
    assert not run_module("cinder_volume", {"backend": backend, "name": "db", "size_gib": 1})["failed"]
    options = [{"backend": backend, "volume": "db", "instance": f"web-{n}", "host": "c", "action": "reserve"} for n in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda o: run_module("cinder_attachment", o), options))
    assert sorted(answer["failed"] for answer in told) == [False, True, True]
