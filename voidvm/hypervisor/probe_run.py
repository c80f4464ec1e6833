"""One boot of the probe guest: QEMU spawned as guests are, watched, and ended in any case."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import ExitStack, suppress
from typing import Literal

from msgspec import Struct

from voidvm.hypervisor import probe_guest
from voidvm.hypervisor.argv import SANDBOX
from voidvm.hypervisor.child import Child, spawn
from voidvm.hypervisor.identity import Identity, privileges

Accel = Literal["kvm", "tcg"]

# With these words QEMU pauses the guest and stays: nothing would come of waiting.
STUCK_WORDS = (b"KVM internal error", b"kvm run failed")
_LAST_WORDS_S = 0.1
_KEPT_BYTES = 16_384


class ProbeRun(Struct, frozen=True, kw_only=True):
    """What one boot showed."""

    output: str
    """What the guest wrote: see `probe_guest.STAGES`."""
    stderr: str = ""
    status: int | None
    """QEMU's exit status, a negative signal number; None when it did not end by itself."""
    is_stuck: bool = False
    """QEMU itself said that it cannot run the guest any further."""
    duration_s: float
    loop_s: float | None = None
    """How long the timed loop took, by the host's clock; None when it was not finished."""


class NotRun(Exception):
    """QEMU could not be spawned; the text says why."""


def arguments(binary: str, *, accel: Accel, rom_fd: int) -> list[str]:
    """QEMU's argument list; the CPU, the machine and the sandbox are those of guests."""
    return [
        binary,
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-machine", "q35,dump-guest-core=off,usb=off,vmport=off,graphics=off"),
        *("-accel", "kvm" if accel == "kvm" else "tcg,tb-size=32"),
        *("-cpu", "host" if accel == "kvm" else "max"),
        *("-m", "size=16M"),
        *("-sandbox", SANDBOX),
        *("-bios", f"/proc/self/fd/{rom_fd}"),
        *("-chardev", "stdio,id=out0,signal=off"),
        *("-device", f"isa-debugcon,iobase={probe_guest.OUTPUT_PORT:#x},chardev=out0"),
        *("-device", f"isa-debug-exit,iobase={probe_guest.EXIT_PORT:#x},iosize=4"),
    ]


async def run(
    *, binary: str, identity: Identity | None, accel: Accel, timeout_s: float
) -> ProbeRun:
    """Boot the probe guest once; no process is left, however this ends. Raises `NotRun`."""
    path = shutil.which(binary)
    if path is None:
        raise NotRun(f"{binary} is not installed")
    began = time.monotonic()
    with ExitStack() as stack:
        rom_fd = _rom(stack)
        try:
            child = spawn(
                [*privileges(identity), *arguments(path, accel=accel, rom_fd=rom_fd)],
                environ={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                pass_fds=(rom_fd,),
            )
        except OSError as error:
            raise NotRun(f"cannot run {binary}: {error.strerror}") from error
    watch = _Watch(child)
    status = None
    # A status of None says that the time was over.
    with suppress(TimeoutError):
        async with child, asyncio.timeout(timeout_s):
            status = await watch.until_end()
    return ProbeRun(
        output=watch.output,
        stderr=watch.stderr.decode(errors="replace"),
        status=None if watch.is_stuck else status,
        is_stuck=watch.is_stuck,
        duration_s=time.monotonic() - began,
        loop_s=watch.loop_s,
    )


class _Watch:
    """Reads what a QEMU and its guest write, and kills the QEMU that says it is stuck."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._loop_began = 0.0
        self.output = ""
        self.stderr = b""
        self.is_stuck = False
        self.loop_s: float | None = None

    async def until_end(self) -> int:
        """QEMU's exit status, when all it wrote has been read."""
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._read_output(), name="probe-output")
            readers.create_task(self._read_stderr(), name="probe-errors")
        return await self._child.wait()

    async def _read_output(self) -> None:
        async for chunk in self._child.stdout.chunks():
            now = time.monotonic()
            text = chunk.decode("ascii", errors="replace")
            if probe_guest.LOOP_BEGIN in text:
                self._loop_began = now
            if probe_guest.LOOP_END in text and self._loop_began:
                self.loop_s = now - self._loop_began
            self.output = (self.output + text)[:_KEPT_BYTES]

    async def _read_stderr(self) -> None:
        async for chunk in self._child.stderr.chunks():
            self.stderr = (self.stderr + chunk)[:_KEPT_BYTES]
            if not self.is_stuck and any(words in self.stderr for words in STUCK_WORDS):
                self.is_stuck = True
                # The registers and the instruction's bytes follow at once.
                await asyncio.sleep(_LAST_WORDS_S)
                self._child.kill()


def _rom(stack: ExitStack) -> int:
    """The guest's image in memory: a file that any user may open through its descriptor."""
    fd = os.memfd_create("voidvm-probe", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, probe_guest.rom())
    return fd
