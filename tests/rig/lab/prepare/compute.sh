#!/usr/bin/env bash
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Makes a fresh machine a compute host: open-iscsi and libvirt, which has learned already what QEMU can do.

set -euo pipefail
modprobe -a iscsi_tcp dm_multipath dm_service_time sd_mod
# systemd knows these units already; to make it read all of them again takes an emulated machine too long
units="iscsid.socket open-iscsi.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service virtlogd.socket"
# shellcheck disable=SC2086  # several names
systemctl -q --no-reload enable $units
# shellcheck disable=SC2086
systemctl start $units
virsh -q domcapabilities --virttype qemu >/dev/null
