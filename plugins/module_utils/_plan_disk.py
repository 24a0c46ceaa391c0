# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""From what a domain's disk is to what it shall be: pure decisions, no reading, no writing."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import typing as t

from ._errors import Conflict, Invalid, NotFound, Refused, Unavailable
from ._hosts import DiskHost
from ._model.data import Secret
from ._model.disk import GUEST_SERIAL, RBD_CONFIG, SCOPES, Disk, DiskKey, DiskSecret, Domain, DomainDisk, DomainKey, Image, ImageKey, Iotune, Record
from ._model.disk import SecretKey, Source, device_name, guest_serial, secret_of
from ._reconcile import Plan, Step, World

_ATTRIBUTES = ("cache", "io", "discard", "read_only", "shareable", "iotune")
_COPY = {"live": "running", "config": "persistent"}
_BY_BUS = 26 * 27  # vda to vdzz


@dataclasses.dataclass(frozen=True)
class DiskWish:
    """What the user says of one disk; None is what the user does not care about."""

    domain: str
    present: bool = True
    serial: t.Optional[str] = None
    alias: t.Optional[str] = None
    device: t.Optional[str] = None
    bus: t.Optional[str] = None
    source: t.Optional[Source] = None
    password: t.Optional[Secret] = None
    cache: t.Optional[str] = None
    io: t.Optional[str] = None
    discard: t.Optional[str] = None
    read_only: t.Optional[bool] = None
    shareable: t.Optional[bool] = None
    iotune: t.Optional[Iotune] = None
    size_bytes: t.Optional[int] = None
    volume: t.Optional[str] = None
    attachment_id: t.Optional[str] = None
    scope: str = "both"

    @property
    def name(self) -> str:
        return self.alias or self.device or str(self.serial)

    @property
    def title(self) -> str:
        return f"disk {self.name} of domain {self.domain}"


def plan_disk(want: DiskWish, world: World, host: DiskHost) -> Plan:
    """Attaches, repairs, grows or detaches one disk, in the running domain and in its persistent definition.

    Raises Invalid, NotFound, Conflict or Refused.
    """
    home: t.Optional[Domain] = world.get(DomainKey(want.domain))
    if not want.present:
        return _absent(want, home, world, host)
    if home is None:
        raise NotFound(f"there is no domain {want.domain} at {host.where}; define it first, or choose one of: {_some(world)}")
    return _present(want, _scopes(want, home), world, host)


def image_in_question(want: DiskWish, world: World) -> t.Optional[Source]:
    """The Ceph image that QEMU would have to open, or to close, for a wish."""
    home: t.Optional[Domain] = world.get(DomainKey(want.domain))
    if home is None or not home.active or want.scope == "config":
        return None
    source = _opened(want, world) if want.present else _closed(want, world)
    return source if source and source.protocol == "rbd" else None


def _opened(want: DiskWish, world: World) -> t.Optional[Source]:
    have: DomainDisk = world.get(DiskKey(want.domain, str(want.alias))) or DomainDisk(want.domain)
    if have.live:
        return None
    return want.source or (have.config.source if have.config else None)


def _closed(want: DiskWish, world: World) -> t.Optional[Source]:
    with contextlib.suppress(Conflict):  # a name that fits two disks is told by the plan
        have = _named(want, world)[1]
        return have.live.source if have and have.live else None
    return None


def _scopes(want: DiskWish, home: Domain) -> t.Tuple[str, ...]:
    """The copies a wish is about: both, as far as the domain has both."""
    there = tuple(scope for scope, has in (("live", home.active), ("config", home.persistent)) if has)
    if want.scope == "both":
        return there
    if want.scope not in there:
        lacks = "does not run" if want.scope == "live" else "is transient and has no persistent definition"
        raise Refused(f"scope={want.scope} asks for what domain {home.name} has not: it {lacks}; use scope=both, or change the domain first")
    return (want.scope,)


def _some(world: World) -> str:
    names = sorted(key.name for key in world if isinstance(key, DomainKey))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "none, this host has no domain"


