# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection: it can change at any time.

"""The walk of attachments, as pure functions for the roles: who goes where, what each step takes and adds.

An attachment is a dict that begins as the user's wish ({volume, instance, ...}). Every step adds what
it learned; a step that fails for an attachment adds `failure` ({step, reason}) and the later steps
leave that attachment out. Nothing here talks to a host.

An *answer* is what one host said to one step: the module's result with `results`, or without them
when the host was unreachable or the module died. *Answers* map host names to answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Attachment = dict[str, Any]
Answers = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class WalkStep:
    """One step: on which side it runs, how an attachment and a result find each other, what it takes and adds."""

    side: str  # the attachment's field that names the host
    key: tuple[str, ...]  # fields of the attachment
    result_key: tuple[str, ...]  # the same fields in the module's result
    item: Callable[[Attachment, Mapping[str, Any]], dict[str, Any]]
    adds: tuple[str, ...] = ()
    merge: str | None = None  # a list of the item that attachments of one target fill together
    transports: tuple[str, ...] = ()  # those that need this step; none named: all


@dataclasses.dataclass(frozen=True)
class Ground:
    """What the walk knows of the hosts before its first step."""

    connectors: Answers
    storage_hosts: Sequence[str]
    looks: Answers  # what the storage hosts told of their volumes, where there are several
    made: Answers  # what the volumes' own task answered
    transports: Mapping[str, str]  # of the compute hosts that have one of their own
    drivers: Mapping[str, str]  # of the storage hosts
    limited: bool  # the run is limited to some hosts: instances elsewhere are none of its business
    backwards: bool  # on the way back the record knows the host, and the instance may be gone


def place(
    attachments: Sequence[Mapping[str, Any]],
    connectors: Answers,
    storage_hosts: Sequence[str],
    looks: Answers,
    iqn_prefix: str,
    limited: bool = False,
    backwards: bool = False,
    made: Answers | None = None,
    transports: Mapping[str, str] | None = None,
    drivers: Mapping[str, str] | None = None,
) -> list[Attachment]:
    """Finds the storage host of every volume and the compute host of every instance, and how the bytes will travel.

    `made` is what the volumes' own task answered: an attachment of a volume that failed there fails here.
    `transports` are those of compute hosts that want another one than `host`, `drivers` those of the storage hosts' backends.
    """
    ground = Ground(connectors, storage_hosts, looks, made or {}, transports or {}, drivers or {}, limited, backwards)
    homes = homes_of(looks, made)
    unmade = {r["name"]: r["msg"] for r in predicted(ground.made) if r.get("failed")}
    return [_placed({**a, "iqn_prefix": iqn_prefix}, ground, homes, unmade) for a in attachments]


def _placed(attachment: Attachment, ground: Ground, homes: Mapping[str, str], unmade: Mapping[str, str]) -> Attachment:
    lacking = [field for field in ("volume", "instance") if not attachment.get(field)]
    if lacking:
        return _failed(attachment, "place", f"an attachment names no {' and no '.join(lacking)}; give both volume and instance")
    if attachment["volume"] in unmade:
        return _failed(attachment, "volume", unmade[attachment["volume"]])
    storage = attachment.get("storage_host") or homes.get(attachment["volume"])
    if storage is None and len(ground.storage_hosts) != 1:
        return _failed(attachment, "place", _homeless(attachment["volume"], ground.storage_hosts, ground.looks))
    return _on_compute({**attachment, "storage_host": storage or ground.storage_hosts[0]}, ground)


def _homeless(volume: str, storage_hosts: Sequence[str], looks: Answers) -> str:
    if not storage_hosts:
        return f"volume {volume} has no storage host; put one into the inventory group storage, or set storage_hosts"
    silent = [f"{host} ({_said(look)})" for host, look in looks.items() if "volumes" not in look]
    missing = f"; no answer from {', '.join(silent)}" if silent else ""
    asked = ", ".join(storage_hosts)
    return (
        f"no storage host, or more than one, has a volume {volume} (asked: {asked}){missing}; "
        "say which with storage_host, make it, or correct the name"
    )


def _on_compute(attachment: Attachment, ground: Ground) -> Attachment:
    instance, asked = attachment["instance"], attachment.get("host")
    homes = [host for host, answer in ground.connectors.items() if any(d["name"] == instance for d in answer.get("domains") or [])]
    if asked is None and len(homes) > 1:
        return _failed(attachment, "connector", f"{instance} is a domain of {' and of '.join(sorted(homes))}; say which with host")
    host = asked or (homes[0] if homes else None)
    if ground.limited and _is_elsewhere(host, ground):
        return {**attachment, "outside": True}
    # backwards the record knows the host of an instance that is gone, but not of one that is somewhere else
    if host not in homes and (homes or ground.limited or not ground.backwards):
        return _failed(attachment, "connector", _nowhere(instance, host, ground))
    answered = [name for name, answer in ground.connectors.items() if "connector" in answer]
    connector = ground.connectors.get(str(host), {}).get("connector")
    found = {**attachment, "host": host, "clean_hosts": [h for h in answered if h not in homes], **({"connector": connector} if connector else {})}
    return found if ground.backwards else _travelling(found, ground)


def _travelling(attachment: Attachment, ground: Ground) -> Attachment:
    """The attachment with the way its bytes will go; backwards the record knows that."""
    together = attachment["storage_host"] == attachment["host"]
    driver = ground.drivers.get(attachment["storage_host"])
    possible = _OF_DRIVER.get(str(driver), _LUNS)
    transport = attachment.get("transport") or ("local" if together and "local" in possible else _usual(ground.transports.get(attachment["host"]), possible))
    if transport not in possible:
        known = f"is not one of driver {driver}" if transport in TRANSPORTS else "is not known"
        return _failed(attachment, "place", f"transport {transport} {known}; choose one of {', '.join(possible)}, or leave it out")
    if transport == "local" and not together:
        apart = f"volume {attachment['volume']} is on {attachment['storage_host']} and {attachment['instance']} on {attachment['host']}"
        return _failed(attachment, "place", f"transport local needs both on one host, but {apart}; leave transport out")
    return {**attachment, "transport": transport}


def _usual(of_host: str | None, possible: Sequence[str]) -> str:
    """What the compute host wants, as far as it is a way for this volume: others of its volumes may go another way."""
    return possible[0] if of_host is None or (of_host in TRANSPORTS and of_host not in possible) else of_host


def _is_elsewhere(host: str | None, ground: Ground) -> bool:
    """Whether a limited run has nothing to do with this host; nobody knows while one of the run does not answer."""
    if host is None:
        return all("connector" in answer for answer in ground.connectors.values())
    return host not in ground.connectors


def _nowhere(instance: str, asked: str | None, ground: Ground) -> str:
    silent = [f"{host} ({_said(answer)})" for host, answer in ground.connectors.items() if "connector" not in answer]
    answered = [host for host, answer in ground.connectors.items() if "connector" in answer and asked in (None, host)]
    missing = f"; no answer from {', '.join(silent)}" if silent else ""
    where = f"{', '.join(answered)} {'have' if len(answered) > 1 else 'has'}" if answered else f"{asked or 'no compute host'} has"
    return f"{where} no domain {instance}{missing}; define it there first, or correct the name"


def alive(attachment: Mapping[str, Any]) -> bool:
    return "failure" not in attachment and not attachment.get("outside")


def items(attachments: Iterable[Attachment], step: str, host: str, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The module's list for one step on one host; attachments of one target share an item."""
    walk_step = STEPS[step]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for attachment in attachments:
        if not alive(attachment) or attachment.get(walk_step.side) != host or _skips(attachment, step):
            continue
        item = walk_step.item(attachment, settings or {})
        known = found.setdefault(_key(attachment, walk_step.key), item)
        if known is not item and walk_step.merge:
            known[walk_step.merge] = known[walk_step.merge] + [x for x in item[walk_step.merge] if x not in known[walk_step.merge]]
    return list(found.values())


