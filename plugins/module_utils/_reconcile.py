# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The engine of every module: observe, plan, apply, settle.

This file holds the collection's only check mode, its only locking, its only waiting and its only
way to end a module. A resource tells what is and what would have to be done; only the engine does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
import typing as t

from ansible.module_utils.common.parameters import remove_values

from ._errors import Busy, Conflict, Invalid, NotSettled, StorageError, Unavailable
from ._model.data import as_data, diff_data

World = t.Dict[t.Hashable, t.Any]

# Keep in sync with doc_fragments/_reconcile.py
ENGINE_OPTIONS: t.Dict[str, t.Any] = {
    "timeout": {"type": "int", "default": 60},
    "lock_timeout": {"type": "int", "default": 120},
    "assume": {"type": "list", "elements": "dict", "default": []},
}


def list_spec(plural: str, options: t.Dict[str, t.Any], **common: t.Any) -> t.Dict[str, t.Any]:
    """The argument spec of a module: one item at the top, many under `plural`, `common` and the engine's options.

    Item options carry no default in the spec: a top-level value must reach the items that leave it out.
    """
    listed = {"type": "list", "elements": "dict", "options": options}
    return {**options, plural: listed, **common, **ENGINE_OPTIONS}


@dataclasses.dataclass(frozen=True)
class Step:
    """One named act: `name` is the sentence a person reads, `act(*args)` does it."""

    name: str
    act: t.Callable[..., t.Any] = dataclasses.field(repr=False)
    args: t.Tuple[t.Any, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an item is (`before`), what it shall be (`after`, None for absent), and the way there.

    `key` is where the item's state stands in the world; `label` is what a person calls the item,
    unique in a list, and by default the key. `closing` are acts that must not be done before `steps`
    have come true: what they take away is still needed until then. `undo` takes back what `steps` made,
    when they fail or don't come true.
    """

    key: t.Hashable
    before: t.Any
    after: t.Any
    steps: t.Tuple[Step, ...] = ()
    label: str = ""
    warnings: t.Tuple[str, ...] = ()
    closing: t.Tuple[Step, ...] = ()
    undo: t.Tuple[Step, ...] = ()

    @property
    def acts(self) -> t.Tuple[Step, ...]:
        return self.steps + self.closing

    @property
    def title(self) -> str:
        return self.label or str(self.key)


class Resource:
    """What one module manages. A module subclasses it; `options` are the module's parameters."""

    plural = ""
    lock_path: t.Optional[str] = None

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        self.options = options

    def hold(self, lock: Lock) -> None:
        """Takes the lock that is held from now on, which a step that takes long may pause."""

    @staticmethod
    def hidden(options: t.Dict[str, t.Any]) -> t.Set[str]:
        """Texts inside the options that nobody may see, although the options themselves are shown."""
        return set()

    def want(self, item: t.Dict[str, t.Any]) -> t.Any:
        """The wish of one item as a value of the model; raises Invalid."""
        raise NotImplementedError

    def observe(self, wants: t.Sequence[t.Any]) -> World:
        """All that the wishes touch, as it is now. Creates nothing."""
        raise NotImplementedError

    def plan(self, want: t.Any, world: World) -> Plan:
        """The way from the world to the wish; pure. Refusals are raised here."""
        raise NotImplementedError

    def assumed(self, result: t.Dict[str, t.Any], world: World) -> World:
        """What a result of a task before this one, predicted in check mode, changes in the world as it was seen."""
        return {}

    def flush(self) -> None:
        """Does, once for all items, what their steps only gathered."""

    def settled(self, plan: Plan, world: World) -> bool:
        """Whether the plan's steps came true. Raises when it is sure that they never will."""
        return world.get(plan.key) == plan.after

    def unsettled(self, plan: Plan, world: World) -> str:
        """The sentence for a plan that did not come true in time."""
        return f"{plan.title} did not reach the wanted state within {self.options['timeout']} s; run the same play again"

    def left(self, plan: Plan, world: World) -> str:
        """What a plan made that is there although it was taken back, for its error; empty when all is gone."""
        return ""

    def wait(self, seconds: float) -> None:
        """Passes the time until the next look; a resource with events waits for those instead."""
        time.sleep(seconds)

    def show(self, plan: Plan, state: t.Any) -> t.Dict[str, t.Any]:
        """The return values of one item in the given state."""
        return as_data(state) or {}

    def doubts(self, plan: Plan, state: t.Any) -> t.Sequence[str]:
        """Warnings about an item that only the state it has reached gives rise to."""
        return ()

    reveals = False  # whether what `besides` returns is wanted although it came in as a secret

    def besides(self, shown: t.Sequence[t.Tuple[Plan, t.Any]]) -> t.Dict[str, t.Any]:
        """Return values of the whole task beside its items, from the plans that did not fail and their states.

        Secrets go here and never into an item: `no_log` on a task hides all of its result but what a key
        named results holds (ansible-core takes that for a loop's).
        """
        return {}

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        """The options that name an item, for results of items that failed before they were planned."""
        return {"name": item.get("name")}


@dataclasses.dataclass
class Outcome:
    """What became of one item of the list."""

    item: t.Dict[str, t.Any]
    want: t.Any = None
    plan: t.Optional[Plan] = None
    done: int = 0
    state: t.Any = None
    error: t.Optional[StorageError] = None
    undone: t.Tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return self.done > 0


class _Patience:
    """The seconds that all items of a task together may wait for others to let go."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def act(self, step: Step) -> None:
        """Does a step, again and again while it is Busy and there is time."""
        pause = 0.02
        while True:
            try:
                step.act(*step.args)
                return
            except Busy:
                if self.left <= 0:
                    raise
            time.sleep(pause)
            self.left -= pause
            pause = min(pause * 2, 0.5)


def reconcile(module: t.Any, resource_class: t.Type[Resource]) -> None:
    """Runs a module: brings every item to its wanted state, or in check mode tells what would be done."""
    module.add_path_info = lambda answer: answer  # or Ansible tells the mode and owner of what is at a result's path, over our own
    hidden = resource_class.hidden(module.params)
    if hidden:
        module.no_log_values |= hidden
    try:
        resource = resource_class(module.params)
        outcomes = [Outcome(item) for item in items_of(module.params, resource.plural)]
        _parse(resource, outcomes)
        if module.check_mode:
            _predict(resource, outcomes)
        else:
            with locked(resource.lock_path, module.params.get("lock_timeout") or 0) as lock:
                resource.hold(lock)
                _apply(resource, outcomes, lock)
    except StorageError as error:
        module.fail_json(msg=str(error))
    _finish(module, resource, outcomes)


def look(module: t.Any, find: t.Callable[[t.Dict[str, t.Any]], t.Dict[str, t.Any]]) -> None:
    """Runs a module that only looks: `find(options)` gives its return values, `warnings` among them."""
    try:
        found = find(module.params)
    except StorageError as error:
        module.fail_json(msg=str(error))
    for warning in found.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(changed=False, **found)


def items_of(params: t.Dict[str, t.Any], plural: str) -> t.List[t.Dict[str, t.Any]]:
    """The items of a call: the plural list, each filled up with the top-level values, or the one at the top."""
    listed = params.get(plural)
    top = {key: value for key, value in params.items() if key != plural}
    if listed is None:
        return [top]
    return [{**top, **{key: value for key, value in item.items() if value is not None}} for item in listed]


def wait_until(true: t.Callable[[], bool], seconds: float) -> None:
    """Waits for what a resource can see without a look at its world, and for no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)


