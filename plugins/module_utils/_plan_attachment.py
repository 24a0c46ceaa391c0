# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""The life of an attachment, Cinder's way: each action is one compare-and-swap of the volume's record.

    reserve -> (initialize) -> complete -> begin_detaching -> terminate -> release
    reserved     attaching     attached      detaching        detached     (gone)

`give_up` is asked before a walk that failed is taken back: refused when another run has completed it meanwhile.
`fence` takes the volume from a host that is lost, where the storage can keep that from its data for good.
`terminate` records that the compute side is proven clean. Only then may the storage side be torn
down (CVE-2023-2088), also by a later run that can't reach the compute host any more.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import Conflict, Invalid, Refused
from ._model.volume import Attachment, Volume
from ._plan_known import BUSY, activation, check_data, check_not_copied, known_volume, volume_named
from ._reconcile import Plan, Step, World
from ._volumes import VolumeBackend


@dataclasses.dataclass(frozen=True)
class Transition:
    """What an action does to an attachment's status, and from which ones it may start."""

    said: str
    to: str
    starts: t.Tuple[str, ...]
    done: t.Tuple[str, ...]


TRANSITIONS: t.Dict[str, Transition] = {
    "initialize": Transition("initialize", "attaching", ("reserved",), ("attaching", "attached")),
    "complete": Transition("complete", "attached", ("reserved", "attaching"), ("attached",)),
    "begin_detaching": Transition("begin to detach", "detaching", ("reserved", "attaching", "attached"), ("detaching", "detached")),
    "roll_detaching": Transition("roll back detaching", "attached", ("detaching",), ("attached",)),
    "give_up": Transition("give up", "reserved", ("attaching",), ("reserved", "detached")),
    "fence": Transition("fence", "detached", ("reserved", "attaching", "attached", "detaching"), ("detached",)),
    "terminate": Transition("end the connection of", "detached", ("reserved", "attaching", "detaching"), ("detached",)),
}

ACTIONS = ("reserve", *TRANSITIONS, "release")
_FORWARDS = ("reserve", "initialize")
_BACKWARDS = ("begin_detaching", "give_up", "fence", "terminate", "release")

# A volume in one of these may be reserved; in-use only when it is multiattach.
_RESERVABLE = ("available",)
_SHAREABLE = ("in-use", "attaching", "reserved")


@dataclasses.dataclass(frozen=True)
class AttachmentWish:
    """One action on the attachment of one volume to one instance."""

    volume: str
    instance: str
    action: str
    host: t.Optional[str] = None
    mode: t.Optional[str] = None
    transport: t.Optional[str] = None
    iqn_prefix: t.Optional[str] = None
    initiator: t.Optional[str] = None
    ip: t.Optional[str] = None
    device: t.Optional[str] = None
    step: t.Optional[str] = None
    reason: t.Optional[str] = None
    fresh_id: str = ""


def plan_attachment(want: AttachmentWish, world: World, backend: VolumeBackend) -> Plan:
    """Moves one attachment along; raises NotFound, Conflict, Refused or Invalid."""
    if want.action in _BACKWARDS:
        volume = volume_named(want.volume, world)
        if volume is None or volume.attachment(want.instance) is None:
            return _nothing_to_take_back(want, volume, backend)
    volume = known_volume(want.volume, world, backend.where)
    if volume.status in BUSY:
        raise Conflict(f"volume {volume.name} is {volume.status}; run the play that was at it to its end first")
    if want.action == "reserve":
        _check_own(volume)
        check_not_copied(volume, world, backend, f"volume {volume.name} can't be reserved for {want.instance}")
    after = _after(want, volume)
    steps = () if after == volume else (*_fencing(want, volume, backend), _step(want, volume, after, backend))
    if want.action in _FORWARDS:
        steps = activation(volume, backend) + steps
    return Plan(volume.name, volume, after, steps, label=_label(want))


def _check_own(volume: Volume) -> None:
    if volume.kept_at:
        raise Refused(f"volume {volume.name} is kept of image {volume.source_image} and given to nobody; make a volume from that image")


def _nothing_to_take_back(want: AttachmentWish, volume: t.Optional[Volume], backend: VolumeBackend) -> Plan:
    warning = f"there is no volume {want.volume} at {backend.where}: nothing to detach from {want.instance}"
    return Plan(want.volume, volume, volume, label=_label(want), warnings=() if volume else (warning,))


def _after(want: AttachmentWish, volume: Volume) -> Volume:
    have = volume.attachment(want.instance)
    if want.action == "reserve":
        given = dataclasses.replace(volume, reverted_to=None, restored_from=None) if have is None else volume  # it may be written to from now on
        return given.with_attachment(_reserved(want, volume, have))
    if have is None:
        raise Conflict(f"volume {volume.name} is not reserved for {want.instance}; reserve it first")
    return _released(volume, have) if want.action == "release" else volume.with_attachment(_moved(want, volume, have))


