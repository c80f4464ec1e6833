"""The connection of a console: made again when it breaks, from the byte it had come to."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import quote

from voidvm.client import errors
from voidvm.client.io import Socket, SocketClosed
from voidvm.client.requests import Json, Ref, ref
from voidvm.client.retries import Patience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voidvm.client.core import Core

Since = int | Literal["end"] | None

SUBPROTOCOL: Final = "voidvm.console.v1"
# Between attempts; a connection that lasted longer than the last one has earned the first again.
FIRST_PAUSE_S: Final = 0.2
LAST_PAUSE_S: Final = 5.0
GIVE_UP_AFTER_S: Final = 600.0
HELLO_TIMEOUT_S: Final = 10.0
# These pass by; a starting service answers so, and a proxy in front of a stopped one.
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_STRANGE: Final = "it does not speak as a VoidVM console does"
TOO_SLOW: Final = 4429
# No new connection mends these.
_FINAL: Final[dict[int, tuple[type[errors.ApiError], str]]] = {
    4401: (errors.Unauthorized, "the credential is not valid any more"),
    4403: (errors.Forbidden, "you may not use it"),
    4404: (errors.VmNotFound, "there is no such VM any more"),
    4408: (errors.SessionEnded, "the session was ended"),
    4410: (errors.VmNotFound, "the VM was deleted"),
}
_PROTOCOL: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class Attached(NamedTuple):
    """There is a connection; the next byte of output is that at `offset`."""

    offset: int
    first_offset: int
    status: str
    viewers: int
    is_return: bool


class Lost(NamedTuple):
    """The connection broke; it is made again when more is asked for."""

    code: int
    cause: str


class Output(NamedTuple):
    """What the guest wrote, and the place of the first byte."""

    data: bytes
    offset: int


class Gap(NamedTuple):
    """These bytes are kept no more."""

    start: int
    end: int


class StatusNews(NamedTuple):
    """The VM's status changed."""

    status: str


class ViewersNews(NamedTuple):
    """Somebody came or left: so many watch."""

    viewers: int


class Complaint(NamedTuple):
    """What was asked for cannot be done."""

    message: str


News = Attached | Lost | Output | Gap | StatusNews | ViewersNews | Complaint


