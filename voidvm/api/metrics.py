"""What VMs and the host use."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from voidvm import errors
from voidvm.api.routing import Answer, Call, Nothing, endpoint
from voidvm.domain.metrics import HostMetrics, Period, VmMetrics
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value

Begin = Annotated[datetime, Meta(tz=True, description="RFC 3339; else an hour before `to`.")]
End = Annotated[datetime, Meta(tz=True, description="RFC 3339; else now.")]


class VmMetricsQuery(Value, frozen=True, kw_only=True, rename={"since": "from", "until": "to"}):
    """Which time."""

    since: Begin | None = None
    until: End | None = None


class HostMetricsQuery(Value, frozen=True, kw_only=True):
    """Which time."""

    period: Period = "1h"


@endpoint(
    "GET",
    "/vms/{vm}/metrics",
    access=Permission.VM_READ,
    query=VmMetricsQuery,
    returns=VmMetrics,
    errors=(errors.VmNotFound,),
)
async def get_vm_metrics(call: Call[Nothing, VmMetricsQuery]) -> Answer:
    """CPU, memory, disk and network traffic of a VM, now and in the past.

    The history has steps of 5 seconds for an hour, a minute for a day and 15 minutes for 30 days:
    the answer has the finest that reach back to `from` and are no more than 1,500.
    """
    query = call.query
    found = await call.services.metrics.of_vm(
        call.principal, call.vm, since=query.since, until=query.until
    )
    return Answer(data=found)


@endpoint(
    "GET",
    "/system/stats",
    access=Permission.SYSTEM_READ,
    query=HostMetricsQuery,
    returns=HostMetrics,
)
async def get_system_stats(call: Call[Nothing, HostMetricsQuery]) -> Answer:
    """CPU, memory, disk and network traffic of the host, and how many VMs there are."""
    return Answer(data=await call.services.metrics.of_host(call.query.period))
