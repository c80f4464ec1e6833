"""The service itself: its health, its figures, its host, its settings."""

from __future__ import annotations

from msgspec import Struct

from voidvm import errors
from voidvm.api.responses import language
from voidvm.api.routing import Access, Answer, Call, Nothing, RawAnswer, endpoint
from voidvm.domain.health import Health
from voidvm.domain.permission import Permission
from voidvm.domain.system import PowerOff, PowerOffRequest, SystemInfo
from voidvm.live_settings import Config, ConfigPatch, check, touched


@endpoint(
    "GET",
    "/health",
    access=Access.PUBLIC,
    returns=Health,
    is_limited=False,
)
async def get_health(call: Call[Nothing, Nothing]) -> Answer:
    """Whether the service works; needs no credential.

    `degraded` is answered with 200, too: what works is of use. 503 only without the database.
    """
    health = call.services.host.health(language(call.request))
    # Probes of load balancers and scripts look for `status` at the top.
    return Answer(data=health, beside={"status": health.status})


@endpoint(
    "GET", "/metrics", access=Permission.SYSTEM_READ, media_type="text/plain", is_limited=False
)
async def get_metrics(call: Call[Nothing, Nothing]) -> RawAnswer:
    """Figures for Prometheus: of the service, the host, and the caller's VMs; admins see all.

    Text format 0.0.4, or OpenMetrics 1.0 where `Accept` asks for it. The limit of requests does
    not count scrapes.
    """
    body, content_type = await call.services.exposition.scrape(
        call.principal, accept=call.request.headers.get("accept", "")
    )
    return RawAnswer(body=body, content_type=content_type)


@endpoint("GET", "/system/info", access=Permission.SYSTEM_READ, returns=SystemInfo)
async def get_system_info(call: Call[Nothing, Nothing]) -> Answer:
    """What the host has, whether KVM works on it or why not, and what of its disk is promised."""
    return Answer(data=await call.services.host.info(call.principal))


@endpoint(
    "POST",
    "/system/guests/poweroff",
    access=Permission.SYSTEM_ADMIN,
    body=PowerOffRequest,
    returns=PowerOff,
    done=("All guests are off.", "所有客户机均已关闭。"),
)
async def power_off_guests(call: Call[PowerOffRequest, Nothing]) -> Answer:
    """Power off everybody's guests, as when the host goes down; answers when they are off.

    VMs without autostart first, then the others by falling `order`, those of one order together;
    each such group has an equal share of the time that is left. What was running still counts as
    wanted, so that it may come back with the host.
    """
    return Answer(data=await call.services.host_power.power_off(timeout_s=call.body.timeout))


@endpoint("GET", "/config", access=Permission.SYSTEM_ADMIN, returns=Config)
async def get_config(call: Call[Nothing, Nothing]) -> Answer:
    """The settings that may change at run time, and where each of them comes from."""
    return _config(call)


@endpoint(
    "PUT",
    "/config",
    access=Permission.SYSTEM_ADMIN,
    body=ConfigPatch,
    returns=Config,
    done=("Settings changed.", "设置已更改。"),
    errors=(errors.SettingFixed, errors.PlanInUse, errors.PreconditionFailed),
)
async def put_config(call: Call[Struct, Nothing]) -> Answer:
    """Change settings, at once and across restarts: those that the body has, all or none.

    null takes a change back: the file's value, or the default, is in force again. What the
    environment sets is fixed, since it wins over all others.
    """
    values = check(call.body)
    call.request.ctx.target = ", ".join(touched(values)) or None
    await call.services.configuration.change(values, call.precondition)
    return _config(call)


def _config(call: Call[Struct, Nothing] | Call[Nothing, Nothing]) -> Answer:
    configuration = call.services.configuration
    return Answer(data=configuration.show(), headers={"etag": configuration.etag})
