"""The live socket as a client has it: messages gathered, each answer found by its id."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

Json = Any
PATIENCE_S = 15.0
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_ids = itertools.count(1)


class LiveClient:
    """What has come and was not asked for yet is in `messages`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Json] = []

    def tell(self, kind: str, *, id: Json = None, **data: Json) -> Json:  # noqa: A002 - its name there
        """Send a message; its id."""
        number = next(_ids) if id is None else id
        self.connection.send(json.dumps({"type": kind, "id": number, "data": data}))
        return number

    def ask(self, kind: str, **data: Json) -> Json:
        """Send a message; the `data` of its answer, which must be no error."""
        answer = self.answer(self.tell(kind, **data))
        assert answer["type"] != "error", answer
        return answer["data"]

    def refused(self, kind: str, **data: Json) -> Json:
        """Send a message; the `data` of the error that must be its answer."""
        answer = self.answer(self.tell(kind, **data))
        assert answer["type"] == "error", answer
        return answer["data"]

    def answer(self, number: Json) -> Json:
        """The message with this id."""
        return self.take(lambda message: message.get("id") == number, f"an answer to {number!r}")

    def next(self, kind: str, **data: Json) -> Json:
        """The next message of this type whose data has these values."""

        def fits(message: Mapping[str, Json]) -> bool:
            return bool(message["type"] == kind and data.items() <= message["data"].items())

        return self.take(fits, f"a {kind} with {data}")

    def output(self, vm: str, wanted: str) -> str:
        """The output of a terminal up to where it contains `wanted`."""
        seen = ""
        while wanted not in seen:
            seen += self.next("terminal-output", vmId=vm)["data"]["output"]
        return seen

    def take(self, fits: Callable[[Json], bool], what: str) -> Json:
        """The first message that fits; those before it stay."""
        end = time.monotonic() + PATIENCE_S
        while not (found := [one for one in self.messages if fits(one)]):
            try:
                self._receive(max(0.01, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"no {what}: {self.messages}") from None
        self.messages.remove(found[0])
        return found[0]

    def all(self, kind: str) -> list[Json]:
        """All messages of a type that came before the answer to a ping of now."""
        self.ask("ping")
        found = [one for one in self.messages if one["type"] == kind]
        self.messages = [one for one in self.messages if one["type"] != kind]
        return found

    def closed(self) -> int:
        """The code of the close frame that must come."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._receive(max(0.01, end - time.monotonic()))
            except ConnectionClosed as error:
                return error.rcvd.code if error.rcvd else 1006

    def _receive(self, timeout_s: float) -> None:
        message = json.loads(self.connection.recv(timeout=timeout_s))
        assert _MOMENT.fullmatch(message["timestamp"]), message
        assert message.keys() <= {"type", "id", "topic", "data", "timestamp"}, message
        self.messages.append(message)


@contextmanager
def live(
    url: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    offers: Sequence[str] = (),
    query: str = "",
    path: str = "/ws",
) -> Iterator[LiveClient]:
    """A live socket for as long as the block lasts."""
    with connect(
        url.replace("http", "ws", 1) + path + query,
        additional_headers={
            **({"authorization": f"Bearer {token}"} if token else {}),
            **(headers or {}),
        },
        subprotocols=[Subprotocol(offer) for offer in offers] or None,
        proxy=None,
        max_size=None,
        close_timeout=2,
    ) as connection:
        yield LiveClient(connection)