def _disks(world: World, domain: t.Optional[str] = None) -> t.List[t.Tuple[DiskKey, DomainDisk]]:
    """The disks of one domain, or of all."""
    there = [(key, disk) for key, disk in world.items() if isinstance(key, DiskKey) and disk is not None]
    return [(key, disk) for key, disk in there if domain in (None, key.domain)]


# ---- present ---------------------------------------------------------------------------------------------------------


def _present(want: DiskWish, scopes: t.Tuple[str, ...], world: World, host: DiskHost) -> Plan:
    key = DiskKey(want.domain, t.cast(str, want.alias))
    have: DomainDisk = world.get(key) or DomainDisk(want.domain)
    disk = _wished_disk(want, have, key, world, host)
    _refuse_double(want, disk, key, world)
    record = _record(want, disk, have)
    after = dataclasses.replace(have, password=_password(want, disk, world))
    for scope in scopes:
        copy = _wished_copy(want, getattr(have, scope), disk)
        _refuse_live_change(want, have, scope, copy)
        after = dataclasses.replace(after, **{scope: copy, f"{scope}_record": record})
    _check_size(want, have)
    if after.live and want.size_bytes is not None:
        after = dataclasses.replace(after, size_bytes=want.size_bytes)
    warnings = _check_opening(want, after.live, world) if after.live and not have.live else ()
    steps = _preparing(want, have, after, record, world, host) + _attaching(want, have, after, host) + _changing(want, have, after, host)
    return Plan(key, world.get(key), after, steps, label=want.title, warnings=warnings)


def _check_opening(want: DiskWish, disk: Disk, world: World) -> t.Tuple[str, ...]:
    """What QEMU shall open now has to be there and the right one: of a Ceph cluster QEMU itself would ask that without a limit in time."""
    if want.password is None:
        _check_usable(want, disk.source, world.get(disk.source.secret))
    image: t.Optional[Image] = world.get(ImageKey(str(disk.source.path)))
    if image is None:
        return ()
    if image.error:
        raise type(image.error)(f"{want.title} can't be attached: {image.error}")
    if want.size_bytes not in (None, image.size_bytes) and image.size_bytes is not None:
        raise Conflict(f"{disk.source} has {image.size_bytes} bytes, not {want.size_bytes}; check that it is the right volume")
    return _doubts(want, disk, image)


def _doubts(want: DiskWish, disk: Disk, image: Image) -> t.Tuple[str, ...]:
    if image.size_bytes is None:
        return (f"{disk.source} can't be looked at before QEMU opens it, because libvirt hides {disk.source.secret}; give password in source",)
    if image.holders and not disk.shareable:
        return (f"{disk.source} is open at {', '.join(image.holders)}; {want.title} is attached only when that has ended",)
    return ()


def _check_usable(want: DiskWish, source: Source, secret: t.Optional[DiskSecret]) -> None:
    """QEMU can log in with a secret that has a value, or that someone else made, who may hide its value."""
    usable = secret is not None and (secret.value is not None or not secret.ours)
    if source.username and not usable:
        raise NotFound(f"{want.title} can't be attached: libvirt does not have {source.secret or 'a secret for it'}; give password in source")


def _wished_disk(want: DiskWish, have: DomainDisk, key: DiskKey, world: World, host: DiskHost) -> Disk:
    """The disk as a copy that is missing shall be made; a copy that is there lends what the wish leaves open."""
    for copy in have.copies:
        _check_identity(want, copy, have)
    base = have.disk
    if base is None:
        if want.source is None:
            raise Invalid(f"{want.title} is not there yet and needs a source to be attached")
        device, bus = _choose_device(want, have.record, world)
        base = Disk(device=device, bus=bus, source=want.source, alias=want.alias, serial=want.serial, cache="none")
    elif have.config is None or have.live is None:
        _check_free(want, base.device, key, world)
    disk = _configured(_with_wishes(want, base), host)
    _refuse_twin_serial(want, disk, key, world)
    return disk


