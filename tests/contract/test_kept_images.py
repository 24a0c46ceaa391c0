# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of images that are kept, so that the next ones are clones, on a real file system and in a real Ceph pool."""

from __future__ import annotations

import os

import pytest

from tests.rig.images import SIZE, content, image
from tests.rig.pools import call, foretold, good, refusal, settled, volumes
from tests.rig.web import Served, Web

GIB = 1 << 30
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images of the same size."""
    folder = tmp_path_factory.mktemp("images")
    for name in "ab":
        (folder / name).mkdir()
    return [image(content(folder / name / "disk"), "qcow2") for name in "ab"]


def disk(path):
    return path.with_suffix("").read_bytes()


def wish(path, **more):
    return {"source": {"image": str(path), "format": "qcow2"}, "image_cache": {"volumes": 1}, **more}


def kept(pool):
    return call(pool, module="cinder_volume_info")["images"]


def age(pool):
    """What is kept was used long ago."""
    if pool.driver == "file":
        for record in pool.path.glob("*.json"):
            text = record.read_text()
            record.write_text(text.replace(kept(pool)[0]["kept_at"], LONG_AGO) if '"kept_at": null' not in text else text)
        return
    with pool.image(f"volume-{kept(pool)[0]['id']}") as opened:
        opened.metadata_set("stackless.record", opened.metadata_get("stackless.record").replace(kept(pool)[0]["kept_at"], LONG_AGO))


def test_all_volumes_of_an_image_are_clones_of_one_that_is_kept(quick, pool, images):
    items = [{"name": "a"}, {"name": "b", "size_gib": 2}]
    answer = settled(pool, call, volumes=items, size_gib=1, **wish(images[0]))
    (one,) = kept(pool)
    written = f"write image {images[0]} to volume {one['name']}"
    assert answer["steps"].count(written) == 1 and not [step for step in answer["steps"] if "to volume a" in step or "to volume b" in step]
    for result, size in zip(answer["results"], (1, 2)):
        assert (result["source_volid"], result["source_image"], result["size_gib"]) == (one["id"], str(images[0]), size)
        assert pool.read(result["path"], SIZE) == disk(images[0]) and pool.size_of(result["path"]) == size * GIB
    assert sorted(volumes(pool)) == ["a", "b"] and one["size_gib"] == 1 and one["source_image"] == str(images[0])
    pool.write(answer["results"][0]["path"], b"x" * 4096)
    again = settled(pool, call, name="c", size_gib=1, **wish(images[0]))
    assert "download" not in str(again["steps"]) and written not in again["steps"] and pool.read(again["path"], SIZE) == disk(images[0])
    assert "is kept of image" in refusal(foretold(pool, call, name=one["name"], size_gib=2))
    told = refusal(call(pool, module="cinder_attachment", volume=one["name"], instance="web-1", host="c", action="reserve"))
    assert "given to nobody; make a volume from that image" in told


def test_an_image_that_changed_is_another_one_and_the_least_used_goes(quick, pool, images):
    good(call(pool, name="a", size_gib=1, **wish(images[0])))
    first = kept(pool)[0]
    age(pool)
    assert kept(pool)[0]["kept_at"] == LONG_AGO
    assert f"note that volume {first['name']} was used" in settled(pool, call, name="a2", size_gib=1, **wish(images[0]))["steps"]
    made = settled(pool, call, name="b", size_gib=1, **wish(images[1]))
    assert [one["source_image"] for one in kept(pool)] == [str(images[1])] and made["steps"][0] == f"mark volume {first['name']} deleting"
    assert pool.read(made["path"], SIZE) == disk(images[1])
    assert pool.read(volumes(pool)["a"]["path"], SIZE) == disk(images[0]), "clones of what went keep their data"
    os.utime(images[1])
    again = settled(pool, call, name="c", size_gib=1, **wish(images[1]))
    assert again["source_volid"] != made["source_volid"], "nobody knows whether it is the same"
    pair = [{"name": name} for name in ("a", "a2", "b", "c", kept(pool)[0]["name"])]
    good(call(pool, volumes=pair, state="absent", clones="trash"))
    assert pool.volumes() == []


def test_from_an_address_the_first_volume_says_how_large(quick, pool, images, tmp_path_factory):
    with Web() as web:
        web.files["/disk.qcow2"] = Served(images[0].read_bytes())
        cache = {"image_cache": {"volumes": 2, "path": str(tmp_path_factory.mktemp("cache") / "images")}}
        options = {**wish(f"{web.url}/disk.qcow2"), **cache}
        answer = settled(pool, call, volumes=[{"name": "a"}, {"name": "b"}], size_gib=2, **options)
        assert [path for path, _part in web.got()] == ["/disk.qcow2"] and kept(pool)[0]["size_gib"] == 2
        small = settled(pool, call, name="c", size_gib=1, **options)
        assert small["source_volid"] is None and web.got() == []
        for result in (*answer["results"], small):
            assert pool.read(result["path"], SIZE) == disk(images[0])
