"""What is asked for together with the negotiation, and what a hostile QEMU can say."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes.qmp import Arguments, FakeMonitor, Refused
from tests.support.waiting import until
from voidvm.hypervisor.monitor import (
    BURST,
    BURSTS_PER_S,
    LINE_MAX_BYTES,
    WORDS_MAX,
    CommandRefused,
    Monitor,
    MonitorLost,
    MonitorTimeout,
    pty_of,
)

OPENING = ("query-chardev", "cont")
Execute = Callable[[str, Arguments], object]


@asynccontextmanager
async def _line(
    execute: Execute, *, awake: asyncio.Event | None = None
) -> AsyncIterator[tuple[Monitor, Path, FakeMonitor, list[str]]]:
    """A monitor that has yet to connect, its address, the other end, and the events it hears."""
    events: list[str] = []
    if awake is None:
        awake = asyncio.Event()
        awake.set()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vv-")))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "qmp"))
        listener.listen(1)
        fake = FakeMonitor(listener, execute, awake)
        stack.callback(fake.close)
        await fake.listen()
        monitor = Monitor(
            on_event=lambda name, _: events.append(name), on_lost=lambda: None, opening=OPENING
        )
        stack.push_async_callback(monitor.close)
        yield monitor, folder / "qmp", fake, events


async def test_the_opening_is_answered_in_order_and_later_commands_work() -> None:
    asked: list[str] = []

    def execute(name: str, _: Arguments) -> object:
        asked.append(name)
        if name == "cont":
            fake.event("RESUME")
        return name.upper()

    async with _line(execute) as (monitor, path, fake, events):
        await monitor.connect(path, timeout_s=20)
        assert await monitor.opened(timeout_s=20) == ["QUERY-CHARDEV", "CONT"]
        assert events == ["RESUME"]
        assert await monitor.execute("stop", timeout_s=20) == "STOP"
    assert asked == [*OPENING, "stop"]


async def test_a_refusal_is_told_in_the_words_of_qemu() -> None:
    def execute(name: str, _: Arguments) -> object:
        if name == "cont":
            raise Refused("no lock to be had")
        return []

    async with _line(execute) as (monitor, path, _, _):
        await monitor.connect(path, timeout_s=20)
        with pytest.raises(CommandRefused, match="no lock to be had"):
            await monitor.opened(timeout_s=20)


async def test_a_line_that_breaks_before_the_answer_is_lost() -> None:
    def execute(name: str, _: Arguments) -> object:
        if name == "cont":
            fake.hang_up()
        return []

    async with _line(execute) as (monitor, path, fake, _):
        await monitor.connect(path, timeout_s=20)
        with pytest.raises(MonitorLost):
            await monitor.opened(timeout_s=20)


async def test_silence_has_its_deadline() -> None:
    awake = asyncio.Event()
    async with _line(lambda *_: [], awake=awake) as (monitor, path, _, _):
        with pytest.raises(MonitorTimeout):
            await monitor.connect(path, timeout_s=0.2)


async def test_rubbish_ends_the_line_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """Too long a line, too deep a value: each makes another error inside the client."""
    for rubbish in (b"x" * (2 * LINE_MAX_BYTES + 1), b"[" * 100_000 + b"\r\n", b"null\r\n"):

        def execute(name: str, _: Arguments, rubbish: bytes = rubbish) -> object:
            if name == "stop":
                assert fake._client is not None
                fake._client.write(rubbish)
            return []

        async with _line(execute) as (monitor, path, fake, _):
            await monitor.connect(path, timeout_s=20)
            await monitor.opened(timeout_s=20)
            with suppress(MonitorLost):
                await monitor.execute("stop", timeout_s=20)
            with pytest.raises(MonitorLost) as caught:
                await monitor.execute("cont", timeout_s=20)
            assert len(str(caught.value)) < 2 * WORDS_MAX
            await monitor.close()
    assert "Traceback" not in caplog.text


async def test_a_line_that_breaks_as_soon_as_it_stands_is_lost() -> None:
    async def use(monitor: Monitor, path: Path) -> None:
        await monitor.connect(path, timeout_s=20)
        await monitor.execute("stop", timeout_s=20)

    def execute(name: str, _: Arguments) -> object:
        assert fake._client is not None
        fake._client.write(b"null\r\n" * 3)
        return []

    async with _line(execute) as (monitor, path, fake, _):
        with pytest.raises(MonitorLost):
            await use(monitor, path)


async def test_a_storm_of_events_is_read_slowly() -> None:
    async with _line(lambda *_: []) as (monitor, path, fake, events):
        await monitor.connect(path, timeout_s=20)
        await monitor.opened(timeout_s=20)
        began = time.monotonic()
        for _ in range(10 * BURST):
            fake.event("STOP")
        await until(lambda: len(events) == 10 * BURST)
        assert time.monotonic() - began > 8 / BURSTS_PER_S


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/pts/../sda", "/dev/pts/1/x", "", "3"])
def test_nothing_but_a_pty_is_taken_for_one(path: str) -> None:
    line = {"label": "serial0", "filename": f"pty:{path}"}
    with pytest.raises(CommandRefused):
        pty_of([line], "serial0")
    assert pty_of([line | {"filename": "pty:/dev/pts/12"}], "serial0") == "/dev/pts/12"
