"""A flooding guest is read in larger pieces; a quick one is not kept waiting."""

from __future__ import annotations

import asyncio
import os
import time
import tty
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.consoles import records
from tests.support.waiting import until
from voidvm.hypervisor.serial import open_line
from voidvm.supervisor import console as module
from voidvm.supervisor.console import Console
from voidvm.supervisor.history import History
from voidvm.supervisor.transcript import CHUNK_BYTES
from voidvm.supervisor.viewer import StatusNotice, ViewersNotice


class Guest:
    """A guest that says each thing to its line and its log, as QEMU does."""

    def __init__(self, log: Path) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.log = log
        self._log = log.open("ab", buffering=0)

    def line(self) -> int:
        return open_line(os.ttyname(self._slave), pid=os.getpid())

    def say(self, data: bytes) -> int:
        """Say as much as the line takes; how much that is."""
        try:
            taken = os.write(self._master, data)
        except BlockingIOError:
            return 0
        self._log.write(data[:taken])
        return taken

    def heard(self) -> bytes:
        try:
            return os.read(self._master, 65_536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._log.close()
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    guest = Guest(tmp_path / "log")
    yield guest
    guest.close()


@pytest.fixture
async def console(tmp_path: Path, guest: Guest) -> AsyncIterator[Console]:
    console = Console(tmp_path / "log", records=records(1 << 24))
    console.attach(guest.line())
    yield console
    await console.close()


async def test_a_flood_is_read_in_larger_pieces(
    console: Console, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    assert console._line is not None
    read = console._line.read

    def counted() -> bytes | None:
        data = read()
        reads.append(len(data or b""))
        return data

    monkeypatch.setattr(console._line, "read", counted)
    said = 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        said += guest.say(b"0123456789abcdefgh\n")
        if said % 4 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert console.end == said
    assert len(reads) < said / 19 / 3


async def test_a_quick_guest_is_never_kept_waiting(
    console: Console, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = 0
    assert console._line is not None
    pause = console._line.pause

    def counted() -> None:
        nonlocal pauses
        pauses += 1
        pause()

    monkeypatch.setattr(console._line, "pause", counted)
    # A key each 0.7 ms is 28 reads in a window.
    async with console.viewing(offset=0, mode="write") as viewer:
        for number in range(40):
            guest.say(b"%d" % (number % 10))
            await viewer.next()
            await asyncio.sleep(module.FLOOD_WINDOW_S / 40)
    assert pauses == 0


async def flooded(console: Console, guest: Guest) -> None:
    """Have a guest say so much that the line is read by the clock."""
    async with asyncio.timeout(5):
        while console._resume is None:
            guest.say(b"0123456789abcdefgh\n")
            await asyncio.sleep(0)


async def test_after_a_flood_echoes_are_quick_at_once(console: Console, guest: Guest) -> None:
    async with console.viewing(offset=0, mode="write") as viewer:
        await flooded(console, guest)
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(viewer.next(), module.FLOOD_PAUSE_S * 1.5)
        begun = time.monotonic()
        for _ in range(30):
            guest.say(b"k")
            await viewer.next()
            # A guest that is no quicker than one to each 0.7 ms.
            await asyncio.sleep(0.0007)
        assert time.monotonic() - begun < 30 * module.FLOOD_PAUSE_S / 2


async def test_what_goes_wrong_in_a_flood_leaves_nobody_unheard(
    console: Console, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    await flooded(console, guest)
    assert console._line is not None
    read = console._line.read
    failures = iter([OSError(5, "the disk is bad for a moment")])

    def failing() -> bytes:
        for failure in failures:
            raise failure
        return read()

    monkeypatch.setattr(console._line, "read", failing)
    said = guest.say(b"after it\n")
    await until(lambda: bool(told) and console.end == guest.log.stat().st_size)
    assert console.tail(said) == b"after it\n"


async def test_a_history_that_cannot_be_cut_keeps_nobody_waiting(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def failing(_history: History) -> None:
        tried.append(1)
        raise OSError(95, "not supported")

    monkeypatch.setattr(History, "trim", failing)
    console = Console(tmp_path / "log", records=records(4096))
    console.attach(guest.line())
    for _ in range(20):
        guest.say(b"x" * 1000)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(console.close(), 1)
    assert tried == [1]


async def test_input_is_typed_in_order_through_a_full_line(console: Console, guest: Guest) -> None:
    data = os.urandom(200_000)
    typing = asyncio.create_task(console.type(data))
    heard = b""
    async with asyncio.timeout(10):
        while len(heard) < len(data):
            heard += guest.heard()
            await asyncio.sleep(0)
    await typing
    assert heard == data


async def test_typing_waits_while_the_queue_is_full(console: Console) -> None:
    typing = asyncio.create_task(console.type(b"x" * 500_000))
    await asyncio.sleep(0.05)
    assert not typing.done()
    assert console._input_bytes <= module.INPUT_MAX_BYTES
    console.detach()
    await asyncio.wait_for(typing, 1)


async def test_typing_at_once_never_waits_and_never_overtakes(
    console: Console, guest: Guest
) -> None:
    assert console.type_now(b"a" * 60_000)
    assert not console.type_now(b"b")
    typing = asyncio.create_task(console.type(b"c"))
    heard = b""
    async with asyncio.timeout(5):
        while not heard.endswith(b"c"):
            heard += guest.heard()
            await asyncio.sleep(0)
    await typing
    assert heard == b"a" * 60_000 + b"c"


async def test_without_a_line_input_is_lost(tmp_path: Path) -> None:
    console = Console(tmp_path / "log", records=records(1 << 24))
    await asyncio.wait_for(console.type(b"x" * 500_000), 1)
    await console.close()


async def test_a_viewer_that_does_not_look_costs_nothing(console: Console, guest: Guest) -> None:
    async with (
        console.viewing(offset=0, mode="read"),
        console.viewing(offset=0, mode="read") as other,
    ):
        seen, said = 0, 0
        async with asyncio.timeout(10):
            while said < 160_000:
                said += guest.say(b"%07d\n" % said * 100)
                found = await other.next()
                seen += len(getattr(found, "data", b""))
        assert seen > 0
        assert len(console._transcript._latest.data) <= CHUNK_BYTES


async def test_only_the_newest_notices_are_kept(console: Console) -> None:
    from voidvm.domain.states import VmStatus  # noqa: PLC0415 - one test's

    async with console.viewing(offset=0, mode="read") as viewer:
        for status in (VmStatus.STARTING, VmStatus.RUNNING, VmStatus.PAUSED):
            console.tell_status(status)
        assert await viewer.next() == StatusNotice(VmStatus.PAUSED)
        async with console.viewing(offset=0, mode="read"):
            pass
        assert await viewer.next() == ViewersNotice(1)
