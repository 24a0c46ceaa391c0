# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Volumes and their attachments: the words, statuses and rules are Cinder's.

Source of the statuses and of how a volume's status follows from its attachments:
cinder/objects/fields.py and cinder/db/sqlalchemy/api.py (29.0.0).
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import Invalid

GIB = 1 << 30
MAKING = ("creating", "downloading")  # it is being made; downloading from an image
MAX_GIB = 1 << 23  # 8 EiB, the largest file a 63-bit offset can address

# A name must be fit for every driver: LVM tags, RBD images and file records take these characters alike.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")


@dataclasses.dataclass(frozen=True)
class Attachment:
    """One volume given to one instance, or on the way there or back.

    `status` is reserved, attaching, attached, detaching or detached. `transport` is how the bytes travel: host (its
    kernel logs in), qemu (QEMU itself does), local (no export), rbd (QEMU is a client of Ceph) or krbd (its kernel is). `target_iqn` is the export that
    the way back has to take down. `step` and `reason` say where and why a walk stopped, for the person who has to look at it.
    """

    id: str
    instance: str
    host: str
    status: str = "reserved"
    mode: str = "rw"
    transport: str = "qemu"  # what records of 0.1.0, which do not say it, meant
    target_iqn: t.Optional[str] = None
    initiator: t.Optional[str] = None
    ip: t.Optional[str] = None
    device: t.Optional[str] = None
    step: t.Optional[str] = None
    reason: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a volume was at one moment, `created_at` (UTC, ISO 8601).

    `status` is creating, available, uploading or deleting. `size_bytes` is the size that the volume had. `taken` is whether a
    look at the storage found it (None: nobody looked). `uploading_to` is the file that it is being written to.
    """

    id: str
    name: str
    size_bytes: int
    created_at: str
    status: str = "available"
    description: t.Optional[str] = None
    metadata: t.Tuple[t.Tuple[str, str], ...] = ()
    uploading_to: t.Optional[str] = None
    taken: t.Optional[bool] = dataclasses.field(default=None, compare=False, metadata={"hidden": True})


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume's record; `path` is where the data stands.

    `size_bytes` is what the record promises, `data_bytes` what a look at the data found (None: no data). `active` is
    False where the data must be activated before anyone can open it. `flaw` says what is wrong with a record that can
    be read only in part; such a volume is shown, and nothing is done with it. `source_volid` and `snapshot_id`, or
    `source_image`, or `source_backup`, say from what the volume was made. `reverted_to` is the snapshot, and `restored_from` the
    backup, whose data it holds, until it is given to anybody. `backup` is the backup that is being taken of it: named as that, with
    the id of the snapshot that it is read from, where the storage takes one at an instant; its metadata says on which host it is taken,
    and from which given snapshot, if any. `kept_at` (UTC, ISO 8601) is when a volume
    was made from it last, where it is kept of an image for that alone. `uploading_to` is the file that it is being written to.
    """

    name: str
    id: str
    size_bytes: int
    status: str = "available"
    volume_type: t.Optional[str] = None
    description: t.Optional[str] = None
    metadata: t.Tuple[t.Tuple[str, str], ...] = ()
    multiattach: bool = False
    allocation: str = "sparse"
    attachments: t.Tuple[Attachment, ...] = ()
    snapshots: t.Tuple[Snapshot, ...] = ()
    source_volid: t.Optional[str] = None
    snapshot_id: t.Optional[str] = None
    source_image: t.Optional[str] = None
    source_backup: t.Optional[str] = None
    reverted_to: t.Optional[str] = None
    restored_from: t.Optional[str] = None
    backup: t.Optional[Snapshot] = None
    kept_at: t.Optional[str] = None
    uploading_to: t.Optional[str] = None
    path: t.Optional[str] = None
    data_bytes: t.Optional[int] = dataclasses.field(default=None, compare=False, metadata={"hidden": True})
    active: bool = dataclasses.field(default=True, compare=False, metadata={"hidden": True})
    flaw: t.Optional[str] = dataclasses.field(default=None, compare=False, metadata={"hidden": True})

    def attachment(self, instance: str) -> t.Optional[Attachment]:
        return next((a for a in self.attachments if a.instance == instance), None)

    def with_attachment(self, attachment: Attachment) -> Volume:
        """The volume with this attachment in place of the instance's earlier one, and the status that follows."""
        kept = tuple(a if a.instance != attachment.instance else attachment for a in self.attachments)
        if attachment not in kept:
            kept += (attachment,)
        return self._resting(kept)

    def without_attachment(self, instance: str) -> Volume:
        return self._resting(tuple(a for a in self.attachments if a.instance != instance))

    def at_rest(self) -> Volume:
        """The volume with the status that its attachments give it."""
        return self._resting(self.attachments)

    def _resting(self, attachments: t.Tuple[Attachment, ...]) -> Volume:
        return dataclasses.replace(self, attachments=attachments, status="backing-up" if self.backup else status_of(attachments))

    def backed_up(self) -> Volume:
        """The volume when the backup that is being taken of it is done."""
        return dataclasses.replace(self, backup=None).at_rest()

    @property
    def backed_up_from(self) -> t.Optional[str]:
        """The name of the snapshot that the backup under way is read from, where one was given."""
        return dict(self.backup.metadata).get("snapshot") if self.backup else None

    def snapshot(self, name: str) -> t.Optional[Snapshot]:
        return next((s for s in self.snapshots if s.name == name), None)

    def with_snapshot(self, snapshot: Snapshot) -> Volume:
        """The volume with this snapshot, in place of the earlier one of its name."""
        kept = tuple(s if s.name != snapshot.name else snapshot for s in self.snapshots)
        return dataclasses.replace(self, snapshots=kept if snapshot in kept else (*kept, snapshot))

    def without_snapshot(self, name: str) -> Volume:
        kept = tuple(s for s in self.snapshots if s.name != name)
        reverted_to = self.reverted_to if self.reverted_to in {s.id for s in kept} else None
        return dataclasses.replace(self, snapshots=kept, reverted_to=reverted_to)

    def with_taken(self, ids: t.Container[str]) -> Volume:
        """The volume with what a look at the storage found of its snapshots."""
        return dataclasses.replace(self, snapshots=tuple(dataclasses.replace(s, taken=s.id in ids) for s in self.snapshots))

    def holders(self) -> str:
        """Who has the volume, as a person would say it."""
        return ", ".join(f"{a.instance} on {a.host} ({a.status})" for a in self.attachments)


