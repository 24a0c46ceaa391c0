# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of volumes in a volume group by the real restic: what they hold, what is left of snapshots, and kills."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lab.test_lvm import letters, pattern
from tests.rig.lab.killer import killed
from tests.rig.pools import call, foretold, good, refusal, settled, volumes

pytestmark = pytest.mark.long  # restic cuts and hashes all of a volume, which takes an emulated processor a while

thin = pytest.mark.parametrize("pool", ["thin"], indirect=True)
HELD = {"module": "cinder_attachment", "volume": "db", "instance": "web-1", "host": "c"}


@pytest.fixture(scope="module")
def restic(storage_host):
    """On the storage host: the program of this machine, which needs nothing but the C library."""
    storage_host.run("cat > /usr/bin/restic; chmod 755 /usr/bin/restic", timeout=60, input=Path(shutil.which("restic")).read_bytes())


@pytest.fixture
def backup(pool, restic):
    """backup(pool, ...) as the acts of tests/rig/pools.py."""
    pool.host.run("rm -rf /root/backups")

    def act(pool, check=False, **options):
        return call(pool, check=check, **wish(**options))

    return act


def wish(volume="db", name="monday", **options):
    repository = {"location": "/root/backups", "password": "not-a-secret", "create": True}
    return {"module": "cinder_backup", "repository": repository, "volume": volume, "name": name, **options}


def percent(pool, path):
    return float(pool.host.run(f"lvs --noheadings -o data_percent {path}"))


def test_a_backup_from_first_to_last(pool, db, backup):
    """Of a thin volume that somebody has; both ways back, to a new volume and over another one's bytes."""
    host, is_thin = pool.host, pool.allocation == "thin"
    good(call(pool, **HELD, action="reserve"))
    if is_thin:
        taken = settled(pool, backup, force=True)
    else:
        assert "copies it, which takes time; detach it first" in refusal(foretold(pool, backup, force=True))
    for action in ("terminate", "release"):
        good(call(pool, **HELD, action=action))
    if not is_thin:
        taken = settled(pool, backup)
    assert ("take a snapshot of volume db to read from" in taken["steps"]) == is_thin and len(pool.names()) == 1
    new = settled(pool, backup, state="restored", to="new")
    assert letters(host, volumes(pool)["new"]["path"], 0, 1024) == "a"
    assert new["steps"][0] == "record volume new as restoring-backup"
    if is_thin:
        assert 0.8 < percent(pool, volumes(pool)["new"]["path"]) < 1.0, "9 of 1024 MiB"
    for place in (4, 512, 1020):
        pattern(host, db["path"], "b", place)
    settled(pool, backup, state="restored", overwrite=True)
    assert letters(host, db["path"], 0, 9) == "a" and letters(host, db["path"], 9, 1024 - 9) == ""
    assert [name.split("-")[0] for name in pool.names()] == ["volume", "volume"]


@thin
def test_what_a_killed_run_left_the_next_one_ends(pool, db, backup):
    """Killed when the record said so and the snapshot was there: what is kept is what the volume held then. Other moments are those of test_plan_backup.py."""
    options = wish()
    killed(pool.host, options.pop("module"), {"backend": pool.backend, **options}, 2)
    assert [name.split("-")[0] for name in pool.names()] == ["_snapshot", "volume"]
    assert "backup monday of it is being taken" in refusal(foretold(pool, call, name="db", state="absent"))
    pattern(pool.host, db["path"], "b", 9)
    settled(pool, backup)
    good(backup(pool, state="restored", to="new"))
    assert letters(pool.host, volumes(pool)["new"]["path"], 0, 64) == "a"
    assert [name.split("-")[0] for name in pool.names()] == ["volume", "volume"]
