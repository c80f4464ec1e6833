"""A QEMU process, ours or found again: identified by pid and start time, ended through a pidfd."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal as signals
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

from voidvm.hypervisor.serial import open_line
from voidvm.hypervisor.usage import ProcMeter, Usage

PROC = Path("/proc")


class Exit(Struct, frozen=True, kw_only=True):
    """How a process ended; both None when it was not our child, so nobody told us."""

    status: int | None = None
    signal: int | None = None

    @property
    def signal_name(self) -> str | None:
        """The signal that ended it, like `SIGKILL`."""
        return None if self.signal is None else signals.Signals(self.signal).name

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        if self.status is not None:
            return f"exit status {self.status}"
        return "ended"


class ProcessGone(Exception):
    """The process that was meant is no more, or its pid belongs to a stranger now."""


@cache
def boot_id() -> str:
    """The id of this boot of the host; pids of another boot mean nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since the host's boot (proc(5), field 22)."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError as error:
        raise ProcessGone(f"no process {pid}") from error
    # The command name may hold anything, so count from its closing parenthesis.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessGone(f"process {pid} is dead")
    return int(fields[19])


def command_line(pid: int) -> list[str]:
    """The argument list of a process; empty when there is none."""
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def guest_of(pid: int) -> str | None:
    """The VM whose QEMU a process is, of those that are ours."""
    arguments = command_line(pid)
    if "-name" not in arguments[:-1]:
        return None
    name = arguments[arguments.index("-name") + 1]
    # setpriv and QEMU share the pid but not the command line: only QEMU's counts.
    if name.startswith("guest=vm-") and "qemu" in Path(arguments[0]).name:
        return name.removeprefix("guest=").partition(",")[0]
    return None


def running_guests() -> Iterator[tuple[int, str]]:
    """The (pid, VM id) of every QEMU on this host whose command line names one of our guests."""
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (vm_id := guest_of(int(entry.name))) is not None:
            yield int(entry.name), vm_id


def _identify(pid: int, *, vm_id: str, ticks: int | None) -> int:
    """The start of a process that is the QEMU of a VM. Raises `ProcessGone` for any other."""
    found = start_ticks(pid)
    is_ours = f"guest={vm_id},debug-threads=on" in command_line(pid)
    if not is_ours or (ticks is not None and found != ticks):
        raise ProcessGone(f"process {pid} is not the QEMU of {vm_id}")
    return found


class QemuProcess:
    """One QEMU: `exited` resolves when it ends, `kill` can only ever hit this process."""

    cgroup: Path | None = None
    """The cgroup of its own, if it gets one; it may be on the way there."""

    def __init__(
        self, *, pid: int, pidfd: int, ticks: int, child: subprocess.Popen[bytes] | None
    ) -> None:
        self.pid = pid
        self.ticks = ticks
        args = child.args if child is not None else None
        self.command = [str(part) for part in args] if isinstance(args, list) else command_line(pid)
        self._pidfd = pidfd
        self._child = child
        self._meter: ProcMeter | None = None
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._reap)

    @classmethod
    def of_child(cls, child: subprocess.Popen[bytes]) -> QemuProcess:
        """Watch a process that we have just spawned."""
        pidfd = os.pidfd_open(child.pid)
        try:
            ticks = start_ticks(child.pid)
        except ProcessGone:
            ticks = 0
        return cls(pid=child.pid, pidfd=pidfd, ticks=ticks, child=child)

    @classmethod
    def adopt(cls, pid: int, *, vm_id: str, ticks: int | None = None) -> QemuProcess:
        """Watch a process that an earlier service spawned.

        Raises `ProcessGone` unless it is alive, runs the guest `vm_id` and, where `ticks` is
        known, started then.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise ProcessGone(f"no process {pid}") from error
        try:
            # Read after the pidfd is held: what is read now belongs to what the pidfd names.
            found = _identify(pid, vm_id=vm_id, ticks=ticks)
        except BaseException:
            os.close(pidfd)
            raise
        return cls(pid=pid, pidfd=pidfd, ticks=found, child=None)

    @property
    def has_exited(self) -> bool:
        """Whether the end was seen."""
        return self.exited.done()

    def send_signal(self, number: signals.Signals) -> None:
        """Send a signal; does nothing once the process has ended."""
        if not self.has_exited:
            with suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd, number)

    def open_line(self, path: str) -> int:
        """Open the slave of its PTY `path`; the caller closes it.

        Raises `ProcessLookupError` when it has ended meanwhile, else as `serial.open_line`.
        """
        try:
            line = open_line(path, pid=self.pid)
        except OSError as error:
            if self._is_over():
                raise ProcessLookupError(errno.ESRCH, f"process {self.pid} has ended") from error
            raise
        if self._is_over():
            os.close(line)
            raise ProcessLookupError(errno.ESRCH, f"process {self.pid} has ended")
        return line

    def _is_over(self) -> bool:
        """Whether it has ended, seen or not."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return self.has_exited or bool(poll.poll(0))

    @property
    def age_s(self) -> float:
        """For how long it has been running."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.ticks / os.sysconf("SC_CLK_TCK")

    def usage(self, *, vcpus: int) -> Usage:
        """What it takes of the host. Raises `ProcessGone`."""
        try:
            if self._meter is None:
                self._meter = self._open_meter()
            return self._meter.read(vcpus=vcpus)
        except OSError as error:
            raise ProcessGone(f"process {self.pid} has ended") from error

    def _open_meter(self) -> ProcMeter:
        meter = ProcMeter(self.pid)
        # Read after it is held: while the start is the same, so is the process.
        with suppress(ProcessGone):
            if not self.has_exited and start_ticks(self.pid) == self.ticks:
                return meter
        meter.close()
        raise ProcessGone(f"process {self.pid} has ended")

    def _close_meter(self) -> None:
        if self._meter is not None:
            self._meter.close()
            self._meter = None

    async def wait(self, *, timeout_s: float) -> Exit | None:
        """How it ended, or None if it still lives after `timeout_s`."""
        await asyncio.wait([self.exited], timeout=timeout_s)
        return self.exited.result() if self.exited.done() else None

    def release(self) -> None:
        """Stop watching; the process goes on. Does nothing once it has ended, or a second time."""
        if self.exited.done():
            return
        self._close_meter()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child is not None and self._child.returncode is None:
            # Popen would warn about a child that is still alive, which is just what is wanted.
            self._child.returncode = 0
        self.exited.cancel()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._close_meter()
        outcome = Exit()
        if self._child is not None:
            code = self._child.wait()
            outcome = Exit(signal=-code) if code < 0 else Exit(status=code)
        os.close(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(outcome)
