"""WebSockets that block, behind coroutines that never suspend."""

from __future__ import annotations

from typing import Any

from websockets.sync.client import ClientConnection, connect

from voidvm.client.sockets import dialling, talking


def dial(url: str, how: dict[str, Any]) -> BlockingSocket:
    """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
    with dialling():
        # Entered, but for the length of a conversation and not of a block.
        return BlockingSocket(connect(url, **how).__enter__())


class BlockingSocket:
    """One WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises `TimeoutError`, `SocketClosed`."""
        with talking():
            return self._connection.recv(timeout=timeout_s)

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises `SocketClosed`."""
        with talking():
            self._connection.send(message)

    async def close(self) -> None:
        """Hang up."""
        self._connection.close()
