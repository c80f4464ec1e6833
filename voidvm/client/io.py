"""What the client needs of the outside world, in a form that can block or be awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    import ssl

    import httpx

T = TypeVar("T")
OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
MESSAGE_MAX_BYTES: Final = 16 * 1024**2


class SocketClosed(Exception):
    """A WebSocket is no more: 1006 where it broke without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or ("it was cut off" if code == 1006 else f"closed with {code}"))
        self.code = code
        self.reason = reason


class Refused(Exception):
    """A WebSocket was answered as an HTTP request is."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"HTTP status {response.status_code}")
        self.response = response


class Socket(Protocol):
    """One WebSocket."""

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises `TimeoutError`, `SocketClosed`."""

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises `SocketClosed`."""

    async def close(self) -> None:
        """Hang up."""


class Lines(Protocol):
    """An answer that goes on and on."""

    response: httpx.Response

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def read(self) -> None:
        """Read the rest into `response`."""

    async def close(self) -> None:
        """Hang up."""


def options(
    headers: Mapping[str, str],
    *,
    subprotocol: str,
    is_direct: bool,
    trust: ssl.SSLContext | None,
) -> dict[str, Any]:
    """How `websockets` is to connect, of either kind."""
    return {
        "ssl": trust,
        "additional_headers": dict(headers),
        "subprotocols": [subprotocol],
        "compression": None,
        "proxy": None if is_direct else True,
        "open_timeout": OPEN_TIMEOUT_S,
        "close_timeout": CLOSE_TIMEOUT_S,
        "max_size": MESSAGE_MAX_BYTES,
    }


class Io(Protocol):
    """Requests, streams, sockets, and time."""

    is_blocking: bool

    async def send(self, request: httpx.Request) -> httpx.Response:
        """An answer, read to its end. Raises `httpx.TransportError`."""

    async def open(self, request: httpx.Request) -> Lines:
        """An answer of which only the head is read. Raises `httpx.TransportError`."""

    async def dial(self, url: str, headers: Mapping[str, str], *, subprotocol: str) -> Socket:
        """A WebSocket. Raises `Refused`; `SocketClosed` where there is none."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def do(self, work: Callable[[], T]) -> T:
        """The result of something that takes a while, such as reading a file."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """A lock for threads, or for tasks."""

    async def close(self) -> None:
        """Let go of all connections."""
