"""A command in a terminal of its own, with somebody who reads and types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import warm
from tests.support.service import VOIDVM


class Tty:
    """Runs a command under a pseudo-terminal; `seen` is all that it has written."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        try:
            self.process: warm.Process | subprocess.Popen[bytes]
            if command[0] == str(VOIDVM):
                self.process = warm.start(
                    *command[1:], environ=env, folder=cwd, stdin=slave, stdout=slave, stderr=slave
                )
            else:
                self.process = subprocess.Popen(
                    command, env=env, cwd=cwd, stdin=slave, stdout=slave, stderr=slave
                )
        finally:
            os.close(slave)
        self.seen = ""

    def until(self, wanted: str, *, after: int = 0, timeout_s: float = 60) -> int:
        """Wait for a text at or behind the place `after`; the place behind it."""
        deadline = time.monotonic() + timeout_s
        while (place := self.seen.find(wanted, after)) < 0:
            assert self._read(deadline), f"no {wanted!r} in:\n{self.seen}"
        return place + len(wanted)

    def press(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def wait(self, *, timeout_s: float = 60) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(timeout=max(1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Take what comes next; False when nothing does any more, or not in time."""
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65_536) if ready else b""
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
