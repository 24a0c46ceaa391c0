#!/usr/bin/env bash
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Makes a fresh machine the storage host: a volume group with a thin pool that leaves room for thick volumes, and LIO.

set -euo pipefail
modprobe -a dm_mod dm_thin_pool target_core_mod target_core_iblock target_core_file iscsi_target_mod
vgcreate -q -q volumes /dev/vdb
lvcreate -q -q -y --type thin-pool -L 3G -n thin volumes
systemctl -q --no-reload enable rtslib-fb-targetctl.service
systemctl start rtslib-fb-targetctl.service
targetctl restore >/dev/null 2>&1 || true
