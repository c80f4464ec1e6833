"""The service itself."""

from __future__ import annotations

from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.health import Health
from voidvm.domain.permission import Permission
from voidvm.domain.system import SystemInfo


@endpoint("GET", "/health", access=Access.PUBLIC, returns=Health, is_limited=False)
async def get_health(call: Call[Nothing, Nothing]) -> Answer:
    """Whether the service works; needs no credential."""
    health = call.services.host.health()
    # Probes of load balancers and scripts look for `status` at the top.
    return Answer(data=health, beside={"status": health.status})


@endpoint("GET", "/system/info", access=Permission.SYSTEM_READ, returns=SystemInfo)
async def get_system_info(call: Call[Nothing, Nothing]) -> Answer:
    """What the host has, whether KVM works on it or why not, and what of its disk is promised."""
    return Answer(data=await call.services.host.info())
