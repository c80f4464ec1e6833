"""A client of server-sent events, as the HTML standard describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from msgspec import Struct

from tests.support.contract import Api, Json

PATH = "/api/v1/events/stream"


class Message(Struct, frozen=True):
    """One event of a stream; `kind` is its `event`."""

    id: str
    kind: str
    data: Json


class Stream:
    """What has come, line by line; `last_id` as an EventSource would send it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()
        self.last_id = ""
        self.retry_ms = 0
        self.comments: list[str] = []

    def next(self) -> Message:
        """The next event; `StopIteration` when the stream has ended."""
        found = None
        while found is None:
            found = self.block()
        return found

    def block(self) -> Message | None:
        """What stands before the next empty line: an event, or nothing to dispatch."""
        kind, data = "message", []
        while line := next(self._lines):
            name, _, value = line.partition(": ")
            match name:
                case "id":
                    self.last_id = value
                case "event":
                    kind = value
                case "data":
                    data.append(value)
                case "retry":
                    self.retry_ms = int(value)
                case _:
                    self.comments.append(value)
        return Message(self.last_id, kind, json.loads("\n".join(data))) if data else None

    def take(self, count: int) -> list[Message]:
        """The next events."""
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Message]:
        """Everything until the end of the stream."""
        found = []
        try:
            while True:
                found.append(self.next())
        except (StopIteration, httpx.RemoteProtocolError, httpx.ReadError):
            return found


@contextmanager
def stream(api: Api, *, headers: Json = None, **query: Json) -> Iterator[Stream]:
    """A stream that has begun: its greeting was read."""
    credential = {"authorization": f"Bearer {api.token}"} if api.token else {}
    with api.client.stream(
        "GET", PATH, params=query, headers={**credential, **(headers or {})}
    ) as response:
        if response.is_error:
            response.read()
            raise AssertionError(response.text)
        api.contract.check(response)
        made = Stream(response)
        assert made.block() is None
        yield made


def refused(api: Api, *, headers: Json = None, **query: Json) -> tuple[int, str]:
    """Status and code of a stream that must not begin."""
    credential = {"authorization": f"Bearer {api.token}"} if api.token else {}
    with api.client.stream(
        "GET", PATH, params=query, headers={**credential, **(headers or {})}
    ) as response:
        assert response.is_error
        response.read()
        api.contract.check(response)
        return response.status_code, response.json()["error"]["code"]
