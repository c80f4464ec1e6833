"""A fake QEMU's monitor: QMP as 7.2 speaks it, to one client at a time."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

GREETING = {
    "QMP": {
        "version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "fake"},
        "capabilities": ["oob"],
    }
}

Arguments = Mapping[str, object]
Execute = Callable[[str, Arguments], object]


class Refused(Exception):
    """QEMU answers a command with an error."""

    def __init__(self, words: str, *, kind: str = "GenericError") -> None:
        self.kind = kind
        super().__init__(words)


class FakeMonitor:
    """Listens where the real one does; `execute(name, arguments)` answers or raises `Refused`.

    While `awake` is not set nothing is greeted and nothing answered, as by a stopped process.
    """

    def __init__(self, listener: socket.socket, execute: Execute, awake: asyncio.Event) -> None:
        self._listener = listener
        self._execute = execute
        self._awake = awake
        self._turn = asyncio.Lock()
        self._client: asyncio.StreamWriter | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Serve from now on."""
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener)

    def event(self, name: str, **data: object) -> None:
        """Tell the client, if there is one, what has happened."""
        micros = time.time_ns() // 1000
        stamp = {"seconds": micros // 1_000_000, "microseconds": micros % 1_000_000}
        self._send({"event": name, "timestamp": stamp, **({"data": data} if data else {})})

    def hang_up(self) -> None:
        """End the client's connection; the next client is served."""
        if self._client is not None:
            self._client.close()

    def close(self) -> None:
        """End, as the process does."""
        if self._server is not None:
            self._server.close()
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        self._awake.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            async with self._turn:
                await self._awake.wait()
                self._client = writer
                self._send(GREETING)
                async for message in _messages(reader):
                    await self._awake.wait()
                    self._answer(message)
        except OSError:
            pass  # hung up in the middle of a word
        finally:
            if self._client is writer:
                self._client = None
            self._writers.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, message: dict[str, object]) -> None:
        name, arguments = str(message["execute"]), message.get("arguments", {})
        assert isinstance(arguments, dict)
        answer: dict[str, object]
        try:
            returned = {} if name == "qmp_capabilities" else self._execute(name, arguments)
            answer = {"return": returned}
        except Refused as error:
            answer = {"error": {"class": error.kind, "desc": str(error)}}
        self._send(answer | {"id": message.get("id")})

    def _send(self, message: Mapping[str, object]) -> None:
        if self._client is not None and not self._client.is_closing():
            self._client.write(json.dumps(message).encode() + b"\r\n")


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, object]]:
    """JSON objects one after the other; QMP has nothing between them."""
    text = ""
    while data := await reader.read(65_536):
        text += data.decode()
        while text := text.lstrip():
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            yield message
            text = text[end:]
