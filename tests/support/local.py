"""A service in a thread of the tests: real sockets, files and SQLite; its QEMUs fake, or not.

Tests stay plain functions and call it as any client does; `do` reaches inside.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import httpx
import uvloop
from argon2.profiles import CHEAPEST
from sanic import Sanic

from tests.fakes.clock import FakeClock
from tests.fakes.qemu import FakeHost
from tests.support import sanic_once
from tests.support.contract import Api, Contract, contract
from tests.support.service import NO_TLS, PASSWORD
from voidvm import app, config
from voidvm.api.gate import Gate
from voidvm.api.server import create_app
from voidvm.api.serving import listen, served
from voidvm.assembly import Parts
from voidvm.bus import News, SessionEnded, VmStatusChanged
from voidvm.services.clock import Clock
from voidvm.services.services import Services
from voidvm.supervisor.fleet import Fleet

T = TypeVar("T")

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

# Several applications live in one process here, one after the other and side by side.
Sanic.test_mode = True
sanic_once.remember()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def restartable(**settings: str) -> LocalService:
    """A service with fake QEMUs and many sockets, which keeps its address when it starts again."""
    return LocalService(
        FakeHost(),
        VOIDVM_SERVER__PORT=str(free_port()),
        VOIDVM_LIMITS__WEBSOCKETS_PER_USER="0",
        **settings,
    )


def _memory() -> str | None:
    """A file system without a disk behind it, which each commit would wait for; None: too small."""
    folder = Path("/dev/shm")  # noqa: S108 - the folder made there is our own
    has_room = folder.is_dir() and shutil.disk_usage(folder).free > 2 * 1024**3
    return str(folder) if has_room else None


class _Errors(logging.Handler):
    """Collects what the service reports as its own faults."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class LocalService:
    """Started and stopped as often as a test likes, on the same state."""

    def __init__(self, host: FakeHost | None, **settings: str) -> None:
        # Short, because socket paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="vv-", dir=None if host is None else _memory()))
        self.host = host
        self.settings, self.sources = config.read(
            environ={
                "VOIDVM_STORAGE__DATA_DIR": str(self.folder / "d"),
                "VOIDVM_STORAGE__RUN_DIR": str(self.folder / "r"),
                "VOIDVM_SERVER__PORT": "0",
                "VOIDVM_QEMU__ACCEL": "tcg",
                "VOIDVM_LIMITS__REQUESTS_PER_MINUTE": "0",
                **settings,
            }
        )
        # What the service goes by that starts VMs by itself; None: the host's.
        self.clock: FakeClock | None = None
        # Another text is another boot of the host; None: the one that it is in.
        self.boot: str | None = None
        self.url = ""
        # What every request passes; there once it was started.
        self.gate: Gate
        # The application; the same.
        self.sanic: Sanic
        self.news: list[News] = []
        self.errors = _Errors()
        self._parts: Parts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop, self._over = asyncio.Event(), asyncio.Event()
        self._thread: threading.Thread | None = None
        self._serving: Future[None] | None = None
        self._client: httpx.Client | None = None
        self._contract: Contract | None = None

    # Life

    def start(self) -> None:
        """Start it; returns when it listens. Raises what the service raises."""
        if self._loop is None:
            has_loop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(has_loop,), name="service")
            self._thread.start()
            assert has_loop.wait(START_TIMEOUT_S), "no loop"
        logging.getLogger().addHandler(self.errors)
        is_up = threading.Event()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(is_up), self.loop)
        self._serving.add_done_callback(lambda _: is_up.set())
        assert is_up.wait(START_TIMEOUT_S), "the service did not start"
        if self._serving.done():
            self._serving.result()
        self._client = httpx.Client(base_url=self.url, timeout=100, trust_env=False, verify=NO_TLS)

    def stop(self) -> None:
        """Stop it as SIGTERM does; guests go on."""
        logging.getLogger().removeHandler(self.errors)
        if self._client is not None:
            self._client.close()
            self._client = None
        serving, self._serving = self._serving, None
        if serving is not None and not serving.done():
            self.loop.call_soon_threadsafe(self._stop.set)
            serving.result(STOP_TIMEOUT_S)

    def close(self) -> None:
        """End everything and remove the folders; once is enough."""
        try:
            if self._loop is not None:
                if self.host is not None:
                    self.do(self.host.end)
                self.stop()
                self.loop.call_soon_threadsafe(self._over.set)
                assert self._thread is not None
                self._thread.join(STOP_TIMEOUT_S)
                self._loop = None
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, has_loop: threading.Event) -> None:
        async def live() -> None:
            self._loop = asyncio.get_running_loop()
            has_loop.set()
            # Fakes live on the loop, so it outlives the service as QEMU does.
            await self._over.wait()
            # What was closed a moment ago has a turn to end.
            await asyncio.sleep(0.05)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())

    async def _serve(self, is_up: threading.Event) -> None:
        self._stop.clear()
        settings = self.settings
        # As `app.serve_until`, with the parts at hand.
        async with AsyncExitStack() as stack:
            with self._fakes():
                parts = self._parts = await stack.enter_async_context(
                    app.running(settings, self.sources, boot=self.boot)
                )
            parts.bus.subscribe(self.news.append)
            listener = listen(settings.server.host, settings.server.port)
            self.gate = app.gate_of(settings, parts)
            self.sanic = create_app(self.gate, body_bytes=settings.limits.body_bytes)
            await stack.enter_async_context(served(self.sanic, listener))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            is_up.set()
            await self._stop.wait()

    @contextmanager
    def _fakes(self) -> Iterator[None]:
        """While the service is put together, what it puts in is fake, and its hashes cheap."""
        if self.host is None:
            yield
            return
        host = self.host
        with (
            mock.patch("voidvm.assembly.Clock", return_value=self.clock or Clock()),
            mock.patch.object(app, "Launcher", return_value=host),
            mock.patch("voidvm.security.passwords.RFC_9106_LOW_MEMORY", CHEAPEST),
            mock.patch("voidvm.supervisor.fleet.running_guests", host.running_guests),
            mock.patch("voidvm.supervisor.machine.QemuProcess.adopt", host.adopt),
        ):
            yield

    # Reaching in

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The service's loop."""
        assert self._loop is not None
        return self._loop

    @property
    def services(self) -> Services:
        """The use cases."""
        assert self._parts is not None
        return self._parts.services

    @property
    def fleet(self) -> Fleet:
        """The machines."""
        assert self._parts is not None
        return self._parts.fleet

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def do(self, call: Callable[[], T]) -> T:
        """The result of a call on the service's loop."""

        async def work() -> T:
            return call()

        return self.run(work())

    # What tests look at

    def api(self, *, username: str = "admin", password: str = PASSWORD) -> Api:
        """The API for a user who has just signed in."""
        api = self.anybody()
        answer = api.ok("POST", "/auth/login", {"username": username, "password": password})
        return api.as_user(answer["token"])

    def anybody(self) -> Api:
        """The API without a credential."""
        assert self._client is not None
        if self._contract is None:
            self._contract = contract(self._client.get("/docs/openapi.json").content)
        return Api(self._client, self._contract)

    def statuses(self, vm_id: str) -> list[str]:
        """Every status of a VM in the order in which they were seen."""
        return [
            str(news.status)
            for news in self.news
            if isinstance(news, VmStatusChanged) and news.vm_id == vm_id
        ]

    def ended_sessions(self) -> list[str]:
        """The sessions that were ended."""
        return [news.session_id for news in self.news if isinstance(news, SessionEnded)]


@contextmanager
def fake_service(**settings: str) -> Iterator[LocalService]:
    """A started service with fake QEMUs, which must not call anything its own fault."""
    service = LocalService(FakeHost(), **settings)
    try:
        service.start()
        yield service
        assert service.errors.texts == []
    finally:
        service.close()
