# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk, kernel and initramfs that all machines of the lab start from, made of the distribution's packages."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from tests.rig.collection import ROOT
from tests.rig.guest import cpio, load_order
from tests.rig.lab.cache import HERE, LabError, forget, key, made, run

KERNEL = ROOT / ".cache" / "kernel"
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "openssh-server", "python3", "iproute2", "iputils-ping", "kmod", "procps", "psmisc", "nftables",
    "lvm2", "thin-provisioning-tools", "python3-rtslib-fb", "targetcli-fb", "open-iscsi", "multipath-tools", "lsscsi", "e2fsprogs",
    "libvirt-daemon-system", "libvirt-daemon-driver-qemu", "libvirt-clients", "python3-libvirt", "qemu-system-x86", "qemu-utils", "qemu-block-extra",
    "python3-rados", "python3-rbd", "busybox-static",
)  # fmt: skip
# What no machine here ever needs of a kernel, a third of its size.
NO_DRIVERS = ("sound", "drivers/gpu", "drivers/net/wireless", "drivers/infiniband", "drivers/media", "fs/btrfs", "fs/ocfs2", "fs/xfs", "net/wireless")
NO_FILES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Off in the image; the machines turn on what their part needs (prepare/).
DISABLED = ("libvirt", "virt", "multipath", "targetclid", "open-iscsi", "iscsid", "rtslib")
# What only costs time when an emulated processor boots.
MASKED = """
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service systemd-tmpfiles-clean.timer
    getty@tty1.service serial-getty@ttyS0.service console-getty.service keyboard-setup.service networking.service ldconfig.service
    systemd-timesyncd.service systemd-networkd.service systemd-network-generator.service systemd-resolved.service systemd-pstore.service
    systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-binfmt.service systemd-firstboot.service
    systemd-machine-id-commit.service systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-journal-flush.service
    systemd-update-done.service systemd-boot-system-token.service systemd-sysusers.service systemd-user-sessions.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount modprobe@drm.service modprobe@efi_pstore.service
    modprobe@fuse.service modprobe@dm_mod.service modprobe@loop.service lvm2-monitor.service blk-availability.service polkit.service
    libvirt-guests.service targetclid.service targetclid.socket""".split()


def image() -> Path:
    """The directory with disk, kernel, initramfs, ssh key and known_hosts; made when it is not there."""
    kernels = sorted(KERNEL.glob("boot/vmlinuz-*"))
    if not kernels:
        raise LabError(f"there is no kernel in {KERNEL}; run tests/setup.sh test")
    kernel = kernels[-1]
    base = made("packages", key(PACKAGES, NO_FILES, codename()), install)
    forget("packages", {base.name})
    parts = [HERE / name for name in ("image.py", "initramfs.sh", "root")]
    return made("image", key(base.name, kernel.name, *parts), lambda place: build(place, base / "root", kernel))


def install(place: Path) -> None:
    """The root file system as the packages leave it. The packages come from where this machine's own come from."""
    sources = place / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in distribution_sources()))
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in NO_FILES]
    options += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Languages "none"']
    run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", *options, codename(), place / "root", sources)
    sources.unlink()
    for left in (place / "root/etc/apt").glob("sources.list*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def distribution_sources() -> list[str]:
    """This machine's sources of the distribution's own packages, each a line of a sources.list."""
    shape = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = run("apt-get", "indextargets", "--format", shape, "Created-By: Packages").splitlines()
    found = [line.split("|", 1)[1] for line in listed if line.startswith(("Debian|", "Ubuntu|"))]
    if not found:
        raise LabError("apt knows no source of the distribution's packages; run `apt-get update`")
    return list(dict.fromkeys(found))


def codename() -> str:
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return words["VERSION_CODENAME"].strip('"')


def build(place: Path, base: Path, kernel: Path) -> None:
    root = place / "root"
    run("cp", "-a", "--reflink=auto", base, root)
    shutil.copyfile(kernel, place / "kernel")
    add_modules(root, kernel.name.split("-", 1)[1])
    shutil.copytree(HERE / "root", root, dirs_exist_ok=True)
    run("chown", "root:root", *(root / path.relative_to(HERE / "root") for path in (HERE / "root").rglob("*") if path.is_file()))
    set_identity(root)
    add_keys(place, root)
    choose_units(root)
    write_initramfs(place / "initramfs", root)
    run("/usr/bin/python3", "-m", "compileall", "-q", root / "usr/lib/python3/dist-packages")
    disk = place / "disk.ext4"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    run("mke2fs", "-q", "-t", "ext4", "-L", "lab", "-J", "size=16", "-E", "lazy_itable_init=1,nodiscard", "-m", "0", "-d", root, disk)
    shutil.rmtree(root)


def add_modules(root: Path, version: str) -> None:
    places = [below / version for below in (KERNEL / "lib/modules", KERNEL / "usr/lib/modules")]
    modules = next(place for place in places if place.is_dir())
    target = root / "usr/lib/modules" / version
    target.parent.mkdir(exist_ok=True)
    run("cp", "-a", "-T", modules, target)
    for name in NO_DRIVERS:
        shutil.rmtree(target / "kernel" / name, ignore_errors=True)
    run("depmod", "-b", root, version)


def set_identity(root: Path) -> None:
    (root / "etc/fstab").write_text("")
    # a fixed one: without, systemd takes each boot for the first and turns every service on
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    # names come from /etc/hosts, and nowhere else: there is no name server
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    switch = root / "etc/nsswitch.conf"
    lines = ["hosts: files" if line.startswith("hosts:") else line for line in switch.read_text().splitlines()]
    switch.write_text("\n".join(lines) + "\n")


def add_keys(place: Path, root: Path) -> None:
    """New keys for every image: the client's, which stays in the cache, and the machines' own."""
    for path in (root / "etc/ssh").glob("ssh_host_*"):
        path.unlink()
    machine = root / "etc/ssh/ssh_host_ed25519_key"
    for path, comment in ((place / "key", "client"), (machine, "machine")):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
    folder = root / "root/.ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "authorized_keys").write_text(place.joinpath("key.pub").read_text())
    public = machine.with_suffix(".pub").read_text().rsplit(" ", 1)[0]
    (place / "known_hosts").write_text(f"lab {public}\n")


def choose_units(root: Path) -> None:
    units = [path.name for path in (root / "usr/lib/systemd/system").iterdir()]
    # one by one: a unit that can't be disabled would keep all the others on
    script = [f"systemctl -q disable {shlex.quote(unit)} 2>/dev/null || true" for unit in units if unit.startswith(DISABLED)]
    run("chroot", root, "sh", "-c", "\n".join([*script, "systemctl -q enable lab-net.service ssh.service"]))
    for unit in MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def write_initramfs(path: Path, root: Path) -> None:
    modules = next((root / "usr/lib/modules").iterdir())
    files = {"bin/busybox": (root / "bin/busybox").read_bytes(), "bin/sh": (root / "bin/busybox").read_bytes()}
    files["init"] = (HERE / "initramfs.sh").read_bytes()
    for position, (name, content) in enumerate(load_order(modules)):
        files[f"modules/{position:02}-{name}.ko"] = content
    # not compressed: an emulated processor takes longer to unpack it than QEMU to copy it
    path.write_bytes(cpio(files))
