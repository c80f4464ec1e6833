"""What a line and its file say, put in order: with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from voidvm.supervisor import transcript
from voidvm.supervisor.history import History
from voidvm.supervisor.transcript import Transcript

# What a PTY takes that nobody reads.
LINE_BYTES = 20_480


def say(heard: Transcript, data: bytes, now: float) -> None:
    """The line says `data`, and the file has what it has."""
    if heard.hear(data, now) is None:
        heard.compare(now)


def test_after_a_full_disk_nothing_is_taken_for_a_double(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    with History(path, cap_bytes=lambda: 1 << 30) as history, path.open("ab") as file:
        heard = Transcript(history)
        heard.begin(0.0, is_silent=True)
        text = b"x" * 5000 + b"\n"
        file.write(text)
        file.flush()
        say(heard, text, 0.0)
        say(heard, b"lost", 0.1)
        say(heard, b", too", 0.2 + transcript.FILE_LAG_S)
        end = heard.end
        file.write(b"\n")
        file.flush()
        heard.catch_up(1.0)
        heard.settle(2.0)
        assert heard.end == end + 1


def test_a_file_that_is_far_behind_is_given_up(tmp_path: Path) -> None:
    """No QEMU that is sound is; what it has said takes no memory."""
    path = tmp_path / "console.log"
    with History(path, cap_bytes=lambda: 1 << 30) as history, path.open("ab") as file:
        heard = Transcript(history)
        heard.begin(0.0, is_silent=True)
        for turn in range(60):
            file.write(b"a")
            file.flush()
            say(heard, b"a" * 20_000, turn * 0.004)
            assert len(heard._on_line) <= transcript.CHUNK_BYTES


def test_a_file_that_is_a_moment_behind_gets_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    text = b"".join(b"line %d\r\n" % number for number in range(250))
    with History(path, cap_bytes=lambda: 1 << 30) as history, path.open("ab", 0) as file:
        heard = Transcript(history)
        heard.begin(0.0, is_silent=True)
        file.write(b"\n")
        say(heard, b"\n", 0.1)
        file.write(b"\n")
        for start in range(0, len(text), 10):
            say(heard, text[start : start + 10], 0.2 + start / 100_000)
            file.write(text[start : start + 8])
            if start + 10 < len(text):
                file.write(text[start + 8 : start + 10])
        file.write(text[start + 8 : start + 10])
        for second in range(1, 11):
            heard.catch_up(second)
            heard.settle(second)
        assert heard.end == len(text) + 2
        assert path.read_bytes() == b"\n\n" + text


def test_the_double_of_a_full_line_is_known_where_that_read_finds_the_step(
    tmp_path: Path,
) -> None:
    path = tmp_path / "console.log"
    text = b"".join(b"line %07d of the output\r\n" % number for number in range(1000))
    end = LINE_BYTES + 200
    with History(path, cap_bytes=lambda: 1 << 30) as history, path.open("ab", 0) as file:
        heard = Transcript(history)
        heard.begin(0.0, is_silent=False)
        file.write(text[: LINE_BYTES + 1])  # the last one is refused
        for start, stop in ((0, LINE_BYTES), (LINE_BYTES, end)):
            say(heard, text[start:stop], 0.01)
            if start == 0:
                file.write(text[LINE_BYTES:end])
        for second in range(3):
            heard.catch_up(second + 1)
            heard.settle(second + 1)
        assert heard.end == end


class Searched(History):
    """Counts how often its end is searched."""

    searches = 0

    def tail(self, size: int, *, end: int | None = None) -> bytes:
        self.searches += 1
        return super().tail(size, end=end)


@contextmanager
def found_again(path: Path) -> Iterator[tuple[Transcript, Searched, FileIO]]:
    """A console whose line was opened in the midst of output, and its file to write to."""
    with Searched(path, cap_bytes=lambda: 1 << 30) as history, path.open("ab", 0) as file:
        heard = Transcript(history)
        heard.begin(0.0, is_silent=False)
        yield heard, history, file


def test_a_place_is_looked_for_soon_and_then_seldom(tmp_path: Path) -> None:
    with found_again(tmp_path / "console.log") as (heard, history, file):
        # What is said over and over tells no place.
        for turn in range(1060):
            file.write(b"the same\r\n" * 10)
            say(heard, b"the same\r\n" * 10, turn * 0.001)
        assert heard.needs_looks
        assert 5 < history.searches < 20
        # They find each other in a silence, and lose each other once more.
        heard.settle(1.111)
        assert not heard.needs_looks
        heard.believe_file()
        history.searches = 0
        for number in range(20):
            text = b"%04d, all of which is said just once, as it is wont to be\r\n" % number
            now = 1.112 + number * 0.001
            # At first the file is a moment late.
            if number >= 10:
                file.write(text)
            say(heard, text, now)
            if number < 10:
                file.write(text)
                heard.catch_up(now)
        assert not heard.needs_looks
        assert 1 < history.searches < 8


def test_no_qemu_makes_the_service_search_at_each_read(tmp_path: Path) -> None:
    with found_again(tmp_path / "console.log") as (heard, history, file):
        # The file contradicts the line and then says where it is, each time anew.
        for number in range(1000):
            text = b"".join(b"%08d" % one for one in range(number * 256, number * 256 + 256))
            file.write(b"!" + text)
            say(heard, text, number * 0.0001)
        assert 5 < history.searches < 60
