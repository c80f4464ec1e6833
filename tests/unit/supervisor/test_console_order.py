"""QEMU writes to the PTY first and to the file later, or not at all: every byte comes once."""

from __future__ import annotations

import asyncio
import os
import time
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.consoles import records
from voidvm.hypervisor.serial import SerialLine, open_line
from voidvm.supervisor import transcript
from voidvm.supervisor.console import Console
from voidvm.supervisor.history import Gap, Output
from voidvm.supervisor.viewer import Viewer


class Guest:
    """The far end of the line and of the file, written to in any order."""

    def __init__(self, log: Path) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self._slave = slave
        self._log = log

    def line(self) -> int:
        return open_line(os.ttyname(self._slave), pid=os.getpid())

    def say(self, data: bytes) -> None:
        os.write(self._master, data)

    def file(self, data: bytes) -> None:
        with self._log.open("ab") as log:
            log.write(data)

    def close(self) -> None:
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "console.log")


@pytest.fixture
async def console(tmp_path: Path, guest: Guest) -> AsyncIterator[Console]:
    made = Console(tmp_path / "console.log", records=records(1 << 20))
    made.attach(guest.line())
    yield made
    await made.close()
    guest.close()


async def taken(viewer: Viewer, size: int) -> bytes:
    """The next `size` bytes."""
    data = b""
    async with asyncio.timeout(5):
        while len(data) < size:
            found = await viewer.next()
            assert isinstance(found, Output)
            data += found.data
    return data


async def seen(viewer: Viewer, size: int) -> bytes:
    """The next `size` bytes and, a moment later, none more."""
    data = await taken(viewer, size)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await viewer.next()
    return data


