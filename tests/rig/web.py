# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server with images, which can be told to misbehave."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.server
import re
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Served:
    """A file of the server. `cuts`: after how many bytes its next connections end; `marks`: whether versions are told apart."""

    data: bytes
    marks: bool = True
    head: bool = True
    ranges: bool = True
    login: str = ""
    leads_to: str = ""
    status: int = 0
    cuts: list[int] = dataclasses.field(default_factory=list)
    pause: float = 0.0  # seconds between two pieces

    @property
    def etag(self) -> str:
        return '"' + hashlib.sha256(self.data).hexdigest()[:12] + '"'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        self.server.web.asked.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        served = self.server.web.files.get(path)
        if served is None:
            return self.say(404)
        if served.login and self.headers.get("Authorization") != "Basic " + base64.b64encode(served.login.encode()).decode():
            return self.say(401, **{"WWW-Authenticate": 'Basic realm="images"'})
        if served.leads_to:
            return self.say(302, Location=served.leads_to)
        if served.status or (self.command == "HEAD" and not served.head):
            return self.say(served.status or 405)
        self.send(served, self.start(served))

    def start(self, served: Served) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, served.etag)
        return int(asked.group(1)) if asked and same and served.ranges else 0

    def send(self, served: Served, start: int) -> None:
        if start >= len(served.data) > 0:
            return self.say(416)
        marks = {"ETag": served.etag} if served.marks else {}
        part = {"Content-Range": f"bytes {start}-{len(served.data) - 1}/{len(served.data)}"} if start else {}
        self.say(206 if start else 200, len(served.data) - start, **marks, **part)
        if self.command == "HEAD":
            return
        end = start + served.cuts.pop(0) if served.cuts else len(served.data)
        for at in range(start, min(end, len(served.data)), 1 << 18):
            self.wfile.write(served.data[at : min(at + (1 << 18), end)])
            time.sleep(served.pause)
        if end < len(served.data):
            self.close_connection = True

    def say(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: Any) -> None:
        """Clients that are killed are what tests are for."""


class Web:
    """Serves `files`, by path, at `url`; `asked` is what it was asked for. With a directory it has a certificate that nobody trusts."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.web = self  # type: ignore[attr-defined]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self_signed(certificate))
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"

    def __enter__(self) -> Web:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def got(self) -> list[tuple[str, str | None]]:
        """The downloads that were begun since the last question: path and range."""
        found = [(path, part) for method, path, part, _login in self.asked if method == "GET"]
        self.asked.clear()
        return found


def self_signed(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key
