"""A helper program that runs beside the event loop: spawned, heard, and ended in any case.

`subprocess` spawns by `vfork`, which costs a millisecond however large the service is; the `fork`
of the event loop's own subprocesses copies its page tables first. That is why nothing is done
between `vfork` and `exec`: what a program must be is said by prlimit(1) and setpriv(1) before it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import BinaryIO, Final, Self

# Only a disk that does not answer keeps a killed program; nobody waits for that.
REAP_S: Final = 10.0
CHUNK_BYTES: Final = 65_536
UNKNOWN_STATUS: Final = 255


def spawn(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    stdin: int | None = None,
    stdout: int | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Child:
    """Start a program in a session of its own, in the folder `/`; the answer must be entered.

    `stdin` and `stdout` are descriptors; without them it reads nothing, and `Child` hears it.
    Raises `OSError`; then neither a process nor an open descriptor is left.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        if stdin is None:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, stdin)
        output = None
        if stdout is None:
            output, stdout = _pipe(ours, theirs)
        errors, stderr = _pipe(ours, theirs)
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
        ours.callback(process.wait)
        ours.callback(process.kill)
        pidfd = os.pidfd_open(process.pid)
        ours.callback(os.close, pidfd)
        child = Child(process, pidfd=pidfd, output=output, errors=errors)
        ours.pop_all()
        return child


class Child:
    """A program that was spawned; inside its block it runs, behind the block it has ended.

    `stdout` is at its end at once if it was led elsewhere.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        pidfd: int,
        output: BinaryIO | None,
        errors: BinaryIO,
    ) -> None:
        self.pid = process.pid
        self.stdout, self.stderr = Pipe(output), Pipe(errors)
        self._process = process
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._reap)

    @property
    def status(self) -> int | None:
        """Its exit status, or a negative signal number; None while it runs."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self) -> int:
        """Its exit status, or a negative signal number, once it has ended."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """SIGKILL for it and all that it has spawned in its session."""
        if not self._exited.done():
            # Until it is reaped nobody else can have its number.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.stdout.close()
        self.stderr.close()
        await asyncio.wait([self._exited], timeout=REAP_S)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # What it has left in its session has no business beyond its end.
        self.kill()
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            # Somebody else has taken its status; `Popen` would say that it was 0.
            status = UNKNOWN_STATUS
        self._process.returncode = status
        self._exited.set_result(status)


class Pipe:
    """What a program says, taken when somebody asks for it: it waits until then.

    Not `connect_read_pipe`: uvloop (0.23) closes the descriptor of such a pipe twice, the second
    time when a thread may have opened something else under its number.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        if file is not None:
            os.set_blocking(file.fileno(), False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All that comes, piece by piece, until nobody holds the other end any more."""
        while self._file is not None:
            # None says that nothing waits, b"" that nothing will come.
            data = self._file.read(CHUNK_BYTES)
            if data:
                yield data
                # One that never runs dry must not keep the loop from everything else.
                await asyncio.sleep(0)
            elif data is None:
                await _until_readable(self._file.fileno())
            else:
                return

    async def read(self, *, limit: int) -> bytes:
        """The first `limit` bytes, once the end has come."""
        kept = b""
        async for chunk in self.chunks():
            kept += chunk[: limit - len(kept)]
        return kept

    def close(self) -> None:
        """Let go of it; whoever still waits for what comes waits in vain."""
        if self._file is not None:
            # The loop would take the next file with this number for it.
            asyncio.get_running_loop().remove_reader(self._file.fileno())
            self._file.close()
            self._file = None


async def _until_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _pipe(reads: ExitStack, writes: ExitStack) -> tuple[BinaryIO, int]:
    """A pipe's two ends, each closed with its stack."""
    read, write = os.pipe()
    writes.callback(os.close, write)
    return reads.enter_context(os.fdopen(read, "rb", buffering=0)), write