async def test_what_is_said_while_a_line_is_opened_again_comes_once(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy host once held the service up there: five bytes came twice, and five were skipped."""
    guest.file(b"before\n")
    console = Console(tmp_path / "console.log", records=records(1 << 20))

    def open_slowly(fd: int, *, on_readable: Callable[[], None]) -> SerialLine:
        line = SerialLine(fd, on_readable=on_readable)
        guest.say(b"meanwhile\n")
        guest.file(b"meanwhile\n")
        return line

    monkeypatch.setattr("voidvm.supervisor.console.SerialLine", open_slowly)
    console.attach(guest.line(), is_silent=False)
    try:
        async with console.viewing(offset=0, mode="read") as viewer:
            assert await taken(viewer, 17) == b"before\nmeanwhile\n"
            for number in range(30):
                line = b"line %d\n" % number
                guest.say(line)
                await asyncio.sleep(0.005)
                guest.file(line)
                assert await taken(viewer, len(line)) == line
            await asyncio.sleep(4 * transcript.QUIET_S)
            # Now the line is believed again, before the file has anything.
            guest.say(b"echo")
            assert await seen(viewer, 4) == b"echo"
            guest.file(b"echo")
            assert console.end == viewer.offset == (tmp_path / "console.log").stat().st_size
    finally:
        await console.close()
        guest.close()


async def test_a_line_that_is_opened_again_beside_a_full_disk_is_heard(
    tmp_path: Path, guest: Guest
) -> None:
    console = Console(tmp_path / "console.log", records=records(1 << 20))
    console.attach(guest.line(), is_silent=False)
    try:
        async with console.viewing(offset=0, mode="read") as viewer:
            begun = time.monotonic()
            while time.monotonic() < begun + transcript.FILE_LAG_S + 0.2:
                guest.say(b".")
                await asyncio.sleep(0.01)
            guest.say(b"!")
            data = b""
            async with asyncio.timeout(5):
                while not data.endswith(b"!"):
                    found = await viewer.next()
                    data += found.data if isinstance(found, Output) else b""
    finally:
        await console.close()
        guest.close()


async def test_a_byte_is_passed_on_before_the_file_has_it_and_only_once(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        for number in range(20):
            word = b"%03d" % number
            guest.say(word)
            assert await seen(viewer, 3) == word
            guest.file(word)
    assert console.end == 60
    assert console.tail(60) == b"".join(b"%03d" % number for number in range(20))


async def test_a_viewer_a_step_behind_gets_what_the_file_still_lacks(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        guest.say(b"one ")
        await asyncio.sleep(0.02)
        guest.say(b"two ")
        await asyncio.sleep(0.02)
        assert await seen(viewer, 8) == b"one two "


async def test_what_the_line_has_lost_comes_from_the_file_without_repetition(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        guest.file(b"lost ")
        guest.say(b"heard ")
        guest.file(b"heard ")
        assert await seen(viewer, 11) == b"lost heard "
        guest.say(b"again ")
        await asyncio.sleep(0.005)
        guest.file(b"again ")
        assert await seen(viewer, 6) == b"again "


async def test_a_service_that_is_held_up_does_not_take_what_waits_on_the_line_for_new(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        guest.file(b"lost ")
        guest.say(b"heard ")
        guest.file(b"heard ")
        assert await taken(viewer, 11) == b"lost heard "
        # From here on the loop has no turn: timers that are due come before what can be read.
        guest.say(b"late ")
        guest.file(b"late ")
        console._look_now(transcript.QUIET_S)
        time.sleep(transcript.QUIET_S * 1.2)  # noqa: ASYNC251 - this is what is tested
        console._look_now(transcript.QUIET_S)
        assert await seen(viewer, 5) == b"late "


async def test_a_file_that_cannot_grow_gets_a_hole_and_offsets_stay_true(
    console: Console, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "FILE_LAG_S", 0.05)
    async with console.viewing(offset=0, mode="read") as viewer:
        # Two blocks of a file system: a smaller hole would be zeros.
        for _ in range(8):
            guest.say(b"x" * 1024)
            assert await seen(viewer, 1024) == b"x" * 1024
        for _ in range(250):
            if (tmp_path / "console.log").stat().st_size == 8192:
                break
            await asyncio.sleep(0.02)
        guest.say(b"after")
        guest.file(b"after")
        assert await seen(viewer, 5) == b"after"
    async with console.viewing(offset=50, mode="read") as late:
        assert await late.next() == Gap(50, 8192)
        assert await late.next() == Output(8192, b"after")


async def test_a_file_that_is_only_late_repeats_nothing(
    console: Console, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy disk may hold up QEMU between the line and the file; it says nothing meanwhile.
    monkeypatch.setattr(transcript, "FILE_LAG_S", 0.05)
    async with console.viewing(offset=0, mode="read") as viewer:
        guest.say(b"late ")
        assert await seen(viewer, 5) == b"late "
        await asyncio.sleep(1.2)
        guest.file(b"late ")
        guest.say(b"next")
        guest.file(b"next")
        assert await seen(viewer, 4) == b"next"
    assert (tmp_path / "console.log").read_bytes() == b"late next"


@pytest.mark.parametrize("word", [b"\n", b"\r\n", b"."])
async def test_what_was_filed_before_the_line_was_seen_opened_is_not_taken_for_what_is_heard(
    console: Console, guest: Guest, word: bytes
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        guest.file(word)
        guest.say(word)
        await asyncio.sleep(0.005)
        guest.file(word)
        for byte in b"login: root":
            guest.say(bytes([byte]))
            await asyncio.sleep(0.005)
            guest.file(bytes([byte]))
        whole = word * 2 + b"login: root"
        assert await taken(viewer, len(whole)) == whole


async def test_a_full_disk_is_noticed_though_the_guest_says_little(
    tmp_path: Path, console: Console, guest: Guest
) -> None:
    console._transcript._sure_from = 0.0
    guest.say(b"x")
    guest.file(b"x")
    await asyncio.sleep(0.1)
    for _ in range(30):
        guest.say(b"lost ")
        await asyncio.sleep(0.03)
    # What a next service would take for the end: at most what was said in the last moment lacks.
    assert (tmp_path / "console.log").stat().st_size > 151 - 5 * 0.7 / 0.03


async def test_a_line_without_another_end_is_no_busy_loop(
    console: Console, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = SerialLine.read

    def count(line: SerialLine) -> bytes:
        nonlocal reads
        reads += 1
        return read(line)

    monkeypatch.setattr(SerialLine, "read", count)
    os.close(guest._slave)
    os.close(guest._master)
    guest._master, guest._slave = os.openpty()
    await asyncio.sleep(1)
    assert 1 <= reads < 5
    assert console._line is not None
    assert not console._line.has_output


async def test_what_is_said_when_a_full_disk_has_room_again_is_seen(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        for number in range(6):
            line = b"line %d\n" % number
            guest.say(line)
            if number != 1:
                guest.file(line)
            assert await seen(viewer, len(line)) == line


async def test_what_the_file_alone_has_does_not_wait_for_the_next_word(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        await asyncio.sleep(0.1)
        guest.file(b"not on the line")
        async with asyncio.timeout(transcript.QUIET_S + 0.7):
            assert await taken(viewer, 15) == b"not on the line"
        guest.file(b", and more")
        async with console.viewing(offset=0, mode="read") as late:
            async with asyncio.timeout(transcript.QUIET_S + 0.2):
                assert await taken(late, 25) == b"not on the line, and more"


async def test_what_the_file_alone_has_is_no_double(console: Console, guest: Guest) -> None:
    text = b"x" * 5000 + b"....."
    guest.file(text[:5001])
    for place in range(5001, 5005):
        await asyncio.sleep(transcript.QUIET_S * 1.5)
        console._look_now(transcript.QUIET_S)
        guest.file(text[place : place + 1])
    await asyncio.sleep(0.7)
    assert console.end == len(text)
    assert console.tail(len(text)) == text


async def test_what_the_file_lacks_is_read_in_pieces_of_any_size(
    console: Console, guest: Guest
) -> None:
    guest.say(b"abcdef")
    await asyncio.sleep(0.05)
    assert console.read(0, limit=4) == Output(0, b"abcd")
    assert console.read(4, limit=4) == Output(4, b"ef")


async def test_a_sink_gets_the_output_while_somebody_waits_and_nothing_twice(
    console: Console, guest: Guest
) -> None:
    async with console.viewing(offset=0, mode="read") as viewer:
        sunk: list[bytes] = []
        room = True

        def sink(data: bytes) -> bool:
            if room:
                sunk.append(data)
            return room

        viewer.sink = sink
        console._transcript._sure_from = 0.0
        guest.say(b"first ")
        guest.file(b"first ")
        assert await taken(viewer, 6) == b"first "
        waiting = asyncio.ensure_future(viewer.next())
        await asyncio.sleep(0)
        for word in (b"short ", b"way "):
            guest.say(word)
            await asyncio.sleep(0.05)
        assert sunk == [b"short ", b"way "]
        assert not waiting.done()
        # What nobody has compared yet is there for whoever comes later.
        assert console.read(8, limit=9) == Output(8, b"ort way ")
        guest.file(b"short way ")
        room = False
        guest.say(b"long way")
        guest.file(b"long way")
        assert await waiting == Output(16, b"long way")
        assert sunk == [b"short ", b"way "]
