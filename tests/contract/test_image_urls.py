# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes from images that are downloaded first, from a server that cuts connections, changes its files and leads elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.rig.collection import collections_path
from tests.rig.images import MIB, content, evil, image, opened
from tests.rig.pools import DirectoryPool, call, foretold, good, refusal, settled, volumes
from tests.rig.web import Served, Web

DISK = os.urandom(8 * MIB) + bytes(MIB)


@pytest.fixture(scope="module")
def server():
    with Web() as web:
        yield web


@pytest.fixture
def web(server):
    server.files.clear()
    server.asked.clear()
    server.files["/disk"] = Served(DISK)
    return server


@pytest.fixture
def here(tmp_path):
    """A directory for volumes, and where downloads go."""
    (tmp_path / "volumes").mkdir()
    pool = DirectoryPool(tmp_path / "volumes")
    pool.cache = tmp_path / "cache" / "images"
    return pool


def volume(pool, url, check=False, name="db", format="raw", **more):
    source = {"image": url, "format": format, **{key: more.pop(key) for key in ("checksum",) if key in more}}
    cache = {"image_cache": {"path": str(pool.cache), **more.pop("image_cache", {})}} if hasattr(pool, "cache") else {}
    return call(pool, check=check, name=name, **{"size_gib": 1, "source": source, **cache, **more})


def made(pool, url, **more):
    return good(volume(pool, url, **more))


def read(pool, answer, size=len(DISK)):
    return pool.read(answer["path"], size)


def cached(pool):
    return sorted(entry.name for entry in pool.cache.iterdir()) if pool.cache.exists() else []


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_volume_from_an_address(pool, tmp_path, web):
    pool.cache = tmp_path / "cache"
    url = f"{web.url}/disk"
    answer = settled(pool, lambda pool, check=False: volume(pool, url, check))
    assert answer["steps"] == [
        f"record volume db as downloading, from image {url}",
        f"download image {url}",
        f"write image {url} to volume db",
        "allocate 1 GiB for volume db",
        "mark volume db available",
    ]
    assert read(pool, answer) == DISK and answer["source_image"] == url and pool.read(answer["path"], 4096, len(DISK)) == bytes(4096)
    assert web.got() == [("/disk", None)] and len(cached(pool)) == 1 and os.stat(pool.cache).st_mode & 0o777 == 0o700


def test_a_check_downloads_nothing_and_finds_what_is_not_there(quick, here, web):
    assert volume(here, f"{web.url}/disk", check=True)["changed"] and not here.cache.exists()
    assert {method for method, *_rest in web.asked} == {"HEAD"}
    assert refusal(foretold(here, lambda pool, check=False: volume(pool, f"{web.url}/gone", check))) == (
        f"there is no image {web.url}/gone: the server says 404 Not Found; correct the address"
    )
    with Web() as ended:
        pass
    assert f"{ended.url}/disk can't be reached: " in refusal(volume(here, f"{ended.url}/disk", check=True))
    assert "needs a size_gib to be made" in refusal(volume(here, f"{web.url}/disk", check=True, size_gib=None))


@pytest.mark.parametrize("marked", [True, False])
def test_once_for_all_volumes_of_a_task_and_again_only_when_it_has_changed(quick, here, web, marked):
    web.files["/disk"].marks = marked
    url = f"{web.url}/disk"
    wishes = [{"name": name, "source": {"image": url, "format": "raw"}} for name in ("a", "b", "c")]
    options = {"volumes": wishes, "size_gib": 1, "image_cache": {"path": str(here.cache)}}
    answer = settled(here, call, **options)
    assert answer["steps"].count(f"download image {url}") == 1 and web.got() == [("/disk", None)]
    assert {read(here, one) == DISK for one in answer["results"]} == {True}
    settled(here, lambda pool, check=False: volume(pool, url, check, name="d"))
    assert web.got() == ([] if marked else [("/disk", None)])
    web.files["/disk"] = Served(bytes(reversed(DISK)), marks=marked)
    assert read(here, made(here, url, name="e")) == bytes(reversed(DISK)) and web.got() == [("/disk", None)]
    assert len(cached(here)) == (2 if marked else 0), "without marks nobody could tell which version it is"


