"""From a request to a socket or stream: all is checked while an error is still an HTTP answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from sanic import Request

from voidvm import errors
from voidvm.api.clients import NOBODY, address_of, bearer_of, check_access, network_of
from voidvm.api.dispatch import error_response, note, note_action, read_query
from voidvm.api.gate import Gate
from voidvm.api.responses import language
from voidvm.api.routing import EVENT_STREAM, Call, Endpoint, Nothing, Q
from voidvm.api.sockets import MESSAGE_MAX_BYTES, TOO_MANY, Socket, SocketClosed
from voidvm.api.staying import concerns
from voidvm.api.streams import EventStream, StreamClosed
from voidvm.bus import AccessChanged, News, SessionEnded
from voidvm.domain.account import Principal
from voidvm.errors import VoidVMError
from voidvm.services.accounts import Accounts

log = logging.getLogger(__name__)

SESSION_ENDED = 4408
# Before the status of an error, as the code of a close frame: 4401, 4403, 4429.
REFUSED = 4000
# The clock may be set, so a far expiry is looked at now and then.
LOOK_AGAIN_S = 3600.0
# When a client that has too many sockets open may try again.
TRY_AGAIN_S = 5


@dataclass(frozen=True, kw_only=True)
class SocketCall(Call[Nothing, Q]):
    """A request for a socket or a stream; the caller is not known yet."""

    upgrade: Upgrade


class Upgrade:
    """One request's way to its socket or stream; a handler admits the caller, then opens."""

    def __init__(self, request: Request, endpoint: Endpoint, gate: Gate, stack: ExitStack) -> None:
        self.socket: Socket | EventStream | None = None
        self._principal: Principal | None = None
        self._watch = _Watch(gate.services.accounts)
        stack.callback(gate.bus.subscribe(self._watch.hear))
        self._request = request
        self._endpoint = endpoint
        self._stack = stack
        # The place of a socket whose caller is not known yet.
        self._stranger = stack.enter_context(ExitStack())
        self.gate = gate

    @property
    def bearer(self) -> str | None:
        """The credential of the `Authorization` header."""
        return bearer_of(self._request)

    @property
    def is_handshake(self) -> bool:
        """Whether the request asks for a WebSocket at all."""
        return str(self._request.headers.get("upgrade", "")).lower() == "websocket"

    @property
    def has_authorization(self) -> bool:
        """Whether there is such a header, whatever it holds."""
        return "authorization" in self._request.headers

    @property
    def language(self) -> str:
        """The language for the caller: "en" or "zh"."""
        return language(self._request)

    @property
    def offers(self) -> list[str]:
        """The subprotocols that the client offers."""
        header = self._request.headers.get("sec-websocket-protocol", "")
        return [offer.strip() for offer in header.split(",") if offer.strip()]

    async def admit(self, principal: Principal) -> None:
        """Take the caller in. Raises `Forbidden`, `PasswordChangeRequired`, `RateLimited`."""
        self._request.ctx.principal = principal
        self._request.ctx.limits = await self.gate.requests.take("user", principal.user_id)
        check_access(principal, self._endpoint)
        self._principal = principal

    def open(
        self, *, subprotocol: str | None = None, message_max_bytes: int = MESSAGE_MAX_BYTES
    ) -> Socket:
        """Send the 101; the socket closes when the caller loses its access.

        Raises `SocketClosed` when the caller has too many sockets open: it is told so by the
        close code, since pages see no HTTP status.
        """
        principal = self._admitted()
        socket = self._send_101(subprotocol, message_max_bytes)
        self._belong_to(principal, socket)
        return socket

    async def open_for_stranger(
        self, *, subprotocol: str | None = None, message_max_bytes: int
    ) -> Socket:
        """Send the 101 to somebody who will say on the socket who it is; `adopt` comes next.

        Counted as an attempt of its address, which has so many places for such sockets as a user
        has for its own. Raises `RateLimited`, and `SocketClosed` as `open`.
        """
        self._request.ctx.principal = NOBODY
        network = network_of(self._request.ctx.address)
        self._request.ctx.limits = await self.gate.requests.take("address", network)
        socket = self._send_101(subprotocol, message_max_bytes)
        self._take_place(f"address {network}", self._stranger, socket)
        return socket

    async def adopt(self, principal: Principal) -> None:
        """The stranger is this user. Raises as `admit` and `open`."""
        if not isinstance(self.socket, Socket):
            raise RuntimeError("there is no stranger")  # noqa: TRY004 - a bug, not a wrong type
        await self.admit(principal)
        self._stranger.close()
        self._belong_to(principal, self.socket)

    def dismiss(self, error: VoidVMError) -> None:
        """Note that the stranger was refused, and close its socket with the status' code."""
        context = self._request.ctx
        context.error_code = error.code
        context.is_old = error.fields.get("is_news", True) is False
        note(self._request, self._endpoint, self.gate, status=error.status)
        if self.socket is not None:
            self.socket.close(REFUSED + error.status, error.message())

    async def count(self) -> None:
        """Count something that the caller asks for on its socket. Raises `RateLimited`."""
        if self._principal is not None:
            await self.gate.requests.take("user", self._principal.user_id)

    def note(self, action: str, *, target: str, failure: VoidVMError | None) -> None:
        """Put what was done on the socket, or tried, into the audit log."""
        if failure is not None and failure.fields.get("is_news", True) is False:
            return
        note_action(
            self._request,
            self.gate,
            action=action,
            target=target,
            status=200 if failure is None else failure.status,
            code=None if failure is None else failure.code,
        )

    def begin_errand(self, work: Coroutine[None, None, None], *, name: str) -> None:
        """Run `work`, which goes on when the socket ends."""
        self.gate.errands.begin(work, name=name)

    def _send_101(self, subprotocol: str | None, message_max_bytes: int) -> Socket:
        connection = self._request.transport.get_protocol()
        socket: Socket = connection.upgrade(
            self._request, subprotocol=subprotocol, message_max_bytes=message_max_bytes
        )
        self._count(socket)
        return socket

    def _belong_to(self, principal: Principal, socket: Socket) -> None:
        note(self._request, self._endpoint, self.gate, status=101)
        self._take_place(principal.user_id, self._stack, socket)
        self._watch.begin(socket, principal)
        self._stack.callback(self._watch.end)

    def _take_place(self, whose: str, stack: ExitStack, socket: Socket) -> None:
        if not self._has_place(whose, stack):
            socket.close(TOO_MANY, "too many sockets")
            raise SocketClosed

    def open_stream(self) -> EventStream:
        """Begin to answer with events; it ends as a socket does, and counts as one.

        Raises `RateLimited` when the caller has too many open.
        """
        principal = self._admitted()
        if not self._has_place(principal.user_id, self._stack):
            raise errors.RateLimited("too many streams and sockets", retry_after=TRY_AGAIN_S)
        request = self._request
        headers = {
            "content-type": f"{EVENT_STREAM}; charset=utf-8",
            "cache-control": "no-store",
            "connection": "close",
            "x-content-type-options": "nosniff",
            # Proxies such as nginx would collect events otherwise.
            "x-accel-buffering": "no",
            "x-request-id": request.ctx.request_id,
            **request.ctx.limits,
        }
        origin = request.headers.get("origin", "")
        if origin.lower() in self.gate.origins:
            headers |= {"access-control-allow-origin": origin, "vary": "origin"}
        stream: EventStream = request.transport.get_protocol().stream(request, headers)
        self._count(stream)
        self._watch.begin(stream, principal)
        self._stack.callback(self._watch.end)
        return stream

    def _admitted(self) -> Principal:
        if self._principal is None:
            raise RuntimeError(f"{self._endpoint.path} opens a socket for nobody")
        return self._principal

    def _count(self, socket: Socket | EventStream) -> None:
        self.socket = socket
        telemetry, name = self.gate.telemetry, self._endpoint.name
        telemetry.socket_opened(name)
        self._stack.callback(lambda: telemetry.socket_closed(name, was_slow=socket.was_slow))

    def _has_place(self, whose: str, stack: ExitStack) -> bool:
        return stack.enter_context(self.gate.sockets.taken(whose))


