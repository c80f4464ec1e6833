"""WebSockets with bounded memory, on the server's connections.

Sanic's own sockets start a task for each read, answer pings without looking at what waits to be
sent, and block for ever on a client that does not read. These speak through the `websockets`
package's sans-I/O protocol and stop reading while they cannot write or are not listened to, so
that TCP holds the client back; and each send has a deadline. Frames cost the loop's time whatever
is in them, so only so many are taken in a second, and few in one turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from voidvm.api import frames
from voidvm.api.allowance import Allowance

log = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
# Whoever is silent is looked at with each ping: it is gone within three of them.
PING_EVERY_S: Final = 20.0
DEAD_AFTER_S: Final = 39.0
MESSAGE_MAX_BYTES: Final = 1_048_576
# Received and not yet taken by the handler; above it the client is held back.
BACKLOG_BYTES: Final = 262_144
# Waiting to be sent, in our memory; the kernel has its own buffer on top.
WRITE_HIGH_BYTES: Final = 65_536
# A frame takes some ten microseconds, an empty one as well.
FRAMES_PER_S: Final = 1000
FRAMES_BURST: Final = 2000
# What is looked at in one go: at most 170 frames.
SLICE_BYTES: Final = 1024
FRAMES_A_TURN: Final = 64
# So many are taken at once before they are counted: counting takes as long as taking one.
COUNT_EVERY: Final = 32

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
        # Received and not looked at yet: at most what one read brings.
        self._pending = bytearray()
        self._next_turn: asyncio.Handle | None = None
        self._frames = Allowance(per_second=FRAMES_PER_S, burst=FRAMES_BURST, now=self._loop.time())
        self._rest: asyncio.TimerHandle | None = None
        # Taken at once, and not counted yet.
        self._uncounted = 0
        # Bytes of a frame that is not whole yet.
        self._unfinished = 0
        self._is_in_message = False
        self._message = bytearray()
        self._is_text = False
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_reading = True
        self._is_lost = False
        # Whether messages can still be sent.
        self.is_open = True
        self._ended = asyncio.Event()
        # Whether it was cut off because its client took nothing.
        self.was_slow = False
        # Takes a binary message at once while nobody is busy with an earlier one; False: it cannot.
        self.on_bytes: Callable[[bytes], bool] | None = None
        self._heard = self._loop.time()
        self._keepalive = self._loop.call_later(PING_EVERY_S, self._keep_alive)
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    # What handlers use

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
        if isinstance(message, str):
            await self._send(Opcode.TEXT, message.encode())
        else:
            await self._send(Opcode.BINARY, message)

    async def send_text(self, message: bytes) -> None:
        """Send a text message that is UTF-8 already, as `send` does."""
        await self._send(Opcode.TEXT, message)

    async def _send(self, opcode: Opcode, data: bytes) -> None:
        if not self.is_open:
            raise SocketClosed
        self._transport.write(frames.encode(opcode, data))
        if self._drained is not None:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await asyncio.shield(self._drained)
            except TimeoutError:
                self.was_slow = True
                self.close(TOO_SLOW, "too slow")
                raise SocketClosed from None

    def send_now(self, data: bytes) -> bool:
        """Send a binary message if there is room; False: nothing was sent."""
        if self._drained is not None or not self.is_open:
            return False
        self._transport.write(frames.encode(Opcode.BINARY, data))
        return True

    def limit_messages(self, max_bytes: int) -> None:
        """Take messages of up to so many bytes from now on."""
        self._protocol.max_message_size = max_bytes

    async def ended(self) -> None:
        """Wait until no message can be sent any more, whoever ended it."""
        await self._ended.wait()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and hang up; safe to call twice, never waits."""
        if self._is_lost:
            return
        # Not `is_open`: the client's own goodbye may have been read, and not been looked at yet.
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
            # The peer's own close frame ends the connection; it has this long for it.
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)
        self._wake()

    # What the connection calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        # All in one place: after a pause each function on a key's way takes two microseconds.
        take, arrived = self.on_bytes, self._arrived
        is_idle = arrived is not None and not arrived.done() and self.is_open
        is_between = not self._pending and not self._unfinished and not self._is_in_message
        if take is not None and is_idle and is_between:
            message = frames.lone_binary(data)
            if message is not None and take(message):
                self._uncounted += 1
                if self._uncounted >= COUNT_EVERY:
                    self._count_up()
                return
        self._heard = self._loop.time()
        self._pending += data
        self._take_in()

    def _take_in(self) -> None:
        """Look at what was received, as far as there is room and this turn of the loop allows."""
        self._next_turn = None
        seen = 0
        while self._pending and self._has_room and seen < FRAMES_A_TURN:
            piece = bytes(self._pending[:SLICE_BYTES])
            del self._pending[:SLICE_BYTES]
            self._unfinished += len(piece)
            self._protocol.receive_data(piece)
            events = self._protocol.events_received()
            for event in events:
                if isinstance(event, Frame):
                    self._unfinished -= frames.received_size(event)
                    self._on_frame(event)
            self._flush()
            seen += len(events)
            self._count(len(events))
        if not self.is_open:
            self._wake()
        self._steer_reading()

    def _count(self, count: int) -> None:
        """Note that so many frames were taken; beyond the allowance there is a rest."""
        wait_s = self._frames.take(count, now=self._loop.time())
        if wait_s and self._rest is None:
            self._rest = self._loop.call_later(wait_s, self._rested)

    def _count_up(self) -> None:
        """Note what was taken at once."""
        if self._uncounted:
            count, self._uncounted = self._uncounted, 0
            self._heard = self._loop.time()
            self._count(count)
            self._steer_reading()

    def _rested(self) -> None:
        self._rest = None
        self._steer_reading()

    def eof_received(self) -> None:
        """The client has hung up its side."""
        self._pending.clear()
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
        self.is_open = False
        for timer in (self._keepalive, self._rest, self._next_turn):
            if timer is not None:
                timer.cancel()
        self.resume_writing()
        self._wake()

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            self._is_text = frame.opcode is Opcode.TEXT
            self._message.clear()
        elif frame.opcode is not Opcode.CONT:
            return
        self._is_in_message = not frame.fin
        self._message += frame.data
        if frame.fin:
            data = bytes(self._message)
            self._message = bytearray()
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
        """Note what the protocol is at, and send what it wants to say."""
        self.is_open = not self._is_lost and self._protocol.state is State.OPEN
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

    @property
    def _has_room(self) -> bool:
        """Whether the client is listened to: nothing waits here, and it is not too busy."""
        return self._backlog <= BACKLOG_BYTES and self._drained is None and self._rest is None

    def _steer_reading(self) -> None:
        has_room = self._has_room
        if self._is_lost or self._transport.is_closing():
            return
        if has_room and self._pending and self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._take_in)
        wants = has_room and not self._pending
        if wants is self._is_reading:
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
        self._count_up()
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