def test_a_checksum_spares_every_question(quick, here, web):
    url = f"{web.url}/disk"
    told = refusal(volume(here, url, checksum=sha256(b"other")))
    assert f"its sha256 is {sha256(DISK)[7:]}, not {sha256(b'other')[7:]}" in told and here.volumes() == []
    answer = made(here, url, checksum=sha256(DISK))
    web.asked.clear()
    again = settled(here, lambda pool, check=False: volume(pool, url, check, name="e", checksum=sha256(DISK)))
    assert read(here, answer) == read(here, again) == DISK and web.asked == []
    kept = next(entry for entry in here.cache.iterdir() if entry.stat().st_size)
    kept.write_bytes(b"damaged" + DISK[7:])
    assert read(here, made(here, url, name="f", checksum=sha256(DISK))) == DISK and web.got() == [("/disk", None)]


# ---- connections that end early


def test_a_cut_download_goes_on_where_it_was(quick, here, web):
    web.files["/disk"].cuts = [3 * MIB, 2 * MIB]
    assert read(here, made(here, f"{web.url}/disk")) == DISK
    assert web.got() == [("/disk", None), ("/disk", f"bytes={3 * MIB}-"), ("/disk", f"bytes={5 * MIB}-")]


def test_a_file_that_changes_meanwhile_is_begun_anew(quick, here, web):
    web.files["/disk"].cuts = [3 * MIB, 0, 0, 0]
    told = refusal(volume(here, f"{web.url}/disk", timeout=1))
    assert "can't be downloaded: it ended after " in told and "what has come stays, run again" in told and here.volumes() == []
    part = next(entry for entry in here.cache.iterdir() if entry.suffix == ".part")
    assert part.read_bytes() == DISK[: 3 * MIB]
    other = bytes(reversed(DISK))
    os.truncate(part, 0)
    web.files["/disk"] = Served(DISK, cuts=[3 * MIB])
    web.got()

    class Changing(list):
        def pop(self, _at=0):
            web.files["/disk"] = Served(other)
            return super().pop(0)

    web.files["/disk"].cuts = Changing([3 * MIB])
    assert read(here, made(here, f"{web.url}/disk")) == other
    assert web.got() == [("/disk", None), ("/disk", f"bytes={3 * MIB}-")]


@pytest.mark.parametrize("how", ["no HEAD", "no ranges", "no marks", "no marks, but a checksum"])
def test_servers_that_can_less(quick, here, web, how):
    web.files["/disk"] = Served(DISK, head=how != "no HEAD", ranges=how != "no ranges", marks="no marks" not in how, cuts=[len(DISK), 3 * MIB])
    if how != "no HEAD":  # whose first connection is for the question
        web.files["/disk"].cuts = [3 * MIB]
    more = {"checksum": sha256(DISK)} if "checksum" in how else {}
    assert read(here, made(here, f"{web.url}/disk", **more)) == DISK
    ranges = [part for _path, part in web.got()]
    assert ranges[-1] == (None if how == "no marks" else f"bytes={3 * MIB}-")


def test_a_server_that_is_not_well_is_asked_again(quick, here, web):
    web.files["/disk"].status = 503
    answer = volume(here, f"{web.url}/disk")
    assert "the server says 503 Service Unavailable" in refusal(answer) and not here.cache.exists()
    web.files["/disk"].status = 403
    answer = volume(here, f"{web.url}/disk")
    assert "the server says 403 Forbidden; see whether user, password and address are right" in refusal(answer)
    assert answer["steps"][-1] == "remove volume db again" and here.traces() == []


