# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done with a volume in a volume group, in short: kept, cloned, reverted, made from an image, and all of it gone."""

from __future__ import annotations

from tests.lab.test_lvm import letters, pattern
from tests.rig.lab.volume_group import image
from tests.rig.pools import call, good, snapshot, volumes


def test_a_short_story(pool, db):
    """test_lvm_snapshots.py tells every part of it at length."""
    host = pool.host
    good(snapshot(pool))
    pattern(host, db["path"], "b")
    good(call(pool, volumes=[{"name": "new", "source": {"volume": "db", "snapshot": "monday"}}, {"name": "disk", "size_gib": 1, **image(host, "i", 8)}]))
    found = volumes(pool)
    assert letters(host, found["new"]["path"], 0, 10) == "a" and letters(host, db["path"], 0, 4) == "b"
    assert letters(host, found["disk"]["path"], 0, 9) == "i" and letters(host, found["disk"]["path"], 8, 64) == ""
    assert [good(call(pool, name="db", revert_to="monday"))["changed"] for _time in range(2)] == [True, False]
    assert letters(host, db["path"], 0, 10) == "a"
    good(call(pool, state="absent", cascade=True, volumes=[{"name": "db"}, {"name": "new"}, {"name": "disk"}]))
    assert pool.names() == []
