"""The probe guest: a ROM of our own that does what a kernel does in its first milliseconds.

It goes from the reset vector to 64-bit mode, tries what broken KVMs are known to fail at, times a
loop, enters user mode, and ends QEMU through its `isa-debug-exit` port. On its way it writes one
character a stage to the debug console, so that a guest that stops has said where.

Every part is there for a reason: `lock cmpxchg16b` and XMM instructions are what KVMs that emulate
instructions do not know ("KVM internal error. Suberror: 1"); the loop runs in kernel mode before
any user mode, where such a KVM was measured at 400 times TCG's time, though the same loop is quick
after the first return to user mode.

The bytes are GNU as's own: tests/support/assembly.py writes the listing, a test compares it.
"""

from __future__ import annotations

ROM_BYTES = 65_536
RESET_VECTOR = 0xFFF0

OUTPUT_PORT = 0xE9
EXIT_PORT = 0xF4

# QEMU's exit status for a value that is written to the exit port: (value << 1) | 1.
FINISHED_STATUS = 0x2A << 1 | 1
WRONG_STATUS = 1 << 1 | 1
EXCEPTION_STATUS = 2 << 1 | 1

LOOP_BEGIN, LOOP_ROUND, LOOP_END = "<", ".", ">"
LOOP_ROUNDS = 64

STAGES = {
    "r": "in 16-bit mode",
    "p": "building page tables in 32-bit mode",
    "l": "entering 64-bit mode",
    "c": "at CPUID and the EFER register",
    "x": "at lock cmpxchg16b",
    "s": "at XMM instructions",
    "m": "at device memory (APIC, HPET)",
    "o": "at string output",
    "t": "waiting for the APIC timer",
    LOOP_BEGIN: "in its timed loop",
    LOOP_END: "after its timed loop",
    "u": "in user mode",
}

