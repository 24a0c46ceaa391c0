# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.
"""A host whose domains libvirt runs: one connection, one short verb per act.

Unplugging is asynchronous: QEMU answers with the events DEVICE_REMOVED or DEVICE_REMOVAL_FAILED.
Their loop is run in this thread while the engine waits; python-libvirt with a loop in another
thread crashes when the process ends.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import os
import typing as t
import xml.etree.ElementTree as ET

from .._errors import Failed, NotFound, Refused, StorageError, Unavailable
from .._model.data import Secret
from .._model.disk import IOTUNE_KEYS, RBD_CONFIG, Disk, DiskKey, DiskSecret, Domain, DomainDisk, DomainKey, ImageKey, Iotune, Record, SecretKey, Source
from .._reconcile import World
from . import DiskHost, Scopes, ceph
from .domain_xml import NAMESPACE, PREFIX, disk_element, disk_from, disk_xml, disks_in, edited_xml, records_from, records_in, records_xml
from .domain_xml import secret_is_ours, secret_xml

try:
    import libvirt
except ImportError:
    libvirt = None

# Part of what QEMU or libvirt says, and what it means to a person. Measured with QEMU 7.2 and libvirt 9.0.
_MEANINGS: t.Tuple[t.Tuple[str, t.Type[StorageError], str], ...] = (
    ("Authentication failure(513)", Failed, "the target refused the login; check username and password of the source against the target's CHAP account"),
    ("Target not found(515)", Failed, "the target is not there or does not admit this initiator; export it, or admit the initiator in the target's ACL"),
    ("LOGICAL_UNIT_NOT_SUPPORTED", Failed, "the target has no such LUN; check source.lun against the target's LUNs"),
    ("iscsi_service", Failed, "nobody answers at the portal; check that the target's service runs and that the portal's address and port are right"),
    ("Failed to connect to LUN", Failed, "QEMU could not connect to the LUN; check portal, target and LUN of the source"),
    ("Cannot grow iSCSI devices", Failed, "the target still has the old size; extend the volume and its export on the storage host first"),
    ("No more available PCI slots", Refused, "the domain has no free PCI slot; use bus=scsi, or give the domain more pcie-root-port controllers"),
    ("Cannot access storage file", Refused, "the file or device of the source is not there; make it first, or correct source.path"),
    ("Could not open", Refused, "QEMU can't open the source; check that it exists and that QEMU's user may read and write it"),
    ("Secret not found", Refused, "libvirt has no password for the target; give username and password in source"),
    ("error reading header from", Refused, "QEMU finds no such image; where it is in a namespace, this libvirt is too old for that: use a pool without"),
    ("error connecting", Unavailable, "QEMU reached no monitor of the Ceph cluster in time; check source.monitors, and that this host reaches them"),
    ("Failed to get \"write\" lock", Refused, "another QEMU has the source open; detach it there first"),
)
_UNPLUGGING = "already in the process of unplug"
_NO_ALIAS = "no device found with alias"


class LibvirtHost(DiskHost):
    """The libvirt behind a URI. Every failure becomes one of our errors; libvirt itself prints nothing."""

    def __init__(self, uri: str) -> None:
        self.where = uri
        self._images = ceph.Images()
        self._refused: t.Set[DiskKey] = set()
        self._asked: t.Dict[t.Tuple[str, str], DiskKey] = {}
        self._news = False
        self._connection = connect(uri)

    # ---- looking

    def observe(self) -> World:
        """All domains with their disks and notes, and the secrets with which disks log in."""
        world: World = {RBD_CONFIG: ceph.has_config()}
        with self._asking("look at the domains"):
            secrets = self._secrets()
            for domain in self._connection.listAllDomains():
                with contextlib.suppress(_Vanished), self._asking("look at a domain"):
                    world.update(_look(domain, secrets))
        return {**world, **secrets}

    def images(self, sources: t.Iterable[t.Tuple[Source, t.Optional[Secret]]]) -> World:
        """The Ceph images of sources, with a key given or that of their secret."""
        return {ImageKey(str(source.path)): self._images.look(source, key or self._key(source)) for source, key in sources}

    @functools.cached_property
    def rbd_config(self) -> t.Optional[str]:  # type: ignore[override]
        """None where AppArmor keeps QEMU from reading anything of Ceph but /etc/ceph/ceph.conf (its abstraction libvirt-qemu)."""
        with self._asking("tell how it confines guests"):
            models = ET.fromstring(self._connection.getCapabilities()).findall("host/secmodel/model")
        return None if any(model.text == "apparmor" for model in models) else ceph.config_path()

    def domains(self) -> t.List[Domain]:
        """All domains, without their disks."""
        found = []
        with self._asking("look at the domains"):
            for domain in self._connection.listAllDomains():
                with contextlib.suppress(_Vanished), self._asking("look at a domain"):
                    found.append(_known(domain))
        return found

    def sizes(self, names: t.Iterable[str], world: World) -> t.Dict[t.Tuple[str, str], int]:
        """What QEMU shows the guests as sizes, by domain and device; of those that run and whose QEMU would answer."""
        disks = [(key.domain, disk.live.source) for key, disk in world.items() if isinstance(key, DiskKey) and key.domain in names and disk.live]
        wanted = set(names) - self._waiting(disks)
        with self._asking("look at the sizes of disks"):
            active = self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            domains = [domain for domain in active if domain.name() in wanted]
            stats = self._connection.domainListGetStats(domains, libvirt.VIR_DOMAIN_STATS_BLOCK) if domains else []
        found = {}
        for domain, values in stats:
            for index in range(values.get("block.count", 0)):
                size = values.get(f"block.{index}.capacity")
                if size is not None:
                    found[(domain.name(), values[f"block.{index}.name"])] = size
        return found

    def _waiting(self, disks: t.Iterable[t.Tuple[str, Source]]) -> t.Set[str]:
        """The domains whose QEMU would read from a Ceph cluster that does not answer, to tell how its disks are, until it does."""
        by_pool: t.Dict[Source, t.List[t.Tuple[str, Source]]] = {}
        for domain, source in disks:
            if source.protocol == "rbd":
                by_pool.setdefault(dataclasses.replace(source, path=os.path.dirname(str(source.path))), []).append((domain, source))
        silent = [found for found in by_pool.values() if self._images.is_silent(found[0][1], self._key(found[0][1]))]
        return {domain for found in silent for domain, _source in found}

    def _secrets(self) -> t.Dict[SecretKey, DiskSecret]:
        found = [(secret, _secret_key(secret)) for secret in self._connection.listAllSecrets()]
        return {key: DiskSecret(key, _value(key, secret), secret_is_ours(secret.XMLDesc())) for secret, key in found if key}

    def _key(self, source: Source) -> t.Optional[Secret]:
        with self._asking("read a secret"):
            secret = self._secret(source.secret) if source.secret else None
            return _value(source.secret, secret) if source.secret and secret else None

    # ---- notes and secrets

    def write_record(self, domain: str, record: Record, scopes: Scopes) -> None:
        self._note(domain, record.alias, record, scopes)

    def drop_record(self, domain: str, alias: str, scopes: Scopes) -> None:
        self._note(domain, alias, None, scopes)

    def _note(self, domain: str, alias: str, record: t.Optional[Record], scopes: Scopes) -> None:
        with self._asking(f"note {alias} in domain {domain}"):
            found = self._domain(domain)
            for flag in _flags(scopes):
                kept = [r for r in records_from(self._metadata(found, flag)) if r.alias != alias]
                xml = records_xml(kept + ([record] if record else []))
                found.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, PREFIX, NAMESPACE, flag)

    def _metadata(self, domain: t.Any, flag: int) -> t.Optional[str]:
        try:
            return domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, flag)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return None
            raise

    def set_secret(self, key: SecretKey, value: Secret) -> None:
        with self._asking(f"set {key}"):
            secret = self._secret(key) or self._connection.secretDefineXML(secret_xml(key))
            text = value.reveal()
            secret.setValue(base64.b64decode(text) if key.type == "ceph" else text.encode())

    def drop_secret(self, key: SecretKey) -> None:
        with self._asking(f"remove {key}"):
            secret = self._secret(key)
            if secret is not None and secret_is_ours(secret.XMLDesc()):
                secret.undefine()

    def _secret(self, key: SecretKey) -> t.Any:
        try:
            if key.type == "ceph":
                return self._connection.secretLookupByUUIDString(key.name)
            return self._connection.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_ISCSI, key.name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
                return None
            raise

    def write_rbd_config(self) -> None:
        ceph.write_config()

    # ---- disks

    def attach(self, domain: str, disk: Disk, scopes: Scopes) -> None:
        if disk.source.protocol == "rbd" and "live" in scopes:
            check = self._images.check_answer if disk.shareable else self._images.check_alone
            check(disk.source, self._key(disk.source))
        with self._asking(f"attach {disk.source} as {disk.device} to domain {domain}"):
            self._domain(domain).attachDeviceFlags(disk_xml(disk), sum(_flags(scopes)))

    def update(self, domain: str, disk: Disk) -> None:
        with self._asking(f"change {disk.device} in the persistent domain {domain}"):
            found = self._domain(domain)
            element = disk_element(found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), disk.key)
            if element is None:
                raise NotFound(f"{disk.key} has vanished from the persistent domain {domain} meanwhile; run the same play again")
            found.updateDeviceFlags(edited_xml(element, disk), libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def limit(self, domain: str, device: str, iotune: Iotune) -> None:
        with self._asking(f"limit {device} of domain {domain}"):
            limits = {**dict.fromkeys(IOTUNE_KEYS, 0), **dict(iotune)}
            self._domain(domain).setBlockIoTune(device, limits, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def resize(self, domain: str, device: str, size_bytes: int) -> None:
        with self._asking(f"grow {device} of domain {domain} to {size_bytes} bytes"):
            self._domain(domain).blockResize(device, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def detach(self, domain: str, name: str) -> None:
        with contextlib.suppress(_Vanished), self._asking(f"detach {name} from the persistent domain {domain}"):
            found = self._domain(domain)
            element = disk_element(found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), name)
            if element is not None:
                found.detachDeviceFlags(ET.tostring(element, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def unplug(self, domain: str, name: str) -> None:
        with contextlib.suppress(_Vanished), self._asking(f"detach {name} from the running domain {domain}"):
            found = self._domain(domain)
            element = disk_element(found.XMLDesc(0), name) if found.isActive() else None
            alias = element.find("alias") if element is not None else None
            if alias is not None:
                source = disk_from(element).source
                if source.protocol == "rbd":
                    self._images.check_answer(source, self._key(source))
                self._watch(found, DiskKey(domain, name), alias.get("name", ""))
                self._ask_to_let_go(found, alias.get("name", ""))

    def _watch(self, domain: t.Any, key: DiskKey, alias: str) -> None:
        """Listens for what becomes of an unplug; before it is asked for, because the answer may come at once."""
        if not self._asked:
            for event in (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED):
                self._connection.domainEventRegisterAny(None, event, self._heard, event)
        self._asked[(domain.UUIDString(), alias)] = key
        self._refused.discard(key)

    def _heard(self, _connection: t.Any, domain: t.Any, alias: str, event: int) -> None:
        key = self._asked.get((domain.UUIDString(), alias))
        if key is not None:
            self._news = True
            if event == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED:
                self._refused.add(key)

    @staticmethod
    def _ask_to_let_go(domain: t.Any, alias: str) -> None:
        try:
            domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            if _UNPLUGGING not in str(error) and _NO_ALIAS not in str(error):
                raise

    def refused(self, key: DiskKey) -> bool:
        """Whether the guest has said no to an unplug."""
        return key in self._refused

    def listen(self, seconds: float) -> None:
        """Hears libvirt's events until one concerns a disk that was asked to go, at most so long."""
        over: t.List[bool] = []
        timer = libvirt.virEventAddTimeout(int(seconds * 1000), lambda *_: over.append(True), None)
        self._news = False
        while not over and not self._news:
            libvirt.virEventRunDefaultImpl()
        libvirt.virEventRemoveTimeout(timer)

    # ---- inside

    def _domain(self, name: str) -> t.Any:
        return self._connection.lookupByName(name)

    def _asking(self, what: str) -> t.ContextManager[None]:
        return asking(what, self.where)