def _configured(disk: Disk, host: DiskHost) -> Disk:
    """A disk on Ceph with a configuration that bounds how long QEMU waits for the cluster, unless it has another."""
    if disk.source.protocol != "rbd" or disk.source.config or not host.rbd_config:
        return disk
    return dataclasses.replace(disk, source=dataclasses.replace(disk.source, config=host.rbd_config))


def _check_identity(want: DiskWish, copy: Disk, have: DomainDisk) -> None:
    """Refuses to take another disk for the wished one: a disk is detached by name, never replaced."""
    there = t.cast(Disk, have.disk)
    wished = [("serial", want.serial, copy.serial), ("device", want.device or there.device, copy.device), ("bus", want.bus, copy.bus)]
    if want.source is not None:
        wished.append(("source", want.source, copy.source))
    wished.append(("format", "raw", copy.format))
    for name, asked, found in wished:
        same = asked.identity == found.identity if isinstance(asked, Source) else asked in (None, found)
        if not same:
            raise Conflict(
                f"{want.title} is there already as {copy.device} with {name} {found}, not {asked}; "
                "detach it first with state=absent, or correct the wish"
            )


def _with_wishes(want: DiskWish, base: Disk) -> Disk:
    wished = {name: getattr(want, name) for name in _ATTRIBUTES if getattr(want, name) is not None}
    if want.source is not None:
        source = base.source if base.source.serves(want.source) else want.source
        wished["source"] = source.alone
    return dataclasses.replace(base, **wished)


def _wished_copy(want: DiskWish, copy: t.Optional[Disk], disk: Disk) -> Disk:
    return disk if copy is None else _with_wishes(want, copy)


def _choose_device(want: DiskWish, record: t.Optional[Record], world: World) -> t.Tuple[str, str]:
    """The device of a new disk: the asked one, the one it had before, or the next free one of its bus."""
    taken = {copy.device for _key, disk in _disks(world, want.domain) for copy in disk.copies}
    before = record or Record("")
    bus = want.bus or before.bus or "virtio"
    if want.device:
        _check_free(want, want.device, DiskKey(want.domain, t.cast(str, want.alias)), world)
        return want.device, bus
    earlier = [before.device] if before.device and before.bus == bus else []
    names = itertools.chain(earlier, (device_name(bus, n) for n in range(_BY_BUS)))
    free = next((name for name in names if name not in taken), None)
    if free is None:
        raise Refused(f"domain {want.domain} has no free device on the {bus} bus for {want.name}; detach a disk first")
    return free, bus


def _check_free(want: DiskWish, device: str, key: DiskKey, world: World) -> None:
    for other, disk in _disks(world, want.domain):
        if other != key and device in {copy.device for copy in disk.copies}:
            raise Refused(
                f"device {device} of domain {want.domain} is taken by {_said(disk)}; "
                "name another device, or leave device out for the next free one"
            )


def _refuse_twin_serial(want: DiskWish, disk: Disk, key: DiskKey, world: World) -> None:
    """Two virtio disks whose serials the guest can't tell apart are a trap for whoever formats one of them."""
    seen = guest_serial(disk)
    for other, there in _disks(world, want.domain):
        if seen and other != key and any(guest_serial(copy) == seen for copy in there.copies):
            hint = f"a virtio disk shows the guest only {GUEST_SERIAL} characters of it; " if disk.bus == "virtio" else ""
            raise Refused(f"{want.title} would have the same serial {seen} in the guest as {_said(there)}; {hint}use another serial, or bus=scsi")


def _refuse_double(want: DiskWish, disk: Disk, key: DiskKey, world: World) -> None:
    """Neither libvirt nor tgt stops two guests from writing to one disk."""
    for other, there in _disks(world):
        for copy in there.copies if other != key else ():
            if copy.source.identity == disk.source.identity and not (disk.shareable and copy.shareable):
                raise Refused(
                    f"{disk.source} is already {_said(there)} of domain {other.domain}; detach it there first, "
                    "or set shareable on both if the guests share it knowingly"
                )


