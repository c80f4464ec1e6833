"""The service's end of a guest's serial line: the PTY's slave, raw and non-blocking."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import termios
import tty
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

READ_BYTES = 65_536
# The kernel hands out at most 4095 bytes a call (measured on Linux 6.18).
_PART_BYTES = 4096
# A QEMU has some dozens; one in hostile hands could have so many that looking takes minutes.
FILES_MAX = 1024
# The effective one is the second (proc(5)); who opens a PTY as that user owns it.
_USER = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)


def open_line(path: str, *, pid: int) -> int:
    """Open the slave `/dev/pts/<number>` of a PTY whose master the process `pid` holds, raw.

    The path alone proves nothing. A number is given to whoever wants a PTY next, so it may be
    another guest's by now; and a QEMU in hostile hands may name that of another guest, or the
    terminal of somebody who works on the host. While it is open nobody else gets the number, and
    so what is looked at then holds for as long as the process lives.

    Raises `PermissionError` for a PTY that is not the process's, else `OSError`.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    with ExitStack() as unless_held:
        unless_held.callback(os.close, fd)
        if not _is_held(fd, number=int(path.rpartition("/")[2]), pid=pid):
            raise PermissionError(errno.EPERM, f"process {pid} does not hold it", path)
        try:
            tty.setraw(fd)
        except termios.error as error:  # the other end was closed meanwhile
            raise OSError(*error.args) from error
        unless_held.pop_all()
    return fd


def _is_held(fd: int, *, number: int, pid: int) -> bool:
    folder = f"/proc/{pid}"
    wanted = f"tty-index:\t{number}\n"
    try:
        with os.scandir(f"{folder}/fd") as entries:
            for entry in islice(entries, FILES_MAX):
                with suppress(FileNotFoundError):
                    # Not Path.readlink: each start waits for this.
                    if not os.readlink(entry.path).endswith("/ptmx"):  # noqa: PTH115 - as above
                        continue
                    if wanted in Path(f"{folder}/fdinfo/{entry.name}").read_text():
                        return True
    except PermissionError:
        # Root without CAP_SYS_PTRACE, as in a container, may not look: at least the PTY is of the
        # user that QEMU has. Whose QEMU is of its own user may look, unless QEMU does not want it.
        user = _USER.search(Path(f"{folder}/status").read_text())
        owner = os.fstat(fd).st_uid
        return user is not None and os.geteuid() == 0 and 0 != owner == int(user[1])
    return False


class SerialLine:
    """An open, raw PTY slave; calls `on_readable` when output waits, unless reading is paused."""

    def __init__(self, fd: int, *, on_readable: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_readable = on_readable
        self._fd = fd
        # QEMU has closed its end.
        self.is_hung_up = False
        self._is_closed = self._is_watched = False
        self.resume()

    def pause(self) -> None:
        """Stop calling `on_readable`; output waits in the kernel, then in the guest."""
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Call `on_readable` again."""
        if not self._is_watched and not self._is_closed:
            self._is_watched = True
            self._loop.add_reader(self._fd, self._on_readable)

    def read(self) -> bytes:
        """All that waits, at most `READ_BYTES`; b"" for nothing."""
        data = b""
        while len(data) < READ_BYTES:
            try:
                part = os.read(self._fd, _PART_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EIO:
                    self.is_hung_up = True
                break
            if not part:
                # A raw line says so when its other end was closed.
                self.is_hung_up = True
                break
            data += part
            if len(part) < _PART_BYTES // 2:
                break
        return data

    @property
    def has_output(self) -> bool:
        """Whether there is something to read, as long as QEMU has not closed its end."""
        if self.is_hung_up:
            return False
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
        self.pause()
        self._is_closed = True
        self._loop.remove_writer(self._fd)
        with suppress(OSError):
            os.close(self._fd)
