"""The audit log as clients and as readers of the service's log see it."""

from __future__ import annotations

import logging
import secrets

from tests.support.contract import Api, Json
from voidvm.logs import AUDIT

# Of an entry that clients read.
KEYS = {
    *("id", "at", "level", "userId", "username", "address", "action", "target", "status"),
    *("code", "requestId"),
}


class Lines(logging.Handler):
    """Everything that the service logs, as `configure` would print it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self.entries: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("httpx", "httpcore", "websockets.client")):
            return  # of the tests' own clients, which live in the same process
        self.texts.append(self.format(record))
        if record.name == AUDIT:
            self.entries.append(record.getMessage())


def entries_of(api: Api, request_id: str) -> list[Json]:
    """The entries of one request."""
    found = api.ok("GET", "/logs", params={"limit": 200})["logs"]
    return [entry for entry in found if entry["requestId"] == request_id]


def new_id() -> str:
    """An id for a request."""
    return "req-" + secrets.token_hex(8)