def _refuse_live_change(want: DiskWish, have: DomainDisk, scope: str, after: Disk) -> None:
    """What QEMU can't change while the disk is in use; refused before anything else is touched."""
    if scope != "live" or have.live is None:
        return
    fixed = [name for name in _changed(have.live, after) if name != "iotune"]
    if fixed:
        raise Refused(
            f"{' and '.join(fixed)} of {want.title} can't change while the domain runs; set scope=config "
            "to change it from the next start on, or detach the disk and attach it again"
        )


def _changed(before: Disk, after: Disk) -> t.List[str]:
    return [name for name in (*_ATTRIBUTES, "source") if getattr(before, name) != getattr(after, name)]


def _check_size(want: DiskWish, have: DomainDisk) -> None:
    if want.size_bytes is not None and have.size_bytes is not None and want.size_bytes < have.size_bytes:
        raise Refused(
            f"{want.title} has {have.size_bytes} bytes and can't shrink to {want.size_bytes}; "
            "correct size_bytes, or check that this is the right volume"
        )


def _password(want: DiskWish, disk: Disk, world: World) -> t.Optional[Secret]:
    """What the secret for the disk's source shall hold."""
    have: t.Optional[DiskSecret] = world.get(disk.source.secret)
    if want.password is None:
        return have.value if have else None
    if have is not None and not have.ours and have.value != want.password:
        raise Conflict(
            f"{have.key}, which someone else made in libvirt, has another or a hidden value; "
            "remove it (virsh secret-undefine), or give it the right one"
        )
    return want.password


def _record(want: DiskWish, disk: Disk, have: DomainDisk) -> Record:
    noted = have.record or Record(t.cast(str, want.alias))
    told = {name: getattr(want, name) for name in ("volume", "attachment_id") if getattr(want, name) is not None}
    return _noted(disk, dataclasses.replace(noted, **told))


def _noted(disk: Disk, record: Record) -> Record:
    """A note with all that a disk itself tells."""
    source = {name: getattr(disk.source, name) for name in ("target_iqn", "lun", "secret_uuid")}
    return dataclasses.replace(record, serial=disk.serial, device=disk.device, bus=disk.bus, **source)


def _preparing(want: DiskWish, have: DomainDisk, after: DomainDisk, record: Record, world: World, host: DiskHost) -> t.Tuple[Step, ...]:
    """The note comes first, so that a run that is stopped later leaves word of what it was about to make."""
    steps: t.Tuple[Step, ...] = ()
    noted = tuple(s for s in SCOPES if getattr(have, f"{s}_record") != getattr(after, f"{s}_record"))
    if noted:
        steps += (Step(f"note {want.alias} in the {_words(noted)} metadata of domain {want.domain}", host.write_record, (want.domain, record, noted)),)
    key = secret_of(record.target_iqn, record.secret_uuid)
    secret: t.Optional[DiskSecret] = world.get(key)
    if want.password is not None and (secret is None or secret.value != want.password):
        steps += (Step(f"set {key}", host.set_secret, (key, want.password)),)
    missing = [getattr(after, scope) for scope in SCOPES if getattr(have, scope) is None and getattr(after, scope)]
    if any(disk.source.config == host.rbd_config for disk in missing if disk.source.config) and not world.get(RBD_CONFIG):
        steps += (Step(f"write {host.rbd_config}, which bounds how long QEMU waits for Ceph", host.write_rbd_config),)
    return steps


def _attaching(want: DiskWish, have: DomainDisk, after: DomainDisk, host: DiskHost) -> t.Tuple[Step, ...]:
    missing = tuple(s for s in SCOPES if getattr(have, s) is None and getattr(after, s) is not None)
    if not missing:
        return ()
    disk = getattr(after, missing[0])
    return (Step(f"attach {want.alias} as {disk.device} to the {_words(missing)} domain {want.domain}", host.attach, (want.domain, disk, missing)),)


