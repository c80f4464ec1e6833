"""What is kept of a VM's unexpected end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Value


class HostPressure(Value, frozen=True, kw_only=True):
    """How much was asked of the host at a moment."""

    load: Annotated[list[float], Meta(description="Means of 1, 5 and 15 minutes.")]
    memory_total_bytes: int
    memory_available_bytes: int
    swap_free_bytes: int
    stalled: Annotated[
        dict[str, float],
        Meta(
            description="Percent of the last ten seconds in which some or all tasks waited, like "
            "`memory.full` (/proc/pressure); empty where the kernel does not tell.",
        ),
    ]


class QmpEvent(Value, frozen=True, kw_only=True):
    """Something that QEMU said by itself."""

    at: datetime | None = None
    event: str
    data: Annotated[Any, Meta(description="As QEMU gave it; the beginning of it when too long.")]


class Incident(Value, frozen=True, kw_only=True):
    """What is known of one unexpected end; `paused`: the guest's, while its QEMU lives on."""

    id: str
    at: datetime
    status: VmStatus
    reason: str
    exit_status: int | None
    signal: str | None
    out_of_memory: Annotated[
        list[str], Meta(description="What speaks for a lack of memory; empty: nothing does.")
    ] = []
    stderr: Annotated[str, Meta(description="The end of what QEMU wrote.")]
    qmp_events: Annotated[list[QmpEvent], Meta(description="The newest ones, oldest first.")]
    console: Annotated[str, Meta(description="The last console bytes, as text.")]
    command_line: list[str]
    host: Annotated[HostPressure | None, Meta(description="null: nobody was there to look.")] = None
