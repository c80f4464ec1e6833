"""What is asked for together with the negotiation: answered, refused, cut off, not answered."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.qmp import Arguments, FakeMonitor, Refused
from voidvm.hypervisor.monitor import CommandRefused, Monitor, MonitorLost, MonitorTimeout

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