@contextlib.contextmanager
def locked(path: t.Optional[str], timeout: float) -> t.Iterator[Lock]:
    """Holds the lock of a resource kind; a directory is locked itself, any other path is made (0600)."""
    handle = None if path is None else _open_lock(path)
    try:
        lock = Lock(path, handle, timeout)
        lock.take()
        yield lock
    finally:
        if handle is not None:
            os.close(handle)


@dataclasses.dataclass
class Lock:
    """A lock of the kernel's, which ends with the process. Without a handle it is none."""

    path: t.Optional[str]
    handle: t.Optional[int]
    timeout: float
    paused: bool = False

    def take(self) -> None:
        """Waits for it; Conflict when another run does not let go of it."""
        deadline = time.monotonic() + self.timeout
        while self.handle is not None and not try_lock(self.handle):
            if time.monotonic() >= deadline:
                raise Conflict(
                    f"another run holds the lock {self.path} since more than {self.timeout:g} s; wait for it to end, or raise lock_timeout"
                )
            time.sleep(0.02)

    @contextlib.contextmanager
    def pause(self) -> t.Iterator[None]:
        """Lets other runs at it meanwhile. What was seen before may be old afterwards."""
        self.paused = True
        if self.handle is not None:
            fcntl.flock(self.handle, fcntl.LOCK_UN)
        try:
            yield
        finally:
            self.take()

    def was_paused(self) -> bool:
        """Whether it was since it was asked the last time."""
        paused, self.paused = self.paused, False
        return paused