def _changing(want: DiskWish, have: DomainDisk, after: DomainDisk, host: DiskHost) -> t.Tuple[Step, ...]:
    """What differs in the copies that are there."""
    config = have.config and after.config
    steps: t.Tuple[Step, ...] = ()
    if config and have.config != config:
        what = " and ".join(_changed(t.cast(Disk, have.config), config))
        steps = (Step(f"change {what} of {config.device} in the persistent domain {want.domain}", host.update, (want.domain, config)),)
    return steps + (_changing_live(want, have, have.live, after, host) if have.live and after.live else ())


def _changing_live(want: DiskWish, have: DomainDisk, live: Disk, after: DomainDisk, host: DiskHost) -> t.Tuple[Step, ...]:
    iotune = t.cast(Disk, after.live).iotune
    steps: t.Tuple[Step, ...] = ()
    if live.iotune != iotune:
        steps += (Step(f"set the I/O limits of {live.device} in the running domain {want.domain}", host.limit, (want.domain, live.device, iotune)),)
    if None not in (want.size_bytes, have.size_bytes) and have.size_bytes != want.size_bytes:
        grow = (want.domain, live.device, want.size_bytes)
        steps += (Step(f"grow {live.device} of the running domain {want.domain} to {want.size_bytes} bytes", host.resize, grow),)
    return steps


# ---- absent ----------------------------------------------------------------------------------------------------------


def _absent(want: DiskWish, home: t.Optional[Domain], world: World, host: DiskHost) -> Plan:
    if home is None:
        return _gone_with_its_domain(want, world, host)
    key, have = _named(want, world)
    if have is None:
        return Plan(key, None, None, label=want.title, closing=_forgetting(want, key, None, (), world, host))
    _check_detachable(want, have)
    _check_reachable(want, have, world)
    scopes = tuple(s for s in _scopes(want, home) if getattr(have, s) or getattr(have, f"{s}_record"))
    rest = dataclasses.replace(have, **{name: None for s in scopes for name in (s, f"{s}_record")})
    after = rest if rest.copies or rest.record else None
    closing = _forgetting(want, key, have, scopes, world, host, last=after is None)
    steps = _detaching(want, key, {s: getattr(have, s) for s in scopes}, host)
    plan = Plan(key, have, after, steps, label=want.title, closing=closing)
    return _noting(plan, want, scopes, host)


def _noting(plan: Plan, want: DiskWish, scopes: t.Sequence[str], host: DiskHost) -> Plan:
    """A disk that nobody noted is noted while it goes: a run that is stopped shall not lose sight of its secret."""
    if plan.before.record or not (plan.steps and plan.closing):
        return plan
    key = t.cast(DiskKey, plan.key)
    record = _noted(plan.before.disk, Record(key.name))
    note = Step(f"note {key.name} in the {_words(scopes)} metadata of domain {want.domain}", host.write_record, (want.domain, record, scopes))
    return dataclasses.replace(plan, steps=(note,) + plan.steps, closing=plan.closing + (_forget(want, key, scopes, host),))


def _forget(want: DiskWish, key: DiskKey, scopes: t.Sequence[str], host: DiskHost) -> Step:
    return Step(f"forget {key.name} in the {_words(scopes)} metadata of domain {want.domain}", host.drop_record, (want.domain, key.name, scopes))


def _detaching(want: DiskWish, key: DiskKey, copies: t.Dict[str, t.Optional[Disk]], host: DiskHost) -> t.Tuple[Step, ...]:
    """The persistent copy first: a guest that is started meanwhile shall not have the disk again."""
    steps: t.Tuple[Step, ...] = ()
    config, live = copies.get("config"), copies.get("live")
    if config:
        steps += (Step(f"detach {config.device} from the persistent domain {want.domain}", host.detach, (want.domain, key.name)),)
    if live:
        steps += (Step(f"ask the running domain {want.domain} to let go of {live.device}", host.unplug, (want.domain, key.name)),)
    return steps


