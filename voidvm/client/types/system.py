"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.system`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record


class AcceleratorInfo(Record):
    """Whether an accelerator runs guests here: tried, not guessed."""

    works: bool
    reason: str


class Accelerators(Record):
    """What VMs with accel `auto` get, and why."""

    in_use: Literal["kvm", "tcg"]
    kvm: AcceleratorInfo | None
    tcg: AcceleratorInfo | None


class CgroupInfo(Record):
    """Whether each guest is held to its CPUs and memory by the kernel."""

    available: bool
    reason: str
    controllers: list[str]


class DirectoriesInfo(Record):
    """Where the state lies."""

    data: str
    run: str


class EventsInfo(Record):
    """Where the events are now."""

    epoch: str
    last_id: str


class HostInfo(Record):
    """The machine."""

    hostname: str
    os: str
    kernel: str
    architecture: str
    booted_at: datetime
    load: list[float]
    cpus: int
    memory_bytes: int
    memory_available_bytes: int


class LimitsInfo(Record):
    """What one caller may use; null: no limit."""

    requests_per_minute: int | None
    websockets_per_user: int | None
    body_bytes: int | None
    upload_bytes: int | None


class PowerOff(Record):
    """What became of the guests that ran, by the names of their VMs, in the order of their ends."""

    powered_off: list[str]
    ended: list[str]


class QemuInfo(Record):
    """The programs that run guests; null: not found."""

    version: str | None
    img_version: str | None


class RuntimeInfo(Record):
    """What the service itself runs on."""

    python: str
    sqlite: str


class StorageInfo(Record):
    """The file system of the data directory; disks are thin, so more may be promised than is."""

    total_bytes: int
    free_bytes: int
    promised_bytes: int
    used_bytes: int


class SystemInfo(Record):
    """The service and its host."""

    version: str
    uptime: float
    started_at: datetime
    runtime: RuntimeInfo
    directories: DirectoriesInfo | None
    limits: LimitsInfo
    events: EventsInfo
    host: HostInfo
    accelerators: Accelerators
    qemu: QemuInfo
    cgroups: CgroupInfo
    storage: StorageInfo
    vms: dict[str, int]
