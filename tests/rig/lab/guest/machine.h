/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

/* The machine underneath: ports, PCI configuration, the timer, and the serial line with some text on it. */

#ifndef MACHINE_H
#define MACHINE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define TICKS_PER_SECOND 50
extern volatile u32 ticks;

/* What stands in memory before it stands there after it: for memory that a device reads and writes, too. */
#define barrier() __asm__ volatile("" ::: "memory")

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u16 inw(u16 port)
{
    u16 value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u32 inl(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* Sleeps until the next tick, and costs the host nothing meanwhile. */
static inline void sleep(void) { __asm__ volatile("hlt"); }

u32 pci_read(int slot, int offset);
void pci_write(int slot, int offset, u32 value);

void serial_open(void);
int serial_waiting(void); /* whether a character has come in */
char serial_get(void);
void say_char(char c);
void say(const char *text);
void say_number(u64 value);

#endif
