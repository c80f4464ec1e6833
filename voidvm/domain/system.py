"""What the host has, what works on it, and what of its disk is promised."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

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
    cpus: int
    memory_bytes: int
    memory_available_bytes: int


class QemuInfo(Value, frozen=True, kw_only=True):
    """The programs that run guests; null: not found."""

    version: str | None
    img_version: str | None


class StorageInfo(Value, frozen=True, kw_only=True):
    """The file system of the data directory; disks are thin, so more may be promised than is."""

    total_bytes: int
    free_bytes: int
    promised_bytes: Annotated[int, Meta(description="What all disks would take if they were full.")]
    used_bytes: Annotated[int, Meta(description="What disks and images take now.")]


class SystemInfo(Value, frozen=True, kw_only=True):
    """The service and its host."""

    version: str
    uptime: Annotated[float, Meta(description="Seconds since the service started.")]
    host: HostInfo
    accelerators: Accelerators
    qemu: QemuInfo
    storage: StorageInfo
    vms: Annotated[dict[str, int], Meta(description="How many VMs have which status.")]