def test_killed_while_it_downloads_the_next_run_goes_on(here, web):
    web.files["/disk"].pause = 0.05
    arguments = {"backend": here.backend, "name": "db", "size_gib": 1, "source": {"image": f"{web.url}/disk", "format": "raw"}}
    run = subprocess.Popen(
        [sys.executable, "-m", "ansible_collections.stackless.block.plugins.modules.cinder_volume"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(collections_path())},
    )  # fmt: skip
    run.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "image_cache": {"path": str(here.cache)}}}).encode())
    run.stdin.close()
    part = None
    for _look in range(2000):
        part = next((entry for entry in here.cache.glob("*.part") if entry.stat().st_size > 2 * MIB), None)
        if part:
            break
        time.sleep(0.005)
    assert part
    os.kill(run.pid, signal.SIGKILL)
    run.wait(10)
    assert volumes(here)["db"]["status"] == "downloading"
    told = refusal(call(here, module="cinder_attachment", volume="db", instance="web-1", host="c", action="reserve"))
    assert "volume db is downloading; run the play that was at it to its end first" in told
    have = part.stat().st_size
    assert have < len(DISK)
    web.files["/disk"].pause = 0
    web.got()
    assert read(here, made(here, f"{web.url}/disk")) == DISK and web.got() == [("/disk", f"bytes={have}-")]
    assert [name for name in cached(here) if name.endswith(".part")] == []


def test_two_runs_that_want_one_image_fetch_it_once(here, web):
    web.files["/disk"].pause = 0.02
    module = [sys.executable, "-m", "ansible_collections.stackless.block.plugins.modules.cinder_volume"]
    runs = []
    for name in ("a", "b", "c"):
        arguments = {"backend": here.backend, "name": name, "size_gib": 1, "source": {"image": f"{web.url}/disk", "format": "raw"}}
        run = subprocess.Popen(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(collections_path())})
        run.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "image_cache": {"path": str(here.cache)}}}).encode())
        run.stdin.close()
        runs.append(run)
    answers = [json.loads(run.stdout.read()) for run in runs]
    assert [run.wait(60) for run in runs] == [0, 0, 0], answers
    assert {read(here, answer) == DISK for answer in answers} == {True} and web.got() == [("/disk", None)]


# ---- what must not be


def test_nobody_sees_user_and_password(here, web):
    web.files["/disk"].login = "someone:pass%word"
    secret = f"http://someone:pass%25word@{web.host}/disk?token=abcdef"
    answer = made(here, secret)
    assert read(here, answer) == DISK and answer["source_image"] == f"{web.url}/disk"
    seen = json.dumps(answer) + json.dumps(volumes(here)) + str(cached(here))
    assert "pass%" not in seen and "abcdef" not in seen and "invocation" in answer
    for broken in (secret.replace("someone", "nobody"), secret.replace("/disk", "/gone"), secret.replace(web.host, "127.0.0.1:1")):
        told = volume(here, broken, name="e")
        assert told["failed"] and "pass%" not in json.dumps(told) and "abcdef" not in json.dumps(told)
    assert not made(here, secret.replace("abcdef", "ghijkl"))["changed"], "a new token is no other image"
    bad = volume(here, secret, backend={"driver": "file", "path": "/nowhere"})
    assert bad["failed"] and "pass%" not in json.dumps(bad), "also when the task ends before it begins"


def test_the_password_goes_to_nobody_else(quick, here, web):
    with Web() as other:
        other.files["/disk"] = Served(DISK)
        web.files["/moved"] = Served(b"", leads_to=f"{other.url}/disk")
        web.files["/near"] = Served(b"", leads_to="/private")
        web.files["/private"] = Served(DISK, login="someone:secret")
        assert read(here, made(here, f"http://someone:secret@{web.host}/moved")) == DISK
        assert {login for *_rest, login in other.asked} == {None}
        assert read(here, made(here, f"http://someone:secret@{web.host}/near", name="e")) == DISK


