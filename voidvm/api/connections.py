"""The server's connections: HTTP until a handler makes one a WebSocket or a stream of events."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from sanic import Request
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from websockets.exceptions import InvalidHandshake
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from voidvm import errors
from voidvm.api.sockets import MESSAGE_MAX_BYTES, SERVICE_STOPS, Socket
from voidvm.api.streams import UNACKNOWLEDGED_S, EventStream
from voidvm.errors import FieldProblem

# The package logs each frame where debugging is on, and a frame may hold a credential.
_quiet = logging.getLogger(f"{__name__}.frames")
_quiet.setLevel(logging.WARNING)


class SocketProtocol(WebSocketProtocol):  # type: ignore[misc]  # Sanic's class has no types
    """The server's connection, which a handler turns into a `Socket` or an `EventStream`."""

    # Sanic's metaclass gives each class without slots empty ones.
    __slots__ = ("_socket",)

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._socket: Socket | EventStream | None = None

    def stream(self, request: Request, headers: Mapping[str, str]) -> EventStream:
        """Answer 200 and turn the connection into a stream of events."""
        # To Sanic it is a WebSocket: it expects no answer, and no deadline applies.
        request.stream.upgrade_websocket = True
        stream = self._socket = EventStream(self.transport, headers)
        return stream

    def upgrade(
        self,
        request: Request,
        *,
        subprotocol: str | None,
        message_max_bytes: int = MESSAGE_MAX_BYTES,
    ) -> Socket:
        """Answer 101 and turn the connection into a socket.

        Raises `ValidationFailed` when the client's request is no WebSocket handshake.
        """
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        # Open from the start: Sanic has read the request, so what follows are frames.
        protocol = ServerProtocol(
            state=State.OPEN,
            subprotocols=offered,
            max_size=message_max_bytes,
            logger=_quiet,
        )
        handshake = self.sanic_request_to_ws_request(request)
        try:
            response = protocol.accept(handshake)
        except InvalidHandshake as error:  # pragma: no cover - accept answers instead
            raise _no_handshake(str(error)) from error
        if response.status_code != 101:
            raise _no_handshake(bytes(response.body or b"").decode(errors="replace").strip())
        response.headers["x-request-id"] = request.ctx.request_id
        line = self.transport.get_extra_info("socket")
        # Else a peer that is gone while it is not read from is missed a quarter of an hour later.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_S * 1000))
        upgraded = self._socket = Socket(self.transport, protocol)
        self.transport.write(response.serialize())
        return upgraded

    def data_received(self, data: bytes) -> None:
        """Bytes from the client, for the socket if there is one."""
        if self._socket is not None:
            self._socket.data_received(data)
        else:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """The client has hung up its side."""
        if self._socket is not None:
            self._socket.eof_received()
            return False
        result: bool | None = super().eof_received()
        return result

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        super().pause_writing()
        if self._socket is not None:
            self._socket.pause_writing()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        super().resume_writing()
        if self._socket is not None:
            self._socket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._socket is not None:
            self._socket.connection_lost()
        super().connection_lost(exc)

    def close(self, timeout: float | None = None) -> None:
        """The handler has returned: hang up, a socket politely."""
        if self._socket is not None:
            self._socket.close()
        else:
            super().close(timeout)

    def close_if_idle(self) -> bool:
        """The service stops: end a socket, or an HTTP connection without a request."""
        if self._socket is not None:
            self._socket.close(SERVICE_STOPS, "the service stops")
            return True
        is_closed: bool = super().close_if_idle()
        return is_closed


def _no_handshake(words: str) -> errors.ValidationFailed:
    problem = FieldProblem("upgrade", words or "must be a WebSocket handshake")
    return errors.ValidationFailed(f"this address is a WebSocket: {words}", errors=[problem])
