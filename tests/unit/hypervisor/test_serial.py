"""A guest's line is opened only where its QEMU holds the other end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.descriptors import open_descriptors
from voidvm.hypervisor.process import QemuProcess
from voidvm.hypervisor.serial import open_line

HOLDER = "import os, sys; print(os.ttyname(os.openpty()[1]), flush=True); sys.stdin.read()"


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a PTY, whose path it says; it ends with its input."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process


def path_of(holder: subprocess.Popen[bytes]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().decode().strip()


def test_a_line_is_opened_for_the_process_that_holds_it(holder: subprocess.Popen[bytes]) -> None:
    path = path_of(holder)
    line = open_line(path, pid=holder.pid)
    try:
        assert os.ttyname(line) == path
    finally:
        os.close(line)


def test_a_line_that_another_process_holds_is_refused(holder: subprocess.Popen[bytes]) -> None:
    path = path_of(holder)
    before = open_descriptors()
    with pytest.raises(PermissionError, match="does not hold it"):
        open_line(path, pid=os.getpid())
    assert open_descriptors() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("uid", "is_ours"), [(os.geteuid(), True), (12345, False)])
def test_where_files_of_others_are_secret_the_user_tells(
    holder: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    is_ours: bool,  # noqa: FBT001 - the case
) -> None:
    """As for root in a container, which may not look into processes of other users."""
    path = path_of(holder)

    def refuse(_folder: str) -> list[str]:
        raise PermissionError

    monkeypatch.setattr("voidvm.hypervisor.serial.os.listdir", refuse)
    os.chown(path, uid, -1)
    if is_ours:
        os.close(open_line(path, pid=holder.pid))
    else:
        with pytest.raises(PermissionError, match="does not hold it"):
            open_line(path, pid=holder.pid)


async def test_a_process_that_has_ended_holds_no_line_though_its_number_is_taken(
    holder: subprocess.Popen[bytes],
) -> None:
    path = path_of(holder)
    process = QemuProcess.of_child(holder)
    holder.kill()
    # Ended, and not yet taken note of.
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - a moment
    # Who comes next gets the lowest number, which may be this one.
    taken = [os.openpty() for _ in range(3)]
    try:
        with pytest.raises(ProcessLookupError, match="has ended"):
            process.open_line(path)
        await process.wait(timeout_s=5)
    finally:
        for pair in taken:
            for fd in pair:
                os.close(fd)
