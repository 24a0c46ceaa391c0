/* Copyright (c) 2026, the stackless.block authors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later */

/* The first steps of the guest: QEMU loads it by its multiboot header and jumps here in 32-bit protected mode.
 * Sets up segments, one interrupt (a timer, 50 times a second) and a stack, then calls serve(). */

.code32
.section .multiboot, "a"
.align 4
.long 0x1badb002, 0x00000003, -(0x1badb002 + 0x00000003)

.text
.globl _start
_start:
    cli
    mov $stack_top, %esp
    lgdt gdt_register
    ljmp $8, $1f
1:  mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss

    /* every interrupt there is goes to the timer's handler; only the timer's is let through */
    mov $tick, %eax
    mov $idt, %edi
    mov $256, %ecx
    mov %eax, %edx
    shr $16, %edx
2:  mov %ax, (%edi)
    movw $8, 2(%edi)
    movw $0x8e00, 4(%edi)
    mov %dx, 6(%edi)
    add $8, %edi
    loop 2b
    lidt idt_register

    /* interrupt controllers: vectors from 32 on, all masked but the timer */
    mov $0x11, %al
    out %al, $0x20
    out %al, $0xa0
    mov $32, %al
    out %al, $0x21
    mov $40, %al
    out %al, $0xa1
    mov $4, %al
    out %al, $0x21
    mov $2, %al
    out %al, $0xa1
    mov $1, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xfe, %al
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1

    /* timer: 1193182 Hz / 23863 = 50 Hz */
    mov $0x34, %al
    out %al, $0x43
    mov $0x37, %al
    out %al, $0x40
    mov $0x5d, %al
    out %al, $0x40
    sti
    call serve
3:  hlt
    jmp 3b

tick:
    push %eax
    incl ticks
    mov $0x20, %al
    out %al, $0x20
    pop %eax
    iret

.data
.align 8
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_register: .word 23
    .long gdt
idt_register: .word 2047
    .long idt

.bss
.globl ticks
.align 16
ticks: .skip 4
.align 16
idt: .skip 2048
.skip 16384
stack_top:
