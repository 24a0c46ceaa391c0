/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

/* The legacy interface of the virtio specification (1.0, section 4.1.4.8): registers in I/O space, one queue of memory,
 * one request at a time, waited for. And QEMU's registers for PCI hot-unplug (docs/specs/acpi_pci_hotplug). */

#include "disk.h"

#define VIRTIO_BLOCK 0x10011af4u /* device and vendor */

enum { FEATURES = 0, WANTED = 4, QUEUE_PAGE = 8, QUEUE_SIZE = 12, QUEUE = 14, NOTIFY = 16, STATUS = 18, CAPACITY = 20 };
enum { READ = 0, WRITE = 1, FLUSH = 4, GET_ID = 8 };
enum { NEXT = 1, DEVICE_WRITES = 2 };
enum { HOTPLUG_DOWN = 0xae04, HOTPLUG_EJECT = 0xae08, HOTPLUG_BUS = 0xae10 };

#define CAN_FLUSH (1u << 9)
#define PATIENCE (180 * TICKS_PER_SECOND)
#define PAGE 4096
#define MOST_ENTRIES 256

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

struct disk disks[SLOTS];
static u8 queues[SLOTS][3 * PAGE] __attribute__((aligned(PAGE)));
static u8 buffer[SECTOR] __attribute__((aligned(SECTOR)));
static struct {
    u32 type, priority;
    u64 sector;
} header;
static volatile u8 outcome;

static u8 *queue_of(struct disk *disk) { return queues[disk - disks]; }
static volatile u16 *available(struct disk *disk) { return (void *)(queue_of(disk) + sizeof(struct descriptor) * disk->queue_size); }

static volatile u16 *used(struct disk *disk)
{
    u32 before = sizeof(struct descriptor) * disk->queue_size + 2 * (3 + disk->queue_size);
    return (void *)(queue_of(disk) + ((before + PAGE - 1) & ~(PAGE - 1)));
}

/* Hands the request that stands in header and buffer to the disk and waits for its outcome. */
static int request(struct disk *disk, u32 type, u64 sector, u32 length)
{
    struct descriptor *table = (void *)queue_of(disk);
    volatile u16 *ring = available(disk);
    u32 began = ticks;

    header.type = type;
    header.priority = 0;
    header.sector = sector;
    outcome = 0xff;
    table[0] = (struct descriptor){(u32)&header, sizeof header, NEXT, length ? 1 : 2};
    table[1] = (struct descriptor){(u32)buffer, length, NEXT | (type == WRITE ? 0 : DEVICE_WRITES), 2};
    table[2] = (struct descriptor){(u32)&outcome, 1, DEVICE_WRITES, 0};
    ring[2 + ring[1] % disk->queue_size] = 0;
    barrier();
    ring[1]++;
    barrier();
    outw(disk->port + NOTIFY, 0);
    while (used(disk)[1] == disk->done) {
        if (ticks - began > PATIENCE)
            return 3;
        sleep();
    }
    disk->done++;
    return outcome;
}

int disk_in(int slot) { return pci_read(slot, 0) == VIRTIO_BLOCK; }

u64 disk_sectors(struct disk *disk) { return (u64)inl(disk->port + CAPACITY + 4) << 32 | inl(disk->port + CAPACITY); }

static char free_letter(void)
{
    char letter = 'a';
    for (int slot = 0; slot < SLOTS; slot++)
        if (disks[slot].present && disks[slot].letter == letter) {
            letter++;
            slot = -1; /* this one may be taken, too */
        }
    return letter;
}

/* Where its registers are; nobody has placed those of a disk that came later than the firmware looked. */
static u16 place_registers(int slot)
{
    u32 port = pci_read(slot, 0x10) & ~3u;
    if (!port) {
        port = 0xc000 + slot * 0x80;
        pci_write(slot, 0x10, port);
    }
    pci_write(slot, 4, (pci_read(slot, 4) & 0xffff) | 5); /* I/O space and bus mastering on */
    return port;
}

void disk_open(int slot)
{
    struct disk *disk = &disks[slot];
    u16 port = place_registers(slot);

    disk->letter = free_letter();
    disk->port = port;
    disk->done = 0;
    for (u32 i = 0; i < sizeof queues[slot]; i++)
        queues[slot][i] = 0;
    outb(port + STATUS, 0); /* reset */
    outb(port + STATUS, 3); /* seen, and known how to drive */
    outl(port + WANTED, inl(port + FEATURES) & CAN_FLUSH);
    outw(port + QUEUE, 0);
    disk->queue_size = inw(port + QUEUE_SIZE);
    disk->present = 1;
    disk->sectors = disk_sectors(disk);
    disk->serial[0] = 0;
    if (disk->queue_size == 0 || disk->queue_size > MOST_ENTRIES)
        return;
    outl(port + QUEUE_PAGE, (u32)queues[slot] / PAGE);
    outb(port + STATUS, 7); /* go */
    if (request(disk, GET_ID, 0, sizeof disk->serial - 1) == 0)
        for (u32 i = 0; i < sizeof disk->serial - 1; i++)
            disk->serial[i] = buffer[i];
    disk->serial[sizeof disk->serial - 1] = 0;
}

struct disk *disk_named(const char *name)
{
    for (int slot = 0; slot < SLOTS; slot++)
        if (disks[slot].present && name[0] == 'v' && name[1] == 'd' && name[2] == disks[slot].letter && !name[3])
            return &disks[slot];
    return 0;
}

int disk_read(struct disk *disk, u64 sector, u8 *data)
{
    int wrong = request(disk, READ, sector, SECTOR);
    for (int i = 0; i < SECTOR; i++)
        data[i] = buffer[i];
    return wrong;
}

int disk_write(struct disk *disk, u64 sector, const u8 *data)
{
    for (int i = 0; i < SECTOR; i++)
        buffer[i] = data[i];
    int wrong = request(disk, WRITE, sector, SECTOR);
    return wrong ? wrong : request(disk, FLUSH, 0, 0);
}

u32 unplug_wanted(void)
{
    outl(HOTPLUG_BUS, 0);
    return inl(HOTPLUG_DOWN);
}

void unplug(u32 slots)
{
    outl(HOTPLUG_BUS, 0);
    outl(HOTPLUG_EJECT, slots);
}
