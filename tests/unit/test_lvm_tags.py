# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records as tags: every record comes back as it was, LVM takes every tag, and damaged ones are told."""

from __future__ import annotations

import random

import pytest
from ansible_collections.stackless.block.plugins.module_utils._model.volume import GIB, Attachment, Snapshot, Volume
from ansible_collections.stackless.block.plugins.module_utils._volumes._lvm_tags import GROWTH, SNAPSHOT, escape, name_in, own, tags_of, unescape, volume_of

from .fake_lvm import TAG

ID = "0b5e7a1c-2222-4222-8333-444455556666"
KNOWN = {"id": ID, "path": f"/dev/volumes/volume-{ID}"}
SIGNS = "abcXYZ019 _.-/:=!&#+%,;\"'\\@äß€漢😀\t\x7f" + "!21=&#+"


def text(chance: random.Random, most: int = 255) -> str:
    return "".join(chance.choice(SIGNS) for _n in range(chance.choice([0, 1, 7, 40, most])))


def attachment(chance: random.Random, number: int) -> Attachment:
    more = {key: chance.choice([None, "", text(chance)]) for key in ("initiator", "ip", "device", "step", "reason")}
    return Attachment(id=f"a{number}", instance=text(chance), host=text(chance), status=chance.choice(["reserved", "attached"]), mode="ro", **more)


def snapshot(chance: random.Random, number: int) -> Snapshot:
    metadata = tuple(sorted({text(chance): text(chance) for _n in range(chance.randrange(3))}.items()))
    times = {"created_at": "2026-01-31T23:00:00Z", "status": chance.choice(["creating", "available"])}
    told = {"description": chance.choice([None, "", text(chance)]), "metadata": metadata}
    return Snapshot(f"s{number}", f"night-{number}", chance.choice([GIB, 8 << 60]), **times, **told)


def record(chance: random.Random) -> Volume:
    return Volume(
        name=chance.choice(["db", "a-b_c.d", "x" * 127]),
        size_bytes=chance.choice([GIB, 8 << 60]),
        status=chance.choice(["creating", "in-use", "error_deleting"]),
        volume_type=chance.choice([None, "", text(chance)]),
        description=chance.choice([None, "", text(chance), "漢" * 255]),
        metadata=tuple(sorted({text(chance): text(chance) for _n in range(chance.randrange(4))}.items())),
        multiattach=chance.random() < 0.5,
        attachments=tuple(attachment(chance, n) for n in range(chance.randrange(13))),
        snapshots=tuple(snapshot(chance, n) for n in range(chance.choice([0, 1, 13, 120]))),
        source_volid=chance.choice([None, ID]),
        snapshot_id=chance.choice([None, ID]),
        source_image=chance.choice([None, "/srv/images/größe &.img"]),
        source_backup=chance.choice([None, "b1"]),
        reverted_to=chance.choice([None, "s1"]),
        restored_from=chance.choice([None, "b1"]),
        backup=chance.choice([None, snapshot(chance, 7)]),
        **KNOWN,
    )


@pytest.mark.parametrize("seed", range(300))
def test_a_record_comes_back_as_it_was(seed):
    chance = random.Random(seed)
    volume = record(chance)
    tags = list(tags_of(volume))
    assert len(set(tags)) == len(tags) and all(TAG.fullmatch(tag) for tag in tags)
    foreign = ["backup", "stackless.unknown=1", "name=other", GROWTH, SNAPSHOT]
    chance.shuffle(tags)
    assert volume_of([*tags, *foreign], **KNOWN) == volume
    assert own([*tags, *foreign]) == set(tags)
    assert name_in([*tags, *foreign]) == volume.name


@pytest.mark.parametrize("seed", range(100))
def test_texts_come_back_as_they_were(seed):
    chance = random.Random(seed)
    plain = "".join(chance.choice([chr(chance.randrange(0x20, 0x3000)), chance.choice(SIGNS)]) for _n in range(50))
    assert unescape(escape(plain)) == plain
    assert not set(escape(plain)) & set("=&#, \"'")


def test_a_person_can_read_them():
    held = Attachment(id="a1", instance="web-1", host="compute-1", status="attached", initiator="iqn.1993-08.org.debian:01:c1", reason="no answer")
    kept = Snapshot(ID, "monday", GIB, "2026-01-31T23:00:00Z", description="before 5.2", metadata=(("by", "hand"),))
    volume = Volume("db-data", ID, GIB, "in-use", description="the shop's data", metadata=(("owner", "shop"),), attachments=(held,), snapshots=(kept,))
    assert tags_of(volume) == (
        "stackless.name=db-data",
        "stackless.status=in-use",
        "stackless.description=the+shop!27s+data",
        "stackless.size_bytes=1073741824",
        "stackless.metadata.0=owner=shop",
        "stackless.attachment.0=instance=web-1&host=compute-1&status=attached&id=a1&mode=rw&transport=qemu"
        "&initiator=iqn.1993-08.org.debian:01:c1&reason=no+answer",
        f"stackless.snapshot.0=name=monday&status=available&created_at=2026-01-31T23:00:00Z&id={ID}&size_bytes=1073741824"
        "&description=before+5.2&metadata.by=hand",
    )


GOOD = ["stackless.name=db", "stackless.status=available", "stackless.size_bytes=1073741824"]


@pytest.mark.parametrize(
    "tags,words",
    [
        ([], "it has no tag stackless.name"),
        (GOOD[1:], "it has no tag stackless.name"),
        (GOOD[:1], "it has no tag stackless.status"),
        ([*GOOD, "stackless.status=in-use"], "it has two tags stackless.status"),
        ([*GOOD[:2], "stackless.size_bytes=1GiB"], "can't be read"),
        ([*GOOD[:2], "stackless.size_bytes="], "can't be read"),
        ([*GOOD, "stackless.description=50!"], "can't be read .*begins no escape"),
        ([*GOOD, "stackless.description=!FF"], "can't be read"),
        ([*GOOD, "stackless.description#2=rest"], "a piece of the tag stackless.description is missing"),
        ([*GOOD, "stackless.attachment.0="], "can't be read"),
        ([*GOOD, "stackless.attachment.0=instance=web-1"], "can't be read"),
        ([*GOOD, "stackless.snapshot.0=name=monday"], "can't be read"),
        ([*GOOD, "stackless.snapshot.0=name=monday&id=a&created_at=b&size_bytes=x"], "can't be read"),
        ([*GOOD[1:], "stackless.name=a+b"], "can't be read"),
    ],
)
def test_damaged_records_are_told(tags, words):
    with pytest.raises(ValueError, match=words):
        volume_of(tags, **KNOWN)


def test_fields_of_a_later_version_are_passed_over():
    assert volume_of([*GOOD, "stackless.colour=red"], **KNOWN) == volume_of(GOOD, **KNOWN)