def connect(uri: str) -> t.Any:
    """A connection to the libvirt behind a URI that hands on events; Unavailable when it does not answer, or the library is not there."""
    if libvirt is None:
        raise Unavailable("the Python library libvirt is missing on this host; install the package python3-libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)
    # The loop has to be there before the connection, or the connection never hands on an event.
    libvirt.virEventRegisterDefaultImpl()
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise Unavailable(f"libvirt does not answer at {uri}: {error}; start libvirtd (or virtqemud), or correct uri") from error


@contextlib.contextmanager
def asking(what: str, where: str) -> t.Iterator[None]:
    """Turns libvirt's errors into ours, with what was being done and what it means."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise _meaning(what, error, where) from error


class _Vanished(NotFound):
    """The domain, or the disk of it, is not there any more."""


def _known(domain: t.Any) -> Domain:
    return Domain(domain.name(), domain.UUIDString(), bool(domain.isActive()), bool(domain.isPersistent()))


def _look(domain: t.Any, secrets: t.Dict[SecretKey, DiskSecret]) -> World:
    known = _known(domain)
    found: t.Dict[str, t.Dict[str, t.Any]] = {}
    flags = {"live": (known.active, 0), "config": (known.persistent, libvirt.VIR_DOMAIN_XML_INACTIVE)}
    for scope, flag in ((scope, flag) for scope, (has, flag) in flags.items() if has):
        xml = domain.XMLDesc(flag)
        for disk in disks_in(xml):
            found.setdefault(disk.key, {})[scope] = _located(disk)
        for record in records_in(xml):
            found.setdefault(record.alias, {})[f"{scope}_record"] = record
    disks = {DiskKey(known.name, name): _with_password(DomainDisk(known.name, **parts), secrets) for name, parts in found.items()}
    return {DomainKey(known.name): known, **disks}


def _with_password(disk: DomainDisk, secrets: t.Dict[SecretKey, DiskSecret]) -> DomainDisk:
    secret = next((secrets[key] for key in sorted(disk.secrets, key=str) if key in secrets), None)
    return dataclasses.replace(disk, password=secret.value) if secret else disk


def _secret_key(secret: t.Any) -> t.Optional[SecretKey]:
    """Which of the secrets for disks this is, if it is one."""
    if secret.usageType() == libvirt.VIR_SECRET_USAGE_TYPE_ISCSI:
        return SecretKey("iscsi", secret.usageID())
    return SecretKey("ceph", secret.UUIDString()) if secret.usageType() == libvirt.VIR_SECRET_USAGE_TYPE_CEPH else None


def _value(key: SecretKey, secret: t.Any) -> t.Optional[Secret]:
    """What a secret holds; a key of Ceph as keyrings write it."""
    try:
        value = secret.value()
        return Secret(base64.b64encode(value).decode() if key.type == "ceph" else value.decode("utf-8", "surrogateescape"))
    except libvirt.libvirtError:  # it has none yet, or is private
        return None


def _located(disk: Disk) -> Disk:
    path = disk.source.path if disk.source.type in ("file", "block") else None
    return dataclasses.replace(disk, source=dataclasses.replace(disk.source, real_path=os.path.realpath(path))) if path else disk


def lock_path(uri: str, kind: str = "disks") -> str:
    """The lock of all disks behind a URI, or of what else is managed there."""
    return os.path.join(run_directory(), f"stackless-block-{kind}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}.lock")


def run_directory() -> str:
    """A directory that only root (or the user) writes to, and that is empty after a restart."""
    return "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")


def _flags(scopes: Scopes) -> t.List[int]:
    by_scope = {"live": libvirt.VIR_DOMAIN_AFFECT_LIVE, "config": libvirt.VIR_DOMAIN_AFFECT_CONFIG}
    return [by_scope[scope] for scope in scopes]


def _meaning(what: str, error: t.Any, where: str) -> StorageError:
    text = str(error)
    if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_DEVICE_MISSING):
        return _Vanished(f"could not {what}: {text}; it has vanished meanwhile, run the same play again")
    for said, kind, sentence in _MEANINGS:
        if said in text:
            return kind(f"could not {what}: {sentence} ({text})")
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return Unavailable(f"could not {what}: libvirt at {where} went away: {text}; start it and run the same play again")
    return Failed(f"could not {what}: {text}")
