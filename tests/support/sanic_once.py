"""What Sanic works out anew for each application, worked out once in a process.

An application compiles its routes and parts of Sanic itself when it starts, half of what a start
takes. They come out the same each time, and tests start hundreds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from inspect import getmembers, getmodule
from types import CodeType
from typing import Any
from unittest import mock

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP
from sanic.touchup.schemes.base import BaseScheme
from sanic.touchup.service import TouchUp
from sanic_routing import router as routing

from voidvm.api.server import create_app

_build = BaseScheme.build
_render = routing.BaseRouter._render
_built: dict[object, Callable[..., Any]] = {}


@cache
def _compiled(source: str) -> CodeType:
    return compile(source, "", "exec")


def _rendered(router: routing.BaseRouter, *_: bool) -> None:
    """As Sanic's own, which also makes a text of what it has compiled, that nobody reads."""
    _render(router, do_compile=False)
    names: dict[str, Any] = {}
    exec(_compiled(router.find_route_src), vars(routing), names)  # noqa: S102 - as Sanic does
    router._find_route = names["find_route"]
    router._matchers = names.get("matchers")


def _rebuilt(method: Callable[..., Any], names: dict[str, Any], app: Sanic) -> Callable[..., Any]:
    """A method without what this application has no use for: signals and versions of HTTP."""
    signals = frozenset(route.name for route in app.signal_router.routes)
    versions = frozenset(info.settings["version"] for info in app.state.server_info)
    key = method, signals, versions
    if key not in _built:
        _built[key] = _build(method, names, app)
    return _built[key]


def remember() -> None:
    """From here on, in this process and its copies."""
    mock.patch.object(routing.BaseRouter, "_render", _rendered).start()
    mock.patch.object(BaseScheme, "build", _rebuilt).start()


def prepare() -> None:
    """Work out what `remember` is about before any application needs it."""
    remember()
    asyncio.run(_prepare())


async def _prepare() -> None:
    app = create_app(mock.Mock(origins=()), body_bytes=0)
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
    app.signalize()
    app.finalize()
    for kind, name in TouchUp._registry:
        _rebuilt(getattr(kind, name), dict(getmembers(getmodule(kind))), app)
    Sanic.unregister_app(app)
