# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""What web servers have: asked through ansible-core's own client, which checks certificates and knows the proxies of the environment."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import re
import ssl
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url

from .._errors import Failed, NotFound, Refused, StorageError, Unavailable
from .._model.image import secrets_of, shown_url

_SILENCE = 30  # seconds that a server may say nothing
_HOPS = 10
_MOVED = (301, 302, 303, 307, 308)
_PIECE = 1 << 20


class Cut(Exception):
    """The connection ended before the file did, or none came about; the next one may bring the rest."""


class Beyond(Cut):
    """There is nothing from that byte on."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What a server says of a file: how it marks this version of it (If-Range takes that), and its whole size in bytes, where known."""

    mark: str = ""
    size_bytes: t.Optional[int] = None


class Answer:
    """A file that a server has begun to send, from byte `start` on."""

    def __init__(self, reply: t.Any, told: Told, start: int) -> None:
        self._reply, self.told, self.start = reply, told, start

    def pieces(self) -> t.Iterator[bytes]:
        """All that comes; raises Cut when that is not all there is."""
        at = self.start
        while True:
            try:
                piece = self._reply.read(_PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise Cut(str(error) or "it was cut") from error
            if not piece:
                break
            at += len(piece)
            yield piece
        if self.told.size_bytes is not None and at < self.told.size_bytes:
            raise Cut(f"it ended after {at} of {self.told.size_bytes} bytes")


def look(url: str) -> t.Optional[Told]:
    """What a server says of a file without sending it; None where it does not answer that question.

    Raises NotFound, Refused or Unavailable.
    """
    try:
        with contextlib.closing(_asked("HEAD", url, {})) as reply:
            return _told(reply, 0)
    except Failed:
        return None
    except Cut as error:
        raise Unavailable(f"{shown_url(url)} can't be reached: {error}; see whether the server runs and this host gets there") from error


@contextlib.contextmanager
def get(url: str, start: int = 0, mark: str = "") -> t.Iterator[Answer]:
    """Has a server send a file, from byte `start` on if it is still the version with this mark.

    Raises NotFound, Refused, Failed or Cut.
    """
    headers = {"Range": f"bytes={start}-", **({"If-Range": mark} if mark else {})} if start else {}
    with contextlib.closing(_asked("GET", url, headers)) as reply:
        begins = _begin(reply) if reply.status == 206 else 0
        yield Answer(reply, _told(reply, begins), begins)


def _begin(reply: t.Any) -> int:
    """The first byte of a part (RFC 9110, 14.4)."""
    found = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range") or "")
    if not found:
        raise Failed("the server sends a part of an image without saying which; get the image in another way, and give its path")
    return int(found.group(1))


def _told(reply: t.Any, start: int) -> Told:
    """A weak ETag marks no bytes, and If-Range does not take it (RFC 9110, 13.1.5)."""
    etag, length = reply.headers.get("ETag") or "", reply.headers.get("Content-Length") or ""
    mark = etag if etag.startswith('"') else reply.headers.get("Last-Modified") or ""
    return Told(mark, start + int(length) if length.isdigit() else None)


def _asked(method: str, url: str, headers: t.Dict[str, str]) -> t.Any:
    """The answer, from wherever the address leads to."""
    first, place = url, url
    for _hop in range(_HOPS):
        try:
            return _opened(method, place, {"Accept-Encoding": "identity", **headers})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _MOVED:
                raise _meaning(first, error) from error
            place = _next(first, place, error.headers.get("Location"))
    raise Refused(f"{shown_url(first)} leads round in circles; correct the address")


def _opened(method: str, url: str, headers: t.Dict[str, str]) -> t.Any:
    try:
        return open_url(url, method=method, headers=headers, timeout=_SILENCE, follow_redirects="none", decompress=False, http_agent="stackless.block")
    except urllib.error.HTTPError:
        raise
    except Exception as error:  # open_url has many ways to say that there is no connection, and no root for them
        if isinstance(getattr(error, "reason", error), ssl.SSLError) or "certificate" in str(error).lower():
            raise Refused(f"{shown_url(url)} can't be trusted: {_clean(url, error)}; mend its certificate, or have this host trust who signed it") from error
        raise Cut(_clean(url, error)) from error


def _clean(url: str, error: Exception) -> str:
    """What an error says, on one line, without the secrets of the address."""
    text = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
    for secret in secrets_of(url):
        text = text.replace(secret, "")
    return text


def _next(first: str, place: str, location: t.Optional[str]) -> str:
    """Where a server leads to: only to another server of the web, and never from a protected way to an open one."""
    if not location:
        raise Refused(f"{shown_url(first)} leads elsewhere and does not say where to; correct the address")
    following = urllib.parse.urljoin(place, location)
    before, after = urllib.parse.urlsplit(place), urllib.parse.urlsplit(following)
    if after.scheme not in ("http", "https") or (before.scheme, after.scheme) == ("https", "http"):
        raise Refused(f"{shown_url(first)} leads to {after.scheme}://, which is not followed; give the address where the image itself is")
    if "@" in before.netloc and "@" not in after.netloc and (after.scheme, after.netloc) == (before.scheme, before.netloc.rpartition("@")[2]):
        return urllib.parse.urlunsplit(after._replace(netloc=before.netloc))
    return following


def _meaning(url: str, error: urllib.error.HTTPError) -> t.Union[StorageError, Cut]:
    said = f"{error.code} {error.reason}"
    if error.code == 416:
        return Beyond(f"the server says {said}")
    if error.code in (404, 410):
        return NotFound(f"there is no image {shown_url(url)}: the server says {said}; correct the address")
    if error.code == 429 or error.code >= 500:
        return Cut(f"the server says {said}")
    return Failed(f"{shown_url(url)} can't be had: the server says {said}; see whether user, password and address are right")
