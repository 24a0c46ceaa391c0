# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of volumes and snapshots as the drivers read it: every byte, and no holes."""

from __future__ import annotations

import dataclasses
import os

import pytest
from ansible_collections.stackless.block.plugins.module_utils._errors import Failed
from ansible_collections.stackless.block.plugins.module_utils._volumes import open_backend

from tests.rig.pools import call, content, good, snapshot

GIB, MIB = 1 << 30, 1 << 20
PLACES = {0: MIB, 5 * MIB + 4096: 8 * MIB, 700 * MIB: 4096, GIB - 4096: 4096}  # where, how many bytes


@pytest.fixture
def written(pool):
    """What was written to a volume, by place."""
    path = good(call(pool, name="db", size_gib=1))["path"]
    data = {at: os.urandom(size) for at, size in PLACES.items()}
    for at, piece in data.items():
        pool.write(path, piece, at)
    good(snapshot(pool))
    pool.write(path, b"b" * MIB, 300 * MIB)
    return data


def opened(pool):
    backend = open_backend({"max_clone_depth": 5, **pool.backend})
    return backend, backend.observe()["db"]


def blocks(written):
    return {(at + n) // 4096: piece[n : n + 4096] for at, piece in written.items() for n in range(0, len(piece), 4096)}


def test_all_of_it_and_little_more(pool, written):
    backend, db = opened(pool)
    with backend.reading(db, db.snapshot("monday")) as taken, backend.reading(db) as now:
        assert taken.size_bytes == now.size_bytes == GIB
        then, later = content(taken), content(now)
        assert sum(end - start for start, end in taken.extents()) <= 5 * 4 * MIB, "holes are not read"
    assert then == blocks(written) and later == blocks({**written, 300 * MIB: b"b" * MIB})


def test_a_clone_is_read_through_to_what_it_shares(pool, written):
    good(call(pool, name="new", size_gib=2, source={"volume": "db", "snapshot": "monday"}))
    backend, db = opened(pool)
    with backend.reading(backend.observe()["new"]) as clone, backend.reading(db, db.snapshot("monday")) as source:
        assert clone.size_bytes == 2 * GIB and content(clone) == content(source) == blocks(written)


def test_what_is_not_there(pool, written):
    backend, db = opened(pool)
    gone = dataclasses.replace(db.snapshot("monday"), id="5a4b0000-4444-4444-8555-666677778888")
    with pytest.raises(Failed, match="; "), backend.reading(db, gone):
        pass
