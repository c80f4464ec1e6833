"""What is measured: of each VM that runs, and of the host.

Rates are means over the time since the sample before. A value that this VM, or its guest, cannot
give is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from voidvm.domain.vm import Value


class VmCpu(Value, frozen=True, kw_only=True):
    """The guest's CPUs."""

    percent: Annotated[float, Meta(description="Of all its vCPUs: 100 is all of them busy.")]
    count: int


class VmMemory(Value, frozen=True, kw_only=True):
    """The guest's memory, as the host and as the guest see it."""

    resident_bytes: Annotated[int, Meta(description="What its QEMU takes of the host's memory.")]
    limit_bytes: Annotated[int, Meta(description="What the VM was given.")]
    balloon_bytes: Annotated[int | None, Meta(description="What the balloon leaves the guest.")]
    guest_used_bytes: Annotated[int | None, Meta(description="In use, as the guest sees it.")]
    guest_available_bytes: Annotated[
        int | None, Meta(description="Free without swapping, as the guest sees it.")
    ]


class IoRates(Value, frozen=True, kw_only=True):
    """The traffic of disks."""

    read_bytes_per_second: float
    write_bytes_per_second: float
    reads_per_second: float
    writes_per_second: float


class NetRates(Value, frozen=True, kw_only=True):
    """The traffic of network cards, seen from the guest.

    Its agent tells it: QEMU's user-mode network counts nothing. Null without an agent.
    """

    receive_bytes_per_second: float | None
    transmit_bytes_per_second: float | None
    receive_packets_per_second: float | None
    transmit_packets_per_second: float | None


class VmSample(Value, frozen=True, kw_only=True):
    """One VM at one moment."""

    vm_id: str
    at: datetime
    cpu: VmCpu
    memory: VmMemory
    disk: Annotated[
        IoRates | None,
        Meta(description="Null in the first round, and while QEMU does not answer."),
    ]
    network: Annotated[
        NetRates | None,
        Meta(
            description="Null unless the guest runs the QEMU guest agent, which counts it: "
            "user-mode networking does not."
        ),
    ]


class VmCounters(Struct, frozen=True, kw_only=True):
    """What only grows while a QEMU lives; rates are made of two of these."""

    cpu_seconds: float
    resident_bytes: int
    read_bytes: int | None = None
    write_bytes: int | None = None
    reads: int | None = None
    writes: int | None = None
    receive_bytes: int | None = None
    transmit_bytes: int | None = None
    receive_packets: int | None = None
    transmit_packets: int | None = None


class HostCpu(Value, frozen=True, kw_only=True):
    """The host's CPUs."""

    percent: float
    per_core: list[float]
    load1: float


class HostMemory(Value, frozen=True, kw_only=True):
    """The host's memory."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    swap_used_bytes: int


class HostDisk(IoRates, frozen=True, kw_only=True):
    """The file system of the data directory, and the traffic of the host's disks."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


class HostNetwork(Value, frozen=True, kw_only=True):
    """The traffic of the host's network cards, loopback not counted."""

    receive_bytes_per_second: float
    transmit_bytes_per_second: float


class VmCounts(Value, frozen=True, kw_only=True):
    """How many VMs there are."""

    total: int
    running: int


class HostSample(Value, frozen=True, kw_only=True):
    """The host at one moment."""

    at: datetime
    cpu: HostCpu
    memory: HostMemory
    disk: HostDisk
    network: HostNetwork
    vms: VmCounts


Period = Literal["1h", "24h", "7d", "30d"]
Resolution = Annotated[int, Meta(description="Seconds that one sample is the mean of.")]


class VmMetrics(
    Value,
    frozen=True,
    kw_only=True,
    rename={"vm_id": "vmId", "since": "from", "until": "to"},
):
    """What a VM used in a time; there is no sample of when it was off."""

    vm_id: str
    since: datetime
    until: datetime
    resolution: Resolution
    samples: Annotated[
        list[VmSample], Meta(description="Oldest first; `at` is where its time begins.")
    ]
    latest: Annotated[VmSample | None, Meta(description="The newest; null while it is off.")]


class HostMetrics(Value, frozen=True, kw_only=True):
    """What the host used in a time."""

    period: Period
    resolution: Resolution
    samples: Annotated[
        list[HostSample], Meta(description="Oldest first; `at` is where its time begins.")
    ]
    latest: Annotated[HostSample | None, Meta(description="Null in the service's first second.")]
