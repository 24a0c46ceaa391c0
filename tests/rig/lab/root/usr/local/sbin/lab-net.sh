#!/bin/sh
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Name and addresses of this machine, from the kernel command line:
#   lab.name=storage-1 lab.addresses=10.77.0.11/24,fd77::11/64

set -eu
read -r words </proc/cmdline
for word in $words; do
    case $word in
    lab.name=*) name=${word#*=} ;;
    lab.addresses=*) addresses=${word#*=} ;;
    esac
done
hostname "$name"
echo "$name" >/etc/hostname
echo "InitiatorName=iqn.2026-01.org.example:$name" >/etc/iscsi/initiatorname.iscsi
ip link set lo up
for path in /sys/class/net/*; do
    card=${path##*/}
    case $(cat "$path/address") in
    52:54:00:00:*)
        ip addr replace 10.0.2.15/24 dev "$card"
        ip link set "$card" up
        ;;
    52:54:00:77:*)
        ip link set "$card" up
        for address in $(echo "$addresses" | tr , ' '); do
            case $address in
            *:*) ip addr replace "$address" dev "$card" nodad ;;
            *) ip addr replace "$address" dev "$card" ;;
            esac
        done
        ;;
    esac
done
