#!/bin/sh
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The first process of a machine of the lab: loads the driver of its disk and hands over.

B=/bin/busybox
$B mkdir -p /proc /sys /dev /root
$B mount -t devtmpfs dev /dev
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
for module in /modules/*; do $B insmod "$module"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
    $B usleep 50000
    tries=$((tries + 1))
done
$B mount -t ext4 -o rw,noatime /dev/vda /root
$B umount /proc
$B umount /sys
$B mount --move /dev /root/dev
exec $B switch_root /root /sbin/init
