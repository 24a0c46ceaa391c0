# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""A volume's record as the tags of its logical volume, for programs and for a person with `lvs -o +lv_tags`. Pure.

    stackless.name=db-data   stackless.status=in-use   stackless.size_bytes=21474836480   stackless.metadata.0=owner=shop
    stackless.attachment.0=instance=web-1&host=compute-1&status=attached&mode=rw&...
    stackless.snapshot.0=name=monday&status=available&created_at=2026-01-31T23:00:00Z&metadata.owner=shop&...

A tag has at most 1024 characters of A-Za-z0-9_+.-/=!:&# (lvm(8)). Texts keep what is safe, a space becomes `+`, every
other byte `!` and two hex digits; a long text goes on in further tags, `stackless.description#2=`.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import Invalid
from .._model.volume import Volume, check_name, record_of, volume_from

PREFIX = "stackless."

# Logical volumes beside a volume, never volumes themselves: one that it grows by, and the data of its snapshots.
GROWTH = PREFIX + "growth"
SNAPSHOT = PREFIX + "snapshot"

_PIECE = 900
_METADATA = "metadata."
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/:")
_TEXTS = (
    "name", "status", "volume_type", "description", "source_volid", "snapshot_id", "source_image", "source_backup", "reverted_to", "restored_from",
    "kept_at", "uploading_to",
)  # fmt: skip
_FIRST = ("instance", "host", "name", "status", "created_at")  # of an attachment or a snapshot, what a person looks for
_KNOWN = re.compile(rf"({'|'.join(_TEXTS)}|size_bytes|multiattach|backup|(?:metadata|attachment|snapshot)\.[0-9]+)(#[0-9]+)?")
_PLUS_OR_BYTE = re.compile(rb"\+|!([0-9A-Fa-f]{2})|!")


def tags_of(volume: Volume) -> t.Tuple[str, ...]:
    """The record of a volume as tags; the inverse of `volume_of` in all but what LVM itself knows."""
    record = record_of(volume)
    fields = {key: escape(record[key]) for key in _TEXTS if record[key] is not None}
    fields["size_bytes"] = str(volume.size_bytes)
    if volume.multiattach:
        fields["multiattach"] = "true"
    fields.update({f"metadata.{number}": f"{escape(key)}={escape(text)}" for number, (key, text) in enumerate(volume.metadata)})
    fields.update({f"attachment.{number}": _joined(a) for number, a in enumerate(record["attachments"])})
    fields.update({f"snapshot.{number}": _joined(_flat(s)) for number, s in enumerate(record["snapshots"])})
    fields.update({"backup": _joined(_flat(record["backup"]))} if record["backup"] else {})
    return tuple(tag for key, text in fields.items() for tag in _pieces(key, text))


def own(tags: t.Iterable[str]) -> t.FrozenSet[str]:
    """Those tags that belong to a record; all others are somebody else's and stay."""
    return frozenset(tag for tag in tags if _key_of(tag) is not None)


def is_ours(tags: t.Collection[str]) -> bool:
    """Whether a logical volume was made by us, be it a volume or something beside one."""
    return GROWTH in tags or SNAPSHOT in tags or bool(own(tags))


