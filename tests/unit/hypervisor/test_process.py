"""A process is identified by more than its pid, and only that one can be hit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from voidvm.hypervisor.process import (
    Exit,
    ProcessGone,
    QemuProcess,
    boot_id,
    command_line,
    running_guests,
    start_ticks,
)

VM = "vm-0000000000aa"
SLEEP = "import time; time.sleep(60)"


def spawn(*, name: str = f"guest={VM},debug-threads=on") -> subprocess.Popen[bytes]:
    """A process that calls itself a QEMU with this guest."""
    child = subprocess.Popen(
        ["qemu-system-pretended", "-c", SLEEP, "-name", name], executable=sys.executable
    )
    while command_line(child.pid)[:1] != ["qemu-system-pretended"]:
        pass
    return child


def python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def dead() -> subprocess.Popen[bytes]:
    """A process that has ended and was not waited for."""
    child = python("")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    child = spawn()
    yield child
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child.pid, 0)
    child.returncode = 0


async def test_an_exit_is_told_with_its_status() -> None:
    ends = python("raise SystemExit(3)")
    process = QemuProcess.of_child(ends)
    assert await process.wait(timeout_s=10) == Exit(status=3)
    assert process.has_exited
    process.send_signal(signal.SIGKILL)


async def test_a_killed_child_is_told_with_its_signal(child: subprocess.Popen[bytes]) -> None:
    process = QemuProcess.of_child(child)
    assert await process.wait(timeout_s=0.01) is None
    process.send_signal(signal.SIGKILL)
    outcome = await process.wait(timeout_s=10)
    assert outcome == Exit(signal=9)
    assert outcome is not None
    assert outcome.signal_name == "SIGKILL"


async def test_a_child_that_is_gone_before_it_is_watched_is_told() -> None:
    ends = dead()
    process = QemuProcess.of_child(ends)
    assert await process.wait(timeout_s=10) == Exit(status=0)


async def test_a_guest_is_found_and_adopted(child: subprocess.Popen[bytes]) -> None:
    assert (child.pid, VM) in list(running_guests())
    ticks = start_ticks(child.pid)
    process = QemuProcess.adopt(child.pid, vm_id=VM, ticks=ticks)
    assert (process.pid, process.ticks) == (child.pid, ticks)
    assert process.command[0] == "qemu-system-pretended"
    process.send_signal(signal.SIGTERM)
    # It was not our child, so nobody tells how it ended.
    assert await process.wait(timeout_s=10) == Exit()


async def test_a_recycled_pid_is_refused(child: subprocess.Popen[bytes]) -> None:
    ticks = start_ticks(child.pid)
    with pytest.raises(ProcessGone, match="is not the QEMU"):
        QemuProcess.adopt(child.pid, vm_id=VM, ticks=ticks + 1)
    with pytest.raises(ProcessGone, match="is not the QEMU"):
        QemuProcess.adopt(child.pid, vm_id="vm-0000000000bb", ticks=ticks)
    with pytest.raises(ProcessGone, match="is not the QEMU"):
        QemuProcess.adopt(os.getpid(), vm_id=VM)
    assert child.poll() is None


async def test_a_dead_pid_is_refused() -> None:
    ends = dead()
    with pytest.raises(ProcessGone, match="is dead"):
        start_ticks(ends.pid)
    with pytest.raises(ProcessGone):
        QemuProcess.adopt(ends.pid, vm_id=VM)
    ends.wait()
    with pytest.raises(ProcessGone, match="no process"):
        QemuProcess.adopt(ends.pid, vm_id=VM)


@pytest.mark.parametrize(
    "name",
    [
        "guest=other,debug-threads=on",
        f"x,guest={VM},debug-threads=on",
        f"guest={VM}",
    ],
)
async def test_a_stranger_with_a_like_name_is_refused(name: str) -> None:
    stranger = spawn(name=name)
    try:
        with pytest.raises(ProcessGone):
            QemuProcess.adopt(stranger.pid, vm_id=VM)
    finally:
        stranger.kill()
        stranger.wait()


async def test_letting_go_leaves_it_alive(child: subprocess.Popen[bytes]) -> None:
    process = QemuProcess.of_child(child)
    process.release()
    await asyncio.sleep(0)
    os.kill(child.pid, 0)
    assert process.exited.cancelled()
    process.release()


async def test_a_released_one_does_not_signal_others(child: subprocess.Popen[bytes]) -> None:
    process = QemuProcess.of_child(child)
    process.release()
    process.send_signal(signal.SIGKILL)
    await asyncio.sleep(0.05)
    assert command_line(child.pid)


def test_a_boot_has_an_id() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()


def test_exits_have_words() -> None:
    assert str(Exit(signal=15)) == "killed by signal 15"
    assert str(Exit(status=2)) == "exit status 2"
    assert str(Exit()) == "ended"
    assert Exit().signal_name is None
    assert Exit(signal=34).signal_name
