"""What the host has, what works on it, and what of its disk is promised."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from voidvm.domain.fields import TimeoutS
from voidvm.domain.vm import Value


class AcceleratorInfo(Value, frozen=True, kw_only=True):
    """Whether an accelerator runs guests here: tried, not guessed."""

    works: bool
    reason: str


class Accelerators(Value, frozen=True, kw_only=True):
    """What VMs with accel `auto` get, and why."""

    in_use: Literal["kvm", "tcg"]
    kvm: AcceleratorInfo | None
    tcg: AcceleratorInfo | None


class HostInfo(Value, frozen=True, kw_only=True):
    """The machine."""

    hostname: str
    os: str
    kernel: str
    architecture: str
    booted_at: datetime
    load: Annotated[
        list[float], Meta(description="Processes that want a CPU: of the last 1, 5, 15 minutes.")
    ]
    cpus: int
    memory_bytes: int
    memory_available_bytes: int


class QemuInfo(Value, frozen=True, kw_only=True):
    """The programs that run guests; null: not found."""

    version: str | None
    img_version: str | None


class CgroupInfo(Value, frozen=True, kw_only=True):
    """Whether each guest is held to its CPUs and memory by the kernel."""

    available: bool
    reason: Annotated[str, Meta(description="Where, or why not.")]
    controllers: Annotated[list[str], Meta(description="What is limited: cpu, memory.")] = []


class StorageInfo(Value, frozen=True, kw_only=True):
    """The file system of the data directory; disks are thin, so more may be promised than is."""

    total_bytes: int
    free_bytes: int
    promised_bytes: Annotated[int, Meta(description="What all disks would take if they were full.")]
    used_bytes: Annotated[int, Meta(description="What disks and images take now.")]


class RuntimeInfo(Value, frozen=True, kw_only=True):
    """What the service itself runs on."""

    python: str
    sqlite: str


class DirectoriesInfo(Value, frozen=True, kw_only=True):
    """Where the state lies."""

    data: str
    run: str


class LimitsInfo(Value, frozen=True, kw_only=True):
    """What one caller may use; null: no limit."""

    requests_per_minute: int | None
    websockets_per_user: int | None
    body_bytes: int | None
    upload_bytes: int | None


class EventsInfo(Value, frozen=True, kw_only=True):
    """Where the events are now."""

    epoch: Annotated[str, Meta(description="Another one is another database.")]
    last_id: Annotated[str, Meta(description="The newest event; what comes later follows it.")]


class SystemInfo(Value, frozen=True, kw_only=True):
    """The service and its host."""

    version: str
    uptime: Annotated[float, Meta(description="Seconds since the service started.")]
    started_at: datetime
    runtime: RuntimeInfo
    directories: Annotated[DirectoriesInfo | None, Meta(description="For admins; else null.")]
    limits: LimitsInfo
    events: EventsInfo
    host: HostInfo
    accelerators: Accelerators
    qemu: QemuInfo
    cgroups: CgroupInfo
    storage: StorageInfo
    vms: Annotated[dict[str, int], Meta(description="How many VMs have which status.")]


class PowerOffRequest(Value, frozen=True, kw_only=True):
    """How long all guests together may take; those that do not obey are ended."""

    timeout: TimeoutS = 120


class PowerOff(Value, frozen=True, kw_only=True):
    """What became of the guests that ran, by the names of their VMs, in the order of their ends."""

    powered_off: Annotated[list[str], Meta(description="They obeyed.")]
    ended: Annotated[list[str], Meta(description="They did not obey in time.")]
