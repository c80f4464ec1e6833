"""Server-sent events: a connection that is only written to, with bounded memory.

As with `sockets`, the server's own way of streaming waits for ever for a client that does not
read. Here each send has a deadline, and a peer that is gone is found out by what it does not
acknowledge.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

SEND_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
# Together with a heartbeat this is how soon a dead peer is gone (tcp(7), TCP_USER_TIMEOUT).
UNACKNOWLEDGED_S: Final = 40.0
# Waiting to be sent, in our memory; the kernel has its own buffer on top.
WRITE_HIGH_BYTES: Final = 65_536


class StreamClosed(Exception):
    """The connection is no more."""


class EventStream:
    """One connection: `send` for events, `close` from anywhere."""

    def __init__(self, transport: asyncio.Transport, headers: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._drained: asyncio.Future[None] | None = None
        self._is_closed = False
        # Whether it was cut off because its client took nothing.
        self.was_slow = False
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_S * 1000)
        )
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    @property
    def is_open(self) -> bool:
        """Whether events can still be sent."""
        return not self._is_closed and not self._transport.is_closing()

    async def send(self, *, event: str, data: str, place: str) -> None:
        """Send an event; `place` is where the client is to go on when it comes back.

        Returns when there is room for the next. Raises `StreamClosed`; a client that takes
        nothing for `SEND_TIMEOUT_S` is cut off.
        """
        await self._write(f"id: {place}\nevent: {event}\ndata: {data}\n\n")

    async def beat(self, *, place: str) -> None:
        """Send no event, so that nobody on the way takes silence for an end. Raises as `send`."""
        await self._write(f": \nid: {place}\n\n")

    async def greet(self, *, place: str, retry_s: float) -> None:
        """Say how long to wait before coming back, and where to go on. Raises as `send`."""
        await self._write(f"retry: {int(retry_s * 1000)}\nid: {place}\n\n")

    def close(self, _code: int = 1000, reason: str = "") -> None:
        """Hang up, the client having been told why; safe to call twice, never waits."""
        if not self.is_open:
            return
        self._is_closed = True
        if reason:
            self._transport.write(f": {reason}\n\n".encode())
        self._transport.close()
        self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    # What the connection calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the client, which has nothing to say any more."""

    def eof_received(self) -> None:
        """The client has hung up its side."""
        self.close()

    def pause_writing(self) -> None:
        """The client takes nothing: what is sent waits."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_lost(self) -> None:
        """There is no connection any more."""
        self._is_closed = True
        self.resume_writing()

    async def _write(self, text: str) -> None:
        if not self.is_open:
            raise StreamClosed
        self._transport.write(text.encode())
        if self._drained is None:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await asyncio.shield(self._drained)
        except TimeoutError:
            self.was_slow = True
            self.close()
            raise StreamClosed from None