def _open_lock(path: str) -> int:
    if os.path.isdir(path):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"the lock {path} can't be opened: {error.strerror}; run the task as root") from error


def try_lock(handle: int) -> bool:
    """Takes the kernel's lock of an open file for this process, unless another one has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(resource: Resource, outcomes: t.List[Outcome]) -> None:
    for outcome in outcomes:
        try:
            outcome.want = resource.want(outcome.item)
        except StorageError as error:
            outcome.error = error


def _observe(resource: Resource, outcomes: t.List[Outcome]) -> World:
    return resource.observe([o.want for o in outcomes])


def _good(outcomes: t.List[Outcome]) -> t.List[Outcome]:
    return [outcome for outcome in outcomes if outcome.error is None]


def _plan(resource: Resource, outcome: Outcome, world: World, seen: t.Set[str]) -> None:
    outcome.plan = resource.plan(outcome.want, world)
    title = outcome.plan.title
    if title in seen:
        raise Invalid(f"{title} stands twice in {resource.plural}; name each once")
    seen.add(title)


def _predict(resource: Resource, outcomes: t.List[Outcome]) -> None:
    world = _observe(resource, _good(outcomes))
    for result in resource.options.get("assume") or []:
        world.update(resource.assumed(result, world))
    seen: t.Set[str] = set()
    for outcome in _good(outcomes):
        try:
            _plan(resource, outcome, world, seen)
        except StorageError as error:
            outcome.error = error
            continue
        outcome.done = len(outcome.plan.acts)
        outcome.state = world[outcome.plan.key] = outcome.plan.after


def _apply(resource: Resource, outcomes: t.List[Outcome], lock: Lock) -> None:
    world = _observe(resource, _good(outcomes))
    patience = _Patience(resource.options.get("timeout") or 0)
    seen: t.Set[str] = set()
    waiting = _good(outcomes)
    while waiting:
        outcome = waiting.pop(0)
        _bring(resource, outcome, world, seen, patience)
        if waiting and (lock.was_paused() or (outcome.error and outcome.done)):
            world, waiting = _look_again(resource, waiting)
    _flush(resource, [o for o in outcomes if o.done])
    _settle(resource, [o for o in _good(outcomes) if o.plan.acts])
    _take_back(resource, [o for o in outcomes if o.error is not None and o.done])


def _bring(resource: Resource, outcome: Outcome, world: World, seen: t.Set[str], patience: _Patience) -> None:
    """Plans an item in this world and does its steps, which changes the world."""
    try:
        _plan(resource, outcome, world, seen)
        _run(outcome, outcome.plan.steps, patience)
        outcome.state = world[outcome.plan.key] = outcome.plan.after
    except StorageError as error:
        outcome.error = error


def _look_again(resource: Resource, waiting: t.List[Outcome]) -> t.Tuple[World, t.List[Outcome]]:
    """The world after a failure, or after others may have changed it, and who can go on in it: nobody, when it can't be looked at any more."""
    try:
        return _observe(resource, waiting), waiting
    except StorageError as error:
        for outcome in waiting:
            outcome.error = error
        return {}, []


def _flush(resource: Resource, touched: t.List[Outcome]) -> None:
    """What can't be done for all of them is an error of each."""
    try:
        if touched:
            resource.flush()
    except StorageError as error:
        for outcome in touched:
            outcome.error = outcome.error or error


def _run(outcome: Outcome, steps: t.Sequence[Step], patience: _Patience) -> None:
    for step in steps:
        outcome.done += 1
        patience.act(step)


