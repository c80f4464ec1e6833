"""The history file: absolute offsets that stay, holes that are gaps, a cap that costs no byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from voidvm.supervisor.history import Gap, History, Output, last_bytes

BLOCK = 4096
CAP = 16 * BLOCK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with History(path, cap_bytes=lambda: CAP) as history:
        yield history


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def seek_while(path: Path, data: bytes) -> Callable[[int, int, int], int]:
    """An `lseek` of the end after which QEMU has written once, before anybody goes on."""
    seek, waiting = os.lseek, [data]

    def seek_slowly(fd: int, offset: int, how: int) -> int:
        try:
            return seek(fd, offset, how)
        except OSError:
            while waiting:
                append(path, waiting.pop())
            raise

    return seek_slowly


def test_a_new_history_is_empty(history: History, path: Path) -> None:
    assert (history.first, history.end) == (0, 0)
    assert history.read(0, limit=10) is None
    assert history.tail(10) == b""
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_appended_stands_at_its_offset(history: History, path: Path) -> None:
    append(path, b"hello")
    append(path, b" world")
    assert history.end == 11
    assert history.read(0, limit=100) == Output(0, b"hello world")
    assert history.read(6, limit=3) == Output(6, b"wor")
    assert history.read(11, limit=3) is None
    assert history.read(99, limit=3) is None
    assert history.tail(5) == b"world"
    assert history.appended(5, limit=100) == b" world"


def test_trimming_moves_no_offset(history: History, path: Path) -> None:
    data = os.urandom(20 * BLOCK + 100)
    append(path, data)
    assert history.is_over_cap(history.end)
    history.trim()
    assert history.first == 4 * BLOCK
    assert history.end == len(data)
    assert history.read(0, limit=10) == Gap(0, 4 * BLOCK)
    assert history.read(4 * BLOCK - 1, limit=10) == Gap(4 * BLOCK - 1, 4 * BLOCK)
    assert history.read(4 * BLOCK, limit=10) == Output(4 * BLOCK, data[4 * BLOCK :][:10])
    assert not history.is_over_cap(history.end)
    assert path.stat().st_blocks * 512 <= CAP + 2 * BLOCK
    history.trim()
    assert history.first == 4 * BLOCK


def test_a_little_over_the_cap_is_not_worth_it(history: History, path: Path) -> None:
    append(path, b"x" * (CAP + CAP // 8))
    assert not history.is_over_cap(history.end)
    append(path, b"x")
    assert history.is_over_cap(history.end)


def test_what_comes_during_a_trim_is_kept(history: History, path: Path) -> None:
    append(path, b"a" * (20 * BLOCK))
    with path.open("ab", buffering=0) as qemu:
        history.trim()
        qemu.write(b"b" * 10)
    assert history.read(20 * BLOCK, limit=100) == Output(20 * BLOCK, b"b" * 10)


def test_a_trimmed_history_is_opened_as_it_was(history: History, path: Path) -> None:
    append(path, os.urandom(20 * BLOCK))
    history.trim()
    with History(path, cap_bytes=lambda: CAP) as again:
        assert (again.first, again.end) == (history.first, history.end)


def test_a_lost_middle_is_a_gap(history: History, path: Path) -> None:
    append(path, b"a" * BLOCK)
    history.bridge(3 * BLOCK)
    append(path, b"b" * 10)
    assert history.read(0, limit=10 * BLOCK) == Output(0, b"a" * BLOCK)
    assert history.read(10, limit=10 * BLOCK) == Output(10, b"a" * (BLOCK - 10))
    assert history.read(BLOCK, limit=10) == Gap(BLOCK, 3 * BLOCK)
    assert history.read(2 * BLOCK, limit=10) == Gap(2 * BLOCK, 3 * BLOCK)
    assert history.read(3 * BLOCK, limit=100) == Output(3 * BLOCK, b"b" * 10)


def test_a_lost_end_is_a_gap(history: History, path: Path) -> None:
    append(path, b"a" * BLOCK)
    history.bridge(2 * BLOCK)
    assert history.read(BLOCK, limit=10) == Gap(BLOCK, 2 * BLOCK)


def test_what_comes_while_the_end_is_looked_at_is_no_gap(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy host once held the service up there, and seven lines were taken for lost."""
    append(path, b"before")
    monkeypatch.setattr(os, "lseek", seek_while(path, b"meanwhile"))
    assert history.read(6, limit=100) is None
    append(path, b"meanwhile")
    assert history.read(6, limit=100) == Output(6, b"meanwhile")


def test_what_comes_while_an_empty_one_is_opened_is_its_beginning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lseek", seek_while(path, b"early"))
    with History(path, cap_bytes=lambda: CAP) as history:
        assert (history.first, history.end) == (0, 5)


def test_a_bridge_never_shortens(history: History, path: Path) -> None:
    append(path, b"abc")
    history.bridge(1)
    assert history.read(0, limit=9) == Output(0, b"abc")


def test_a_history_of_nothing_but_a_hole_begins_at_its_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 5 * BLOCK)
    with History(path, cap_bytes=lambda: CAP) as history:
        assert history.first == history.end == 5 * BLOCK


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        History(tmp_path / "link", cap_bytes=lambda: CAP)


def test_of_a_closed_history_nothing_is_read(history: History, path: Path) -> None:
    append(path, b"abc")
    history.close()
    assert history.read(0, limit=10) is None


def test_the_end_of_a_closed_history_is_read_if_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    assert last_bytes(path, limit_bytes=4) == b""
    assert not path.exists()
    path.write_bytes(b"abc")
    assert last_bytes(path, limit_bytes=4) == b"abc"
    path.write_bytes(b"abcdefgh")
    assert last_bytes(path, limit_bytes=4) == b"efgh"
