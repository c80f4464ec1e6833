"""The other way to a guest's serial line: its PTY, read by nobody but us while we hold it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchlib.service import Failed, Service

ECHO_S = 5.0


class Line:
    """An open PTY."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def close(self) -> None:
        """Let go."""
        os.close(self._fd)

    def count(self, seconds: float) -> int:
        """How many bytes come in so long; each is read as soon as it is there."""
        size, end = 0, time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                size += len(os.read(self._fd, 65_536))
        return size

    def echo(self, key: bytes) -> float:
        """Milliseconds from typing a key to its echo."""
        begin = time.perf_counter()
        os.write(self._fd, key)
        if not select.select([self._fd], [], [], ECHO_S)[0]:
            raise Failed("no echo on the PTY")
        os.read(self._fd, 65_536)
        return (time.perf_counter() - begin) * 1000

    def discard(self, quiet_s: float) -> None:
        """Read and forget until nothing comes for so long."""
        while select.select([self._fd], [], [], quiet_s)[0]:
            os.read(self._fd, 65_536)


@contextmanager
def direct(service: Service) -> Iterator[Line]:
    """The PTY of the only guest that runs, with the service stopped for the time of the block.

    So both ways are measured on the same guest, and there is one reader at any time.
    """
    with service.frozen():
        # Looked at only now: while it runs it opens and closes files.
        links = [path.readlink() for path in Path(f"/proc/{service.pid}/fd").iterdir()]
        paths = [str(link) for link in links if link.is_relative_to("/dev/pts")]
        if len(paths) != 1:
            raise Failed(f"the service holds {len(paths)} serial lines, not one")
        line = Line(paths[0])
        try:
            yield line
        finally:
            line.close()
