"""What a QEMU takes of the host, by /proc, and what its devices count, in QEMU's answers."""

from __future__ import annotations

import os
import re
from typing import Final

from msgspec import Struct

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# The names that `debug-threads=on` gives the threads of vCPUs, seen on QEMU 7.2; TCG without
# threads has one for all of them.
_ALL_VCPUS: Final = "ALL CPUs/TCG"
_VCPU: Final = re.compile(r"CPU \d+/(KVM|TCG)")
# proc(5): utime and stime are fields 14 and 15; here counted from the one behind the name.
_USER, _SYSTEM = 11, 12
# What guests and their QEMUs tell is bytes and counts. A number from here on is a lie, or "untold"
# (2^64 - 1), and would break what is reckoned for all VMs together.
PLAUSIBLE_BELOW: Final = 2**62


class Usage(Struct, frozen=True, kw_only=True):
    """What a QEMU has taken of the host so far."""

    cpu_seconds: float
    resident_bytes: int


class DiskCounters(Struct, frozen=True, kw_only=True):
    """What all disks of a VM have moved so far."""

    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


class NetCounters(Struct, frozen=True, kw_only=True):
    """What a VM's network cards have moved so far, seen from the guest."""

    receive_bytes: int = 0
    transmit_bytes: int = 0
    receive_packets: int = 0
    transmit_packets: int = 0


class GuestMemory(Struct, frozen=True, kw_only=True):
    """The guest's memory as its balloon driver tells it."""

    used_bytes: int
    available_bytes: int


class ProcMeter:
    """Reads what one process takes; it can never read of another that got its pid later.

    /proc/<pid> is held open: the kernel binds that to the process, not to the number.
    """

    def __init__(self, pid: int) -> None:
        """Open it. Raises `OSError` when there is no such process."""
        self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._vcpus: tuple[str, ...] = ()

    def read(self, *, vcpus: int) -> Usage:
        """What it has taken; the time is that of its vCPUs alone. Raises `OSError` when it ended.

        `vcpus`: how many it has; once that many threads are found they are not looked for again.
        """
        threads = self._vcpus or self._find(vcpus)
        ticks = 0
        for thread in threads:
            fields = self._text(f"task/{thread}/stat").rpartition(")")[2].split()
            ticks += int(fields[_USER]) + int(fields[_SYSTEM])
        pages = int(self._text("statm").split()[1])
        return Usage(cpu_seconds=ticks / _TICKS_PER_SECOND, resident_bytes=pages * _PAGE_BYTES)

    def _find(self, vcpus: int) -> tuple[str, ...]:
        folder = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            with os.scandir(folder) as entries:
                threads = [entry.name for entry in entries]
        finally:
            os.close(folder)
        names = {thread: self._text(f"task/{thread}/comm").strip() for thread in threads}
        found = tuple(
            thread for thread, name in names.items() if name == _ALL_VCPUS or _VCPU.fullmatch(name)
        )
        if len(found) == vcpus or _ALL_VCPUS in names.values():
            self._vcpus = found
        return found

    def _text(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return os.read(fd, 4096).decode(errors="replace")
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._folder)


def plausible(value: int) -> int:
    """A number that somebody told. Raises `ValueError` for one that cannot be."""
    if not 0 <= value < PLAUSIBLE_BELOW:
        raise ValueError("such a number cannot be")
    return value


def disk_counters(answer: object) -> DiskCounters:
    """The sum over the disks in an answer to `query-blockstats`; CDs and firmware are none.

    Raises as looking into an answer of any shape does, and `ValueError`.
    """
    sums = dict.fromkeys(("rd_bytes", "wr_bytes", "rd_operations", "wr_operations"), 0)
    for device in answer if isinstance(answer, list) else []:
        if str(device.get("node-name", "")).startswith("disk"):
            stats = device["stats"]
            for key in sums:
                sums[key] += int(stats[key])
    return DiskCounters(
        read_bytes=plausible(sums["rd_bytes"]),
        write_bytes=plausible(sums["wr_bytes"]),
        reads=plausible(sums["rd_operations"]),
        writes=plausible(sums["wr_operations"]),
    )


def guest_memory(answer: object, *, since: float) -> GuestMemory | None:
    """The memory in an answer about `guest-stats`; None when the guest told nothing since then.

    `since` is a moment of the host's clock (Unix seconds), which QEMU notes with each report.
    """
    if not isinstance(answer, dict) or float(answer.get("last-update", 0)) < since:
        return None
    stats = answer.get("stats", {})
    total = int(stats.get("stat-total-memory", PLAUSIBLE_BELOW))
    available = int(stats.get("stat-available-memory", PLAUSIBLE_BELOW))
    if not 0 <= available <= total < PLAUSIBLE_BELOW:
        return None
    return GuestMemory(used_bytes=total - available, available_bytes=available)
