"""WebSockets that block, behind coroutines that never suspend: asyncio's, on a thread of their own.

Not those of `websockets.sync`, which read in one thread and write in another: OpenSSL lets no two
threads use one TLS connection at a time, and does not say so when they do. On a busy host two of a
thousand handshakes got no answer (Python 3.11, TLS 1.3, `websockets` alone on both sides).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from voidvm.client import awaiting_socket
from voidvm.client.awaiting_socket import AwaitingSocket

T = TypeVar("T")


def dial(url: str, how: dict[str, Any]) -> BlockingSocket:
    """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
    return BlockingSocket(_run(awaiting_socket.dial(url, how)))


class BlockingSocket:
    """One WebSocket."""

    def __init__(self, socket: AwaitingSocket) -> None:
        self._socket = socket

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises `TimeoutError`, `SocketClosed`."""
        return _run(self._socket.receive(timeout_s))

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises `SocketClosed`."""
        _run(self._socket.send(message))

    async def close(self) -> None:
        """Hang up."""
        _run(self._socket.close())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which has ended with the call, also when Ctrl-C ends that."""
    future = asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))
    try:
        return future.result()
    finally:
        future.cancel()


@cache
def _loop(_pid: int) -> asyncio.AbstractEventLoop:
    """The loop of all sockets of this process, which answers pings meanwhile; a fork has none."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="voidvm-sockets", daemon=True).start()
    return loop
