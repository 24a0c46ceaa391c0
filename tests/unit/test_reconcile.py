# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine on a toy resource: lamps that are switched, some of them slowly, some of them broken."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import time

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Busy, Conflict, Failed, Invalid, Refused, Unavailable
from ansible_collections.stackless.block.plugins.module_utils._model.data import MASK, Secret, as_data, diff_data
from ansible_collections.stackless.block.plugins.module_utils._reconcile import Plan, Resource, Step, items_of, locked, look, reconcile


class Ended(Exception):
    pass


class Module:
    """Stands in for AnsibleModule: remembers how it was ended."""

    def __init__(self, check=False, **params):
        self.params = {"timeout": 1, "lock_timeout": 1, "assume": [], "lamps": None, "name": None, "on": None, **params}
        self.check_mode = check
        self.warned = []

    def exit_json(self, **answer):
        self.answer = json.loads(json.dumps({"failed": False, **answer}))
        raise Ended

    def fail_json(self, **answer):
        self.answer = json.loads(json.dumps({"failed": True, **answer}))
        raise Ended

    def warn(self, text):
        self.warned.append(text)


class House:
    """The world of the toy: lamps by name, and a count of every look and every write."""

    def __init__(self, **lamps):
        self.lamps = lamps
        self.looks = self.writes = 0
        self.slow = set()

    def switch(self, name, on):
        self.writes += 1
        if name == "broken":
            raise Failed("lamp broken does not switch; change the bulb")
        if name not in self.slow:
            self.lamps[name] = on


HOUSE = House()


class Lamps(Resource):
    plural = "lamps"

    def want(self, item):
        if not item["name"]:
            raise Invalid("a lamp has no name; give name")
        return item["name"], item["on"]

    def observe(self, wants):
        HOUSE.looks += 1
        return dict(HOUSE.lamps)

    def plan(self, want, world):
        name, on = want
        have = world.get(name)
        if name == "locked":
            raise Refused("lamp locked may not be switched; ask for the key")
        steps = () if have == on else (Step(f"switch {name} {'on' if on else 'off'}", HOUSE.switch, (name, on)),)
        return Plan(name, have, on, steps, warnings=(f"lamp {name} is old",) if name == "old" else ())

    def assumed(self, result, world):
        return {result["name"]: result["on"]}

    def show(self, plan, state):
        return {"on": state}


def run(house, check=False, resource=Lamps, **params):
    global HOUSE
    HOUSE = house
    module = Module(check, **params)
    with pytest.raises(Ended):
        reconcile(module, resource)
    return module.answer


@pytest.mark.parametrize("check", [False, True])
def test_check_mode_says_what_the_run_says_and_writes_nothing(check):
    house = House(a=False, b=True)
    answer = run(house, check, lamps=[{"name": "a", "on": True}, {"name": "b", "on": True}, {"name": "c", "on": False}])
    assert answer["changed"] and [r["changed"] for r in answer["results"]] == [True, False, True]
    assert answer["steps"] == ["switch a on", "switch c off"]
    assert [(d["before_header"], d["before"], d["after"]) for d in answer["diff"]] == [("a", {}, True), ("c", {}, {})]
    assert house.writes == (0 if check else 2)


class Gathering(Lamps):
    """Lamps whose state is written down once for all of them."""

    def flush(self):
        HOUSE.flushed = [*getattr(HOUSE, "flushed", []), dict(HOUSE.lamps)]
        if HOUSE.lamps.get("full"):
            raise Failed("the book is full; take another")


@pytest.mark.parametrize("check", [False, True])
def test_what_steps_only_gathered_is_written_once_after_the_last_of_them(check):
    house = House(a=False, b=False)
    run(house, check, Gathering, lamps=[{"name": "a", "on": True}, {"name": "broken", "on": True}, {"name": "b", "on": True}])
    assert getattr(house, "flushed", []) == ([] if check else [{"a": True, "b": True}])


def test_what_could_not_be_written_is_an_error_of_each_item_that_did_something():
    answer = run(House(a=False, b=True, full=True), False, Gathering, lamps=[{"name": "a", "on": True}, {"name": "b", "on": True}])
    assert [result["failed"] for result in answer["results"]] == [True, False]
    assert answer["results"][0]["msg"] == "the book is full; take another"


def test_one_look_before_and_one_after_whatever_the_number_of_items():
    house = House()
    run(house, lamps=[{"name": str(n), "on": True} for n in range(50)])
    assert (house.looks, house.writes) == (2, 50)


def test_nothing_to_do_is_one_look_and_no_write():
    house = House(a=True)
    assert not run(house, name="a", on=True)["changed"]
    assert (house.looks, house.writes) == (1, 0)


def test_an_item_that_fails_stops_alone():
    house = House(a=False, broken=False)
    answer = run(house, lamps=[{"name": "", "on": True}, {"name": "broken", "on": True}, {"name": "locked", "on": True}, {"name": "a", "on": True}])
    assert answer["failed"] and [r["failed"] for r in answer["results"]] == [True, True, True, False]
    assert [r["changed"] for r in answer["results"]] == [False, True, False, True]
    assert answer["msg"].startswith("3 of 4 failed: a lamp has no name; give name; lamp broken does not switch")
    assert house.lamps["a"] is True


