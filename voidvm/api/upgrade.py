"""From a request to a socket: everything is checked while an error is still an HTTP answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sanic import Request

from voidvm import errors
from voidvm.api.clients import NOBODY, address_of, bearer_of, check_access
from voidvm.api.dispatch import error_response, note, read_query
from voidvm.api.gate import Gate
from voidvm.api.routing import Call, Endpoint, Nothing, Q
from voidvm.api.sockets import TOO_MANY, Socket, SocketClosed
from voidvm.bus import AccessChanged, News, SessionEnded
from voidvm.domain.account import Principal

log = logging.getLogger(__name__)

SESSION_ENDED = 4408


@dataclass(frozen=True, kw_only=True)
class SocketCall(Call[Nothing, Q]):
    """A request for a socket; the caller is not known yet."""

    upgrade: Upgrade


class Upgrade:
    """One request's way to its socket; a handler admits the caller, then opens."""

    def __init__(self, request: Request, endpoint: Endpoint, gate: Gate, stack: ExitStack) -> None:
        self.socket: Socket | None = None
        self._request = request
        self._endpoint = endpoint
        self._gate = gate
        self._stack = stack

    @property
    def bearer(self) -> str | None:
        """The credential of the `Authorization` header."""
        return bearer_of(self._request)

    @property
    def offers(self) -> list[str]:
        """The subprotocols that the client offers."""
        header = self._request.headers.get("sec-websocket-protocol", "")
        return [offer.strip() for offer in header.split(",") if offer.strip()]

    def check_origin(self) -> None:
        """Raise `OriginRefused` for a browser page that is not ours or configured.

        A page of somebody else's must not use what its visitor's browser can reach.
        """
        origin = self._request.headers.get("origin")
        own = {f"http://{self._request.host}", f"https://{self._request.host}"}
        if origin is not None and origin not in own and origin not in self._gate.origins:
            raise errors.OriginRefused(origin=origin)

    async def admit(self, principal: Principal) -> None:
        """Take the caller in. Raises `Forbidden`, `PasswordChangeRequired`, `RateLimited`."""
        self._request.ctx.principal = principal
        self._request.ctx.limits = await self._gate.requests.take("user", principal.user_id)
        check_access(principal, self._endpoint)

    def open(self, principal: Principal, *, subprotocol: str | None = None) -> Socket:
        """Send the 101; the socket closes when the caller loses its access.

        Raises `SocketClosed` when the caller has too many sockets open: it is told so by the
        close code, since pages see no HTTP status.
        """
        connection = self._request.transport.get_protocol()
        socket: Socket = connection.upgrade(self._request, subprotocol=subprotocol)
        self.socket = socket
        note(self._request, self._endpoint, self._gate, status=101)
        if not self._stack.enter_context(self._gate.sockets.taken(principal.user_id)):
            socket.close(TOO_MANY, "too many sockets")
            raise SocketClosed
        self._stack.enter_context(_closed_with_access(socket, principal, self._gate))
        return socket


@contextmanager
def _closed_with_access(socket: Socket, principal: Principal, gate: Gate) -> Iterator[None]:
    def close() -> None:
        socket.close(SESSION_ENDED, "the session ended")

    def on_news(news: News) -> None:
        if (isinstance(news, SessionEnded) and news.session_id == principal.session_id) or (
            isinstance(news, AccessChanged)
            and news.user_id == principal.user_id
            and news.but != principal.session_id
        ):
            close()

    timer = None
    if principal.is_token and principal.expires_at is not None:
        left_s = (principal.expires_at - datetime.now(UTC)).total_seconds()
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), close)
    unsubscribe = gate.bus.subscribe(on_news)
    try:
        yield
    finally:
        unsubscribe()
        if timer is not None:
            timer.cancel()


def socket_handler(endpoint: Endpoint, gate: Gate) -> Callable[..., Awaitable[object]]:
    """The server's handler of a socket endpoint; the endpoint's own one gets `call.upgrade`."""

    async def handle(request: Request, **path: str) -> object:
        request.ctx.address = address_of(request, gate.proxies)
        with ExitStack() as stack:
            upgrade = Upgrade(request, endpoint, gate, stack)
            try:
                call = SocketCall(
                    services=gate.services,
                    principal=NOBODY,
                    path=path,
                    body=Nothing(),
                    query=read_query(request, endpoint),
                    address=request.ctx.address,
                    request=request,
                    upgrade=upgrade,
                )
                await endpoint.handler(call)
            except SocketClosed:
                pass
            except Exception as error:
                if upgrade.socket is None:
                    return await _refusal(request, endpoint, gate, error)
                log.exception("socket of request %s failed", request.ctx.request_id)
                upgrade.socket.close(1011, "internal error")
            if upgrade.socket is not None:
                upgrade.socket.close()
        return None

    handle.__name__ = endpoint.name
    handle.is_websocket = True  # type: ignore[attr-defined]  # the server then expects no answer
    return handle


async def _refusal(request: Request, endpoint: Endpoint, gate: Gate, error: Exception) -> object:
    if not hasattr(request.ctx, "principal"):
        try:
            request.ctx.limits = await gate.requests.take("address", request.ctx.address)
        except errors.RateLimited as limited:
            error = limited
    response = error_response(request, error)
    note(request, endpoint, gate, status=response.status)
    return response
