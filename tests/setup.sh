#!/bin/sh
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Sets a Debian or Ubuntu machine up for `make demo` or `make test`: the distribution's packages that
# are missing, the virtual environment .venv with pinned versions, the distribution's kernel unpacked in
# .cache/kernel, and the small guest made of it. What is there already costs nothing.
#
#   tests/setup.sh demo|demo-ceph|test

set -eu
cd "$(dirname "$0")/.."

UV_PIN=0.13.8
DEMO_PACKAGES="
    busybox-static ca-certificates libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu python3-libvirt
    python3-venv qemu-block-extra qemu-system-x86 qemu-utils tgt"
SPLIT_PACKAGES="libvirt-daemon-driver-secret libvirt-daemon-driver-nodedev"
TEST_PACKAGES="git libiscsi-bin openssl qemu-guest-agent radosgw restic shellcheck xfsprogs"
# what tests/rig/ceph makes its cluster of
CEPH_PACKAGES="ceph-common ceph-mgr ceph-mon ceph-osd python3-rados python3-rbd"
# what tests/rig/lab makes its virtual machines with
LAB_PACKAGES="e2fsprogs gcc kmod libc6-dev mmdebstrap openssh-client"

case ${1:-} in
demo) packages=$DEMO_PACKAGES requirements=requirements-demo ;;
demo-ceph) packages="$DEMO_PACKAGES $CEPH_PACKAGES" requirements=requirements-demo ;;
test) packages="$DEMO_PACKAGES $TEST_PACKAGES $CEPH_PACKAGES $LAB_PACKAGES" requirements=requirements ;;
*)
    echo "usage: tests/setup.sh demo|demo-ceph|test" >&2
    exit 2
    ;;
esac

die() {
    echo "setup: $*" >&2
    exit 1
}

# Runs a command quietly; its words are only shown when it fails.
quietly() {
    said=$(mktemp)
    if ! "$@" >"$said" 2>&1 </dev/null; then
        tail -n 30 "$said" >&2
        rm -f "$said"
        die "this failed: $*"
    fi
    rm -f "$said"
}

# `begin` says what is being done, `end` how long it took, on the same line.
began=0
begin() {
    printf '  %-46s' "$1"
    began=$(date +%s)
}
end() { echo "$(($(date +%s) - began)) s"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "root is needed to install packages; run this as root or install sudo"
        sudo "$@"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }

installed() {
    case $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) in
    ?i*) ;;
    *) return 1 ;;
    esac
}

# Packages start no services while this file is there. A run that was killed may have left ours behind.
POLICY=/usr/sbin/policy-rc.d
OURS='# made by the set-up of stackless.block, which takes it away again'
hold_services() {
    if [ -e $POLICY ] && ! grep -qF "$OURS" $POLICY; then return; fi
    trap release_services EXIT
    printf '#!/bin/sh\n%s\nexit 101\n' "$OURS" | as_root tee $POLICY >/dev/null
    as_root chmod +x $POLICY
}
release_services() {
    trap - EXIT
    if grep -qsF "$OURS" $POLICY; then as_root rm -f $POLICY; fi
}

# The services stay off, now and at the next boot: everything here runs private daemons of its own.
install_packages() {
    command -v dpkg-query >/dev/null ||
        die "this machine has no dpkg; use Debian 12 or newer or Ubuntu 24.04 or newer"
    [ "$(dpkg --print-architecture)" = amd64 ] || die "the guest is an x86-64 one; use an amd64 machine"
    set --
    for package in $packages; do
        installed "$package" || set -- "$@" "$package"
    done
    [ $# -gt 0 ] || return 0
    begin "system packages, $# of them missing"
    quietly apt update
    # libvirt's drivers became packages of their own in Debian 13
    for package in $SPLIT_PACKAGES; do
        apt-cache show "$package" >/dev/null 2>&1 && set -- "$@" "$package"
    done
    hold_services
    services=
    installed tgt || services="tgt"
    installed ceph-base || services="$services ceph-crash ceph.target"
    installed radosgw || services="$services ceph-radosgw.target"
    quietly apt install -y --no-install-recommends "$@"
    release_services
    for service in $services; do
        [ ! -d /run/systemd/system ] || ! systemctl cat "$service" >/dev/null 2>&1 || quietly as_root systemctl disable "$service"
    done
    end
}

check_python() {
    [ -x /usr/bin/python3 ] || die "there is no /usr/bin/python3"
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "/usr/bin/python3 is older than 3.11, which ansible-core 2.19 needs on the controller; use Debian 12 or newer or Ubuntu 24.04 or newer"
}

# --system-site-packages, because the bindings of libvirt and Ceph have to be the distribution's own.
make_empty_venv() {
    rm -rf .venv
    quietly /usr/bin/python3 -m venv --system-site-packages .venv
    quietly .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check "uv==$UV_PIN"
}

# pip's own script names the interpreter by its full path, so it also notices a checkout that was moved.
venv_works() { .venv/bin/pip --version && .venv/bin/uv --version; } >/dev/null 2>&1

make_venv() {
    stamp=.venv/.$requirements-$({ pwd && /usr/bin/python3 --version && cat tests/setup.sh "tests/$requirements.txt"; } | cksum | tr ' ' -)
    [ ! -e "$stamp" ] || return 0
    begin "virtual environment .venv"
    venv_works || make_empty_venv
    quietly env UV_LINK_MODE=copy UV_SYSTEM_CERTS=1 .venv/bin/uv pip install --quiet --python .venv/bin/python -r "tests/$requirements.txt"
    touch "$stamp"
    end
}

download_kernel() {
    for meta in linux-image-cloud-amd64:cloud linux-image-virtual:generic; do
        names=$(apt-cache depends --recurse "${meta%:*}" 2>/dev/null |
            sed -n "s/.*Depends: \(linux-\(image\|modules\)-[0-9].*${meta#*:}.*\)/\1/p" | grep -v -e extra -e unsigned | sort -u)
        [ -n "$names" ] && break
    done
    [ -n "$names" ] || return 1
    # shellcheck disable=SC2086  # names of packages, to be split
    (cd "$1" && apt-get -qq -o APT::Sandbox::User= download $names) || return 1
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$1/unpacked" || return 1
    done
}

# The kernel is only unpacked, never installed.
fetch_kernel() {
    [ ! -d .cache/kernel ] || return 0
    begin "kernel of the distribution, unpacked"
    mkdir -p .cache
    work=$(mktemp -d .cache/kernel-XXXXXX)
    download_kernel "$work" >/dev/null 2>&1 || {
        quietly apt update
        quietly download_kernel "$work"
    }
    mv "$work/unpacked" .cache/kernel
    rm -rf "$work"
    end
}

make_guest() {
    stamp=.cache/guest/ready-$(cksum <tests/rig/guest.py | tr ' ' -)
    [ ! -e "$stamp" ] || return 0
    begin "guest: that kernel and an initramfs"
    rm -rf .cache/guest
    quietly .venv/bin/python -m tests.rig.guest .cache/kernel .cache/guest
    touch "$stamp"
    end
}

export PYTHONDONTWRITEBYTECODE=1
# so that a signal, too, passes through the EXIT trap
trap 'exit 130' INT TERM
install_packages
check_python
make_venv
fetch_kernel
make_guest
