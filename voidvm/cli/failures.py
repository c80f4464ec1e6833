"""What went wrong, for people: one line, a hint, and an exit status that scripts can tell apart."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The exit statuses of `voidvm`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CREDENTIALS = 4
    BUSY = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


MEANINGS: Final = {
    Exit.OK: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "wrong arguments or input",
    Exit.NOT_FOUND: "no such object",
    Exit.CREDENTIALS: "not signed in, or not allowed",
    Exit.BUSY: "not now: the object's state, a limit or another job forbids it",
    Exit.UNREACHABLE: "no service answers",
    Exit.INTERRUPTED: "Ctrl-C",
}

_OF_HTTP_STATUS = {
    400: Exit.USAGE,
    401: Exit.CREDENTIALS,
    403: Exit.CREDENTIALS,
    404: Exit.NOT_FOUND,
    409: Exit.BUSY,
    412: Exit.BUSY,
    429: Exit.BUSY,
    503: Exit.BUSY,
}
_LOGIN = "voidvm login"
# What the hints of errors say for users of HTTP, in the words of the command line.
_HINTS = {
    "UNAUTHORIZED": _LOGIN,
    "SESSION_ENDED": _LOGIN,
    "UNKNOWN_OS": "voidvm image catalog lists the names",
    "VM_NOT_FOUND": "voidvm vm ls lists the VMs",
    "VM_BUSY": "try again when it is done, or force it off: voidvm vm stop VM --force",
    "VM_UNRESPONSIVE": "force it off: voidvm vm stop VM --force",
    "VM_START_FAILED": "voidvm vm incidents VM --json has all that QEMU said",
    "PORT_IN_USE": "choose another port of the host, or none to have one chosen at each start",
}


def hint_of(code: str, hint: str | None) -> str:
    """What to do about an error of the service; `hint` is what it says itself."""
    if code == "VM_ALREADY_RUNNING" and hint:
        return "stop it first, or delete it with --force"
    return _HINTS.get(code, hint or "")


def exit_of_http(status: int) -> Exit:
    """The exit status for an error that has this HTTP status."""
    return _OF_HTTP_STATUS.get(status, Exit.FAILED)


class CliError(Exception):
    """A failure that ends the command: one sentence, what to do, and the exit status."""

    def __init__(self, message: str, *, exit_status: Exit = Exit.FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_status = exit_status
        self.hint = hint


def one_line(text: str) -> str:
    """`text` without line breaks and without anything that a terminal would obey."""
    flat = " ".join(text.split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in flat)


def say_error(message: str, hint: str = "") -> None:
    """Write the error, and the hint if there is one, to stderr."""
    sys.stderr.write(f"error: {one_line(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {one_line(hint)}\n")
