"""A line that nobody reads is full soon; QEMU then files a byte twice, and nobody may see it."""

from __future__ import annotations

import asyncio
import os
import select
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.consoles import records
from voidvm.hypervisor.serial import open_line
from voidvm.supervisor.console import Console
from voidvm.supervisor.doubles import Doubles
from voidvm.supervisor.history import Gap, Output

LINE_BYTES = 20_480


class Guest:
    """Speaks and files as QEMU does: byte by byte, and once more what the line has refused."""

    def __init__(self, log: Path) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.refused = 0

    def line(self) -> int:
        return open_line(os.ttyname(self._slave), pid=os.getpid())

    def say(self, text: bytes) -> None:
        for byte in (text[n : n + 1] for n in range(len(text))):
            while not self._is_taken(byte):
                self.refused += 1
                os.write(self._log, byte)
                assert select.select([], [self._master], [], 10)[1], "the line is not read"
            os.write(self._log, byte)

    def _is_taken(self, byte: bytes) -> bool:
        try:
            return os.write(self._master, byte) == 1
        except BlockingIOError:
            return False

    def close(self) -> None:
        for fd in (self._master, self._slave, self._log):
            os.close(fd)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


@pytest.fixture
def guest(log: Path) -> Iterator[Guest]:
    guest = Guest(log)
    yield guest
    guest.close()


def numbers(first: int, count: int) -> bytes:
    return b"".join(b"%d\r\n" % number for number in range(first, first + count))


def whole(console: Console, *, since: int = 0) -> bytes:
    """All that the console has, from an offset on, in pieces of any size."""
    parts = []
    while (found := console.read(since, limit=10_000)) is not None:
        assert isinstance(found, Output)
        parts.append(found.data)
        since = found.end
    return b"".join(parts)


async def hold_up(guest: Guest, text: bytes, *, after_s: float = 0.02) -> None:
    """Have the guest say `text`, and do nothing else from a moment on until the line is full."""
    before = guest.refused
    saying = asyncio.create_task(asyncio.to_thread(guest.say, text))
    await asyncio.sleep(after_s)
    deadline = time.monotonic() + 20
    while guest.refused == before:
        assert time.monotonic() < deadline, "the line was never full"
        time.sleep(0.005)  # noqa: ASYNC251 - this is what is tested
    await saying
    await asyncio.sleep(0.3)


async def test_a_service_that_was_held_up_shows_each_byte_once(guest: Guest, log: Path) -> None:
    console = Console(log, records=records(1 << 20))
    console.attach(guest.line())
    said, seen = b"", b""

    async def watch() -> None:
        nonlocal seen
        async with console.viewing(offset=0, mode="read") as viewer:
            while True:
                found = await viewer.next()
                assert isinstance(found, Output)
                seen += found.data

    watching = asyncio.create_task(watch())
    for number in range(3):
        text = numbers(1000 * number, 9000)
        await hold_up(guest, text)
        said += text
        assert console.end == len(said)
    assert log.stat().st_size == len(said) + guest.refused
    assert whole(console) == said
    assert console.tail(LINE_BYTES) == said[-LINE_BYTES:]
    assert seen == said
    watching.cancel()
    await console.close()
    # The next service knows of it.
    again = Console(log, records=records(1 << 20))
    assert (again.end, whole(again)) == (len(said), said)
    again.attach(guest.line(), is_silent=False)
    await asyncio.to_thread(guest.say, b"and on")
    await asyncio.sleep(0.2)
    assert whole(again, since=len(said)) == b"and on"
    await again.close()


async def test_the_last_byte_may_be_the_one_that_was_refused(guest: Guest, log: Path) -> None:
    console = Console(log, records=records(1 << 20))
    console.attach(guest.line())
    text = numbers(0, 9000)[: LINE_BYTES + 1]
    # Nothing is read before the line is full.
    await hold_up(guest, text, after_s=0)
    assert log.stat().st_size == len(text) + guest.refused
    assert (console.end, whole(console)) == (len(text), text)
    await console.close()


async def test_a_line_that_is_opened_again_in_the_midst_of_output_finds_its_place(
    guest: Guest, log: Path
) -> None:
    os.write(guest._log, b"said while no service ran\r\n")
    console = Console(log, records=records(1 << 20))
    console.attach(guest.line(), is_silent=False)
    text = numbers(0, 20_000)
    for start in range(0, 5000, 50):
        await asyncio.to_thread(guest.say, text[start : start + 50])
    await hold_up(guest, text[5000:])
    assert whole(console) == b"said while no service ran\r\n" + text
    await console.close()


async def test_the_oldest_bytes_go_first_whatever_stands_twice(guest: Guest, log: Path) -> None:
    console = Console(log, records=records(16_384))
    console.attach(guest.line())
    text = numbers(0, 9000)
    await hold_up(guest, text)
    first = console.first
    assert console.end == len(text)
    assert len(text) - 16_384 * 9 // 8 - 4096 <= first <= len(text) - 16_384
    assert console.read(0, limit=10) == Gap(0, first)
    assert whole(console, since=first) == text[first:]
    await console.close()
    again = Console(log, records=records(16_384))
    assert (again.first, again.end) == (first, len(text))
    assert whole(again, since=first) == text[first:]
    await again.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def test_places_and_offsets_are_each_others_reverse(notes: Path) -> None:
    places = [3, 4, 10]
    doubles = Doubles(notes, size=0)
    for place in places:
        doubles.add(place)
    kept = [place for place in range(20) if place not in places]
    assert [doubles.to_place(offset) for offset in range(len(kept))] == kept
    assert [doubles.to_offset(place) for place in kept] == list(range(len(kept)))
    assert [doubles.next(place) for place in (0, 3, 4, 5, 11)] == [3, 3, 4, 10, None]
    assert notes.stat().st_mode & 0o777 == 0o600
    again = Doubles(notes, size=11)
    assert [again.to_place(offset) for offset in range(len(kept))] == kept


def test_notes_of_another_file_and_torn_ones_count_for_nothing(notes: Path) -> None:
    texts = ("5", "3", "\u00b2", "8", "9" * 5000, "100", "1")
    notes.write_text("\n".join(text.rjust(19, "0") for text in texts)[:-5])
    doubles = Doubles(notes, size=50)
    assert doubles.count == 2
    assert [doubles.to_offset(place) for place in (5, 6, 9)] == [5, 5, 7]
    doubles.add(20)
    # They do not come back for a file that has grown.
    assert Doubles(notes, size=200).count == 3


def test_what_cannot_be_noted_holds_until_the_service_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubles = Doubles(tmp_path / "missing" / "notes", size=0)
    doubles.add(7)
    assert doubles.to_place(7) == 8
    assert "twice" in caplog.text
