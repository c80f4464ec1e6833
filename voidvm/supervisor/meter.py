"""What one VM uses: its process at once, its devices when its QEMU answers."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from msgspec import Struct

from voidvm.hypervisor.monitor import Monitor, MonitorError
from voidvm.hypervisor.process import QemuProcess
from voidvm.hypervisor.usage import DiskCounters, GuestMemory, Usage
from voidvm.supervisor.attachment import Attachment
from voidvm.supervisor.state import VmState

# A QEMU that hangs is asked once; the question is given up then.
OPEN_S: Final = 600.0
BALLOON_EVERY_S: Final = 60.0
# The driver is asked every few seconds; a guest that has said nothing for so long is not asked.
GUEST_FRESH_S: Final = 60.0


class Devices(Struct, frozen=True, kw_only=True):
    """What a QEMU answered about its devices, and when (monotonic seconds)."""

    at: float
    disks: DiskCounters
    balloon_bytes: int | None
    guest: GuestMemory | None


class Reading(Struct, frozen=True, kw_only=True):
    """What one QEMU (pid and start) had used at a moment (monotonic seconds)."""

    qemu: tuple[int, int]
    age_s: float
    at: float
    vcpus: int
    memory_bytes: int
    usage: Usage
    devices: Devices | None = None


class VmMeter:
    """Reads what a VM uses; nothing here changes its status."""

    def __init__(self, state: VmState, hold: Attachment) -> None:
        self._state = state
        self._hold = hold
        self._question: asyncio.Task[Devices | None] | None = None
        self._asked: Monitor | None = None
        self._balloon_bytes: int | None = None
        self._balloon_at = 0.0

    def read(self) -> Reading:
        """What its process has taken. Raises `VmNotRunning` or `ProcessGone` without one."""
        process: QemuProcess = self._hold.process
        run = self._state.run
        vcpus, memory_mib = (run.hardware.cpu, run.hardware.memory) if run else (1, 0)
        return Reading(
            qemu=(process.pid, process.ticks),
            age_s=process.age_s,
            at=time.monotonic(),
            vcpus=vcpus,
            memory_bytes=memory_mib * 1024**2,
            usage=process.usage(vcpus=vcpus),
        )

    def ask(self) -> asyncio.Task[Devices | None] | None:
        """Ask QEMU about its devices; None while an earlier question is open, or without a line.

        The answer is None when there was none; it never raises.
        """
        monitor = self._hold.line
        if monitor is None or (self._question is not None and not self._question.done()):
            return None
        self._question = asyncio.create_task(
            self._devices(monitor), name=f"meter-{self._state.vm_id}"
        )
        return self._question

    async def close(self) -> None:
        """Take the open question back."""
        if self._question is not None:
            self._question.cancel()
            await asyncio.wait([self._question])

    async def _devices(self, monitor: Monitor) -> Devices | None:
        try:
            disks = await monitor.disk_counters(timeout_s=OPEN_S)
            at = time.monotonic()
            if monitor is not self._asked or at - self._balloon_at > BALLOON_EVERY_S:
                self._balloon_bytes = await monitor.balloon_bytes(timeout_s=OPEN_S)
                self._asked, self._balloon_at = monitor, at
            guest = None
            if self._balloon_bytes is not None:
                since = time.time() - GUEST_FRESH_S
                guest = await monitor.guest_memory(since=since, timeout_s=OPEN_S)
        except MonitorError:
            return None
        return Devices(at=at, disks=disks, balloon_bytes=self._balloon_bytes, guest=guest)
