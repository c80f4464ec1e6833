"""A hold on a fake QEMU, as `QemuProcess` is one on a process."""

from __future__ import annotations

import asyncio
import os
import signal as signals
from typing import TYPE_CHECKING

from voidvm.hypervisor.process import QemuProcess
from voidvm.hypervisor.serial import open_line
from voidvm.hypervisor.usage import Usage

if TYPE_CHECKING:
    from tests.fakes.qemu import FakeQemu

RESIDENT_BYTES = 64 * 1024**2


class FakeProcess(QemuProcess):
    """A hold on a fake, as `QemuProcess` is one on a process."""

    def __init__(self, qemu: FakeQemu) -> None:
        # Without the base's own: there is no pidfd.
        self.pid = qemu.pid
        self.ticks = qemu.ticks
        self.command = qemu.command
        self.exited = asyncio.get_running_loop().create_future()
        self._qemu = qemu

    def send_signal(self, number: signals.Signals) -> None:
        """As a signal to a process."""
        if not self.has_exited:
            self._qemu.signal(number)

    def open_line(self, path: str) -> int:
        """The fake's PTY is this process's."""
        return open_line(path, pid=os.getpid())

    @property
    def age_s(self) -> float:
        """Too old for its start to be the first measurement."""
        return 1e6

    def usage(self, *, vcpus: int) -> Usage:
        """What it takes: nothing of the CPU."""
        return Usage(cpu_seconds=0.0, resident_bytes=RESIDENT_BYTES)

    def release(self) -> None:
        """Stop watching; the fake goes on."""
        self._qemu.forget(self)
        self.exited.cancel()
