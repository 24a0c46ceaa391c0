# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest that boots in seconds: the distribution's kernel, static busybox, and a console that answers.

`python -m tests.rig.guest UNPACKED IMAGE` makes the image out of unpacked kernel packages (tests/setup.sh
does). On its serial console the guest says, each on a line of its own,

    GUEST-READY                                     once, when it can be asked
    DISK-ADD  vda serial=… size=<bytes>             a disk has appeared
    DISK-SIZE vda serial=… size=<bytes>             a disk has another size
    DISK-DEL  vda                                   a disk has gone

and runs every line it is sent as a shell command.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator
from xml.sax.saxutils import escape

CMDLINE = "console=ttyS0 quiet panic=-1 tsc=unstable"
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")

INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin
for module in /modules/*; do insmod "$module" || echo "INSMOD-FAILED $module"; done
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -icanon min 1 time 0

show() {
    serial=; read -r serial 2>/dev/null <"/sys/block/$1/serial"
    [ -n "$serial" ] || serial=$(dd if="/sys/block/$1/device/vpd_pg80" bs=1 skip=4 2>/dev/null | tr -d '\0')
    echo "serial=$serial size=$(($2 * 512))"
}

watch_disks() {
    old=" "
    while :; do
        new=" "
        for path in /sys/block/vd* /sys/block/sd*; do
            read -r sectors 2>/dev/null <"$path/size" || continue
            disk=${path##*/}
            new="$new$disk:$sectors "
            case "$old" in
            *" $disk:$sectors "*) ;;
            *" $disk:"*) echo "DISK-SIZE $disk $(show "$disk" "$sectors")" ;;
            *) echo "DISK-ADD $disk $(show "$disk" "$sectors")" ;;
            esac
        done
        for entry in $old; do
            case "$new" in *" ${entry%%:*}:"*) ;; *) echo "DISK-DEL ${entry%%:*}" ;; esac
        done
        old=$new
        usleep 50000
    done
}

watch_disks &
echo GUEST-READY
while read -r length line; do
    if [ "$length" = "${#line}" ]; then
        eval "$line"
        echo "COMMAND-DONE $?"
    else
        echo COMMAND-TORN
    fi
done
poweroff -f
"""

DOMAIN = """\
<domain type='{accel}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <controller type='pci' model='pcie-root'/>
    {ports}
    <controller type='scsi' model='virtio-scsi'/>
    <memballoon model='none'/>
    <serial type='unix'>
      <source mode='bind' path='{socket}'/>
      <log file='{log}' append='off'/>
      <target port='0'/>
    </serial>
    <console type='unix'><target type='serial' port='0'/></console>
  </devices>
</domain>
"""


class GuestError(Exception):
    """The guest did not do, or not in time, what it was asked."""


# ---- the image -------------------------------------------------------------------------------------------------------


def build_image(unpacked: Path, image: Path) -> None:
    """Makes `image`/kernel and `image`/initrd out of kernel packages unpacked into one directory."""
    kernels = sorted(unpacked.glob("boot/vmlinuz-*"))
    if not kernels:
        raise GuestError(f"no kernel below {unpacked}/boot; the kernel package was not unpacked there")
    version = kernels[-1].name.split("-", 1)[1]
    roots = [root / version for root in (unpacked / "lib/modules", unpacked / "usr/lib/modules")]
    modules = next((root for root in roots if root.is_dir()), None)
    if modules is None:
        raise GuestError(f"no modules of kernel {version} below {unpacked}")
    busybox = shutil.which("busybox")
    if busybox is None:
        raise GuestError("busybox is not installed; install the package busybox-static")
    files = {"bin/busybox": Path(busybox).read_bytes(), "init": INIT.encode()}
    for position, (name, content) in enumerate(load_order(modules)):
        files[f"modules/{position:02}-{name}.ko"] = content
    image.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kernels[-1], image / "kernel")
    # Not compressed: an emulated processor takes longer to unpack it than QEMU to copy it.
    (image / "initrd").write_bytes(cpio(files))


def load_order(modules: Path, drivers: tuple[str, ...] = DRIVERS) -> list[tuple[str, bytes]]:
    """The drivers and what they depend on, as (name, content) in the order they are loaded."""
    paths = {path.name.split(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    builtin = {Path(line).stem.replace("-", "_") for line in (modules / "modules.builtin").read_text().split()}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        name = name.replace("-", "_")
        if name in loaded or name in builtin:
            return
        if name not in paths:
            raise GuestError(f"kernel {modules.name} has no driver {name}")
        content = unpack(paths[name])
        for needed in depends(content):
            load(needed)
        loaded[name] = content

    for driver in drivers:
        load(driver)
    return list(loaded.items())


def unpack(path: Path) -> bytes:
    """A kernel module without the compression that some distributions give it."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    return path.read_bytes()


def depends(content: bytes) -> list[str]:
    """The names in a module's own `depends=` (its .modinfo section)."""
    found = re.search(rb"\0depends=([^\0]+)\0", content)
    return found.group(1).decode().split(",") if found else []


