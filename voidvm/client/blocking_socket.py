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
from voidvm.client.io import SocketClosed

T = TypeVar("T")


def dial(url: str, how: dict[str, Any]) -> BlockingSocket:
    """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
    loop = _loop(os.getpid())
    return BlockingSocket(loop.do(awaiting_socket.dial(url, how)), loop)


class BlockingSocket:
    """One WebSocket."""

    def __init__(self, socket: AwaitingSocket, loop: _Loop) -> None:
        self._socket = socket
        self._loop = loop

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises `TimeoutError`, `SocketClosed`."""
        return self._loop.do(self._socket.receive(timeout_s))

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises `SocketClosed`."""
        self._loop.do(self._socket.send(message))

    async def close(self) -> None:
        """Hang up."""
        self._loop.do(self._socket.close())


class _Loop(threading.Thread):
    """Runs the sockets of this process, and answers pings while nobody looks at them."""

    def __init__(self) -> None:
        super().__init__(name="voidvm-sockets", daemon=True)
        self._loop = asyncio.new_event_loop()
        self.start()

    def run(self) -> None:
        self._loop.run_forever()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which has ended with the call, also when Ctrl-C ends that.

        Raises `SocketClosed` in a fork, which has no part in its parent's threads.
        """
        if not self.is_alive():
            work.close()
            raise SocketClosed(1006, "it belongs to another process")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


@cache
def _loop(_pid: int) -> _Loop:
    return _Loop()