class Link:
    """One console over as many connections as it takes; one thread may read, others write."""

    def __init__(
        self, core: Core, vm: Ref, *, mode: Literal["read", "write"], since: Since
    ) -> None:
        self._core = core
        self._vm = ref(vm)
        self._mode = mode
        self._since = since
        self._is_known = False
        self._socket: Socket | None = None
        self._lock = core.io.lock()
        self._news: deque[News] = deque()
        self._patience = Patience(
            first_s=FIRST_PAUSE_S, last_s=LAST_PAUSE_S, give_up_s=GIVE_UP_AFTER_S
        )
        # Before the next attempt to connect.
        self._pause_s = 0.0
        self._is_closed = False
        self.status: str | None = None
        """The VM's, as far as it is known."""

    @property
    def offset(self) -> int | None:
        """The place of the next byte; None before the first connection."""
        return self._since if isinstance(self._since, int) else None

    async def next(self, timeout_s: float | None = None) -> News:
        """What comes next; a broken connection is `Lost`, the call after it makes another.

        Raises `TimeoutError`; `VoidVMError` where there is no way back.
        """
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._news:
                return self._news.popleft()
            socket = await self.attached(ends_at)
            if self._news:
                continue
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            try:
                message = await socket.receive(left_s)
                async with self._lock:
                    # What a lost connection still had is sent again by the one after it.
                    if socket is self._socket:
                        self._take(message)
            except SocketClosed as end:
                await self._lose(socket, end)

    async def send(self, data: bytes | str) -> None:
        """Send bytes to the guest, or text as a control message, once there is a connection.

        Raises `VoidVMError` where there is none any more.
        """
        while True:
            socket = await self.attached(None)
            try:
                return await socket.send(data)
            except SocketClosed as end:
                await self._lose(socket, end)

    async def seek(self, since: int) -> None:
        """Go on from another place of the history, by a new connection."""
        async with self._lock:
            await self._hang_up()
            self._news.clear()
            self._since = since

    async def close(self) -> None:
        """Hang up for good."""
        self._is_closed = True
        await self._hang_up()

    # Connecting

    async def attached(self, ends_at: float | None) -> Socket:
        """A connection, the present one or a new one. Raises as `next`."""
        async with self._lock:
            while self._socket is None:
                if self._is_closed:
                    raise errors.VoidVMError("the console was closed")
                await self._pause(ends_at)
                try:
                    self._socket = await self._open()
                except SocketClosed as end:
                    if not self._is_known:
                        raise self._core.unreachable(str(end)) from end
                    self._pause_s = self._patience.pause(self._core.unreachable(str(end)))
            return self._socket

    async def _pause(self, ends_at: float | None) -> None:
        left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        if self._pause_s and left_s is not None and left_s <= self._pause_s:
            await self._core.io.sleep(left_s)
            raise TimeoutError
        pause_s, self._pause_s = self._pause_s, 0.0
        await self._core.io.sleep(pause_s)

    async def _open(self) -> Socket:
        """A connection that has said hello. Raises `SocketClosed`, and `VoidVMError` for good."""
        query: dict[str, object] = {"mode": self._mode, "since": self._since}
        # By id once it is known: the name may be another VM's meanwhile.
        path = f"/vms/{quote(self._vm, safe='')}/console"
        try:
            socket = await self._core.dial(path, query=query, subprotocol=SUBPROTOCOL)
        except errors.VoidVMError as refusal:
            passes = refusal.status in _PASSING or isinstance(refusal, errors.Unreachable)
            if not self._is_known or not passes:
                raise
            raise SocketClosed(1006, refusal.message) from refusal
        try:
            self._greet(await socket.receive(HELLO_TIMEOUT_S))
        except TimeoutError as error:
            await socket.close()
            raise SocketClosed(1006, "the service says nothing") from error
        except BaseException:
            await socket.close()
            raise
        return socket

    def _greet(self, message: str | bytes) -> None:
        hello = _decoded(message)
        if hello.get("type") != "hello":
            raise SocketClosed(1006, _STRANGE)
        offset = int(hello["offset"])
        attached = Attached(
            offset=offset,
            first_offset=int(hello["firstOffset"]),
            status=str(hello["status"]),
            viewers=int(hello.get("viewers", 1)),
            is_return=self._is_known,
        )
        self._is_known, self.status = True, attached.status
        self._patience.held()
        self._vm, self._since = str(hello["vmId"]), offset
        self._news.append(attached)

    # Talking

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            place = self.offset or 0
            self._since = place + len(message)
            self._news.append(Output(message, place))
            return
        notice = _decoded(message)
        kind = notice.get("type")
        if kind == "gap":
            self._since = int(notice["to"])
            self._news.append(Gap(int(notice["from"]), self._since))
        elif kind == "status":
            self.status = str(notice["status"])
            self._news.append(StatusNews(self.status))
        elif kind == "viewers":
            self._news.append(ViewersNews(int(notice["count"])))
        elif kind == "error":
            self._news.append(Complaint(str(notice.get("message"))))

    async def _lose(self, socket: Socket, end: SocketClosed) -> None:
        """Note that a connection is no more. Raises `VoidVMError` when it ended for good."""
        async with self._lock:
            if self._socket is not socket:
                return  # another task or thread was quicker
            await self._hang_up()
            if self._is_closed:
                raise errors.VoidVMError("the console was closed")
            _judge(end)
            self._pause_s = self._patience.pause(end)
            is_slow = end.code == TOO_SLOW and not end.reason
            cause = "too slow, or too many at once" if is_slow else str(end)
            self._news.append(Lost(end.code, cause))

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


def _judge(end: SocketClosed) -> None:
    """Raise `VoidVMError` for an end that no new connection mends."""
    if end.code in _FINAL:
        kind, text = _FINAL[end.code]
        error = kind(f"the console was closed: {text}")
        raise error from end
    if end.code in _PROTOCOL:
        text = end.reason or "it was refused"
        raise errors.VoidVMError(f"the console was closed: {text} ({end.code})") from end


def _decoded(message: str | bytes) -> Mapping[str, Json]:
    try:
        notice = json.loads(message)
    except ValueError as error:
        raise SocketClosed(1006, _STRANGE) from error
    if not isinstance(notice, dict):
        raise SocketClosed(1006, _STRANGE)
    return notice
