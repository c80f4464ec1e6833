"""Rates are made of two readings of the same QEMU, and of nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from voidvm.domain.metrics import VmSample
from voidvm.hypervisor.usage import DiskCounters, GuestMemory, NetCounters, Usage
from voidvm.supervisor.meter import Devices, Reading, Traffic
from voidvm.supervisor.metrics import counters, until_next, vm_sample

AT = datetime(2026, 5, 4, tzinfo=UTC)


def reading(
    at: float,
    *,
    cpu: float,
    disks: DiskCounters | None = None,
    cards: NetCounters | None = None,
    age_s: float = 1000.0,
    qemu: tuple[int, int] = (7, 70),
) -> Reading:
    return Reading(
        qemu=qemu,
        age_s=age_s,
        at=at,
        vcpus=2,
        memory_bytes=1024,
        usage=Usage(cpu_seconds=cpu, resident_bytes=512),
        devices=(
            Devices(at=at + 0.5, disks=disks, balloon_bytes=1000, guest=None) if disks else None
        ),
        traffic=Traffic(at=at - 3, cards=cards) if cards else None,
    )


def sample(before: Reading | None, now: Reading) -> VmSample:
    return vm_sample("vm-1", before, now, at=AT, since_start_s=10)


def test_rates_are_per_second_and_percents_of_all_vcpus() -> None:
    before = reading(100, cpu=5, disks=DiskCounters(), cards=NetCounters())
    now = reading(
        110,
        cpu=10,
        disks=DiskCounters(read_bytes=100, write_bytes=200, reads=10, writes=20),
        cards=NetCounters(
            receive_bytes=1000, transmit_bytes=2000, receive_packets=30, transmit_packets=40
        ),
    )
    found = sample(before, now)
    assert found.cpu.percent == 25.0
    assert found.disk is not None
    assert found.disk.read_bytes_per_second == 10
    assert (found.disk.write_bytes_per_second, found.disk.reads_per_second) == (20, 1)
    assert found.network is not None
    assert found.network.receive_bytes_per_second == 100
    assert found.network.transmit_packets_per_second == 4
    assert (found.memory.resident_bytes, found.memory.limit_bytes) == (512, 1024)


def test_a_qemu_that_was_found_running_has_no_rates_at_first() -> None:
    found = sample(None, reading(100, cpu=5000, disks=DiskCounters(read_bytes=10**12)))
    assert (found.cpu.percent, found.disk, found.network) == (0.0, None, None)


def test_a_young_qemu_is_measured_from_its_start() -> None:
    now = reading(100, cpu=4, disks=DiskCounters(read_bytes=450), age_s=4)
    for before in (None, reading(95, cpu=900, qemu=(7, 60))):
        found = sample(before, now)
        assert found.cpu.percent == 50.0
        assert found.disk is not None
        assert found.disk.read_bytes_per_second == 100


def test_another_qemu_under_the_same_pid_is_no_predecessor() -> None:
    before = reading(90, cpu=1, disks=DiskCounters(), qemu=(7, 60))
    found = sample(before, reading(100, cpu=4000, disks=DiskCounters(reads=9000)))
    assert (found.cpu.percent, found.disk) == (0.0, None)


def test_a_counter_that_fell_makes_no_rate() -> None:
    before = reading(
        90, cpu=5, disks=DiskCounters(read_bytes=100), cards=NetCounters(receive_bytes=100)
    )
    now = reading(
        100, cpu=4, disks=DiskCounters(read_bytes=50), cards=NetCounters(receive_bytes=50)
    )
    found = sample(before, now)
    assert (found.cpu.percent, found.disk, found.network) == (0.0, None, None)


def test_without_an_answer_the_process_is_still_told_of() -> None:
    before, now = reading(90, cpu=0, disks=DiskCounters()), reading(100, cpu=20)
    found = sample(before, now)
    assert (found.cpu.percent, found.disk, found.memory.balloon_bytes) == (100.0, None, None)
    assert sample(now, reading(110, cpu=20, disks=DiskCounters())).disk is None
    assert counters(now).read_bytes is None


def test_the_same_answer_of_a_guest_makes_no_rate() -> None:
    before = reading(90, cpu=0, cards=NetCounters(receive_bytes=5))
    now = replace(reading(95, cpu=0), traffic=before.traffic)
    assert sample(before, now).network is None


def test_what_the_guest_tells_of_its_memory_is_passed_on() -> None:
    now = reading(100, cpu=0, disks=DiskCounters())
    assert now.devices is not None
    guest = GuestMemory(used_bytes=3, available_bytes=4)
    found = sample(None, replace(now, devices=replace(now.devices, guest=guest)))
    assert (found.memory.guest_used_bytes, found.memory.guest_available_bytes) == (3, 4)
    assert found.memory.balloon_bytes == 1000


def test_counters_stand_as_they_are() -> None:
    now = reading(100, cpu=7.5, disks=DiskCounters(writes=3), cards=NetCounters(transmit_bytes=9))
    found = counters(now)
    assert (found.cpu_seconds, found.writes, found.transmit_bytes) == (7.5, 3, 9)


@pytest.mark.parametrize(
    ("now", "wait"), [(0.0, 2.5), (2.5, 5.0), (2.499, 5.001), (2.6, 4.9), (4.0, 3.5), (7.4, 5.1)]
)
def test_rounds_are_due_in_the_middle_of_the_interval(now: float, wait: float) -> None:
    assert until_next(1000 + now, 5) == pytest.approx(wait)


def test_a_round_that_took_long_is_not_made_up_for() -> None:
    # It began at 2.5 and ended 11 seconds later: the next is due at 17.5, or once soon.
    assert until_next(1013.5, 5) == pytest.approx(4.0)