def cpio(files: dict[str, bytes]) -> bytes:
    """An archive of executable files in cpio's newc format, as the kernel takes it for an initramfs."""
    out = io.BytesIO()
    folders = sorted({str(folder) for name in files for folder in Path(name).parents} - {"."})
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [(name, 0o100755, content) for name, content in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    for inode, (name, mode, content) in enumerate(entries, 1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        out.write(bytes(-out.tell() % 4) + content)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


# ---- the machine -----------------------------------------------------------------------------------------------------


def accelerator(image: Path) -> str:
    """libvirt's domain type: `kvm` where KVM boots this image, else `qemu` (emulation); asked once per image.

    There are machines whose /dev/kvm opens and makes virtual processors that then never get anywhere, so only
    a guest that has booted proves it.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "qemu"
    known = image / "accelerator"
    if not known.exists():
        known.write_text("kvm" if boots(image, "kvm", timeout=4) else "qemu")
    return known.read_text()


def boots(image: Path, accel: str, timeout: float) -> bool:
    """Whether a QEMU without libvirt gets the image to GUEST-READY in time."""
    command = ["qemu-system-x86_64", "-accel", accel, "-machine", "q35", "-m", "160", "-nodefaults", "-display", "none"]
    command += ["-kernel", image / "kernel", "-initrd", image / "initrd", "-append", CMDLINE, "-serial", "stdio"]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(timeout, machine.kill)
    timer.start()
    try:
        return any(b"GUEST-READY" in line for line in machine.stdout)
    finally:
        timer.cancel()
        machine.kill()
        machine.communicate()


class Guest:
    """One guest as a persistent domain of the libvirt behind `connection`.

    `directory` gets its console socket and log, and has to be short: a socket's path has at most 107 characters.
    """

    def __init__(self, connection, image: Path, directory: Path, name: str, accel: str = "") -> None:
        self.connection = connection
        self.image = image
        self.name = name
        self.accel = accel or os.environ.get("GUEST_ACCEL") or accelerator(image)
        self.socket = directory / f"{name}.sock"
        self.log = directory / f"{name}.console"
        self.domain = None

    def start(self, timeout: float = 120) -> float:
        """Boots the guest and returns after how many seconds it was ready."""
        began = time.monotonic()
        self.domain = self.connection.defineXML(self.xml())
        self.domain.create()
        self.wait_for(r"^GUEST-READY\n", timeout)
        return time.monotonic() - began

    def xml(self, memory: int = 160, spare_ports: int = 8) -> str:
        places = {"kernel": self.image / "kernel", "initrd": self.image / "initrd", "socket": self.socket, "log": self.log}
        return DOMAIN.format(
            accel=self.accel,
            name=escape(self.name),
            memory=memory,
            cmdline=CMDLINE,
            ports="<controller type='pci' model='pcie-root-port'/>" * spare_ports,
            **{name: escape(str(path), {"'": "&apos;"}) for name, path in places.items()},
        )

    def said(self) -> str:
        """All that the guest has written on its console so far."""
        try:
            return self.log.read_text(errors="replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    def wait_for(self, pattern: str, timeout: float = 30, since: int = 0) -> re.Match[str]:
        """The first match of `pattern` in what it said from position `since` on.

        ^ is the beginning of a line; the end is to be written \\n, as $ also matches in the middle of a line being written.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.said()[since:], re.MULTILINE)
            if found:
                return found
            if time.monotonic() > deadline:
                raise GuestError(f"{self.name} did not say {pattern!r} within {timeout:g} s; its last words: {self.said()[-500:]!r}")
            time.sleep(0.02)

    def run(self, command: str, timeout: float = 30) -> str:
        """Runs one line of shell in the guest and returns what it printed; an exit status other than 0 is a GuestError."""
        for _attempt in range(5):
            # from the beginning of a line, which the guest may be in the middle of writing
            since = self.said().rfind("\n") + 1
            with self._console() as console:
                console.sendall(f"{len(command)} {command}\n".encode())
                done = self.wait_for(r"^COMMAND-(?:DONE (\d+)|TORN)\n", timeout, since)
            if done.group(1):  # of a long line the console now and then loses the beginning
                break
        printed = self.said()[since : since + done.start()]
        if done.group(1) != "0":
            raise GuestError(f"in {self.name}: {command!r} ended with {done.group(1)}: {printed.strip()}")
        return "".join(line for line in printed.splitlines(keepends=True) if not line.startswith("DISK-"))

    @contextlib.contextmanager
    def _console(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.socket))
            yield console

    def stop(self) -> None:
        """Takes the guest and its definition away; nothing to do when it is gone already."""
        if self.domain is None:
            return
        import libvirt

        for act in (self.domain.destroy, self.domain.undefine):
            with contextlib.suppress(libvirt.libvirtError):
                act()
        self.domain = None


if __name__ == "__main__":
    try:
        build_image(Path(sys.argv[1]), Path(sys.argv[2]))
        accelerator(Path(sys.argv[2]))
    except GuestError as failure:
        sys.exit(f"guest: {failure}")
