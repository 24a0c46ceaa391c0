/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

#include "machine.h"

#define SERIAL 0x3f8 /* COM1 */
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc

/* Configuration space of the device in a slot of the only bus. */
u32 pci_read(int slot, int offset)
{
    outl(PCI_ADDRESS, 0x80000000u | slot << 11 | offset);
    return inl(PCI_DATA);
}

void pci_write(int slot, int offset, u32 value)
{
    outl(PCI_ADDRESS, 0x80000000u | slot << 11 | offset);
    outl(PCI_DATA, value);
}

/* 115200 bits a second, 8 data bits, FIFOs on, no interrupts. */
void serial_open(void)
{
    outb(SERIAL + 1, 0);
    outb(SERIAL + 3, 0x80);
    outb(SERIAL + 0, 1);
    outb(SERIAL + 1, 0);
    outb(SERIAL + 3, 3);
    outb(SERIAL + 2, 7);
}

int serial_waiting(void) { return inb(SERIAL + 5) & 1; }

char serial_get(void) { return inb(SERIAL); }

void say_char(char c)
{
    while (!(inb(SERIAL + 5) & 0x20))
        ;
    outb(SERIAL, c);
}

void say(const char *text)
{
    while (*text)
        say_char(*text++);
}

/* Long division by hand, 16 bits at a time: there is no library that divides 64 bits here. */
void say_number(u64 value)
{
    char digits[24];
    int at = sizeof digits;

    digits[--at] = 0;
    do {
        u64 quotient = 0;
        u32 rest = 0;
        for (int shift = 48; shift >= 0; shift -= 16) {
            u32 part = rest << 16 | (u16)(value >> shift);
            quotient = quotient << 16 | part / 10;
            rest = part % 10;
        }
        digits[--at] = '0' + rest;
        value = quotient;
    } while (value);
    say(digits + at);
}
