"""A script that stands in front of a tool which reads hostile files, and takes its reach away.

`python -I -S cage.py READABLE WRITABLE FOLDERS -- COMMAND…`: descriptor numbers and folders, each
joined by commas. The command may read these descriptors' files, write the writable ones, read
and run what lies in the folders, and nothing else on the file system (Landlock). It gets no
socket, sees no other process and sends no signal (seccomp, Landlock). A kernel that lacks one of
the two does without it: behind them stand the unprivileged user, the limits, and our own checks
of the file.

It knows the numbers of x86-64 alone, as the rest of VoidVM does. Sources: Linux' UAPI headers
landlock.h, seccomp.h and filter.h. It must import nothing of VoidVM, and little else: `platform`
and `contextlib` together would double the time that it takes, 24 ms.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

NOT_RUN = 126  # the exit status by which shells say that they found a command but could not run it

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _RULE_PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14
# Rights of files that each version of Landlock knows: 13, then REFER, TRUNCATE, IOCTL_DEV.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FILE_RIGHTS_NOW = (1 << 16) - 1
_NET_RIGHTS, _SCOPES = 0b11, 0b11

_AUDIT_ARCH_X86_64, _X32_BIT = 0xC000003E, 0x40000000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_NUMBER_AT, _ARCH_AT = 0, 4
_DENIED = (
    41,  # socket
    53,  # socketpair
    62, 200, 234, 129, 297, 424,  # kill, tkill, tgkill, two sigqueueinfo, pidfd_send_signal
    101, 310, 311, 434, 438,  # ptrace, process_vm_readv and _writev, pidfd_open, pidfd_getfd
    165, 166, 272, 308, 155, 428, 429, 430, 442,  # mounts, unshare, setns, pivot_root
    175, 313, 246, 320,  # modules, kexec
    298, 321, 323, 425,  # perf_event_open, bpf, userfaultfd, io_uring_setup
    248, 249, 250,  # keys
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def _landlock(readable: list[int], writable: list[int], folders: list[str]) -> None:
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return
    rights = _FILE_RIGHTS.get(version, _FILE_RIGHTS_NOW)
    attributes = struct.pack("=QQQ", rights, _NET_RIGHTS, _SCOPES)
    length = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(length), 0)
    if ruleset < 0:
        return

    def allow(fd: int, access: int) -> None:
        rule = struct.pack("=Qi", access & rights, fd)
        if _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule")

    for fd in readable:
        allow(fd, _READ_FILE)
    for fd in writable:
        allow(fd, _READ_FILE | _WRITE_FILE | _TRUNCATE)
    for folder in folders:
        if not os.path.exists(folder):  # noqa: PTH110 - pathlib would double the start-up
            continue
        fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        is_folder = os.path.isdir(folder)  # noqa: PTH112 - as above
        allow(fd, _READ_FILE | _EXECUTE | (_READ_DIR if is_folder else 0))
        os.close(fd)
    # QEMU tries its locks out on it.
    fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    allow(fd, _READ_FILE | _WRITE_FILE)
    os.close(fd)
    if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


def _seccomp() -> None:
    if os.uname().machine != "x86_64":
        return
    # A jump counts the instructions to skip; the last one but one denies, the last allows.
    head = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_IF_EQUAL, 0, len(_DENIED) + 2, _AUDIT_ARCH_X86_64),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_GREATER_EQUAL, len(_DENIED), 0, _X32_BIT),
    ]
    checks = [
        (_JUMP_IF_EQUAL, len(_DENIED) - 1 - index, 1 if index == len(_DENIED) - 1 else 0, number)
        for index, number in enumerate(_DENIED)
    ]
    tail = [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    program = b"".join(struct.pack("=HBBI", *each) for each in (*head, *checks, *tail))
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, filter_program, 0, 0)


def main(arguments: list[str]) -> None:
    """Go into the cage and become the command, which begins with an absolute path.

    Nothing can be imported any more once the cage is closed.
    """
    readable, writable, folders, _, *command = arguments
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _landlock(_numbers(readable), _numbers(writable), folders.split(","))
    _seccomp()
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(f"cage: {error}", file=sys.stderr)  # noqa: T201 - the way to tell the service
        sys.exit(NOT_RUN)