def _take_back(resource: Resource, failed: t.List[Outcome]) -> None:
    """Undoes what failed items made in this run; a step that can't be undone is told with the failure."""
    for outcome in failed:
        for step in outcome.plan.undo:
            try:
                step.act(*step.args)
                outcome.undone += (step.name,)
            except StorageError as error:
                outcome.error = type(outcome.error)(f"{outcome.error}; and to {step.name} failed: {error}")
    undone = [outcome for outcome in failed if outcome.undone]
    _flush(resource, undone)
    with contextlib.suppress(StorageError):  # who can't look any more still tells why the items failed
        world = _observe(resource, undone) if undone else {}
        for outcome in undone:
            left = resource.left(outcome.plan, world)
            if left:
                outcome.error = type(outcome.error)(f"{outcome.error}; and {left} could not be taken back, run the same play again")


def _settle(resource: Resource, waiting: t.List[Outcome]) -> None:
    """Looks at the world until every plan came true, all of them within one deadline."""
    deadline = time.monotonic() + (resource.options.get("timeout") or 0)
    pause = 0.02
    while waiting:
        began = time.monotonic()
        world, waiting = _look_again(resource, waiting)
        late = time.monotonic() >= deadline
        waiting = [o for o in waiting if not _judge(resource, o, world, late)]
        if waiting:
            # a look that takes long must not keep the machine from what is waited for
            resource.wait(max(pause, time.monotonic() - began))
            pause = min(pause * 2, 0.5)


def _judge(resource: Resource, outcome: Outcome, world: World, late: bool) -> bool:
    """Whether this plan needs no further look: it came true, it never will, or the time is up."""
    try:
        if resource.settled(outcome.plan, world):
            outcome.state = outcome.plan.after if outcome.plan.closing else world.get(outcome.plan.key)
            _run(outcome, outcome.plan.closing, _Patience(0))
            return True
        if late:
            raise NotSettled(resource.unsettled(outcome.plan, world))
    except StorageError as error:
        outcome.error = error
    return outcome.error is not None


def _finish(module: t.Any, resource: Resource, outcomes: t.List[Outcome]) -> None:
    results = [_result(resource, outcome) for outcome in outcomes]
    answer: t.Dict[str, t.Any] = {
        "changed": any(o.changed for o in outcomes),
        "results": results,
        "steps": [step for result in results for step in result["steps"]],
        "diff": [_diff(o) for o in outcomes if o.plan and o.changed],
        **resource.besides([(o.plan, o.state) for o in outcomes if o.plan and o.error is None]),
    }
    if resource.reveals:
        answer["invocation"] = _unmasked(module)
    planned = [o for o in outcomes if o.plan]
    doubts = {w for o in planned if o.error is None for w in resource.doubts(o.plan, o.state)}
    for warning in sorted(doubts.union(*(o.plan.warnings for o in planned))):
        module.warn(warning)
    if module.params.get(resource.plural) is None:
        answer = {**results[0], **answer}
    failed = [result["msg"] for result in results if result["failed"]]
    if failed:
        module.fail_json(**{**answer, "failed": True, "msg": _summary(failed, len(results))})
    module.exit_json(**answer)


def _unmasked(module: t.Any) -> t.Dict[str, t.Any]:
    """Keeps core from masking, wherever it stands in the answer, what came in as a secret; what came in stays masked itself."""
    shown = remove_values(module.params, module.no_log_values)
    module.no_log_values = set()
    return {"module_args": shown}


def _summary(failed: t.List[str], total: int) -> str:
    return failed[0] if total == 1 else f"{len(failed)} of {total} failed: " + "; ".join(failed)


def _result(resource: Resource, outcome: Outcome) -> t.Dict[str, t.Any]:
    steps = [*(step.name for step in outcome.plan.acts[: outcome.done]), *outcome.undone] if outcome.plan else []
    named = {**resource.identify(outcome.item), "steps": steps, "changed": outcome.changed}
    if outcome.error is not None:
        return {**named, "failed": True, "msg": str(outcome.error)}
    return {**resource.show(outcome.plan, outcome.state), **named, "failed": False}


def _diff(outcome: Outcome) -> t.Dict[str, t.Any]:
    before, after = diff_data(outcome.plan.before, outcome.plan.after)
    label = outcome.plan.title
    return {"before": before or {}, "after": after or {}, "before_header": label, "after_header": label}
