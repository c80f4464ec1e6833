"""A client of the console's socket that keeps everything it saw."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.contract import Api


class Terminal:
    """One viewer: `seen` are the bytes, `start` the offset of the first, `notices` the rest."""

    def __init__(self, api: Api, vm: str, **query: str | int) -> None:
        base = str(api.client.base_url).replace("http://", "ws://")
        words = "&".join(f"{name}={value}" for name, value in query.items())
        self._stack = ExitStack()
        self.socket: ClientConnection = self._stack.enter_context(
            connect(
                f"{base}/api/v1/vms/{vm}/console?{words}",
                additional_headers={"authorization": f"Bearer {api.token}"},
                proxy=None,
                compression=None,
                max_queue=64,
                close_timeout=1,
            )
        )
        self.notices: list[dict[str, Any]] = []
        self.seen = bytearray()
        self.close_code: int | None = None
        self.receive(timeout_s=10)
        self.hello = self.notices[0]
        assert self.hello["type"] == "hello"
        self.start = int(self.hello["offset"])

    @property
    def end(self) -> int:
        """The offset behind the last byte seen; right as long as there was no gap."""
        return self.start + len(self.seen)

    def receive(self, *, timeout_s: float) -> bool:
        """Take one message; False when none came in time or the socket is closed."""
        try:
            message = self.socket.recv(timeout=timeout_s)
        except TimeoutError:
            return False
        except ConnectionClosed as error:
            self.close_code = error.rcvd.code if error.rcvd else 1006
            return False
        if isinstance(message, bytes):
            self.seen += message
        else:
            self.notices.append(json.loads(message))
        return True

    def until(self, wanted: bytes, *, after: int = 0, timeout_s: float = 20) -> bytes:
        """Everything seen, once `wanted` is in it, behind its first `after` bytes."""
        deadline = time.monotonic() + timeout_s
        while self.seen.find(wanted, after) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} in {bytes(self.seen[-400:])!r}"
            self.receive(timeout_s=left)
            assert self.close_code is None, f"closed with {self.close_code}"
        return bytes(self.seen)

    def until_notice(self, kind: str, *, timeout_s: float = 20, **fields: object) -> dict[str, Any]:
        """The first text frame of this type with these fields, seen or still to come."""
        deadline = time.monotonic() + timeout_s
        while True:
            for notice in self.notices:
                if notice["type"] == kind and fields.items() <= notice.items():
                    return notice
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind} {fields} in {self.notices}"
            self.receive(timeout_s=left)
            assert self.close_code is None, f"closed with {self.close_code}"

    def drain(self, *, quiet_s: float = 0.3, timeout_s: float = 10) -> bytes:
        """Everything seen, once nothing has come for `quiet_s`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.receive(timeout_s=quiet_s):
            pass
        return bytes(self.seen)

    def until_closed(self, *, timeout_s: float) -> int:
        """The close code."""
        deadline = time.monotonic() + timeout_s
        while self.close_code is None:
            left = deadline - time.monotonic()
            assert left > 0, "the socket stays open"
            self.receive(timeout_s=left)
        return self.close_code

    def write(self, text: str | bytes) -> None:
        """Type on the line."""
        self.socket.send(text.encode() if isinstance(text, str) else text)

    def control(self, **fields: object) -> None:
        """Send a text frame."""
        self.socket.send(json.dumps(fields))

    def close(self) -> None:
        """Hang up."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Stalled:
    """A viewer that takes nothing after the handshake, as one whose laptop sleeps."""

    def __init__(self, api: Api, vm: str, *, mode: str = "read") -> None:
        base = api.client.base_url
        self._socket = socket.socket()
        # The kernel would take a good deal for a reader that does not read.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((base.host, base.port))
        self._socket.sendall(
            f"GET /api/v1/vms/{vm}/console?since=end&mode={mode} HTTP/1.1\r\n"
            f"Host: {base.host}:{base.port}\r\n"
            f"Authorization: Bearer {api.token}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert self._socket.recv(12) == b"HTTP/1.1 101"

    def write_until_full(self, *, limit: int) -> int:
        """Type until the service takes no more for a second; how much it took."""
        self._socket.settimeout(1)
        sent = 0
        # A whole message, masked with zeros: RFC 6455, 5.2.
        frame = b"\x82\xfe" + (4096).to_bytes(2) + bytes(4) + b"x" * 4096
        with suppress(TimeoutError):
            while sent < limit:
                sent += self._socket.send(frame[sent % len(frame) :])
        return sent

    def close(self) -> None:
        """Hang up without a word."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
