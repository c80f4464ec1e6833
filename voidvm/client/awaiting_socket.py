"""WebSockets on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from voidvm.client.io import SocketClosed
from voidvm.client.sockets import SEND_TIMEOUT_S, dialling, talking


async def dial(url: str, how: dict[str, Any]) -> AwaitingSocket:
    """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
    with dialling():
        return AwaitingSocket(await connect(url, **how))


class AwaitingSocket:
    """One WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises `TimeoutError`, `SocketClosed`."""
        with talking():
            async with asyncio.timeout(timeout_s):
                return await self._connection.recv()

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises `SocketClosed`."""
        with talking():
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._connection.send(message)
            except TimeoutError as error:
                raise SocketClosed(1006, "the service takes nothing") from error

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()