@pytest.mark.parametrize("check", [False, True])
def test_refusals_are_the_same_in_check_mode(check):
    answer = run(House(), check, name="locked", on=True)
    assert answer["failed"] and answer["msg"] == "lamp locked may not be switched; ask for the key"


def test_a_name_that_stands_twice_is_refused():
    answer = run(House(), lamps=[{"name": "a", "on": True}, {"name": "a", "on": False}])
    assert "a stands twice in lamps" in answer["msg"]


def test_what_never_comes_true_fails_in_bounded_time_for_all_items_together():
    house = House()
    house.slow = {"s1", "s2", "s3"}
    began = time.monotonic()
    answer = run(house, lamps=[{"name": name, "on": True} for name in ("s1", "s2", "s3", "quick")])
    assert time.monotonic() - began < 2
    assert [r["failed"] for r in answer["results"]] == [True, True, True, False]
    assert "did not reach the wanted state within 1 s" in answer["results"][0]["msg"]


def test_closing_acts_wait_until_the_steps_came_true():
    class Closing(Lamps):
        def plan(self, want, world):
            plan = super().plan(want, world)
            return Plan(plan.key, plan.before, plan.after, plan.steps, closing=(Step("close the door", HOUSE.switch, ("door", False)),))

    house = House(door=True)
    assert run(house, resource=Closing, name="a", on=True)["steps"] == ["switch a on", "close the door"]
    assert house.lamps["door"] is False
    house = House(door=True)
    house.slow = {"a"}
    assert run(house, resource=Closing, name="a", on=True)["failed"]
    assert house.lamps["door"] is True


def test_assumed_results_count_only_in_check_mode():
    assume = [{"name": "a", "on": True}]
    assert not run(House(), True, name="a", on=True, assume=assume)["changed"]
    assert run(House(), False, name="a", on=True, assume=assume)["changed"]


def test_a_single_item_also_stands_at_the_top():
    answer = run(House(), name="a", on=True)
    assert answer["on"] is True and answer["name"] == "a" and len(answer["results"]) == 1


def test_items_take_top_level_values_as_defaults():
    params = {"lamps": [{"name": "a", "on": None}, {"name": "b", "on": False}], "name": None, "on": True}
    assert [(i["name"], i["on"]) for i in items_of(params, "lamps")] == [("a", True), ("b", False)]


def test_warnings_are_told_once():
    global HOUSE
    HOUSE = House()
    module = Module(lamps=[{"name": "old", "on": True}])
    with pytest.raises(Ended):
        reconcile(module, Lamps)
    assert module.warned == ["lamp old is old"]


def test_a_resource_that_can_not_be_opened_fails_with_its_sentence():
    class Gone(Lamps):
        def __init__(self, options):
            raise Unavailable("the house is gone; build it first")

    assert run(House(), resource=Gone, name="a", on=True) == {"failed": True, "msg": "the house is gone; build it first"}


def test_look_never_changes_anything():
    module = Module()
    with pytest.raises(Ended):
        look(module, lambda options: {"lamps": [1], "warnings": ["one is broken"]})
    assert module.answer == {"failed": False, "changed": False, "lamps": [1]} and module.warned == ["one is broken"]


def _hold(path, seconds, ready):
    with locked(path, 1):
        ready.set()
        time.sleep(seconds)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_lock_is_waited_for_and_the_wait_is_bounded(tmp_path, kind):
    path = str(tmp_path if kind == "directory" else tmp_path / "lock")
    spawn = multiprocessing.get_context("fork")
    ready = spawn.Event()
    holder = spawn.Process(target=_hold, args=(path, 0.6, ready))
    holder.start()
    ready.wait(5)
    with pytest.raises(Conflict, match="another run holds the lock"):
        with locked(path, 0.1):
            raise AssertionError("two hold one lock")
    with locked(path, 5):
        pass
    holder.join(5)
    if kind == "file":
        assert os.stat(path).st_mode & 0o777 == 0o600


def _take(path, told):
    with locked(path, 1):
        told.set()


def test_a_lock_that_is_paused_is_free_meanwhile_and_held_again_afterwards(tmp_path):
    path = str(tmp_path / "lock")
    fork = multiprocessing.get_context("fork")
    taken = fork.Event()
    with locked(path, 5) as lock:
        with lock.pause():
            other = fork.Process(target=_take, args=(path, taken))
            other.start()
            other.join(5)
        assert taken.is_set()
        with pytest.raises(Conflict), locked(path, 0):
            raise AssertionError("two hold one lock")


def test_secrets_are_never_shown():
    secret = Secret("top-secret-1")
    assert "top-secret" not in f"{secret!r} {secret} {as_data({'a': [secret]})}"
    assert secret.reveal() == "top-secret-1"


def test_a_diff_shows_that_a_secret_changes_but_not_what_it_is():
    old, new = Secret("old-secret-1"), Secret("new-secret-1")
    assert diff_data({"p": old}, {"p": old}) == ({"p": MASK}, {"p": MASK})
    before, after = diff_data({"p": old}, {"p": new})
    assert before != after and "secret-1" not in f"{before}{after}"