def _named(want: DiskWish, world: World) -> t.Tuple[DiskKey, t.Optional[DomainDisk]]:
    """The one disk that has the alias, or else the serial, exactly; the device says which only when it stands alone."""
    mine = _disks(world, want.domain)
    found = [(key, disk) for key, disk in mine if key.name == want.alias] or _having(mine, "serial", want.serial)
    if not want.alias:
        found = _having(mine, "device", want.device)
    elif found and want.device and not _having(found, "device", want.device):
        raise Conflict(f"{want.alias} of domain {want.domain} is {_said(found[0][1])}, not {want.device}; name the disk by its serial or by its device alone")
    if len(found) > 1:
        names = " and ".join(key.name for key, _disk in found)
        raise Conflict(f"{names} of domain {want.domain} have the same serial {want.serial}; name the one by its device")
    return found[0] if found else (DiskKey(want.domain, want.name), None)


def _having(disks: t.List[t.Tuple[DiskKey, DomainDisk]], name: str, value: t.Optional[str]) -> t.List[t.Tuple[DiskKey, DomainDisk]]:
    """The disks of which a copy, or the note, has this value."""
    return [(key, disk) for key, disk in disks if value and value in {getattr(known, name) for known in (*disk.copies, disk.record) if known}]


def _check_detachable(want: DiskWish, have: DomainDisk) -> None:
    for copy in have.copies:
        if copy.kind not in ("disk", "lun"):
            raise Refused(f"{copy.device} of domain {want.domain} is a {copy.kind}, not a disk; this module leaves it alone")
        wished = want.source and (want.source.target_iqn or (want.source.path if want.source.protocol == "rbd" else None))
        if wished not in (None, copy.source.target_iqn, copy.source.path):
            raise Conflict(f"{want.title} has {copy.source} as source, not {wished}; correct the wish")


def _check_reachable(want: DiskWish, have: DomainDisk, world: World) -> None:
    """While its cluster does not answer, QEMU can't close a Ceph image, and nobody can talk to it until it has."""
    image: t.Optional[Image] = world.get(ImageKey(str(have.live.source.path))) if have.live and want.scope != "config" else None
    if image and isinstance(image.error, Unavailable):
        raise Unavailable(f"{want.title} is left attached, because its guest would hang while it is taken out: {image.error}")


def _gone_with_its_domain(want: DiskWish, world: World, host: DiskHost) -> Plan:
    """A domain that is gone holds no disk, unless it only has another name now."""
    key = DiskKey(want.domain, want.name)
    for other, disk in _disks(world):
        if want.alias == other.name and not all(copy.shareable for copy in disk.copies):
            raise Conflict(f"there is no domain {want.domain} at {host.where}, but domain {other.domain} has {want.alias}; detach it from there")
    warning = f"there is no domain {want.domain} at {host.where}, so nothing was detached from it"
    return Plan(key, None, None, label=want.title, warnings=(warning,), closing=_forgetting(want, key, None, (), world, host))


def _forgetting(
    want: DiskWish, key: DiskKey, have: t.Optional[DomainDisk], scopes: t.Sequence[str], world: World, host: DiskHost, last: bool = True
) -> t.Tuple[Step, ...]:
    """What goes when the disk has gone: the secret that no other disk needs, and as the last thing the note."""
    steps: t.Tuple[Step, ...] = ()
    mine: t.Set[t.Optional[SecretKey]] = set(have.secrets if have else ()) | {want.source.secret if want.source else None}
    needed = {secret for other, disk in _disks(world) if other != key for secret in disk.secrets}
    for name in sorted((secret for secret in mine - needed if secret and last), key=str):
        secret: t.Optional[DiskSecret] = world.get(name)
        if secret is not None and secret.ours:
            steps += (Step(f"remove {name}", host.drop_secret, (name,)),)
    noted = tuple(s for s in scopes if getattr(have, f"{s}_record"))
    if noted:
        steps += (_forget(want, key, noted, host),)
    return steps


def _said(disk: DomainDisk) -> str:
    copy = t.cast(Disk, disk.disk)
    serial = f" with serial {copy.serial}" if copy.serial else ""
    return f"{copy.device} ({copy.source}{serial})"


def _words(scopes: t.Sequence[str]) -> str:
    return " and ".join(_COPY[scope] for scope in scopes)