class _Watch:
    """Closes a socket when its caller loses its access.

    It listens from before the credential is looked at: what happens between that look and the
    101 is not lost.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._missed: list[News] = []
        self._socket: Socket | EventStream | None = None
        self._principal: Principal | None = None
        self._expiry: asyncio.Task[None] | None = None

    def begin(self, socket: Socket | EventStream, principal: Principal) -> None:
        """Close this one, also for what has happened already."""
        self._socket, self._principal = socket, principal
        for news in self._missed:
            self.hear(news)
        if principal.expires_at is not None:
            expiry = self._until_expiry(principal.session_id, principal.expires_at)
            self._expiry = asyncio.create_task(expiry, name="socket-expiry")

    def end(self) -> None:
        """Stop waiting."""
        if self._expiry is not None:
            self._expiry.cancel()

    def hear(self, news: News) -> None:
        """What the bus says."""
        principal = self._principal
        if principal is None:
            if isinstance(news, SessionEnded | AccessChanged):
                self._missed.append(news)
        elif concerns(news, principal):
            self._close()

    async def _until_expiry(self, credential_id: str, expires_at: datetime | None) -> None:
        while expires_at is not None:
            left_s = (expires_at - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(min(max(0.0, left_s), LOOK_AGAIN_S))
            try:
                # A session lives on with each refresh.
                expires_at = (await self._accounts.principal(credential_id)).expires_at
            except VoidVMError:
                self._close()
                return

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close(SESSION_ENDED, "the session ended")


def _check_origin(request: Request, gate: Gate) -> None:
    """Raise `OriginRefused` for a browser page that is not ours or configured.

    A page of somebody else's must not use what its visitor's browser can reach.
    """
    origin = request.headers.get("origin")
    own = {f"http://{request.host}", f"https://{request.host}"}
    if origin is not None and origin not in own and origin.lower() not in gate.origins:
        raise errors.OriginRefused(origin=origin.encode(errors="replace").decode())


def socket_handler(endpoint: Endpoint, gate: Gate) -> Callable[..., Awaitable[object]]:
    """The server's handler of a socket endpoint; the endpoint's own one gets `call.upgrade`."""

    async def handle(request: Request, **path: str) -> object:
        request.ctx.address = address_of(request, gate.proxies)
        with ExitStack() as stack:
            upgrade = Upgrade(request, endpoint, gate, stack)
            try:
                _check_origin(request, gate)
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
            except (SocketClosed, StreamClosed):
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
            request.ctx.limits = await gate.requests.take(
                "address", network_of(request.ctx.address)
            )
        except errors.RateLimited as limited:
            error = limited
    response = error_response(request, error)
    note(request, endpoint, gate, status=response.status)
    return response