def status_of(attachments: t.Sequence[Attachment]) -> str:
    """A volume's status from its attachments: attached wins over attaching, detaching and reserved."""
    present = {a.status for a in attachments}
    ranks = (("attached", "in-use"), ("attaching", "attaching"), ("detaching", "detaching"), ("detached", "detaching"))
    for status, volume_status in ranks + (("reserved", "reserved"),):
        if status in present:
            return volume_status
    return "available"


def check_name(name: t.Optional[str], what: str = "volume") -> str:
    """The name of a volume or snapshot, or Invalid with what a name may be."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name if not isinstance(name, str) or len(name) <= 60 else name[:57] + "...")
        raise Invalid(
            f"{shown} can't be a {what}'s name; use 1 to 127 letters, digits, '.', '_' or '-', beginning with a letter or digit"
        )
    return name


def check_size(name: str, size_gib: t.Optional[int]) -> t.Optional[int]:
    """The size in bytes of a wish in GiB, None when none was wished."""
    if size_gib is None:
        return None
    if not 1 <= size_gib <= MAX_GIB:
        raise Invalid(f"volume {name} can't have size_gib={size_gib}; give a whole number of GiB from 1 to {MAX_GIB}")
    return size_gib * GIB


def volume_from(data: t.Dict[str, t.Any]) -> Volume:
    """A volume from its record as plain data; fields this version does not know are left out."""
    fields = _known(Volume, data)
    fields["metadata"] = _pairs(data)
    fields["attachments"] = tuple(attachment_from(a) for a in data.get("attachments") or ())
    fields["snapshots"] = tuple(snapshot_from(s) for s in data.get("snapshots") or ())
    fields["backup"] = snapshot_from(data["backup"]) if data.get("backup") else None
    return Volume(**fields)


def attachment_from(data: t.Dict[str, t.Any]) -> Attachment:
    return Attachment(**_known(Attachment, data))


def snapshot_from(data: t.Dict[str, t.Any]) -> Snapshot:
    return Snapshot(**{**_known(Snapshot, data), "metadata": _pairs(data)})


def _known(kind: t.Any, data: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def _pairs(data: t.Dict[str, t.Any]) -> t.Tuple[t.Tuple[str, str], ...]:
    return tuple(sorted(dict(data.get("metadata") or {}).items()))


def record_of(volume: Volume) -> t.Dict[str, t.Any]:
    """A volume as plain data, the inverse of `volume_from`."""
    return {
        **_shown(volume),
        "attachments": [dataclasses.asdict(a) for a in volume.attachments],
        "snapshots": [_shown(s) for s in volume.snapshots],
        "backup": _shown(volume.backup) if volume.backup else None,
    }


def _shown(it: t.Any) -> t.Dict[str, t.Any]:
    """The fields of a volume or snapshot that belong into its record."""
    names = [field.name for field in dataclasses.fields(it) if not field.metadata.get("hidden")]
    return {**{name: getattr(it, name) for name in names}, "metadata": dict(it.metadata)}
