"""What the whole host uses."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import psutil
from msgspec import Struct

from voidvm.domain.metrics import (
    HostCpu,
    HostDisk,
    HostMemory,
    HostNetwork,
    HostSample,
    VmCounts,
)

LOOPBACK = "lo"


class HostReading(Struct, frozen=True, kw_only=True):
    """The host's counters and levels at a moment (monotonic seconds)."""

    at: float
    cores: list[tuple[float, float]]
    """Of each CPU the seconds that it was busy, and all seconds."""
    load1: float
    memory: HostMemory
    total_bytes: int
    used_bytes: int
    free_bytes: int
    disk: tuple[int, int, int, int]
    """Bytes read and written, reads and writes."""
    network: tuple[int, int]
    """Bytes received and sent."""


def read_host(data: Path) -> HostReading:
    """What the host uses now; `data` lies on the file system that is told of."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    files = os.statvfs(data)
    disks = psutil.disk_io_counters(nowrap=False)
    cards = psutil.net_io_counters(pernic=True, nowrap=False)
    cards.pop(LOOPBACK, None)
    return HostReading(
        at=time.monotonic(),
        cores=[_seconds(core) for core in psutil.cpu_times(percpu=True)],
        load1=os.getloadavg()[0],
        memory=HostMemory(
            total_bytes=memory.total,
            used_bytes=memory.used,
            available_bytes=memory.available,
            swap_used_bytes=swap.used,
        ),
        total_bytes=files.f_blocks * files.f_frsize,
        used_bytes=(files.f_blocks - files.f_bfree) * files.f_frsize,
        free_bytes=files.f_bavail * files.f_frsize,
        disk=(
            (disks.read_bytes, disks.write_bytes, disks.read_count, disks.write_count)
            if disks
            else (0, 0, 0, 0)
        ),
        network=(
            sum(card.bytes_recv for card in cards.values()),
            sum(card.bytes_sent for card in cards.values()),
        ),
    )


def _seconds(times: psutil._pslinux.scputimes) -> tuple[float, float]:
    # Linux counts the time of guests as their CPUs' user time, too.
    total = sum(times) - times.guest - times.guest_nice
    return total - times.idle - times.iowait, total


def host_sample(
    before: HostReading, now: HostReading, *, at: datetime, vms: VmCounts
) -> HostSample:
    """The host between two readings."""
    spans = [
        (max(0.0, busy - busy_before), max(0.0, total - total_before))
        for (busy, total), (busy_before, total_before) in zip(now.cores, before.cores, strict=False)
    ]
    busy, total = (sum(parts) for parts in zip(*spans, strict=True))
    span = now.at - before.at
    reads = _rates(before.disk, now.disk, span)
    receive, transmit = _rates(before.network, now.network, span)
    return HostSample(
        at=at,
        cpu=HostCpu(
            percent=_percent(busy, total),
            per_core=[_percent(*one) for one in spans],
            load1=now.load1,
        ),
        memory=now.memory,
        disk=HostDisk(
            read_bytes_per_second=reads[0],
            write_bytes_per_second=reads[1],
            reads_per_second=reads[2],
            writes_per_second=reads[3],
            total_bytes=now.total_bytes,
            used_bytes=now.used_bytes,
            free_bytes=now.free_bytes,
        ),
        network=HostNetwork(receive_bytes_per_second=receive, transmit_bytes_per_second=transmit),
        vms=vms,
    )


def _percent(busy: float, total: float) -> float:
    return round(min(100.0, 100 * busy / total), 2) if total > 0 else 0.0


def _rates(before: tuple[int, ...], now: tuple[int, ...], span: float) -> list[float]:
    """A counter that fell began anew, with its card or disk: no traffic that is known of."""
    if span <= 0:
        return [0.0] * len(now)
    return [round(max(0, new - old) / span, 2) for old, new in zip(before, now, strict=True)]
