"""What is said to systemd, heard at the other end of a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from voidvm.systemd import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        yield end


def heard(end: socket.socket) -> list[str]:
    return end.recv(4096).decode().splitlines()


async def test_it_is_told_ready_alive_and_stopping(systemd: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "20000"}
    async with Notifier(environ).serving("listening"):
        assert heard(systemd) == ["READY=1", "STATUS=listening"]
        for _ in range(3):
            assert await asyncio.to_thread(heard, systemd) == ["WATCHDOG=1"]
    while (last := heard(systemd)) == ["WATCHDOG=1"]:
        pass
    assert last == ["STOPPING=1", "STATUS=stopping"]


def test_children_do_not_inherit_the_line() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("pid", "expected"), [("", 30.0), (str(os.getpid()), 30.0), ("1", 0.0)], ids=["", "own", "else"]
)
def test_a_watchdog_for_another_process_is_not_ours(pid: str, expected: float) -> None:
    found = Notifier({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": pid})
    assert found.watchdog_s == expected


async def test_without_systemd_nothing_is_said() -> None:
    async with Notifier({}).serving("listening"):
        pass


def test_a_systemd_that_does_not_listen_harms_nobody(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0voidvm-test-notify")
        end.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@voidvm-test-notify"}).tell("READY=1")
        assert heard(end) == ["READY=1"]
