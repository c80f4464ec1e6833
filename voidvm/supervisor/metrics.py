"""Measures every VM and the host, once a round for all who listen."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from voidvm.bus import Bus, Sampled
from voidvm.domain.metrics import (
    HostSample,
    IoRates,
    NetRates,
    VmCounters,
    VmCounts,
    VmCpu,
    VmMemory,
    VmSample,
)
from voidvm.domain.states import VmStatus
from voidvm.errors import VmNotRunning
from voidvm.hypervisor.process import ProcessGone
from voidvm.hypervisor.usage import DiskCounters, NetCounters, Usage
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.host_usage import HostReading, host_sample, read_host
from voidvm.supervisor.meter import Devices, Reading, Traffic

log = logging.getLogger(__name__)

# So many VMs are read in one go: less than a millisecond of the loop.
CHUNK: Final = 8
# A QEMU answers within milliseconds; who does not by then is left out of the round.
ANSWER_S: Final = 1.0
# Rates need two readings: the first published round comes so soon after the first reading.
FIRST_S: Final = 1.0


class Sampler:
    """One task that measures; `latest` is the newest round, None before the first."""

    def __init__(self, fleet: Fleet, *, bus: Bus, interval_s: float, data: Path) -> None:
        self.interval_s = interval_s
        self.latest: Sampled | None = None
        self._fleet = fleet
        self._bus = bus
        self._data = data
        self._before: dict[str, Reading] = {}
        self._host_before: HostReading | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Measure from now on."""
        self._task = asyncio.create_task(self._run(), name="sampler")

    async def close(self) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        await self._attempt()
        await asyncio.sleep(min(FIRST_S, self.interval_s))
        while True:
            await self._attempt()
            await asyncio.sleep(until_next(time.time(), self.interval_s))

    async def _attempt(self) -> None:
        try:
            await self.round()
        except Exception:
            # The next round measures again.
            log.exception("cannot measure")

    async def round(self) -> Sampled | None:
        """Measure once and tell everybody; the first time there is nothing to tell yet."""
        host = await asyncio.to_thread(read_host, self._data)
        at = datetime.now(UTC)
        readings = await self._readings()
        before, self._before = self._before, readings
        host_before, self._host_before = self._host_before, host
        if host_before is None:
            return None
        sampled = Sampled(
            host=self._host_sample(host_before, host, at),
            vms={
                vm_id: vm_sample(
                    vm_id, before.get(vm_id), reading, at=at, since_start_s=2 * self.interval_s
                )
                for vm_id, reading in readings.items()
            },
            counters={vm_id: counters(reading) for vm_id, reading in readings.items()},
        )
        self.latest = sampled
        self._bus.publish(sampled)
        return sampled

    async def _readings(self) -> dict[str, Reading]:
        """What each VM with a process has used; without devices where QEMU is silent."""
        readings: dict[str, Reading] = {}
        questions: dict[str, asyncio.Task[Devices | None]] = {}
        machines = self._fleet.running()
        for first in range(0, len(machines), CHUNK):
            for machine in machines[first : first + CHUNK]:
                # One that has ended meanwhile is no part of the round.
                with suppress(VmNotRunning, ProcessGone):
                    readings[machine.vm_id] = machine.meter.read()
                    if (question := machine.meter.ask()) is not None:
                        questions[machine.vm_id] = question
                    machine.meter.ask_guest()
            await asyncio.sleep(0)
        if questions:
            await asyncio.wait(questions.values(), timeout=min(ANSWER_S, self.interval_s))
        for vm_id, question in questions.items():
            if question.done() and not question.cancelled():
                devices = question.result()
                readings[vm_id] = msgspec.structs.replace(readings[vm_id], devices=devices)
        return readings

    def _host_sample(self, before: HostReading, now: HostReading, at: datetime) -> HostSample:
        running = self._fleet.statuses().get(VmStatus.RUNNING, 0)
        counts = VmCounts(total=len(self._fleet), running=running)
        return host_sample(before, now, at=at, vms=counts)


def until_next(now: float, interval_s: float) -> float:
    """Seconds until the next round.

    Rounds are due in the middle of each interval of the clock, so that each step of the history
    gets just one; a round that took too long is not made up for.
    """
    delay = interval_s - (now - interval_s / 2) % interval_s
    # A timer that fired a moment early.
    return delay if delay > interval_s / 4 else delay + interval_s


