# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A storage host and two compute hosts as virtual machines, with kernels of their own: LVM, LIO, open-iscsi, multipath, libvirt.

    image     root filesystem, kernel and initramfs, made of the distribution's packages
    snapshot  the three machines as they are when a test begins, kept on disk
    lab       the machines running, what can be done to them, and Ansible for them

docs/lab.md tells how to play with it, `python -m tests.rig.lab` what it can be told.
"""
