# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""S3-compatible storage of one's own: the radosgw of a private Ceph cluster."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import time
from typing import Any

from tests.rig.ceph import Ceph, run

PORT = 7480
SETTINGS = ("--rgw-thread-pool-size=8", "--rgw-dynamic-resharding=false", "--rgw-override-bucket-index-max-shards=1")


class S3:
    """A gateway in front of a cluster, with one account."""

    def __init__(self, ceph: Ceph) -> None:
        self.ceph = ceph
        self.access_key, self.secret_key = "AKID0001", secrets.token_hex(16)
        self._words = ["-c", str(ceph.conf), "-n", "client.admin", f"--rgw-data={ceph.directory}/rgw", *SETTINGS]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3:
        try:
            self.start()
            keys = ["--access-key", self.access_key, "--secret-key", self.secret_key]
            run("radosgw-admin", *self._words, "user", "create", "--uid=backup", "--display-name=backup", *keys)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        with (self.ceph.directory / "rgw.log").open("ab") as log:
            program = ["radosgw", *self._words, "-f", f"--rgw-frontends=beast endpoint={self.ceph.ip}:{PORT}"]
            self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"radosgw does not answer\n{(self.ceph.directory / 'rgw.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.ceph.ip, PORT), 1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def repository(self, name: str) -> dict[str, Any]:
        """The options that are about where the repository is."""
        return {"location": f"s3:http://{self.ceph.ip}:{PORT}/backups/{name}", "access_key": self.access_key, "secret_key": self.secret_key}
