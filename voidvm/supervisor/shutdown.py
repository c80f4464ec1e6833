"""The stop ladder: from asking the guest to ending its QEMU, each step with a deadline."""

from __future__ import annotations

import signal

from voidvm.hypervisor.monitor import Monitor, MonitorError
from voidvm.hypervisor.process import Exit, QemuProcess

QUIT_S = 2.0
TERM_S = 1.0
KILL_S = 10.0


class StillAlive(Exception):
    """Not even SIGKILL ended it: the kernel holds the process (a dead disk, most often)."""


async def ask(monitor: Monitor) -> None:
    """Press the guest's power button; a paused guest is woken, or it could not obey."""
    # "prelaunch" is what a reset makes of a paused guest.
    if await monitor.status() in {"paused", "prelaunch"}:
        await monitor.execute("cont")
    await monitor.execute("system_powerdown")


async def end(process: QemuProcess, monitor: Monitor | None, *, at_once: bool) -> Exit:
    """End a QEMU without asking its guest, and return how it ended.

    `quit` lets QEMU flush its disks, so it comes first as long as the monitor answers; with
    `at_once` SIGKILL follows directly. Raises `StillAlive`.
    """
    if monitor is not None and monitor.is_connected:
        try:
            await monitor.execute("quit", timeout_s=QUIT_S)
        except MonitorError:
            pass  # the exit below tells whether it worked
        else:
            if (outcome := await process.wait(timeout_s=QUIT_S)) is not None:
                return outcome
    if process.has_exited:
        return process.exited.result()
    if not at_once:
        process.send_signal(signal.SIGTERM)
        if (outcome := await process.wait(timeout_s=TERM_S)) is not None:
            return outcome
    process.send_signal(signal.SIGKILL)
    if (outcome := await process.wait(timeout_s=KILL_S)) is not None:
        return outcome
    raise StillAlive(f"process {process.pid} survives SIGKILL")
