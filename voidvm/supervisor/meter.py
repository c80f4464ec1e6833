"""What one VM uses: its process at once, its devices when its QEMU answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from voidvm.errors import VmNotRunning, VmUnresponsive
from voidvm.hypervisor import agent
from voidvm.hypervisor.monitor import Monitor, MonitorError
from voidvm.hypervisor.process import QemuProcess
from voidvm.hypervisor.usage import DiskCounters, GuestMemory, NetCounters, Usage
from voidvm.supervisor.attachment import Attachment
from voidvm.supervisor.state import VmState

# A QEMU that hangs is asked once; the question is given up then.
OPEN_S: Final = 600.0
BALLOON_EVERY_S: Final = 60.0
# The driver is asked every few seconds; a guest that has said nothing for so long is not asked.
GUEST_FRESH_S: Final = 60.0
# A guest without an agent or a balloon's driver, or where it was silent, is asked again only then:
# each question costs the service half a millisecond.
AGAIN_S: Final = 15.0
AGENT_S: Final = 2.0
# What comes of an answer that is none: of a QEMU that its guest has taken over.
NONSENSE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Devices(Struct, frozen=True, kw_only=True):
    """What a QEMU answered about its devices, and when (monotonic seconds)."""

    at: float
    disks: DiskCounters
    balloon_bytes: int | None
    guest: GuestMemory | None


class Traffic(Struct, frozen=True, kw_only=True):
    """What the guest said of its cards, and when (monotonic seconds)."""

    at: float
    cards: NetCounters


class Reading(Struct, frozen=True, kw_only=True):
    """What one QEMU (pid and start) had used at a moment (monotonic seconds)."""

    qemu: tuple[int, int]
    age_s: float
    at: float
    vcpus: int
    memory_bytes: int
    usage: Usage
    devices: Devices | None = None
    traffic: Traffic | None = None


class VmMeter:
    """Reads what a VM uses; nothing here changes its status."""

    def __init__(self, state: VmState, hold: Attachment, *, agent_socket: Path) -> None:
        self._state = state
        self._hold = hold
        self._agent_socket = agent_socket
        self._question: asyncio.Task[Devices | None] | None = None
        self._guest_question: asyncio.Task[None] | None = None
        self._heard: tuple[Monitor, Traffic] | None = None
        self._has_agent = False
        self._agent_again = 0.0
        self._asked: Monitor | None = None
        self._balloon_bytes: int | None = None
        self._balloon_at = 0.0
        self._memory_again = 0.0

    @property
    def _line(self) -> Monitor | None:
        """The monitor, if it can be asked now."""
        with suppress(VmNotRunning, VmUnresponsive):
            return self._hold.monitor if self._hold.monitor.is_connected else None
        return None

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
            traffic=self._heard[1] if self._heard and self._heard[0] is self._line else None,
        )

    def ask(self) -> asyncio.Task[Devices | None] | None:
        """Ask QEMU about its devices; None while an earlier question is open, or without a line.

        The answer is None when there was none; it never raises.
        """
        monitor = self._line
        if monitor is None or (self._question is not None and not self._question.done()):
            return None
        self._question = asyncio.create_task(
            self._devices(monitor), name=f"meter-{self._state.vm_id}"
        )
        return self._question

    def ask_guest(self) -> None:
        """Ask the guest for its cards' counters; a later `read` has what it answers.

        QEMU's user-mode network counts nothing; of a card with a device on the host
        (/sys/class/net) the host could be asked here.
        """
        monitor, question = self._line, self._guest_question
        if monitor is None or not self._hold.is_running:
            return
        if question is None or question.done():
            self._guest_question = asyncio.create_task(
                self._hear(monitor), name=f"meter-guest-{self._state.vm_id}"
            )

    async def close(self) -> None:
        """Take the open questions back."""
        for question in (self._question, self._guest_question):
            if question is not None:
                question.cancel()
                await asyncio.wait([question])

    async def _devices(self, monitor: Monitor) -> Devices | None:
        try:
            disks = await monitor.disk_counters(timeout_s=OPEN_S)
            at = time.monotonic()
            if monitor is not self._asked or at - self._balloon_at > BALLOON_EVERY_S:
                self._balloon_bytes = await monitor.balloon_bytes(timeout_s=OPEN_S)
                self._asked, self._balloon_at = monitor, at
            guest = await self._guest_memory(monitor)
        except (MonitorError, *NONSENSE):
            return None
        return Devices(at=at, disks=disks, balloon_bytes=self._balloon_bytes, guest=guest)

    async def _guest_memory(self, monitor: Monitor) -> GuestMemory | None:
        if self._balloon_bytes is None or time.monotonic() < self._memory_again:
            return None
        since = time.time() - GUEST_FRESH_S
        guest = await monitor.guest_memory(since=since, timeout_s=OPEN_S)
        self._memory_again = 0.0 if guest is not None else time.monotonic() + AGAIN_S
        return guest

    async def _hear(self, monitor: Monitor) -> None:
        run = self._state.run
        macs = [card.mac for card in run.hardware.networks if card.mac] if run else []
        if not macs or not await self._finds_agent(monitor):
            return
        try:
            answer = await agent.ask(
                self._agent_socket, "guest-network-get-interfaces", timeout_s=AGENT_S
            )
        except agent.AgentSilent:
            self._has_agent = False
            return
        if (cards := agent.traffic(answer, macs)) is not None:
            self._heard = monitor, Traffic(at=time.monotonic(), cards=cards)

    async def _finds_agent(self, monitor: Monitor) -> bool:
        """Whether somebody would answer, found out now and then without taking up the channel."""
        if not self._has_agent and time.monotonic() >= self._agent_again:
            self._agent_again = time.monotonic() + AGAIN_S
            with suppress(MonitorError):
                self._has_agent = await monitor.has_agent(timeout_s=OPEN_S)
        return self._has_agent
