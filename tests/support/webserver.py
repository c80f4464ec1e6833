"""A web server on loopback that misbehaves as it is told, one connection at a time or many."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

Answer = Callable[["Call"], None]


class Call(Struct):
    """One request, and the means to answer it byte for byte."""

    path: str
    headers: dict[str, str]
    connection: socket.socket

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: int, **fields: object) -> None:
        """A status line and header fields; underscores stand for hyphens."""
        lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    @property
    def start(self) -> int:
        """The first byte that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(match[1]) if match else 0


class WebServer:
    """Answers each request with what is registered for its path."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._routes: dict[str, Answer] = {}
        self.calls: list[Call] = []
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host}:{self.port}{path}"

    def on(self, path: str, answer: Answer) -> str:
        """Answer a path so; its URL."""
        self._routes[path] = answer
        return self.url(path)

    def file(self, path: str, body: bytes, etag: str = '"v1"') -> str:
        """A file that is served well, parts of it too; its URL."""

        def answer(call: Call) -> None:
            is_same = call.headers.get("if-range", etag) == etag
            start = call.start if is_same else 0
            fields: dict[str, object] = {"Content_Length": len(body) - start, "ETag": etag}
            if start:
                fields["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            call.head(206 if start else 200, **fields)
            call.send(body[start:])

        return self.on(path, answer)

    def close(self) -> None:
        self.stopped.set()
        # A blocked accept() does not notice that its socket is closed.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(20)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                call = self._read(connection)
                self.calls.append(call)
                self._routes.get(call.path, _missing)(call)
                # Sent bytes must arrive before a reset does.
                connection.shutdown(socket.SHUT_WR)

    @staticmethod
    def _read(connection: socket.socket) -> Call:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(4096)
            if not chunk:
                raise OSError("no request")
            data += chunk
        first, *lines = data.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Call(
            path=first.split(" ")[1],
            headers={name.lower(): value for name, value in headers.items()},
            connection=connection,
        )


def _missing(call: Call) -> None:
    call.head(404, Content_Length=0)


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """A server for the duration of a block."""
    server = WebServer(tls)
    try:
        yield server
    finally:
        server.close()


def breaking_after(body: bytes, count: int, *, etag: str | None = '"v1"') -> Answer:
    """An answer that breaks off `count` bytes further each time, and resumes where it should."""

    def answer(call: Call) -> None:
        start = call.start if etag is None or call.headers.get("if-range") == etag else 0
        fields: dict[str, object] = {"Content_Length": len(body) - start}
        if etag is not None:
            fields["ETag"] = etag
        if start:
            fields["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        call.head(206 if start else 200, **fields)
        call.send(body[start : start + count])

    return answer


def dripping(interval_s: float) -> Answer:
    """An answer of a byte now and then."""

    def answer(call: Call) -> None:
        call.head(200, Content_Length=1_000_000)
        for _ in range(200):
            call.send(b"x")
            time.sleep(interval_s)

    return answer