class Doors(Lamps):
    """Lamps whose switching is undone when it fails, and which flicker."""

    def plan(self, want, world):
        plan = super().plan(want, world)
        back = (Step(f"switch {plan.key} back", HOUSE.switch, (plan.key, plan.before)),)
        return dataclasses.replace(plan, undo=back)

    def doubts(self, plan, state):
        return [f"lamp {plan.key} flickers"] if state else []


def test_what_did_not_come_true_is_taken_back_and_what_did_stays():
    house = House(a=False, slow=False)
    house.slow = {"slow"}
    answer = run(house, resource=Doors, timeout=0, lamps=[{"name": "slow", "on": True}, {"name": "a", "on": True}])
    assert [r["steps"] for r in answer["results"]] == [["switch slow on", "switch slow back"], ["switch a on"]]
    assert house.lamps == {"a": True, "slow": False}


def test_what_can_not_be_taken_back_is_told_with_the_failure():
    answer = run(House(broken=False), resource=Doors, name="broken", on=True)
    assert answer["msg"] == (
        "lamp broken does not switch; change the bulb; and to switch broken back failed: lamp broken does not switch; change the bulb"
    )
    assert answer["steps"] == ["switch broken on"]


class Stuck(Doors):
    def left(self, plan, world):
        return f"lamp {plan.key}" if plan.key in world else ""


def test_what_is_there_although_it_was_taken_back_is_told_with_the_failure():
    house = House(slow=False)
    house.slow = {"slow"}
    answer = run(house, resource=Stuck, timeout=0, name="slow", on=True)
    assert answer["msg"].endswith("; and lamp slow could not be taken back, run the same play again")


class Blind(Doors):
    def observe(self, wants):
        if HOUSE.writes > 1:
            raise Unavailable("the house is dark")
        return super().observe(wants)


def test_a_look_after_the_undo_that_fails_hides_no_failure():
    house = House(slow=False)
    house.slow = {"slow"}
    answer = run(house, resource=Blind, timeout=0, name="slow", on=True)
    assert answer["results"][0]["failed"] and "dark" not in answer["msg"] and answer["steps"] == ["switch slow on", "switch slow back"]


class Dark(Lamps):
    def observe(self, wants):
        if HOUSE.writes:
            raise Unavailable("the house is dark; light a candle")
        return super().observe(wants)


@pytest.mark.parametrize("names,tried", [(["broken", "a", "b"], 1), (["a", "b"], 2), (["locked", "a"], 1)])
def test_a_look_that_fails_is_an_error_of_each_who_needed_it(names, tried):
    house = House(a=False, b=False, broken=False)
    answer = run(house, resource=Dark, lamps=[{"name": name, "on": True} for name in names])
    assert [result["failed"] for result in answer["results"]] == [True] * len(names) and house.writes == tried
    dark = [result["name"] for result in answer["results"] if result["msg"] == "the house is dark; light a candle"]
    assert dark == [name for name in names if name in ("a", "b")] and f"{len(names)} of {len(names)} failed" in answer["msg"]


def test_a_refusal_has_nothing_to_take_back():
    house = House()
    run(house, resource=Doors, name="locked", on=True)
    assert house.writes == 0


def test_the_reached_state_may_give_rise_to_warnings():
    global HOUSE
    HOUSE = House(a=False)
    module = Module(name="a", on=True)
    with pytest.raises(Ended):
        reconcile(module, Doors)
    assert module.warned == ["lamp a flickers"]


class Crowd(House):
    """Lamps whose switch somebody else has in his hand, for so many tries."""

    def __init__(self, tries, **lamps):
        super().__init__(**lamps)
        self.tries = dict(tries)

    def switch(self, name, on):
        self.tries[name] = self.tries.get(name, 0) - 1
        if self.tries[name] >= 0:
            raise Busy(f"the switch of {name} is in somebody's hand; wait for him")
        super().switch(name, on)


def test_what_is_busy_is_tried_again():
    house = Crowd({"a": 3}, a=False, b=False)
    answer = run(house, lamps=[{"name": "a", "on": True}, {"name": "b", "on": True}])
    assert not answer["failed"] and answer["steps"] == ["switch a on", "switch b on"] and house.lamps == {"a": True, "b": True} and house.writes == 2


def test_all_items_together_wait_no_longer_than_the_timeout():
    house = Crowd({name: 1000 for name in "abc"}, a=False, b=False, c=False, d=False)
    began = time.monotonic()
    answer = run(house, lamps=[{"name": name, "on": True} for name in "abcd"], timeout=1)
    assert 1 <= time.monotonic() - began < 3
    assert [r["failed"] for r in answer["results"]] == [True, True, True, False] and "in somebody's hand" in answer["results"][2]["msg"]
    assert house.tries["b"] == house.tries["c"] == 999, "every item is tried, whatever the others have waited"


def test_what_fails_otherwise_is_not_tried_again():
    house = House(broken=False)
    assert run(house, name="broken", on=True)["failed"] and house.writes == 1