def test_nothing_leads_out_of_the_web(quick, here, web):
    web.files.update({f"/{at}": Served(b"", leads_to=place) for at, place in {"a": "file:///etc/passwd", "b": "ftp://127.0.0.1/disk", "c": "/c"}.items()})
    places = [f"{web.url}/a", f"{web.url}/b", f"{web.url}/c", "file:///etc/passwd", "ftp://127.0.0.1/disk", "http://", f"{web.url}/a b", "http://[::1"]
    wishes = [{"name": f"v{number}", "source": {"image": place, "format": "raw"}} for number, place in enumerate(places)]
    answer = foretold(here, call, volumes=wishes, size_gib=1, image_cache={"path": str(here.cache)})
    told = [result["msg"] for result in answer["results"]]
    for way in (0, 1):
        assert told[way] == f"{places[way]} leads to {'ftp' if way else 'file'}://, which is not followed; give the address where the image itself is"
    assert "leads round in circles" in told[2] and "image file:///etc/passwd is nothing to download" in told[3]
    for number, words in {4: "is nothing to download", 5: "is nothing to download", 6: "holds spaces", 7: "can't be understood"}.items():
        assert words in told[number]


def test_a_certificate_that_nobody_signed(here, tmp_path, web):
    with Web(certificate=tmp_path) as secure:
        secure.files["/disk"] = Served(DISK)
        told = refusal(foretold(here, lambda pool, check=False: volume(pool, f"{secure.url}/disk", check)))
        assert f"{secure.url}/disk can't be trusted: " in told and secure.asked == []
        trusting = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
        assert read(here, made(here, f"{secure.url}/disk", env=trusting)) == DISK
        secure.files["/down"] = Served(b"", leads_to=f"{web.url}/disk")
        assert "leads to http://, which is not followed" in refusal(volume(here, f"{secure.url}/down", name="e", env=trusting))


def test_evil_images_are_refused_before_anything_reads_them(quick, here, web, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    (tmp_path / "evil").mkdir()
    evils = {name: one for name, one in evil(tmp_path / "evil", secret).items() if one[1].is_file()}
    web.files.update({f"/{path.name}": Served(path.read_bytes()) for _format, path, _words in evils.values()})
    wishes = [
        {"name": f"v{number}", "source": {"image": f"{web.url}/{path.name}", "format": format}}
        for number, (format, path, _words) in enumerate(evils.values())
    ]
    with opened(secret) as was_opened:
        answer = call(here, volumes=wishes, size_gib=1, image_cache={"path": str(here.cache)})
        for result, (_format, path, words) in zip(answer["results"], evils.values()):
            assert f"image {web.url}/{path.name} is refused: " in result["msg"] and words in result["msg"]
        assert len(evils) > 10 and here.traces() == [] and not was_opened()
    assert not any(entry.stat().st_size for entry in here.cache.iterdir()), "what is refused is not kept"


def test_what_does_not_fit(quick, here, web, tmp_path):
    big = image(content(tmp_path / "disk"), "qcow2")
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", str(big), "3G"], check=True)
    web.files["/big"] = Served(big.read_bytes())
    told = refusal(volume(here, f"{web.url}/big", format="qcow2", size_gib=2))
    assert told == f"volume db can't have 2 GiB, as image {web.url}/big needs 3; make it at least as large" and here.traces() == []
    assert made(here, f"{web.url}/big", format="qcow2", size_gib=3)["size_gib"] == 3


def test_who_may_look_into_the_cache(quick, here, web):
    here.cache.mkdir(parents=True)
    os.chmod(here.cache, 0o755)
    assert f"{here.cache}, where images are kept, is open to others" in refusal(volume(here, f"{web.url}/disk")) and cached(here) == []
    os.chmod(here.cache, 0o700)
    made(here, f"{web.url}/disk")
    assert {entry.stat().st_mode & 0o777 for entry in here.cache.iterdir()} == {0o600}


def test_the_cache_does_not_grow_for_ever(quick, here, web):
    for number, name in enumerate("abc"):
        web.files[f"/{name}"] = Served(os.urandom(MIB))
        made(here, f"{web.url}/{name}", name=name)
        for entry in here.cache.iterdir():
            if entry.name.startswith(f"{name}."):
                os.utime(entry, (1000 + number, 1000 + number))
    made(here, f"{web.url}/a", name="again")
    made(here, f"{web.url}/disk", image_cache={"size_gib": 0})
    assert [name.partition(".")[0] for name in cached(here)] == ["disk"]
