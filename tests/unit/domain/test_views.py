"""How a stored VM is shown: what runs, what waits, and nothing of a run that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.views import show
from voidvm.domain.vm import Disk, Endpoint, Hardware, Run, VmRecord

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
HARDWARE = Hardware(cpu=1, memory=64)
RUN = Run(
    pid=42,
    pid_start=1,
    boot_id="b",
    accel="tcg",
    hardware=HARDWARE,
    endpoints=[Endpoint(protocol="tcp", host_address="127.0.0.1", host_port=1, guest_port=2)],
    started_at=NOW,
)
RECORD = VmRecord(
    id="vm-1",
    owner_id="usr-1",
    owner="admin",
    name="one",
    uuid="u",
    hardware=HARDWARE,
    disks=[Disk(id="disk0", size=3)],
    created_at=NOW,
    updated_at=NOW,
    run=RUN,
)


@pytest.mark.parametrize("status", sorted(WITH_PROCESS))
def test_a_run_is_shown_while_it_lasts(status: VmStatus) -> None:
    record = replace(RECORD, status=status, hardware=replace(HARDWARE, cpu=4, memory=128))
    vm = show(record, now=NOW + timedelta(seconds=90.5))
    assert (vm.pid, vm.uptime, vm.accel_in_use, vm.endpoints) == (42, 90.5, "tcg", RUN.endpoints)
    assert (vm.cpu, vm.memory) == (1, 64)
    assert (vm.pending, vm.needs_restart) == ({"cpu": 4, "memory": 128}, True)


@pytest.mark.parametrize("status", sorted(set(VmStatus) - WITH_PROCESS))
def test_a_run_that_is_over_is_not_shown(status: VmStatus) -> None:
    record = replace(RECORD, status=status, hardware=replace(HARDWARE, cpu=4))
    vm = show(record, now=NOW + timedelta(seconds=90))
    assert (vm.pid, vm.uptime, vm.started_at, vm.accel_in_use) == (None, None, None, None)
    assert vm.endpoints == []
    assert (vm.cpu, vm.pending, vm.needs_restart) == (4, {}, False)


def test_the_disk_is_the_first_ones_size() -> None:
    record = replace(RECORD, disks=[Disk(id="disk0", size=3), Disk(id="disk1", size=9)])
    assert show(record).disk == 3