# Address, bytes, source. Memory: 1000-6fff page tables, 7000 TSS, 8000 IDT, up to a000 the stack,
# a000 scratch, 10000 this code, 20000-2ffff what the loop works on.
LISTING = """
                            .code16
                            image:
0000 fa                     cli                                   # from the reset vector, 16-bit
0001 fc                     cld
0002 b072                   mov al, 'r'
0004 e6e9                   out 0xe9, al
0006 2e660f01166003         data32 lgdt cs:[rom_gdt - image]
000d 66b811000000           mov eax, 0x11                         # PE, ET
0013 0f22c0                 mov cr0, eax
0016 66ea1e00ffff0800       data32 ljmp 0x08:0xffff0000 + (protected - image)
                            .code32
                            protected:
001e b810000000             mov eax, 0x10
0023 8ed8                   mov ds, eax
0025 8ec0                   mov es, eax
0027 8ed0                   mov ss, eax
0029 b070                   mov al, 'p'
002b e6e9                   out 0xe9, al
002d be0000ffff             mov esi, 0xffff0000                   # copies itself to RAM
0032 bf00000100             mov edi, 0x10000
0037 b900040000             mov ecx, 0x400
003c f3a5                   rep movsd
003e b845000100             mov eax, 0x10000 + (in_ram - image)
0043 ffe0                   jmp eax
                            in_ram:
0045 0f011566030100         lgdt [0x10000 + (ram_gdt - image)]
004c 31c0                   xor eax, eax                          # room for tables and stack
004e bf00100000             mov edi, 0x1000
0053 b900280000             mov ecx, 0x2800
0058 f3ab                   rep stosd
005a c7050010000007200000   mov dword ptr [0x1000], 0x2007        # 4 GiB one to one, also for users
0064 c7050020000007300000   mov dword ptr [0x2000], 0x3007
006e c7050820000007400000   mov dword ptr [0x2008], 0x4007
0078 c7051020000007500000   mov dword ptr [0x2010], 0x5007
0082 c7051820000007600000   mov dword ptr [0x2018], 0x6007
008c bf00300000             mov edi, 0x3000
0091 b887000000             mov eax, 0x87
0096 b900080000             mov ecx, 2048
                            map_2_mib:
009b 8907                   mov dword ptr [edi], eax
009d 83c708                 add edi, 8
00a0 0500002000             add eax, 0x200000
00a5 49                     dec ecx
00a6 75f3                   jnz map_2_mib
00a8 b820060000             mov eax, 0x620                        # PAE, OSFXSR, OSXMMEXCPT
00ad 0f22e0                 mov cr4, eax
00b0 b800100000             mov eax, 0x1000
00b5 0f22d8                 mov cr3, eax
00b8 b9800000c0             mov ecx, 0xc0000080                   # EFER: LME, SCE
00bd 0f32                   rdmsr
00bf 0d01010000             or eax, 0x101
00c4 0f30                   wrmsr
00c6 b813000180             mov eax, 0x80010013                   # PG, WP, ET, MP, PE
00cb 0f22c0                 mov cr0, eax
00ce ead50001001800         ljmp 0x18:0x10000 + (long_mode - image)
                            .code64
                            long_mode:
00d5 b820000000             mov eax, 0x20
00da 8ed8                   mov ds, eax
00dc 8ec0                   mov es, eax
00de 8ed0                   mov ss, eax
00e0 bc00a00000             mov esp, 0xa000
00e5 b06c                   mov al, 'l'
00e7 e6e9                   out 0xe9, al
00e9 bf00800000             mov edi, 0x8000                       # gates of the 32 exceptions
00ee 488d0581020000         lea rax, [rip + gate]
00f5 488b00                 mov rax, [rax]
00f8 b920000000             mov ecx, 32
                            fill_gates:
00fd 488907                 mov [rdi], rax
0100 4883c710               add rdi, 16
0104 ffc9                   dec ecx
0106 75f5                   jnz fill_gates
0108 488b056f020000         mov rax, [rip + timer_gate]
010f 4889042500830000       mov [0x8300], rax
0117 488b0568020000         mov rax, [rip + fault_gate]
011e 48890425e0800000       mov [0x80e0], rax
0126 0f011d3f020000         lidt [rip + idt]
012d b063                   mov al, 'c'
012f e6e9                   out 0xe9, al
0131 be00010000             mov esi, 256
                            leave_guest:
0136 31c0                   xor eax, eax
0138 0fa2                   cpuid
013a b9800000c0             mov ecx, 0xc0000080
013f 0f32                   rdmsr
0141 0f30                   wrmsr
0143 ffce                   dec esi
0145 75ef                   jnz leave_guest
0147 b078                   mov al, 'x'
0149 e6e9                   out 0xe9, al
014b bf00a00000             mov edi, 0xa000
0150 31c0                   xor eax, eax
0152 31d2                   xor edx, edx
0154 bb01000000             mov ebx, 1
0159 b902000000             mov ecx, 2
015e f0480fc70f             lock cmpxchg16b [rdi]
0163 0f85a4010000           jne wrong
0169 837f0802               cmp dword ptr [rdi + 8], 2
016d 0f859a010000           jne wrong
0173 b073                   mov al, 's'
0175 e6e9                   out 0xe9, al
0177 f30f6f07               movdqu xmm0, [rdi]
017b 0fae8700010000         fxsave [rdi + 0x100]
0182 660fd4c0               paddq xmm0, xmm0
0186 660f7f4710             movdqa [rdi + 16], xmm0
018b 0fae8f00010000         fxrstor [rdi + 0x100]
0192 660f7f4720             movdqa [rdi + 32], xmm0
0197 837f1804               cmp dword ptr [rdi + 24], 4
019b 0f856c010000           jne wrong
01a1 837f2802               cmp dword ptr [rdi + 40], 2
01a5 0f8562010000           jne wrong
01ab b06d                   mov al, 'm'
01ad e6e9                   out 0xe9, al
01af 41bf0000e0fe           mov r15d, 0xfee00000                  # APIC on, spurious vector ff
01b5 41c787f0000000ff010000 mov dword ptr [r15 + 0xf0], 0x1ff
01c0 4181bff0000000ff010000 cmp dword ptr [r15 + 0xf0], 0x1ff
01cb 0f853c010000           jne wrong
01d1 be0000d0fe             mov esi, 0xfed00000                   # HPET: QEMU itself answers
01d6 8b06                   mov eax, [rsi]
01d8 034604                 add eax, [rsi + 4]
01db b06f                   mov al, 'o'
01dd e6e9                   out 0xe9, al
01df 488d352e010000         lea rsi, [rip + text]
01e6 b904000000             mov ecx, 4
01eb bae9000000             mov edx, 0xe9
01f0 f36e                   rep outsb
01f2 b074                   mov al, 't'
01f4 e6e9                   out 0xe9, al
01f6 b0ff                   mov al, 0xff                          # mask the 8259s
01f8 e621                   out 0x21, al
01fa e6a1                   out 0xa1, al
01fc 31db                   xor ebx, ebx                          # four ticks of a millisecond
01fe 41c787e00300000b000000 mov dword ptr [r15 + 0x3e0], 0x0b
0209 41c7872003000030000200 mov dword ptr [r15 + 0x320], 0x20030
0214 41c7878003000040420f00 mov dword ptr [r15 + 0x380], 1000000
                            await_tick:
021f fb                     sti
0220 f4                     hlt
0221 fa                     cli
0222 83fb04                 cmp ebx, 4
0225 72f8                   jb await_tick
0227 41c7872003000030000100 mov dword ptr [r15 + 0x320], 0x10030
0232 b03c                   mov al, '<'                           # 64 rounds, a dot each
0234 e6e9                   out 0xe9, al
0236 bf00000200             mov edi, 0x20000
023b bb40000000             mov ebx, 64
                            next_round:
0240 b9409c0000             mov ecx, 40000
                            step:
0245 4869c02df45158         imul rax, rax, 0x5851f42d
024c 48ffc0                 inc rax
024f 0fb7d0                 movzx edx, ax
0252 81e2f8ff0000           and edx, 0xfff8
0258 48010417               add [rdi + rdx], rax
025c e880000000             call leaf
0261 ffc9                   dec ecx
0263 75e0                   jnz step
0265 b02e                   mov al, '.'
0267 e6e9                   out 0xe9, al
0269 ffcb                   dec ebx
026b 75d3                   jnz next_round
026d b03e                   mov al, '>'
026f e6e9                   out 0xe9, al
0271 b075                   mov al, 'u'
0273 e6e9                   out 0xe9, al
0275 c704250470000000980000 mov dword ptr [0x7004], 0x9800        # stack for faults of users
0280 b838000000             mov eax, 0x38
0285 0f00d8                 ltr ax
0288 b9810000c0             mov ecx, 0xc0000081                   # STAR, LSTAR, FMASK
028d 31c0                   xor eax, eax
028f ba18002300             mov edx, 0x00230018
0294 0f30                   wrmsr
0296 ffc1                   inc ecx
0298 488d0531000000         lea rax, [rip + system_call]
029f 31d2                   xor edx, edx
02a1 0f30                   wrmsr
02a3 b9840000c0             mov ecx, 0xc0000084
02a8 b800020000             mov eax, 0x200
02ad 0f30                   wrmsr
02af 488b3dd8000000         mov rdi, [rip + unmapped]
02b6 488d0d09000000         lea rcx, [rip + user]
02bd 41bb02000000           mov r11d, 2
02c3 480f07                 sysretq
                            user:
02c6 8b07                   mov eax, [rdi]                        # faults, then reads a000
02c8 83f801                 cmp eax, 1
02cb 0f94c3                 sete bl
02ce 0f05                   syscall
                            system_call:
02d0 80fb01                 cmp bl, 1
02d3 7538                   jne wrong
02d5 81ff00a00000           cmp edi, 0xa000
02db 7530                   jne wrong
02dd b02a                   mov al, 0x2a
02df eb2e                   jmp finish
                            leaf:
02e1 48c1c80d               ror rax, 13
02e5 c3                     ret
                            timer:
02e6 ffc3                   inc ebx
02e8 41c787b000000000000000 mov dword ptr [r15 + 0xb0], 0
02f3 48cf                   iretq
                            page_fault:
02f5 58                     pop rax
02f6 a804                   test al, 4
02f8 740f                   jz unexpected
02fa 0f20d0                 mov rax, cr2
02fd 4839f8                 cmp rax, rdi
0300 750b                   jne wrong
0302 bf00a00000             mov edi, 0xa000
0307 48cf                   iretq
                            unexpected:
0309 b002                   mov al, 2
030b eb02                   jmp finish
                            wrong:
030d b001                   mov al, 1
                            finish:
030f e6f4                   out 0xf4, al
                            stop:
0311 f4                     hlt
0312 ebfd                   jmp stop
                            text:
0314 3d3d3d3d               .ascii "===="
                            .balign 8
                            gdt:
0318 0000000000000000       .quad 0
0320 ffff0000009bcf00       .quad 0x00cf9b000000ffff              # 08: 32-bit code
0328 ffff00000093cf00       .quad 0x00cf93000000ffff              # 10: data
0330 ffff0000009baf00       .quad 0x00af9b000000ffff              # 18: 64-bit code
0338 ffff00000093cf00       .quad 0x00cf93000000ffff              # 20: its data
0340 ffff000000f3cf00       .quad 0x00cff3000000ffff              # 28: user data
0348 ffff000000fbaf00       .quad 0x00affb000000ffff              # 30: user 64-bit code
0350 6700007000890000       .quad 0x0000890070000067              # 38: the TSS at 0x7000
0358 0000000000000000       .quad 0
                            rom_gdt:
0360 4700                   .word 71
0362 1803ffff               .long 0xffff0000 + (gdt - image)
                            ram_gdt:
0366 4700                   .word 71
0368 18030100               .long 0x10000 + (gdt - image)
                            idt:
036c 0f03                   .word 0x30f
036e 0080000000000000       .quad 0x8000
                            gate:
0376 09031800008e0100       .quad 0x00018e0000180000 + (unexpected - image)
                            timer_gate:
037e e6021800008e0100       .quad 0x00018e0000180000 + (timer - image)
                            fault_gate:
0386 f5021800008e0100       .quad 0x00018e0000180000 + (page_fault - image)
                            unmapped:
038e 0000000001000000       .quad 0x100000000
"""


def rom() -> bytes:
    """The image for QEMU's `-bios`: the code at its start, a jump there at the reset vector."""
    code = b"".join(bytes.fromhex(line[5:27]) for line in LISTING.splitlines())
    back = -(RESET_VECTOR + 3) & 0xFFFF
    jump = b"\xe9" + back.to_bytes(2, "little")
    image = code.ljust(RESET_VECTOR, b"\0") + jump
    return image.ljust(ROM_BYTES, b"\0")


def last_stage(output: str) -> str:
    """Where a guest was that wrote `output`, as a phrase."""
    for character in reversed(output):
        if character in STAGES:
            return STAGES[character]
    return "before its first instruction"
