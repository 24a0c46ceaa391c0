# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Images of a pool as their headers show them, and the records in them. Pure.

A record is the image-meta `stackless.record`, as JSON, for programs and for a person with `rbd image-meta list`:

    {"name": "db-data", "id": "0b5e...", "size_bytes": 21474836480, "status": "in-use", "attachments": [...], "image": "1009410939e0"}
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from .._errors import Invalid
from .._model.volume import Volume, check_name, record_of, volume_from

RECORD = "stackless.record"

_ID = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_VOLUME = re.compile(f"volume-{_ID}")
_SNAPSHOT = re.compile(f"snapshot-{_ID}")
_CLONING = re.compile(f"clone-{_ID}")


@dataclasses.dataclass(frozen=True)
class Image:
    """One image. `key` is Ceph's own id of it, `record` the text of our record, None in images of others."""

    name: str
    key: str
    size_bytes: int
    record: t.Optional[str] = None
    snapshots: bool = False  # also those in Ceph's trash, which clones keep

    @property
    def volume_id(self) -> t.Optional[str]:
        found = _VOLUME.fullmatch(self.name)
        return found.group(1) if found else None


def image_name(volume_id: str) -> str:
    """The name of a volume's image, which is what Cinder would call it."""
    return f"volume-{volume_id}"


def snapshot_name(snapshot_id: str) -> str:
    """The name of a snapshot in its volume's image, which is what Cinder would call it."""
    return f"snapshot-{snapshot_id}"


def snapshot_id(name: str) -> t.Optional[str]:
    """The id of the snapshot with this name in an image, None when it is nobody's of ours."""
    found = _SNAPSHOT.fullmatch(name)
    return found.group(1) if found else None


def is_ours(name: str) -> bool:
    """Whether a snapshot of an image has a name that only we give."""
    return bool(_SNAPSHOT.fullmatch(name) or _CLONING.fullmatch(name))


def cloning_name(volume_id: str) -> str:
    """The name of the snapshot that a volume is made from while it becomes a clone of another volume."""
    return f"clone-{volume_id}"


def record_text(volume: Volume, key: str) -> str:
    """The record of a volume in the image with Ceph's id `key` as text, what is empty left out.

    Only ASCII: python3-rados compares as many bytes of a text as it has characters (rados.pyx, WriteOp.omap_cmp, 16.2).
    """
    record = {key: value for key, value in record_of(volume).items() if key != "path" and value not in (None, [], {})}
    for listed in {"attachments", "snapshots"} & set(record):
        record[listed] = [{key: value for key, value in one.items() if value not in (None, {})} for one in record[listed]]
    return json.dumps({**record, "image": key}, ensure_ascii=True)


def volume_of(image: Image, where: str) -> Volume:
    """The volume with this image; where its record is damaged, what can be told of it, with the flaw."""
    path = f"{where}/{image.name}"
    seen = {"id": image.volume_id or "", "path": path, "data_bytes": image.size_bytes}
    record: t.Any = None
    try:
        record = json.loads(t.cast(str, image.record))
        return _checked(image, record, seen)
    except (AttributeError, Invalid, KeyError, TypeError, ValueError) as error:
        flaw = f"the image-meta {RECORD} of {path} can't be relied upon ({error}); correct it with rbd image-meta set"
        return Volume(name=_name_in(record) or f"of {path}", size_bytes=image.size_bytes, status="error", allocation="thin", flaw=flaw, **seen)


def _checked(image: Image, record: t.Dict[str, t.Any], seen: t.Dict[str, t.Any]) -> Volume:
    if not t.cast(str, image.record).isascii():
        raise ValueError("it holds characters that are not ASCII")
    if record["id"] != image.volume_id:
        raise ValueError(f"it is the record of {image_name(record['id'])}")
    volume = volume_from({**record, **seen})
    check_name(volume.name)
    if not isinstance(volume.size_bytes, int) or not isinstance(volume.status, str):
        raise ValueError("its size or its status is none")
    return volume


def _name_in(record: t.Any) -> t.Optional[str]:
    try:
        return check_name(record["name"])
    except (Invalid, KeyError, TypeError):
        return None


def volumes_in(images: t.Sequence[Image], where: str) -> t.Tuple[t.Dict[str, Volume], t.List[str]]:
    """The volumes among the images by name, and what is wrong with records that can't be relied upon.

    An image without a record is somebody else's, whatever its name. So is a copy or a clone of a volume: it took the record along.
    """
    volumes: t.Dict[str, Volume] = {}
    wrong = []
    for image in (image for image in images if has_record(image)):
        volume = volume_of(image, where)
        twin = volumes.get(volume.name)
        if twin is not None:
            volume = dataclasses.replace(volume, flaw=f"{twin.path} and {volume.path} both carry its name; correct the record of one")
        if volume.flaw:
            wrong.append(f"the record of volume {volume.name} is damaged: {volume.flaw}")
        volumes[volume.name] = volume
    return volumes, wrong


def has_record(image: Image) -> bool:
    """Whether a record is the image's own: not that of another one, which copies and clones take along. One under another name is the same."""
    if image.record is None:
        return False
    try:
        record = json.loads(image.record)
        return record["id"] == image.volume_id or record.get("image") == image.key
    except (AttributeError, KeyError, TypeError, ValueError):
        return True
