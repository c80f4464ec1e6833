"""A console's socket as a client has it: bytes gathered, notices kept apart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from voidvm.supervisor.console import Records
from voidvm.telemetry import Telemetry

Json = Any
PATIENCE_S = 10.0


def records(history_bytes: int) -> Records:
    """What a console of a test is kept by."""
    return Records(console_bytes=lambda: history_bytes, telemetry=Telemetry())


class ConsoleClient:
    """What has come so far: `output`, and every text frame in `notices`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.output = b""
        self.notices: list[Json] = []
        self.frames = 0
        self.hello = self.notice("hello")

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on."""
        return self.connection.subprotocol

    def type(self, data: bytes) -> None:
        """Type on the line."""
        self.connection.send(data)

    def tell(self, kind: str, **fields: Json) -> None:
        """Send a control message."""
        self.connection.send(json.dumps({"type": kind, **fields}))

    def until(self, wanted: bytes) -> bytes:
        """All output once it contains `wanted`."""
        self._until(lambda: wanted in self.output, f"{wanted!r} in the output")
        return self.output

    def notice(self, kind: str, **fields: Json) -> Json:
        """The next notice of this kind with these values; it and those before are dropped."""

        def fits(notice: Mapping[str, Json]) -> bool:
            return notice["type"] == kind and fields.items() <= notice.items()

        self._until(lambda: any(map(fits, self.notices)), f"a {kind} with {fields}")
        place = next(number for number, notice in enumerate(self.notices) if fits(notice))
        found = self.notices[place]
        del self.notices[: place + 1]
        return found

    def gather(self, seconds: float) -> bytes:
        """All output after so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._take(left)
            except TimeoutError:
                break
        return self.output

    def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame that must come."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._take(max(0.01, end - time.monotonic()))
            except ConnectionClosed as error:
                received = error.rcvd
                break
            except TimeoutError:
                raise AssertionError("the socket stayed open") from None
        assert received is not None, "the connection broke without a close frame"
        return received.code, received.reason

    def _until(self, is_there: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_there():
            try:
                self._take(max(0.01, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"no {what}: {self.output[-500:]!r}, {self.notices}") from None

    def _take(self, timeout_s: float) -> None:
        message = self.connection.recv(timeout=timeout_s)
        self.frames += 1
        if isinstance(message, bytes):
            self.output += message
        else:
            self.notices.append(json.loads(message))


@contextmanager
def console(
    url: str,
    vm: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    offers: Sequence[str] = (),
    query: str = "",
) -> Iterator[ConsoleClient]:
    """A console's socket for as long as the block lasts."""
    address = f"{url.replace('http', 'ws', 1)}/api/v1/vms/{vm}/console{query}"
    with connect(
        address,
        additional_headers={
            **({"authorization": f"Bearer {token}"} if token else {}),
            **(headers or {}),
        },
        subprotocols=[Subprotocol(offer) for offer in offers] or None,
        proxy=None,
        max_size=None,
        close_timeout=2,
    ) as connection:
        yield ConsoleClient(connection)
