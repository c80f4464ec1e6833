"""I/O on asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import httpx

from voidvm.client.io import Socket, options

T = TypeVar("T")


class AwaitingIo:
    """The outside world of `AsyncVoidVMClient`; tasks of one event loop may share it."""

    is_blocking = False

    def __init__(
        self, *, is_direct: bool, trust: ssl.SSLContext | None, verify: ssl.SSLContext | bool
    ) -> None:
        self._is_direct = is_direct
        self._trust = trust
        self._http = httpx.AsyncClient(trust_env=not is_direct, verify=verify)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """An answer, read to its end. Raises `httpx.TransportError`."""
        return await self._http.send(request)

    async def open(self, request: httpx.Request) -> AwaitingLines:
        """An answer of which only the head is read. Raises `httpx.TransportError`."""
        return AwaitingLines(await self._http.send(request, stream=True))

    async def dial(self, url: str, headers: Mapping[str, str], *, subprotocol: str) -> Socket:
        """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""
        from voidvm.client import awaiting_socket  # noqa: PLC0415 - 50 ms

        how = options(
            headers, subprotocol=subprotocol, is_direct=self._is_direct, trust=self._trust
        )
        return await awaiting_socket.dial(url, how)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def do(self, work: Callable[[], T]) -> T:
        """The result of something that takes a while, in a thread."""
        return await asyncio.to_thread(work)

    def lock(self) -> AbstractAsyncContextManager[None]:
        """A lock for tasks."""
        return asyncio.Lock()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()


class AwaitingLines:
    """An answer that goes on and on."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self.response.aiter_lines():
            yield line

    async def read(self) -> None:
        """Read the rest into `response`."""
        await self.response.aread()

    async def close(self) -> None:
        """Hang up."""
        await self.response.aclose()
