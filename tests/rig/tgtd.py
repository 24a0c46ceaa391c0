# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tgtd of one's own: its own directory, control socket and TCP ports, so that any number of them run side by side.

    with Tgtd() as tgtd:
        run_module("iscsi_target", {**tgtd.options, "portals": tgtd.portal_options, ...})
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any


class Tgtd:
    """One private tgtd, run as root, that listens on a free port of each of `ips`."""

    control_port = 0

    def __init__(self, *ips: str) -> None:
        # short, because a socket lives in it: its path has at most 107 characters
        self.directory = Path(tempfile.mkdtemp(prefix="tgtd-", dir="/tmp"))
        self.ipc_socket = self.directory / "socket"
        self.config_dir = self.directory / "conf.d"
        self.config_dir.mkdir(mode=0o700)
        self.portals: list[tuple[str, int]] = [(ip, free_port(ip)) for ip in ips or ("127.0.0.1",)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tgtd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None, "tgtd was not started"
        return self._process.pid

    @property
    def options(self) -> dict[str, Any]:
        """The options by which iscsi_target and iscsi_target_info find this tgtd."""
        return {"control_port": self.control_port, "ipc_socket": str(self.ipc_socket), "config_dir": str(self.config_dir)}

    @property
    def portal_options(self) -> list[dict[str, Any]]:
        """The portals this tgtd was started with, as the option `portals`."""
        return [{"ip": ip, "port": port} for ip, port in self.portals]

    def start(self, timeout: float = 10) -> None:
        """Starts the daemon and returns when it answers; it knows no target then, as after a reboot."""
        portals = ",".join(f"portal={bracketed(ip)}:{port}" for ip, port in self.portals)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["tgtd", "-f", "-C", str(self.control_port), "--iscsi", portals],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.environment,
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"tgtd does not answer:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether the control socket and every portal take connections."""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(f"{self.ipc_socket}.{self.control_port}")
            for portal in self.portals:
                socket.create_connection(portal, 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Ends the daemon with SIGKILL: sessions break and all targets are forgotten."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                if self._process.poll() is None:
                    os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def restart(self) -> None:
        """A daemon that knows nothing, on the same sockets and ports, with the same `config_dir`."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ends the daemon and removes every trace. May be called twice, and after `kill`."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which tgtd, tgtadm and tgt-admin use this daemon's socket."""
        return {**os.environ, "TGT_IPC_SOCKET": str(self.ipc_socket)}

    def adm(self, *arguments: str) -> str:
        """What `tgtadm --lld iscsi ARGUMENTS` prints: another's hand on the daemon, for tests."""
        done = subprocess.run(
            ["tgtadm", "-C", str(self.control_port), "--lld", "iscsi", *arguments],
            capture_output=True, text=True, timeout=10, check=False, env=self.environment,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"tgtadm {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout


def free_port(ip: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0))
        return probe.getsockname()[1]


def bracketed(ip: str) -> str:
    """An address as it stands before a port: IPv6 in brackets."""
    return f"[{ip}]" if ":" in ip else ip