def vm_sample(
    vm_id: str, before: Reading | None, now: Reading, *, at: datetime, since_start_s: float
) -> VmSample:
    """A VM between two readings; the start of a QEMU is the first of a young one."""
    if before is None or before.qemu != now.qemu:
        before = at_start(now) if 0 < now.age_s <= since_start_s else None
    return VmSample(
        vm_id=vm_id,
        at=at,
        cpu=VmCpu(percent=_cpu_percent(before, now), count=now.vcpus),
        memory=_memory(now),
        disk=_disk_rates(before.devices if before else None, now.devices),
        network=_net_rates(before.traffic if before else None, now.traffic),
    )


def at_start(now: Reading) -> Reading:
    """What a QEMU had used when it started."""
    at = now.at - now.age_s
    devices = now.devices and msgspec.structs.replace(now.devices, at=at, disks=DiskCounters())
    nothing = Usage(cpu_seconds=0.0, resident_bytes=0)
    return msgspec.structs.replace(now, at=at, age_s=0.0, usage=nothing, devices=devices)


def _cpu_percent(before: Reading | None, now: Reading) -> float:
    if before is None or now.at <= before.at:
        return 0.0
    used = now.usage.cpu_seconds - before.usage.cpu_seconds
    percent = 100 * used / ((now.at - before.at) * now.vcpus)
    return round(min(100.0, max(0.0, percent)), 2)


def _memory(now: Reading) -> VmMemory:
    devices = now.devices
    guest = devices.guest if devices else None
    return VmMemory(
        resident_bytes=now.usage.resident_bytes,
        limit_bytes=now.memory_bytes,
        balloon_bytes=devices.balloon_bytes if devices else None,
        guest_used_bytes=guest.used_bytes if guest else None,
        guest_available_bytes=guest.available_bytes if guest else None,
    )


def _disk_rates(before: Devices | None, now: Devices | None) -> IoRates | None:
    """None without two answers, and when a disk was taken out: its counts went with it."""
    if before is None or now is None:
        return None
    rates = _per_second(before.disks, now.disks, now.at - before.at)
    if rates is None:
        return None
    return IoRates(
        read_bytes_per_second=rates["read_bytes"],
        write_bytes_per_second=rates["write_bytes"],
        reads_per_second=rates["reads"],
        writes_per_second=rates["writes"],
    )


def _net_rates(before: Traffic | None, now: Traffic | None) -> NetRates | None:
    """None without two answers, and when the guest began to count anew."""
    if before is None or now is None:
        return None
    rates = _per_second(before.cards, now.cards, now.at - before.at)
    if rates is None:
        return None
    return NetRates(
        receive_bytes_per_second=rates["receive_bytes"],
        transmit_bytes_per_second=rates["transmit_bytes"],
        receive_packets_per_second=rates["receive_packets"],
        transmit_packets_per_second=rates["transmit_packets"],
    )


def _per_second(
    before: DiskCounters | NetCounters, now: DiskCounters | NetCounters, span_s: float
) -> dict[str, float] | None:
    """The rate of each count; None when no time has passed or one went backwards."""
    old = msgspec.structs.asdict(before)
    moved = {name: value - old[name] for name, value in msgspec.structs.asdict(now).items()}
    if span_s <= 0 or min(moved.values()) < 0:
        return None
    return {name: round(count / span_s, 2) for name, count in moved.items()}


def counters(now: Reading) -> VmCounters:
    """What only grows, as it stands."""
    disks = now.devices.disks if now.devices else None
    cards = now.traffic.cards if now.traffic else None
    return VmCounters(
        cpu_seconds=now.usage.cpu_seconds,
        resident_bytes=now.usage.resident_bytes,
        read_bytes=disks.read_bytes if disks else None,
        write_bytes=disks.write_bytes if disks else None,
        reads=disks.reads if disks else None,
        writes=disks.writes if disks else None,
        receive_bytes=cards.receive_bytes if cards else None,
        transmit_bytes=cards.transmit_bytes if cards else None,
        receive_packets=cards.receive_packets if cards else None,
        transmit_packets=cards.transmit_packets if cards else None,
    )
