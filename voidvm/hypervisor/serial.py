"""The service's end of a guest's serial line: the PTY's slave, raw and non-blocking."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import tty
from collections.abc import Callable
from contextlib import suppress

READ_BYTES = 65_536


class SerialLine:
    """An open PTY slave; `on_readable` is called when output waits, unless reading is paused."""

    def __init__(self, path: str, *, on_readable: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_readable = on_readable
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            tty.setraw(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        self._is_closed = False
        self._loop.add_reader(self._fd, on_readable)

    def pause(self) -> None:
        """Stop calling `on_readable`; output waits in the kernel, then in the guest."""
        self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Call `on_readable` again."""
        if not self._is_closed:
            self._loop.add_reader(self._fd, self._on_readable)

    def read(self) -> bytes | None:
        """All that waits (at most `READ_BYTES`), b"" for nothing, None once QEMU is gone."""
        parts: list[bytes] = []
        size = 0
        while size < READ_BYTES:
            try:
                # The kernel hands out at most 4095 bytes a call.
                part = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EIO and not parts:
                    return None
                break
            if not part:
                break
            parts.append(part)
            size += len(part)
            if len(part) < 2048:
                break
        return b"".join(parts)

    @property
    def has_output(self) -> bool:
        """Whether there is something to read, or QEMU has closed its end."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def write(self, data: bytes | memoryview) -> int:
        """Type `data`; the number of bytes that the line took, which may be 0."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            # QEMU is gone: what is typed now goes nowhere, as on any unplugged line.
            return len(data)

    def when_writable(self, call: Callable[[], None] | None) -> None:
        """Call when the line takes bytes again; None: no more."""
        if self._is_closed:
            return
        if call is None:
            self._loop.remove_writer(self._fd)
        else:
            self._loop.add_writer(self._fd, call)

    def close(self) -> None:
        """Let go of the line."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        with suppress(OSError):
            os.close(self._fd)
