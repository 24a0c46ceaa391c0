/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

/* A guest without an operating system: up in a moment, also where an emulated machine emulates it.
 *
 * On its serial line it says, each on a line of its own,
 *
 *     GUEST-READY                                  once, when it can be asked
 *     DISK-ADD  vda serial=... size=<bytes>        a disk has appeared
 *     DISK-SIZE vda serial=... size=<bytes>        a disk has another size
 *     DISK-DEL  vda                                a disk has gone
 *     COUNT-ERROR vda <number>                     this number could not be written
 *
 * and answers every line it is sent with what there is to say and then COMMAND-DONE 0, or 1 if it could not be done:
 *
 *     write DISK SECTOR TEXT       writes the text, and zeroes after it, to the sector and flushes
 *     read DISK SECTOR             says the text at the beginning of the sector
 *     count DISK SECTOR            from now on writes 1, 2, 3, ... there, as text, until `stop`
 *     stop                         says which number it wrote last, and how many it could not write
 *     refuse, comply               whether it keeps disks that the host wants back (it complies at first)
 */

#include "disk.h"

#define LINE 600

static char line[LINE];
static int complies = 1;
static struct {
    struct disk *disk;
    u64 sector;
    u32 number, errors;
} counting;

/* ---- what it notices */

static void say_disk(const char *what, struct disk *disk)
{
    say(what);
    say(" vd");
    say_char(disk->letter);
}

static void say_details(const char *what, struct disk *disk)
{
    say_disk(what, disk);
    say(" serial=");
    say(disk->serial);
    say(" size=");
    say_number(disk->sectors * SECTOR);
    say("\n");
}

static void look_at(int slot)
{
    struct disk *disk = &disks[slot];
    int there = disk_in(slot);

    if (there && !disk->present) {
        disk_open(slot);
        say_details("DISK-ADD", disk);
    } else if (there && disk->sectors != disk_sectors(disk)) {
        disk->sectors = disk_sectors(disk);
        say_details("DISK-SIZE", disk);
    } else if (!there && disk->present) {
        disk->present = 0;
        if (counting.disk == disk)
            counting.disk = 0;
        say_disk("DISK-DEL", disk);
        say("\n");
    }
}

static void look_at_disks(void)
{
    u32 wanted = unplug_wanted();
    if (wanted && complies)
        unplug(wanted);
    for (int slot = 0; slot < SLOTS; slot++)
        look_at(slot);
}

/* ---- what it is told */

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Cuts the next word off the rest of the line. */
static char *next_word(char **rest)
{
    char *word = *rest;
    while (**rest && **rest != ' ')
        (*rest)++;
    if (**rest)
        *(*rest)++ = 0;
    return word;
}

static u64 number_in(const char *text)
{
    u64 value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

static int failed(const char *what, int wrong)
{
    say(what);
    say_number(wrong);
    say("\n");
    return 1;
}

static int write_text(struct disk *disk, u64 sector, const char *text)
{
    u8 data[SECTOR];
    for (int i = 0; i < SECTOR; i++)
        data[i] = *text ? *text++ : 0;
    return disk_write(disk, sector, data);
}

static int read_text(struct disk *disk, u64 sector)
{
    u8 data[SECTOR + 1];
    int wrong = disk_read(disk, sector, data);
    if (wrong)
        return failed("read error ", wrong);
    data[SECTOR] = 0;
    say((char *)data);
    say("\n");
    return 0;
}

static void text_of(u32 number, char *text)
{
    char digits[10];
    int count = 0;
    do
        digits[count++] = '0' + number % 10;
    while (number /= 10);
    while (count)
        *text++ = digits[--count];
    *text = 0;
}

static void count_on(void)
{
    char text[11];
    text_of(++counting.number, text);
    if (write_text(counting.disk, counting.sector, text)) {
        counting.errors++;
        say_disk("COUNT-ERROR", counting.disk);
        say_char(' ');
        say(text);
        say("\n");
    }
}

static int stop_counting(void)
{
    say_number(counting.number);
    say(" written, ");
    say_number(counting.errors);
    say(" errors\n");
    counting.disk = 0;
    return 0;
}

static int use_disk(const char *verb, char *rest)
{
    struct disk *disk = disk_named(next_word(&rest));
    u64 sector = number_in(next_word(&rest));
    if (!disk) {
        say("no such disk\n");
        return 1;
    }
    if (same(verb, "read"))
        return read_text(disk, sector);
    if (same(verb, "write")) {
        int wrong = write_text(disk, sector, rest);
        return wrong ? failed("write error ", wrong) : 0;
    }
    counting.disk = disk;
    counting.sector = sector;
    counting.number = counting.errors = 0;
    return 0;
}

static int obey(char *rest)
{
    char *verb = next_word(&rest);
    if (same(verb, "refuse") || same(verb, "comply")) {
        complies = verb[0] == 'c';
        return 0;
    }
    if (same(verb, "stop"))
        return stop_counting();
    if (same(verb, "read") || same(verb, "write") || same(verb, "count"))
        return use_disk(verb, rest);
    say("no such command\n");
    return 1;
}

static void listen(void)
{
    static int length;
    while (serial_waiting()) {
        char c = serial_get();
        if (c != '\r' && c != '\n') {
            if (length < LINE - 1)
                line[length++] = c;
        } else if (length) {
            line[length] = 0;
            length = 0;
            say(obey(line) ? "COMMAND-DONE 1\n" : "COMMAND-DONE 0\n");
        }
    }
}

void serve(void)
{
    serial_open();
    say("GUEST-READY\n");
    for (;;) {
        look_at_disks();
        listen();
        if (counting.disk)
            count_on();
        sleep();
    }
}
