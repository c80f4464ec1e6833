"""Many clients of `/ws` in one thread: what reaches them, and how late."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime

from websockets.asyncio.client import ClientConnection, connect

from benchlib.service import Failed, Service

TOPICS = ("events", "vm-metrics", "system-monitor")
READY_S = 60.0


class Subscribers:
    """`delays` holds, for each event at each client, the milliseconds since it was written."""

    def __init__(self, url: str, token: str, *, count: int) -> None:
        self.delays: list[float] = []
        self.samples = 0
        self._url = url
        self._token = token
        self._count = count
        self._ready: Future[asyncio.Event] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Returns when all are subscribed. Raises `Failed`."""
        self._thread.start()
        self._ready.result(READY_S)

    def close(self) -> None:
        """Hang up, all of them."""
        if self._loop is not None and self._ready.done():
            self._loop.call_soon_threadsafe(self._ready.result().set)
        self._thread.join(READY_S)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        try:
            async with AsyncExitStack() as stack:
                headers = {"Authorization": f"Bearer {self._token}"}
                for _ in range(self._count):
                    socket = await stack.enter_async_context(
                        connect(self._url, additional_headers=headers, max_size=None)
                    )
                    await self._subscribe(socket)
                    reader = asyncio.create_task(self._read(socket))
                    stack.callback(reader.cancel)
                self._ready.set_result(stop)
                await stop.wait()
        except Exception as error:
            if not self._ready.done():
                self._ready.set_exception(Failed(f"no subscriber: {error}"))
            raise

    async def _subscribe(self, socket: ClientConnection) -> None:
        for topic in TOPICS:
            await socket.send(json.dumps({"type": "subscribe", "data": {"topic": topic}}))
            while json.loads(await socket.recv())["type"] != "subscribed":
                pass

    async def _read(self, socket: ClientConnection) -> None:
        async for text in socket:
            now = time.time()
            message = json.loads(text)
            if message["type"] == "system-event":
                # Written with milliseconds, so up to one too many is counted.
                written = datetime.fromisoformat(message["data"]["createdAt"]).timestamp()
                self.delays.append((now - written) * 1000)
            else:
                self.samples += 1


@contextmanager
def subscribed(service: Service, *, count: int) -> Iterator[Subscribers]:
    """So many clients, each subscribed to all events and measurements."""
    url = f"ws://{service.host}:{service.port}/ws"
    clients = Subscribers(url, service.token, count=count)
    try:
        clients.start()
        yield clients
    finally:
        clients.close()
