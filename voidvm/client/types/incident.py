"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.incident`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from voidvm.client.record import Record
from voidvm.client.types.states import VmStatus


class HostPressure(Record):
    """How much was asked of the host at a moment."""

    load: list[float]
    memory_total_bytes: int
    memory_available_bytes: int
    swap_free_bytes: int
    stalled: dict[str, float]


class Incident(Record):
    """What is known of one unexpected end; `paused`: the guest's, while its QEMU lives on."""

    id: str
    at: datetime
    status: VmStatus
    reason: str
    exit_status: int | None
    signal: str | None
    out_of_memory: list[str]
    stderr: str
    qmp_events: list[QmpEvent]
    console: str
    command_line: list[str]
    host: HostPressure | None


class QmpEvent(Record):
    """Something that QEMU said by itself."""

    at: datetime | None
    event: str
    data: Any
