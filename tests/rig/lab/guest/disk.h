/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

/* virtio disks in the slots of the PCI bus, which come and go while the guest runs. */

#ifndef DISK_H
#define DISK_H

#include "machine.h"

#define SLOTS 32
#define SECTOR 512

struct disk {
    int present;
    char letter; /* vd<letter> */
    char serial[21];
    u64 sectors;
    u16 port;       /* of its registers */
    u16 queue_size; /* entries of its one queue */
    u16 done;       /* requests it has finished, modulo 2^16 */
};

extern struct disk disks[SLOTS];

int disk_in(int slot);               /* whether a virtio disk is in this slot */
void disk_open(int slot);            /* sets up the one that has come */
u64 disk_sectors(struct disk *disk); /* how large it says it is now */
struct disk *disk_named(const char *name);

/* One sector there or back, to the medium; 0, or what went wrong: 1 and 2 from the disk, 3 no answer for three minutes. */
int disk_read(struct disk *disk, u64 sector, u8 *data);
int disk_write(struct disk *disk, u64 sector, const u8 *data);

u32 unplug_wanted(void); /* the slots, a bit each, whose disks the host wants back */
void unplug(u32 slots);  /* lets go of them */

#endif