def _fencing(want: AttachmentWish, volume: Volume, backend: VolumeBackend) -> t.Tuple[Step, ...]:
    """The proof that a host which nobody can ask has let go: the storage takes nothing of it any more."""
    have = volume.attachment(want.instance) if want.action == "fence" else None
    clients = backend.clients(volume, have) if have else ()
    if not have or not clients:
        return ()
    return (Step(f"keep {', '.join(clients)} of {have.host} from volume {volume.name} for good", backend.fence, (volume, clients)),)


def _step(want: AttachmentWish, before: Volume, after: Volume, backend: VolumeBackend) -> Step:
    said = {"reserve": f"reserve volume {before.name} for", "release": f"release volume {before.name} from", "fence": f"take volume {before.name} from"}
    verb = said.get(want.action) or f"{TRANSITIONS[want.action].said} volume {before.name} for"
    return Step(f"{verb} {want.instance}", backend.swap, (before, after))


def _reserved(want: AttachmentWish, volume: Volume, have: t.Optional[Attachment]) -> Attachment:
    if not want.host:
        raise Invalid(f"volume {volume.name} can't be reserved for {want.instance} without the name of its compute host; give host")
    check_data(volume)
    if have is None:
        _check_free(want, volume)
        fresh = Attachment(id=want.fresh_id, instance=want.instance, host=want.host, mode=want.mode or "rw")
        return _told(want, _carried(want, volume, fresh))
    if have.host != want.host:
        raise Conflict(f"volume {volume.name} is held by {volume.holders()}, not on {want.host}; detach it there first")
    if have.status == "detaching":
        raise Conflict(f"volume {volume.name} is being detached from {want.instance}{_why(have)}; finish the detach first")
    if have.status == "detached":
        again = dataclasses.replace(have, status="reserved", step=None, reason=None)  # its host is proven clean
        return _told(want, _carried(want, volume, again))
    if want.transport not in (None, have.transport):
        raise Conflict(
            f"volume {volume.name} is {have.status} for {want.instance} by transport {have.transport}, not {want.transport}; "
            f"set transport to {have.transport}, or detach it first"
        )
    return _told(want, have)


def _carried(want: AttachmentWish, volume: Volume, have: Attachment) -> Attachment:
    """How the bytes will travel. All who share a volume share its export, whatever name a later one would give it."""
    shared = [a.target_iqn for a in volume.attachments if a.target_iqn]
    named = [f"{want.iqn_prefix}:volume-{volume.id}"] if want.iqn_prefix else [None]
    return dataclasses.replace(have, transport=want.transport or have.transport, target_iqn=(shared + named)[0])


def _check_free(want: AttachmentWish, volume: Volume) -> None:
    status = volume.backed_up().status if volume.backup else volume.status  # its backup is read from a snapshot
    if status in _RESERVABLE:
        return
    if volume.multiattach and status in _SHAREABLE:
        leaving = [a for a in volume.attachments if a.status in ("detaching", "detached")]
        if not leaving:
            return
    if volume.attachments:
        raise Conflict(f"volume {volume.name} can't be reserved for {want.instance}: it is held by {volume.holders()}; detach it there first")
    raise Conflict(f"volume {volume.name} can't be reserved for {want.instance}: it is {volume.status}; wait until it is available")


def _moved(want: AttachmentWish, volume: Volume, have: Attachment) -> Attachment:
    transition = TRANSITIONS[want.action]
    if have.status in transition.done:
        # whoever completes it has done what an earlier run stopped at
        return _told(want, dataclasses.replace(have, step=None, reason=None) if want.action == "complete" else have)
    if have.status not in transition.starts:
        raise Conflict(f"the attachment of volume {volume.name} to {want.instance} is {have.status}{_why(have)}: {want.action} is not possible now")
    return _told(want, dataclasses.replace(have, status=transition.to, step=None, reason=None))


def _released(volume: Volume, have: Attachment) -> Volume:
    if have.status != "detached":
        raise Refused(
            f"volume {volume.name} can't be released: its attachment to {have.instance} is {have.status}; "
            "detach it, or terminate it once its host is proven clean"
        )
    return volume.without_attachment(have.instance)


def _told(want: AttachmentWish, have: Attachment) -> Attachment:
    """The attachment with what this action knows better; what it does not say stays."""
    told = {key: getattr(want, key) for key in ("initiator", "ip", "device", "step", "reason")}
    return dataclasses.replace(have, **{key: value for key, value in told.items() if value is not None})


def _why(have: Attachment) -> str:
    return f" ({have.reason})" if have.reason else ""


def _label(want: AttachmentWish) -> str:
    return f"{want.volume} for {want.instance}"
