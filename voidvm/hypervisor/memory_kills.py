"""Whether the kernel ended a process for want of memory: what its cgroup and its log say."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
KERNEL_LOG: Final = Path("/dev/kmsg")
RECENT_S: Final = 60.0
RECORD_BYTES: Final = 8192
_KILLED = re.compile(rb"Killed process (\d+) ")


class CgroupKills:
    """The kills for want of memory in a process' cgroup since it was looked at first.

    The counter outlives the process, which the pid does not, so the place is found out early;
    `folder` is where the process is being moved to just now.
    """

    def __init__(self, pid: int, *, folder: Path | None = None) -> None:
        self._events = _events_file(pid) if folder is None else folder / "memory.events"
        self._before = self._count()

    def seen(self) -> int:
        """How many there were; 0 also where there is no cgroup v2."""
        count = self._count()
        # Fewer than before: those were of a cgroup that was there earlier, by the same name.
        return count - self._before if count >= self._before else count

    def _count(self) -> int:
        if self._events is not None:
            with suppress(OSError, ValueError):
                for line in self._events.read_text().splitlines():
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count)
        return 0


def _events_file(pid: int) -> Path | None:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            # Version 2 is the hierarchy without a number and without controllers: cgroups(7).
            if line.startswith("0::/"):
                return CGROUPS / line.removeprefix("0::/") / "memory.events"
    return None


def kernel_log_line(pid: int, *, log: Path = KERNEL_LOG) -> str | None:
    """What the kernel said when it killed this process in the last minute; may block a moment.

    None also where the log may not be read (`kernel.dmesg_restrict`).
    """
    since_us = (time.monotonic() - RECENT_S) * 1e6
    found = None
    with suppress(OSError):
        for head, text in _records(log):
            killed = _KILLED.search(text)
            if killed and int(killed[1]) == pid and float(head.split(b",")[2]) >= since_us:
                found = text.partition(b"\n")[0].decode(errors="replace")
    return found


def _records(log: Path) -> Iterator[tuple[bytes, bytes]]:
    """What stands before and behind the semicolon: "priority,number,microseconds,flags;text"."""
    fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, RECORD_BYTES)
            except BrokenPipeError:
                continue  # the oldest were overwritten meanwhile: it goes on behind them
            except BlockingIOError:
                return  # the end
            if not record:
                return
            head, _, text = record.partition(b";")
            yield head, text
    finally:
        os.close(fd)