def volume_of(tags: t.Iterable[str], **known: t.Any) -> Volume:
    """The volume with this record; `known` is what LVM itself tells. Raises ValueError, with what is wrong with the tags."""
    fields = _fields(tags)
    lacking = [key for key in ("name", "status", "size_bytes") if key not in fields]
    if lacking:
        raise ValueError(f"it has no tag {PREFIX}{lacking[0]}")
    try:
        return volume_from(
            {
                **{key: unescape(fields[key]) for key in _TEXTS if key in fields},
                "name": check_name(unescape(fields["name"])),
                "size_bytes": int(fields["size_bytes"]),
                "multiattach": fields.get("multiattach") == "true",
                "metadata": {key: text for one in _listed(fields, "metadata.") for key, text in _split(one).items()},
                "attachments": [_split(one) for one in _listed(fields, "attachment.")],
                "snapshots": [_unflat(_split(one)) for one in _listed(fields, "snapshot.")],
                "backup": _unflat(_split(fields["backup"])) if "backup" in fields else None,
                **known,
            }
        )
    except (Invalid, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its tags can't be read ({error})") from error


def name_in(tags: t.Iterable[str]) -> t.Optional[str]:
    """The name of a volume whose record may be damaged, or None."""
    for tag in sorted(tags):
        if _key_of(tag) == ("name", 1):
            try:
                return check_name(unescape(tag.split("=", 1)[1]))
            except (ValueError, Invalid):  # a damaged name is no name
                continue
    return None


def escape(text: str) -> str:
    """A text in the characters of a tag. Nothing that gives a tag its structure (= & # !) comes out of it but the escapes."""
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _PLAIN:
        return character
    return "+" if character == " " else "".join(f"!{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def unescape(text: str) -> str:
    """The text behind an escape; ValueError when it is none."""
    return _PLUS_OR_BYTE.sub(_plain_byte, text.encode("ascii")).decode("utf-8", "surrogatepass")


def _plain_byte(found: t.Match[bytes]) -> bytes:
    if found.group() == b"+":
        return b" "
    if found.group(1) is None:
        raise ValueError("a ! begins no escape")
    return bytes([int(found.group(1), 16)])


def _joined(fields: t.Dict[str, t.Any]) -> str:
    order = [*(key for key in _FIRST if key in fields), *(key for key in fields if key not in _FIRST)]
    return "&".join(f"{escape(key)}={escape(fields[key])}" for key in order if fields[key] is not None)


def _flat(snapshot: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """A snapshot with a field of its own for each key of its metadata."""
    plain = {key: value for key, value in snapshot.items() if key != "metadata"}
    return {**plain, "size_bytes": str(snapshot["size_bytes"]), **{_METADATA + key: text for key, text in snapshot["metadata"].items()}}


def _unflat(fields: t.Dict[str, str]) -> t.Dict[str, t.Any]:
    metadata = {key[len(_METADATA) :]: text for key, text in fields.items() if key.startswith(_METADATA)}
    return {**fields, "size_bytes": int(fields["size_bytes"]), "metadata": metadata}


def _split(text: str) -> t.Dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split("&")]
    return {unescape(key): unescape(value) for key, _equals, value in pairs}


def _listed(fields: t.Dict[str, str], key: str) -> t.List[str]:
    """The texts of a numbered field, in order."""
    return [text for _number, text in sorted((int(k[len(key) :]), text) for k, text in fields.items() if k.startswith(key))]


def _pieces(key: str, text: str) -> t.List[str]:
    rest = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)] or [""]
    return [f"{PREFIX}{key}{'#%d' % number if number > 1 else ''}={piece}" for number, piece in enumerate(rest, 1)]


def _key_of(tag: str) -> t.Optional[t.Tuple[str, int]]:
    """(field, number of the piece) of a tag that belongs to a record."""
    key, equals, _text = tag.partition("=")
    found = _KNOWN.fullmatch(key[len(PREFIX) :]) if equals and key.startswith(PREFIX) else None
    return (found.group(1), int((found.group(2) or "#1")[1:])) if found else None


def _fields(tags: t.Iterable[str]) -> t.Dict[str, str]:
    """The texts of a record, still escaped, by field. Two tags for one piece can't both be true."""
    pieces: t.Dict[str, t.Dict[int, str]] = {}
    for tag in sorted(own(tags)):
        key, number = t.cast(t.Tuple[str, int], _key_of(tag))
        known = pieces.setdefault(key, {})
        if number in known:
            raise ValueError(f"it has two tags {PREFIX}{key}")
        known[number] = tag.split("=", 1)[1]
    for key, known in pieces.items():
        if sorted(known) != list(range(1, len(known) + 1)):
            raise ValueError(f"a piece of the tag {PREFIX}{key} is missing")
    return {key: "".join(known[number] for number in sorted(known)) for key, known in pieces.items()}
