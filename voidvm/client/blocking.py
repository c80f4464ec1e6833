"""I/O that blocks, behind coroutines that never suspend."""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar

import httpx

from voidvm.client.io import Socket, options

T = TypeVar("T")


class BlockingIo:
    """The outside world of `VoidVMClient`; threads may share it."""

    is_blocking = True

    def __init__(
        self, *, is_direct: bool, trust: ssl.SSLContext | None, verify: ssl.SSLContext | bool
    ) -> None:
        self._is_direct = is_direct
        self._trust = trust
        self._http = http = httpx.Client(trust_env=not is_direct, verify=verify)
        # Nobody has to close a client.
        weakref.finalize(self, http.close)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """An answer, read to its end. Raises `httpx.TransportError`."""
        return self._http.send(request)

    async def open(self, request: httpx.Request) -> BlockingLines:
        """An answer of which only the head is read. Raises `httpx.TransportError`."""
        return BlockingLines(self._http.send(request, stream=True))

    async def dial(self, url: str, headers: Mapping[str, str], *, subprotocol: str) -> Socket:
        """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
        from voidvm.client import blocking_socket  # noqa: PLC0415 - 50 ms

        how = options(
            headers, subprotocol=subprotocol, is_direct=self._is_direct, trust=self._trust
        )
        return blocking_socket.dial(url, how)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: ASYNC251 - what this client is for

    async def do(self, work: Callable[[], T]) -> T:
        """The result of something that takes a while."""
        return work()

    def lock(self) -> AbstractAsyncContextManager[None]:
        """A lock for threads."""
        return _ThreadLock()

    async def close(self) -> None:
        """Let go of all connections."""
        self._http.close()


class BlockingLines:
    """An answer that goes on and on."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    async def __aiter__(self) -> AsyncIterator[str]:
        for line in self.response.iter_lines():
            yield line

    async def read(self) -> None:
        """Read the rest into `response`."""
        self.response.read()

    async def close(self) -> None:
        """Hang up."""
        self.response.close()


class _ThreadLock(AbstractAsyncContextManager[None]):
    """A lock of threads in the form of an asynchronous one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
