"""The user's end of a console: raw while it lasts, and as it was whatever ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from voidvm.cli.failures import one_line

LEAVE = b"\x1d"
INTERRUPT = b"\x03"
# Typed or piped in and not yet sent; a pipe is read on when there is room again.
KEPT_BYTES = 65_536
# What a guest may have left switched on: colours, no cursor, no line wrap, mouse and paste reports.
_TIDY = b"\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Keys come one by one and unchanged, Ctrl-C too; the earlier mode is back afterwards.

    Does nothing when `fd` is no terminal. To be used in a running event loop: after a stop by
    SIGSTOP or SIGTSTP the shell has changed the mode, so that SIGCONT sets it anew.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()
    try:
        tty.setraw(fd, termios.TCSANOW)
        loop.add_signal_handler(signal.SIGCONT, tty.setraw, fd, termios.TCSANOW)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        # Gone with its window: nothing to restore then.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


class Keyboard:
    """What is typed or comes through a pipe: read at once, kept until it was sent."""

    def __init__(self, fd: int, *, leave_on: bytes, on_leave: Callable[[], None]) -> None:
        self.is_terminal = os.isatty(fd)
        self._fd = fd
        # In a pipe no byte has a meaning for us.
        self._leave_on = leave_on if self.is_terminal else b""
        self._on_leave = on_leave
        self._loop = asyncio.get_running_loop()
        self._kept = bytearray()
        self._over = asyncio.Event()
        self._is_watched = False
        self._changed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    async def emptied(self) -> None:
        """Return when all that was read was taken."""
        await self._empty.wait()

    async def finished(self) -> None:
        """Return when the input has ended and all of it was taken."""
        await self._over.wait()
        await self._empty.wait()

    def start(self) -> None:
        """Begin to read."""
        self._steer()

    def stop(self) -> None:
        """Stop reading; what was not read is left for the shell."""
        if self._is_watched:
            self._loop.remove_reader(self._fd)
        self._is_watched = False
        self._over.set()

    async def next(self) -> bytes:
        """What is to be sent; it stays until `sent`. Waits for ever at the end of the input."""
        while not self._kept:
            self._changed.clear()
            self._steer()
            if not self._kept:
                await self._changed.wait()
        return bytes(self._kept)

    def sent(self, count: int) -> None:
        """Forget the first `count` bytes."""
        del self._kept[:count]
        if not self._kept:
            self._empty.set()
        self._steer()

    def _steer(self) -> None:
        has_room = len(self._kept) < KEPT_BYTES
        # A terminal is read on for the key that leaves, also while the guest takes nothing.
        wants = not self._over.is_set() and (has_room or self.is_terminal)
        if wants and not self._is_watched:
            try:
                self._loop.add_reader(self._fd, self._read)
            except PermissionError:
                # A regular file or /dev/null is always readable, and epoll refuses it.
                self._read()
                return
        elif self._is_watched and not wants:
            self._loop.remove_reader(self._fd)
        self._is_watched = wants

    def _read(self) -> None:
        try:
            data = os.read(self._fd, KEPT_BYTES)
        except OSError:
            data = b""  # the terminal was hung up
        if not data:
            self._over.set()
            if self.is_terminal:
                self._on_leave()
        places = [place for key in self._leave_on if (place := data.find(key)) >= 0]
        if places:
            data = data[: min(places)]
            self._on_leave()
        room = KEPT_BYTES - len(self._kept)
        if len(data) > room and self.is_terminal:
            _ring()
            data = data[:room]
        if data:
            self._kept += data
            self._empty.clear()
            self._changed.set()
        self._steer()


class Screen:
    """Where the guest's bytes go; a stalled one holds up nobody but its own reader."""

    def __init__(self, fd: int) -> None:
        self.is_terminal = os.isatty(fd)
        self._original = fd
        self._fd = _reopened(fd)
        self._loop = asyncio.get_running_loop()
        self._is_line_open = False

    async def write(self, data: bytes) -> None:
        """Write everything. Raises `BrokenPipeError` when the reader has gone."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                await self._writable()
        self._is_line_open = not data.endswith((b"\n", b"\r"))

    def note(self, text: str) -> None:
        """Tell the user something that is not the guest's, on a line of its own on stderr."""
        # In raw mode a line feed does not bring the cursor back to the left.
        is_seen = sys.stderr.isatty()
        start = "\r\n" if is_seen and self.is_terminal and self._is_line_open else ""
        end = "\r\n" if is_seen else "\n"
        if start:
            self._is_line_open = False
        sys.stderr.write(f"{start}{one_line(text)}{end}")
        sys.stderr.flush()

    def close(self) -> None:
        """Undo what a guest may have switched on, and begin a new line."""
        if self.is_terminal:
            with suppress(OSError):
                os.write(self._fd, _TIDY + (b"\r\n" if self._is_line_open else b""))
        if self._fd != self._original:
            os.close(self._fd)

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._fd)


def _reopened(fd: int) -> int:
    """A terminal or pipe opened anew and non-blocking, where that can be done.

    O_NONBLOCK on the one we were given would be set for the shell, too: it belongs to the open
    file, which is shared.
    """
    if os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", flags)
    return fd


def _ring() -> None:
    sys.stderr.write("\a")
    sys.stderr.flush()