def _skips(attachment: Attachment, step: str) -> bool:
    """What a step has nothing to do with: transports without it, sessions and exports that others need, records that are not there."""
    if step in _BACKWARDS and not attachment.get("attachment_id"):
        return True
    if step in _ON_COMPUTE and attachment.get("status") == "detached":  # that side was proven clean before
        return True
    if STEPS[step].transports and attachment["transport"] not in STEPS[step].transports:
        return True
    if step == "recount":
        return attachment["others_on_host"] == 0
    if step in ("logout", "unmap"):
        return attachment["others_staying"] > 0
    if step == "deny":
        return attachment["others"] == 0 or attachment["others_on_host"] > 0
    return step == "withdraw" and attachment["others"] > 0


def merge(attachments: Sequence[Attachment], step: str, answers: Answers) -> list[Attachment]:
    """The attachments after a step, each with what the step added or with its failure."""
    walk_step = STEPS[step]
    found = {host: {_key(r, walk_step.result_key): r for r in answer.get("results") or []} for host, answer in answers.items()}
    return [_merged(a, step, walk_step, answers, found) if alive(a) and not _skips(a, step) else a for a in attachments]


def _merged(attachment: Attachment, step: str, walk_step: WalkStep, answers: Answers, found: Mapping[str, Any]) -> Attachment:
    host = attachment[walk_step.side]
    result = found.get(host, {}).get(_key(attachment, walk_step.key))
    if result is None:
        return _failed(attachment, step, _silence(host, answers), silent=True)
    told = [*attachment.get("told", []), *({"step": step, "what": what} for what in result.get("steps", []))]
    seen = {**attachment, "told": told, "changed": attachment.get("changed", False) or bool(result.get("changed"))}
    if result.get("failed"):
        return _failed(seen, step, str(result.get("msg")))
    return {**seen, **_picked(attachment, step, result, answers[host]), **{field: result[field] for field in walk_step.adds if field in result}}


