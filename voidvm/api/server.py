"""The Sanic application: routes from the endpoint records, errors, request ids, CORS."""

from __future__ import annotations

import re
import time
from uuid import uuid4

from sanic import Request, Sanic
from sanic.config import Config
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

# Importing a noun registers its endpoints.
from voidvm.api import (
    audit,
    auth,
    console,
    disks,
    docs,
    events,
    images,
    metrics,
    operations,
    roles,
    system,
    tokens,
    users,
    vms,
)
from voidvm.api.dispatch import http_handler, refuse_unrouted
from voidvm.api.gate import Gate
from voidvm.api.live import ws
from voidvm.api.routing import BASE, ENDPOINTS
from voidvm.api.upgrade import socket_handler
from voidvm.live_settings import NO_CAP_BYTES

NOUNS = (
    audit,
    auth,
    console,
    disks,
    docs,
    events,
    images,
    metrics,
    operations,
    roles,
    system,
    tokens,
    users,
    vms,
    ws,
)

# Above the longest stop and wait that a client may ask for.
LONGEST_ANSWER_S = 3 * 3600
_EXPOSED = [
    *("x-request-id", "location", "etag", "x-console-offset", "retry-after"),
    *("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "idempotency-replayed"),
    *("upload-offset", "upload-length"),
]
# What a page of another origin may send.
_ALLOWED = [
    *("authorization", "content-type", "idempotency-key", "if-match", "prefer"),
    *("upload-offset", "x-request-id"),
]
# What a client may name its request; anything else is named by us.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Errors(ErrorHandler):  # type: ignore[misc]  # Sanic's class has no types
    """Sanic's hook for failures, which answers all of them in the envelope."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Any failure that no other handler has taken: of addresses that are not there."""
        return await refuse_unrouted(request, exception, self._gate)


def create_app(gate: Gate, *, body_bytes: int) -> Sanic:
    """The application, ready to be served."""
    origins = sorted(gate.origins)
    config = Config(env_prefix=None)
    config.update(
        {
            "ACCESS_LOG": False,
            "REQUEST_MAX_SIZE": body_bytes or NO_CAP_BYTES,
            "RESPONSE_TIMEOUT": LONGEST_ANSWER_S,
            "KEEP_ALIVE_TIMEOUT": 75,
            "FALLBACK_ERROR_FORMAT": "json",
            "OAS": False,
            "HEALTH": False,
            # It imports sanic-ext to tell its version.
            "MOTD": False,
            # Nothing is served beside the endpoints but, with origins, the answers to preflights.
            "AUTO_EXTEND": False,
            "HTTP_ALL_METHODS": False,
            "HTTP_AUTO_HEAD": False,
            "CORS": bool(origins),
            "CORS_ORIGINS": origins,
            "CORS_ALLOW_HEADERS": _ALLOWED,
            "CORS_EXPOSE_HEADERS": _EXPOSED,
        }
    )
    app = Sanic("voidvm", config=config, error_handler=_Errors(gate), configure_logging=False)
    # Of sanic-ext only CORS; its own description of an API writes invalid schemas for structs.
    if origins:
        from sanic_ext import Extend  # noqa: PLC0415 - seven megabytes that few have a use for
        from sanic_ext.extensions.http.extension import HTTPExtension  # noqa: PLC0415 - as above

        Extend(app, extensions=[HTTPExtension], built_in_extensions=False)
    for endpoint in ENDPOINTS:
        handler = (socket_handler if endpoint.holds_connection else http_handler)(endpoint, gate)
        for number, route in enumerate(endpoint.routes):
            app.add_route(
                handler,
                route,
                methods=endpoint.methods,
                name=f"{endpoint.name}_{number}" if number else endpoint.name,
                unquote=True,
                stream=endpoint.streams is not None,
                # Unsaid, Sanic reads each handler's source to find it out: a fifth of a second.
                error_format="json",
            )

    async def end_errands(_app: Sanic) -> None:
        await gate.errands.end()

    app.before_server_stop(end_errands)
    app.on_request(_number)
    app.on_response(_sign)
    return app


async def _number(request: Request) -> None:
    request.ctx.started = time.perf_counter()
    wanted = request.headers.get("x-request-id", "")
    request.ctx.request_id = wanted if _REQUEST_ID.fullmatch(wanted) else uuid4().hex


async def _sign(request: Request, response: HTTPResponse) -> None:
    if hasattr(request.ctx, "request_id"):
        response.headers["x-request-id"] = request.ctx.request_id
    for name, value in getattr(request.ctx, "limits", {}).items():
        response.headers[name] = value
    response.headers.setdefault("cache-control", "no-store")
    response.headers.setdefault("x-content-type-options", "nosniff")


__all__ = ["BASE", "NOUNS", "create_app"]
