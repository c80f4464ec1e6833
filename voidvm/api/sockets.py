"""WebSockets with bounded memory, on the server's connections.

Sanic's own sockets start a task for each read, answer pings without looking at what waits to be
sent, and block for ever on a client that does not read. These speak through the `websockets`
package's sans-I/O protocol and stop reading while they cannot write or are not listened to, so
that TCP holds the client back; and each send has a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from sanic import Request
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from voidvm import errors
from voidvm.api import frames
from voidvm.api.streams import EventStream
from voidvm.errors import FieldProblem

log = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
PING_EVERY_S: Final = 20.0
DEAD_AFTER_S: Final = 45.0
MESSAGE_MAX_BYTES: Final = 1_048_576
# Received and not yet taken by the handler; above it the client is held back.
BACKLOG_BYTES: Final = 262_144
# Waiting to be sent, in our memory; the kernel has its own buffer on top.
WRITE_HIGH_BYTES: Final = 65_536

TOO_SLOW: Final = 4429
TOO_MANY: Final = 4429
SERVICE_STOPS: Final = 1001


class SocketClosed(Exception):
    """The connection is no more."""


class Socket:
    """One connection: `receive` for messages, `send` for answers, `close` from anywhere."""

    def __init__(self, transport: asyncio.Transport, protocol: ServerProtocol) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._protocol = protocol
        self._messages: deque[str | bytes] = deque()
        self._backlog = 0
        # Bytes of a frame that is not whole yet.
        self._unfinished = 0
        self._is_in_message = False
        self._parts: list[bytes] = []
        self._is_text = False
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_reading = True
        self._is_lost = False
        self._ended = asyncio.Event()
        # Takes a binary message at once while nobody is busy with an earlier one; False: it cannot.
        self.on_bytes: Callable[[bytes], bool] | None = None
        self._heard = self._loop.time()
        self._keepalive = self._loop.call_later(PING_EVERY_S, self._keep_alive)
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    # What handlers use

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return not self._is_lost and self._protocol.state is State.OPEN

    async def receive(self) -> str | bytes:
        """The next message: text as str, binary as bytes. Raises `SocketClosed`."""
        while not self._messages:
            if not self.is_open:
                raise SocketClosed
            self._arrived = self._loop.create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        message = self._messages.popleft()
        self._backlog -= _cost(message)
        self._steer_reading()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message; returns when there is room for the next.

        Raises `SocketClosed`; a client that takes nothing for `SEND_TIMEOUT_S` is cut off.
        """
        if not self.is_open:
            raise SocketClosed
        if isinstance(message, str):
            self._transport.write(frames.encode(Opcode.TEXT, message.encode()))
        else:
            self._transport.write(frames.encode(Opcode.BINARY, message))
        if self._drained is not None:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await asyncio.shield(self._drained)
            except TimeoutError:
                self.close(TOO_SLOW, "too slow")
                raise SocketClosed from None

    def send_now(self, data: bytes) -> bool:
        """Send a binary message if there is room; False: nothing was sent."""
        if self._drained is not None or not self.is_open:
            return False
        self._transport.write(frames.encode(Opcode.BINARY, data))
        return True

    async def ended(self) -> None:
        """Wait until no message can be sent any more, whoever ended it."""
        await self._ended.wait()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and hang up; safe to call twice, never waits."""
        if self._is_lost:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
            # The peer's own close frame ends the connection; it has this long for it.
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)
        self._wake()

    # What the connection calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard = self._loop.time()
        if not self._unfinished and not self._is_in_message and self.is_open:
            message = frames.lone_binary(data)
            if message is not None and self._is_taken_at_once(message):
                return
        self._unfinished += len(data)
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._unfinished -= frames.received_size(event)
                self._on_frame(event)
        self._flush()
        if self._protocol.state is not State.OPEN:
            self._wake()
        self._steer_reading()

    def eof_received(self) -> None:
        """The client has hung up its side."""
        self._protocol.receive_eof()
        self._flush()
        self._wake()

    def pause_writing(self) -> None:
        """The client takes nothing: what is sent waits, and it is not read from."""
        if self._drained is None:
            self._drained = self._loop.create_future()
        self._steer_reading()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        self._steer_reading()

    def connection_lost(self) -> None:
        """There is no connection any more."""
        self._is_lost = True
        self._keepalive.cancel()
        self.resume_writing()
        self._wake()

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            self._is_text = frame.opcode is Opcode.TEXT
            self._parts = []
        elif frame.opcode is not Opcode.CONT:
            return
        self._is_in_message = not frame.fin
        if frame.data:  # empty pieces have no limit but memory's
            self._parts.append(bytes(frame.data))
        if frame.fin:
            data, self._parts = b"".join(self._parts), []
            try:
                message = data.decode() if self._is_text else data
            except UnicodeDecodeError:
                self.close(1007, "text must be UTF-8")
                return
            if isinstance(message, bytes) and self._is_taken_at_once(message):
                return
            self._messages.append(message)
            self._backlog += _cost(message)
            self._wake()

    def _is_taken_at_once(self, message: bytes) -> bool:
        """Hand a message over if somebody waits for one, so that none can overtake another."""
        is_idle = self._arrived is not None and not self._arrived.done()
        return is_idle and self.on_bytes is not None and self.on_bytes(message)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                # The protocol's sign for: half-close. The connection ends here.
                self._transport.close()

    def _wake(self) -> None:
        if not self.is_open:
            self._ended.set()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _steer_reading(self) -> None:
        wants = self._backlog <= BACKLOG_BYTES and self._drained is None
        if wants is self._is_reading or self._is_lost or self._transport.is_closing():
            return
        self._is_reading = wants
        if wants:
            self._heard = self._loop.time()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _keep_alive(self) -> None:
        if self._is_lost:
            return
        self._keepalive = self._loop.call_later(PING_EVERY_S, self._keep_alive)
        if not self.is_open:
            return
        if self._is_reading:
            is_dead = self._loop.time() - self._heard > DEAD_AFTER_S
        else:
            # Nobody reads, so nobody else sees the client hang up; a ping makes its host say so.
            is_dead = _has_hung_up(self._transport)
        if is_dead:
            self._transport.abort()
        elif self._drained is None:
            self._protocol.send_ping(b"")
            self._flush()


def _cost(message: str | bytes) -> int:
    """What a message takes in memory; an empty one takes some, too."""
    return len(message) + 64


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed its side or is gone, seen without reading."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


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

    def upgrade(self, request: Request, *, subprotocol: str | None) -> Socket:
        """Answer 101 and turn the connection into a socket.

        Raises `ValidationFailed` when the client's request is no WebSocket handshake.
        """
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        # Open from the start: Sanic has read the request, so what follows are frames.
        protocol = ServerProtocol(
            state=State.OPEN, subprotocols=offered, max_size=MESSAGE_MAX_BYTES
        )
        handshake = self.sanic_request_to_ws_request(request)
        try:
            response = protocol.accept(handshake)
        except InvalidHandshake as error:  # pragma: no cover - accept answers instead
            raise _no_handshake(str(error)) from error
        if response.status_code != 101:
            raise _no_handshake(bytes(response.body or b"").decode(errors="replace").strip())
        response.headers["x-request-id"] = request.ctx.request_id
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