def _picked(attachment: Attachment, step: str, result: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an attachment learns from an answer beyond the plain fields of its result."""
    if step in ("reserve", "begin") and result.get("volume_id"):
        named = result.get("target_iqn") or f"{attachment['iqn_prefix']}:volume-{result['volume_id']}"  # records of 0.1.0 do not say it
        image = {"image": result["connection_info"]["data"]["name"]} if result.get("transport") in _IMAGES else {}
        return {"target_iqn": named, **image, **_host_of(attachment, result)}
    if step == "initialize":
        return {"auth": next((c for c in answer.get("credentials") or [] if c["secret_uuid"] == attachment["connection_info"]["data"]["secret_uuid"]), {})}
    if step == "export":
        mine = next(lun for lun in result["luns"] if lun["serial"] == attachment["volume_id"])
        return {"portals": result["portals"], "lun": mine["lun"], "wwid": mine["wwid"]}
    if step == "acl":
        # names are compared as RFC 3722 folds them: LIO tells them in lower case
        mine = (attachment["target_iqn"], attachment["connector"]["initiator"].lower())
        return {"auth": next((c for c in answer.get("credentials") or [] if (c["target_iqn"], c["initiator"].lower()) == mine), {})}
    return {}


def _host_of(attachment: Attachment, result: Mapping[str, Any]) -> dict[str, Any]:
    """The compute host: where the domain is now, if the recorded one is, or was, proven to have it no more."""
    now, recorded = attachment.get("host"), result.get("host")
    if recorded in (None, now) or now is None or recorded in attachment["clean_hosts"] or result.get("status") == "detached":
        return {"host": now or recorded}
    reason = f"{attachment['instance']} is on {now}, but the volume was given to it on {recorded}, which does not answer or has it too; bring {recorded} back"
    return {"failure": {"step": "detach", "reason": reason, "silent": True}}


def _failed(attachment: Attachment, step: str, reason: str, silent: bool = False) -> Attachment:
    """The attachment with its failure; `silent` means that the host gave no answer, so nobody knows how far it came."""
    return {**attachment, "failure": {"step": step, "reason": reason, "silent": silent}}


def _silence(host: str, answers: Answers) -> str:
    if host not in answers:
        return f"{host} is no host of this run; run again with it"
    return f"{host}: {_said(answers[host])}"


def _said(answer: Mapping[str, Any]) -> str:
    text = str(answer.get("msg") or answer.get("module_stderr") or "").strip()
    if answer.get("unreachable"):
        return f"unreachable: {text}"
    return text or "no answer"


def _key(values: Mapping[str, Any], fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(values.get(field) for field in fields)


def to_undo(attachments: Iterable[Attachment]) -> list[Attachment]:
    """The failed attachments whose own walk has to be taken back.

    Not those that were attached before this run, not those that failed before anything was made, and
    not those of a host that fell silent: its side can't be proven clean, the next run resumes there.
    """
    return [
        {**{key: value for key, value in a.items() if key not in ("failure", "told")}, "undoing": a["failure"]}
        for a in attachments
        if "failure" in a and a.get("status") == "reserved" and not a["failure"]["silent"] and a["failure"]["step"] != "complete"
    ]


_RENOTE = {"reserved": "reserve", "attached": "complete", "detaching": "begin_detaching", "detached": "terminate"}


def notes(attachments: Iterable[Attachment], host: str, undone: Iterable[Attachment] = ()) -> list[dict[str, Any]]:
    """The list for cinder_attachment that writes step and reason of stopped attachments into their records.

    Each repeats the action that led to its status, which changes nothing but the note. Those that
    were `undone` have no record any more.
    """
    gone = {_key(a, _BY_NAME) for a in undone}
    return [
        {**{key: a.get(key) for key in (*_BY_NAME, "host")}, "action": _RENOTE[a["status"]], **_note(a["failure"])}
        for a in attachments
        if "failure" in a and a.get("status") in _RENOTE and a.get("storage_host") == host and _key(a, _BY_NAME) not in gone
    ]


def _note(failure: Mapping[str, Any]) -> dict[str, str]:
    return {"step": failure["step"], "reason": failure["reason"][:500]}


def story(attachments: Iterable[Attachment]) -> list[str]:
    """What became of every attachment, a line each, with what was done below."""
    lines = []
    for a in attachments:
        name = f"{a.get('volume')} -> {a.get('instance')}"
        lines.append(f"{name}: {_outcome(a)}")
        lines += [f"    {told['what']}" for told in a.get("told", [])]
    return lines


def _outcome(attachment: Attachment) -> str:
    if "failure" in attachment:
        return f"FAILED at {attachment['failure']['step']}: {attachment['failure']['reason']}"
    if attachment.get("outside"):
        return "left out, its instance is not on the hosts of this run"
    where = f"{attachment['device']} on {attachment['host']}, " if attachment.get("device") and attachment.get("host") else ""
    degraded = ", degraded: not all of its portals are reached" if attachment.get("degraded") else ""
    return where + ("changed" if attachment.get("changed") else "nothing to do") + degraded


def failures(attachments: Iterable[Attachment]) -> list[str]:
    """The rows of the table at the end: attachment, step, reason."""
    return [f"{a.get('volume')} -> {a.get('instance')} | {a['failure']['step']} | {a['failure']['reason']}" for a in attachments if "failure" in a]


def answers_of(looped: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The answers of a task that looped over hosts, by the host that gave them; none for a task that was skipped."""
    return {str(answer["walk_host"]): answer for answer in looped.get("results") or [] if not answer.get("skipped")}


def told(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Mapping[str, Any]]:
    """The answers of a task that ran on every host, from the variable it registered."""
    return {str(host): hostvars[host][name] for host in hosts if name in hostvars[host]}


def homes_of(looks: Answers, made: Answers | None = None) -> dict[str, str]:
    """On which storage host every volume is: made by this play, or found by a look on exactly one."""
    asked = {r["name"]: host for host, answer in (made or {}).items() for r in answer.get("results") or [] if r.get("name")}
    found = [(volume["name"], host) for host, look in looks.items() for volume in look.get("volumes") or []]
    names = [name for name, host in found]
    return {**{name: host for name, host in found if names.count(name) == 1}, **asked}


def volumes(wishes: Sequence[Mapping[str, Any]], storage_hosts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The wished volumes, or snapshots of volumes, by storage host; one that names none belongs to the only host there is."""
    homes: dict[str, list[dict[str, Any]]] = {host: [] for host in storage_hosts}
    for wish in wishes:
        home = wish.get("storage_host") or (storage_hosts[0] if len(storage_hosts) == 1 else None)
        if home not in homes:
            named = f"names {home}, which is none of the storage hosts" if home else "names no storage_host"
            raise ValueError(f"volume {wish.get('volume', wish.get('name'))} {named}; choose one of: {', '.join(storage_hosts) or 'none is known'}")
        homes[home].append({key: value for key, value in wish.items() if key != "storage_host"})
    return homes


def outcome(attachments: Iterable[Attachment]) -> list[Attachment]:
    """The attachments without what nobody needs any more at the end, their secrets first of all."""
    return [{key: value for key, value in a.items() if key not in ("auth", "record")} for a in attachments]


def predicted(answers: Answers) -> list[dict[str, Any]]:
    """All results of all hosts, for `assume` of a later step."""
    return [result for answer in answers.values() for result in answer.get("results") or []]


def housed(wishes: Sequence[Mapping[str, Any]], looks: Answers) -> list[dict[str, Any]]:
    """The wished volumes that were found, each with the storage host that has it; `homeless` tells of the others."""
    homes, there = homes_of(looks), _volumes_in(looks)
    placed = [{"storage_host": homes.get(wish["name"]), **wish} for wish in wishes]
    return [wish for wish in placed if (wish["storage_host"], wish["name"]) in there]


def homeless(wishes: Sequence[Mapping[str, Any]], looks: Answers) -> list[str]:
    """Why a wished volume was not found, a sentence each."""
    return [_homeless(wish["name"], list(looks), looks) for wish in wishes if not housed([wish], looks)]


def _volumes_in(looks: Answers) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(host, volume["name"]): volume for host, look in looks.items() for volume in look.get("volumes") or []}


def attached(wishes: Sequence[Mapping[str, Any]], looks: Answers) -> list[Attachment]:
    """Who has these volumes now, as wishes for a walk that goes there again."""
    found = _volumes_in(looks)
    return [
        {"volume": wish["name"], "storage_host": wish["storage_host"], **{key: a[key] for key in ("instance", "host", "mode", "transport")}}
        for wish in housed(wishes, looks)
        for a in found[(wish["storage_host"], wish["name"])]["attachments"]
        if a["status"] == "attached"
    ]


def writers(foreseen: Answers) -> dict[str, list[dict[str, str]]]:
    """The instances, by compute host, that may write to volumes of which cinder_snapshot foresees that it takes a snapshot."""
    taken = [result["record"] for result in predicted(foreseen) if result["changed"] and not result["failed"]]
    found = sorted({(a["host"], a["instance"]) for volume in taken for a in volume["attachments"]})
    return {host: [{"name": instance} for home, instance in found if home == host] for host, _instance in found}


def group_undo(taken: Answers, late: Sequence[str] = ()) -> dict[str, list[dict[str, str]]]:
    """The snapshots, by storage host, that a group gives up again: those taken just now, when one could not be, or `late` instances wrote meanwhile."""
    whole = not late and not any(answer.get("failed") or answer.get("unreachable") for answer in taken.values())
    news = {host: [r for r in predicted({host: answer}) if r["changed"] and not r["failed"]] for host, answer in taken.items()}
    return {} if whole else {host: [{"volume": r["volume"], "name": r["name"]} for r in results] for host, results in news.items()}


def lost(looks: Answers, storage_host: str, lost_host: str, taken: Answers | None = None) -> list[dict[str, Any]]:
    """The list for cinder_attachment that takes the volumes of a lost compute host from it; of those `taken`, the one that releases them."""
    if taken is not None:
        results = taken.get(storage_host, {}).get("results") or []
        return [{**{key: result[key] for key in _BY_NAME}, "action": "release"} for result in results if not result.get("failed")]
    there = looks.get(storage_host, {}).get("volumes") or []
    held = [(volume["name"], a["instance"]) for volume in there for a in volume["attachments"] if a["host"] == lost_host]
    return [{"volume": volume, "instance": instance, "action": "fence"} for volume, instance in held]


def located(looks: Answers) -> list[dict[str, Any]]:
    """Every volume that was found, as a wish that says where; of a name that two hosts have, both."""
    return [{"name": name, "storage_host": host} for host, name in _volumes_in(looks)]


def _attachment_action(action: str) -> Callable[[Attachment, Mapping[str, Any]], dict[str, Any]]:
    return lambda a, settings: {"volume": a["volume"], "instance": a["instance"], "action": action}


def _recount_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    return _attachment_action("give_up" if "undoing" in attachment else "begin_detaching")(attachment, settings)


def _reserve_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    connector = attachment["connector"]
    told = {"initiator": connector["initiator"], "ip": connector["ip"], "mode": attachment.get("mode") or "rw", "transport": attachment["transport"]}
    if attachment["transport"] in _EXPORTED:
        told["iqn_prefix"] = attachment["iqn_prefix"]
    return {"volume": attachment["volume"], "instance": attachment["instance"], "action": "reserve", "host": attachment["host"], **told}


def _complete_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**_attachment_action("complete")(attachment, settings), "device": attachment.get("device")}


def _export_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    options = settings.get("options") or {}
    lun = {**(options.get("lun") or {}), "path": attachment["path"], "serial": attachment["volume_id"]}  # its number is the target daemon's first
    wished = {"attributes": options["attributes"]} if options.get("attributes") else {}
    return {"target_iqn": attachment["target_iqn"], "luns": [lun], "portals": settings["portals"], **wished}


def _acl_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    door = {"initiator": attachment["connector"]["initiator"], "chap": settings.get("chap", "generate"), **(settings.get("options") or {})}
    return {"target_iqn": attachment["target_iqn"], "acls": [door]}


def _deny_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    initiator = attachment.get("initiator") or attachment["connector"]["initiator"]
    door = {"initiator": initiator, "state": "absent"}
    return {"target_iqn": attachment["target_iqn"], "acls": [door]}


def _withdraw_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"target_iqn": attachment["target_iqn"], "state": "absent"}


_PAIR = ("username", "password")
_PAIRS = (*_PAIR, "mutual_username", "mutual_password")


def _login_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    wished = {key: attachment[key] for key in ("target_iqn", "lun", "portals", "wwid", "size_bytes")}
    return {**wished, **_auth(attachment, _PAIRS), "serial": attachment["volume_id"]}


def _logout_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"target_iqn": attachment["target_iqn"], "serial": attachment["volume_id"], "state": "absent", "if_in_use": _in_use(attachment)}


def _map_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    wished = {"image": attachment["image"], "monitors": _image(attachment)["monitors"], "cluster_fsid": _cluster(attachment)}
    # who shares a volume may want to write to it, though this instance does not
    shared = attachment["multiattach"]
    mode = {"mode": "ro" if attachment.get("mode") == "ro" and not shared else "rw", "shared": shared, "size_bytes": attachment["size_bytes"]}
    keeping = {} if shared or settings.get("exclusive") is None else {"exclusive": settings["exclusive"]}
    return {**wished, **mode, **keeping, "username": attachment["connection_info"]["data"]["auth_username"], **_auth(attachment, ("password",))}


def _unmap_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": attachment["image"], "cluster_fsid": _cluster(attachment), "state": "absent", "if_in_use": _in_use(attachment)}


def _cluster(attachment: Attachment) -> str:
    return attachment["connection_info"]["data"]["cluster_fsid"]


def _in_use(attachment: Attachment) -> str:
    """What becomes of a device that is in use: while others on their way back still use it, the last of them takes it away."""
    return "keep" if attachment["others_on_host"] else "refuse"


def _auth(attachment: Attachment, names: tuple[str, ...]) -> dict[str, Any]:
    return {key: attachment["auth"][key] for key in names if attachment["auth"].get(key) is not None}


_DISK_WISHES = ("device", "bus", "cache", "io", "discard", "iotune")
_DIRECT = (None, "none", "directsync")  # the caches with which the kernel's own asynchronous I/O works


def _attach_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    wished = {key: attachment[key] for key in _DISK_WISHES if attachment.get(key) is not None}
    source = _source(attachment)
    if source["type"] == "block" and attachment.get("cache") in _DIRECT:
        wished = {"io": "native", **wished}
    if attachment["transport"] in _IMAGES:
        wished = {"discard": "unmap", **wished}  # the connection_info asks for it
    return {
        **wished,
        "domain": attachment["instance"],
        "serial": attachment["volume_id"],
        "source": source,
        "read_only": attachment.get("mode") == "ro",
        "shareable": attachment["multiattach"],
        "size_bytes": attachment["size_bytes"],
        "volume": attachment["volume"],
        "attachment_id": attachment["attachment_id"],
    }


def _source(attachment: Attachment) -> dict[str, Any]:
    """Where QEMU finds the bytes: a device of the host, the volume itself, or a LUN that it logs in to."""
    if attachment["transport"] in ("host", "krbd"):
        return {"type": "block", "path": attachment["device_path"]}
    if attachment["transport"] == "local":
        return {"type": "block" if attachment["path"].startswith("/dev/") else "file", "path": attachment["path"]}
    if attachment["transport"] == "rbd":
        return {**_image(attachment), "username": attachment["connection_info"]["data"]["auth_username"], **_auth(attachment, ("password",))}
    return {
        "type": "network",
        "protocol": "iscsi",
        "target_iqn": attachment["target_iqn"],
        "lun": attachment["lun"],
        "portals": attachment["portals"][:1],  # QEMU's initiator takes one portal
        "initiator": attachment["connector"]["initiator"],
        **_auth(attachment, _PAIR),
    }


def _image(attachment: Attachment) -> dict[str, Any]:
    """An image of a Ceph cluster, from what Cinder's connection_info says of it."""
    at = attachment["connection_info"]["data"]
    monitors = [{"ip": ip, "port": int(port)} for ip, port in zip(at["hosts"], at["ports"])]
    return {"type": "network", "protocol": "rbd", "image": at["name"], "monitors": monitors, "secret_uuid": at["secret_uuid"]}


def _detach_item(attachment: Attachment, settings: Mapping[str, Any]) -> dict[str, Any]:
    gone = {"domain": attachment["instance"], "serial": attachment["volume_id"], "state": "absent"}
    if attachment["transport"] == "rbd":
        return {**gone, "source": _image(attachment)}
    if attachment["transport"] != "qemu":
        return gone
    return {**gone, "source": {"type": "network", "protocol": "iscsi", "target_iqn": attachment["target_iqn"]}}


_BY_NAME = ("volume", "instance")
_COUNTS = ("others", "others_on_host", "others_staying")
_RESERVED = ("attachment_id", "volume_id", "size_bytes", "path", "multiattach", "status", "transport", "connection_info", *_COUNTS, "record")
_RECORDED = (*_RESERVED, "initiator", "device")

_BACKWARDS = ("give_up", "detach", "recount", "logout", "unmap", "terminate", "deny", "withdraw", "release")
_ON_COMPUTE = ("detach", "logout", "unmap")  # backwards
_LUNS = ("host", "qemu", "local")
_IMAGES = ("rbd", "krbd")
_OF_DRIVER = {"rbd": _IMAGES}  # the others' volumes travel as LUNs, if they have to
TRANSPORTS = (*_LUNS, *_IMAGES)
_EXPORTED = ("host", "qemu")

STEPS: dict[str, WalkStep] = {
    "reserve": WalkStep("storage_host", _BY_NAME, _BY_NAME, _reserve_item, _RESERVED),
    "export": WalkStep("storage_host", ("target_iqn",), ("target_iqn",), _export_item, transports=_EXPORTED),
    "acl": WalkStep("storage_host", ("target_iqn",), ("target_iqn",), _acl_item, merge="acls", transports=_EXPORTED),
    "initialize": WalkStep("storage_host", _BY_NAME, _BY_NAME, _attachment_action("initialize"), transports=_IMAGES),
    "login": WalkStep("host", ("target_iqn",), ("target_iqn",), _login_item, ("device_path", "degraded"), transports=("host",)),
    "map": WalkStep("host", ("image",), ("image",), _map_item, ("device_path",), transports=("krbd",)),
    "attach": WalkStep("host", ("instance", "volume_id"), ("domain", "serial"), _attach_item, ("device", "live", "persistent")),
    "complete": WalkStep("storage_host", _BY_NAME, _BY_NAME, _complete_item, ("status",)),
    "begin": WalkStep("storage_host", _BY_NAME, _BY_NAME, _attachment_action("begin_detaching"), _RECORDED),
    "give_up": WalkStep("storage_host", _BY_NAME, _BY_NAME, _attachment_action("give_up"), _COUNTS),
    "detach": WalkStep("host", ("instance", "volume_id"), ("domain", "serial"), _detach_item),
    # what they share with others of their host is looked at again when their own disks are out: the last one logs out
    "recount": WalkStep("storage_host", _BY_NAME, _BY_NAME, _recount_item, _COUNTS),
    "logout": WalkStep("host", ("target_iqn",), ("target_iqn",), _logout_item, transports=("host",)),
    "unmap": WalkStep("host", ("image",), ("image",), _unmap_item, transports=("krbd",)),
    "terminate": WalkStep("storage_host", _BY_NAME, _BY_NAME, _attachment_action("terminate"), (*_COUNTS, "status")),
    "deny": WalkStep("storage_host", ("target_iqn",), ("target_iqn",), _deny_item, merge="acls", transports=_EXPORTED),
    "withdraw": WalkStep("storage_host", ("target_iqn",), ("target_iqn",), _withdraw_item, transports=_EXPORTED),
    "release": WalkStep("storage_host", _BY_NAME, _BY_NAME, _attachment_action("release"), ()),
}
