"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.metrics`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from voidvm.client.record import Record


class HostCpu(Record):
    """The host's CPUs."""

    percent: float
    per_core: list[float]
    load1: float


class HostMemory(Record):
    """The host's memory."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    swap_used_bytes: int


class HostMetrics(Record):
    """What the host used in a time."""

    period: Literal["1h", "24h", "7d", "30d"]
    resolution: int
    samples: list[HostSample]
    latest: HostSample | None


class HostNetwork(Record):
    """The traffic of the host's network cards, loopback not counted."""

    receive_bytes_per_second: float
    transmit_bytes_per_second: float


class HostSample(Record):
    """The host at one moment."""

    at: datetime
    cpu: HostCpu
    memory: HostMemory
    disk: HostDisk
    network: HostNetwork
    vms: VmCounts


class IoRates(Record):
    """The traffic of disks."""

    read_bytes_per_second: float
    write_bytes_per_second: float
    reads_per_second: float
    writes_per_second: float


class NetRates(Record):
    """The traffic of network cards, seen from the guest."""

    receive_bytes_per_second: float | None
    transmit_bytes_per_second: float | None
    receive_packets_per_second: float | None
    transmit_packets_per_second: float | None


class VmCounts(Record):
    """How many VMs there are."""

    total: int
    running: int


class VmCpu(Record):
    """The guest's CPUs."""

    percent: float
    count: int


class VmMemory(Record):
    """The guest's memory, as the host and as the guest see it."""

    resident_bytes: int
    limit_bytes: int
    balloon_bytes: int | None
    guest_used_bytes: int | None
    guest_available_bytes: int | None


class VmMetrics(Record):
    """What a VM used in a time; there is no sample of when it was off."""

    vm_id: str
    since: datetime
    until: datetime
    resolution: int
    samples: list[VmSample]
    latest: VmSample | None

    _renamed: ClassVar[dict[str, str]] = {"since": "from", "until": "to"}


class VmSample(Record):
    """One VM at one moment."""

    vm_id: str
    at: datetime
    cpu: VmCpu
    memory: VmMemory
    disk: IoRates | None
    network: NetRates | None


class HostDisk(Record):
    """The file system of the data directory, and the traffic of the host's disks."""

    read_bytes_per_second: float
    write_bytes_per_second: float
    reads_per_second: float
    writes_per_second: float
    total_bytes: int
    used_bytes: int
    free_bytes: int
