"""A fake QEMU's serial line: a real PTY with a log file beside it."""

from __future__ import annotations

import asyncio
import os
import select
import tty
from collections.abc import Callable

# QEMU looks once a second whether somebody has opened the PTY; tests are in a hurry.
LOOK_S = 0.005
FIFO_BYTES = 4096


class FakeSerial:
    """What the guest says goes to the PTY while somebody has it open, and always to the log."""

    def __init__(self, log_fd: int, *, on_input: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log_fd
        self._on_input = on_input
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._waiting = bytearray()
        self._is_listening = False
        self._is_deaf = False
        self._is_closed = False
        self._looking: asyncio.TimerHandle | None = None
        self._look()

    @property
    def waiting_bytes(self) -> int:
        """What the guest has said and nobody has taken."""
        return len(self._waiting)

    def say(self, data: bytes, *, is_logged: bool = True) -> None:
        """Output of the guest; without `is_logged` the log's disk is full."""
        if not is_logged:
            os.write(self._master, data)
            return
        self._waiting += data
        self._flush()

    def be_deaf(self, *, is_deaf: bool = True) -> None:
        """Take no input any more, or take it again."""
        self._is_deaf = is_deaf
        if is_deaf and self._is_listening:
            self._loop.remove_reader(self._master)
            self._is_listening = False

    def close(self) -> None:
        """End, as the process does."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        os.close(self._master)
        os.close(self._log)

    def _is_open(self) -> bool:
        """Whether somebody has the other end."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        return not any(found & select.POLLHUP for _, found in poll.poll(0))

    def _look(self) -> None:
        self._looking = self._loop.call_later(LOOK_S, self._look)
        if self._is_listening or self._is_deaf or not self._is_open():
            return
        self._is_listening = True
        self._loop.add_reader(self._master, self._hear)

    def _hear(self) -> None:
        try:
            data = os.read(self._master, FIFO_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # Nobody has the other end: look again in a while, or this is called without end.
            data = b""
        if data:
            self._on_input(data)
        else:
            self._loop.remove_reader(self._master)
            self._is_listening = False

    def _flush(self) -> None:
        while self._waiting:
            part = bytes(self._waiting[:FIFO_BYTES])
            taken = len(part)
            if self._is_open():
                try:
                    taken = os.write(self._master, part)
                except BlockingIOError:
                    self._loop.add_writer(self._master, self._flush)
                    return
            # As QEMU: the PTY first, then as much of it as was taken to the log.
            os.write(self._log, part[:taken])
            del self._waiting[:taken]
        self._loop.remove_writer(self._master)
