# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A libvirtd of one's own, without systemd, and guests for it that need no operating system and no boot.

The daemon lives in a mount namespace of its own, where the machine's /etc/libvirt, /run/libvirt,
/var/lib/libvirt and /var/cache/libvirt are directories below `Libvirtd.directory`: any number of them
run side by side, and none touches the machine's.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

# Folder below the private directory, and what it stands for in the daemon's namespace.
FOLDERS = {"run": "/run/libvirt", "etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt"}

QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""

DAEMON_CONF = """\
log_outputs = "2:file:{directory}/libvirtd.log"
log_filters = "3:object 3:event 3:rpc 3:util 3:daemon"
log_level = 3
auth_unix_rw = "none"
"""

# The daemon does not start without the user and the group it was compiled for (Ubuntu's group is kvm), which
# libvirt-daemon-system or udev would have made.
ACCOUNTS = {
    "passwd": ["libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"],
    "group": ["libvirt-qemu:x:64055:\n", "kvm:x:64056:\n"],
}

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    {ports}
    <controller type='scsi' model='virtio-scsi'/>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Libvirtd:
    """One private daemon, run as root. `uri` is for modules, `connection` for the tests themselves."""

    def __init__(self) -> None:
        # short, because sockets live below it: their paths have at most 107 characters
        self.directory = Path(tempfile.mkdtemp(prefix="lv-", dir="/tmp"))
        self.uri = f"qemu:///system?socket={self.directory}/run/libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        self._write_configuration()

    def __enter__(self) -> Libvirtd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_configuration(self) -> None:
        for folder, machine_folder in FOLDERS.items():
            (self.directory / folder).mkdir()
            Path(machine_folder).mkdir(parents=True, exist_ok=True)  # a mount needs a place
        (self.directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
        (self.directory / "libvirtd.conf").write_text(DAEMON_CONF.format(directory=self.directory))
        for name, lines in ACCOUNTS.items():
            there = Path("/etc", name).read_text()
            known = {entry.split(":", 1)[0] for entry in there.splitlines()}
            (self.directory / name).write_text(there + "".join(line for line in lines if line.split(":", 1)[0] not in known))

    # ---- the daemon

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def start(self, timeout: float = 30) -> None:
        """Starts the daemon and returns when it answers."""
        binds = {self.directory / folder: place for folder, place in FOLDERS.items()}
        binds.update({self.directory / name: f"/etc/{name}" for name in ACCOUNTS})
        mounts = [shlex.join(["mount", "--bind", str(ours), str(place)]) for ours, place in binds.items()]
        daemon = shlex.join(["exec", "libvirtd", "-f", f"{self.directory}/libvirtd.conf", "-p", f"{self.directory}/libvirtd.pid"])
        with (self.directory / "out").open("ab") as out:
            # unshare, sh and libvirtd replace one another: the process id stays
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join([*mounts, daemon])],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._wait_for_answer(time.monotonic() + timeout)

    def _wait_for_answer(self, deadline: float) -> None:
        assert self._process is not None
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"libvirtd does not answer:\n{(self.directory / 'out').read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        import libvirt

        with contextlib.suppress(libvirt.libvirtError):
            return bool(self.connection.isAlive())
        return False

    def kill(self) -> None:
        """Ends the daemon with SIGKILL; its guests run on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops the daemon, if it runs, and starts it again; its guests run on."""
        self._end(signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        """Ends all guests and the daemon, and removes every trace. May be called twice, and after `kill`."""
        self._end(signal.SIGTERM)
        for path in (self.directory / "run" / "qemu").glob("*.pid"):
            if path.name != "driver.pid":  # the daemon's own
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(path.read_text()), signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, sign: signal.Signals) -> None:
        self._close()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.kill(self._process.pid, sign)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    # ---- what runs on it

    @property
    def connection(self) -> Any:
        """An open libvirt connection; a new one after a restart."""
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None

    def paused_domain(self, name: str, machine: str = "q35", spare_ports: int = 4, persistent: bool = True, running: bool = True) -> Any:
        """A paused guest of 16 MiB with a SCSI controller and, on q35, free PCIe slots; returns its libvirt domain.

        SCSI disks come out of it without its help; a virtio disk never does, because no guest answers:
        a guest that refuses, every time. With `running=False` it is only defined.
        """
        import libvirt

        xml = domain_xml(name, machine, spare_ports)
        if not persistent:
            return self.connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        domain = self.connection.defineXML(xml)
        if running:
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        return domain

    def remove_domains(self) -> None:
        """Ends and undefines every guest."""
        import libvirt

        for domain in self.connection.listAllDomains():
            for act in (domain.destroy, domain.undefine):
                with contextlib.suppress(libvirt.libvirtError):
                    act()

    def qemu_io(self, domain: Any, alias: str, command: str) -> None:
        """Reads or writes through the guest's own disk, e.g. `write -P 0x5a 0 1M`, without an operating system in it."""
        import libvirt_qemu

        libvirt_qemu.qemuMonitorCommand(domain, f'qemu-io -d {alias} "{command}"', libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)


def domain_xml(name: str, machine: str = "q35", spare_ports: int = 4) -> str:
    ports = ["<controller type='pci' model='pcie-root'/>", *["<controller type='pci' model='pcie-root-port'/>"] * spare_ports]
    return DOMAIN.format(name=escape(name), machine=machine, ports="".join(ports if machine == "q35" else []))
