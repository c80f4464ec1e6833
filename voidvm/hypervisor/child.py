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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import BinaryIO, Final, Self

# Only a disk that does not answer keeps a killed program; nobody waits for that.
REAP_S: Final = 10.0


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
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        ours.pop_all()
        return Child(process, pidfd=pidfd, output=output, errors=errors)


class Child:
    """A program that was spawned; inside its block it runs, behind the block it has ended.

    What it says is read from `stdout` and `stderr`; `stdout` is empty if it was led elsewhere.
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
        self._process = process
        self._pidfd = pidfd
        self._output, self._errors = output, errors
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self._ears: list[asyncio.ReadTransport] = []
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
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def __aenter__(self) -> Self:
        try:
            await self._hear(self._errors, self.stderr)
            if self._output is not None:
                await self._hear(self._output, self.stdout)
            else:
                self.stdout.feed_eof()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _hear(self, pipe: BinaryIO, reader: asyncio.StreamReader) -> None:
        ear, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        self._ears.append(ear)

    async def _end(self) -> None:
        self.kill()
        # uvloop keeps a pipe open that was read to its end.
        for ear in self._ears:
            ear.close()
        await asyncio.wait([self._exited], timeout=REAP_S)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited.set_result(self._process.wait())


def _pipe(reads: ExitStack, writes: ExitStack) -> tuple[BinaryIO, int]:
    """A pipe's two ends, each closed with its stack."""
    read, write = os.pipe()
    writes.callback(os.close, write)
    return reads.enter_context(os.fdopen(read, "rb", buffering=0)), write
