"""A guest's line is opened only where its QEMU holds the other end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.grounds import PYTHON
from tests.support.descriptors import open_descriptors
from voidvm.hypervisor import serial
from voidvm.hypervisor.process import QemuProcess
from voidvm.hypervisor.serial import open_line

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs programs as others")
HOLDER = "import os, sys; print(os.ttyname(os.openpty()[1]), flush=True); sys.stdin.read()"
# PR_SET_DUMPABLE (prctl(2)) closes /proc/<pid>/fd to all but root.
HIDES = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); " + HOLDER
MANY = "import os; [os.open('/dev/ptmx', os.O_RDWR) for _ in range(900)]; " + HOLDER.replace(
    "print(", "fds = [os.dup(2) for _ in range(3000)]; print("
)


@contextmanager
def holding(user: int, code: str = HOLDER) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process with a PTY, and its path; it ends with its input."""
    own = None if user == os.geteuid() else user
    with subprocess.Popen(
        [PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=own, group=own
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()


def test_a_line_is_opened_for_the_process_that_holds_it() -> None:
    with holding(os.geteuid()) as (holder, path):
        line = open_line(path, pid=holder.pid)
        try:
            assert os.ttyname(line) == path
        finally:
            os.close(line)


def test_a_line_that_another_process_holds_is_refused() -> None:
    with holding(os.geteuid()) as (_, path):
        before = open_descriptors()
        with pytest.raises(PermissionError, match="does not hold it"):
            open_line(path, pid=os.getpid())
        assert open_descriptors() == before


@pytest.fixture
def tool() -> Iterator[Path]:
    """A program that any user may run: opens the line of its first argument, held by its second."""
    with TemporaryDirectory(prefix="vv-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "opens.py"
        call = "\n\nimport sys\nopen_line(sys.argv[1], pid=int(sys.argv[2]))\n"
        path.write_text(Path(serial.__file__).read_text(encoding="utf-8") + call)
        path.chmod(0o755)
        yield path


def opened_by(tool: Path, *user: str, path: str, pid: int) -> str:
    """The last line of what the tool says, which is run by `setpriv`; "" if it has the line."""
    command = ["setpriv", *user, PYTHON, str(tool), path, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stderr.strip().rpartition("\n")[2]


@ROOT_ONLY
def test_root_of_a_container_goes_by_the_user_of_the_line(tool: Path) -> None:
    """Without CAP_SYS_PTRACE it may list files of other users' processes, but not look at them."""
    without = ("--bounding-set=-sys_ptrace",)
    with holding(NOBODY) as (holder, path), holding(0) as (_, other):
        assert opened_by(tool, *without, path=path, pid=holder.pid) == ""
        assert "does not hold it" in opened_by(tool, *without, path=other, pid=holder.pid)


@ROOT_ONLY
def test_nobody_else_takes_the_word_of_a_process_that_hides_its_files(tool: Path) -> None:
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with holding(NOBODY) as (holder, path), holding(NOBODY, HIDES) as (thief, own):
        assert opened_by(tool, *user, path=path, pid=holder.pid) == ""
        for wanted in (path, own):
            assert "does not hold it" in opened_by(tool, *user, path=wanted, pid=thief.pid)


def test_a_process_with_endless_files_is_refused_soon() -> None:
    with holding(os.geteuid(), MANY) as (holder, path):
        began = time.monotonic()
        with pytest.raises(PermissionError, match="does not hold it"):
            open_line(path, pid=holder.pid)
        assert time.monotonic() - began < 2


async def test_a_process_that_has_ended_holds_no_line_though_its_number_is_taken() -> None:
    with holding(os.geteuid()) as (holder, path):
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
