"""Samples with numbers that a test chooses."""

from __future__ import annotations

from datetime import UTC, datetime

from voidvm.bus import Sampled
from voidvm.domain.metrics import (
    HostCpu,
    HostDisk,
    HostMemory,
    HostNetwork,
    HostSample,
    IoRates,
    NetRates,
    VmCounts,
    VmCpu,
    VmMemory,
    VmSample,
)
from voidvm.store.database import Database

# A whole quarter of an hour, so that steps of every length begin here.
NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC).timestamp()


async def add_vm(database: Database, vm_id: str) -> None:
    """A row for a VM, and for its owner."""
    stamp = "2026-01-02T03:04:05.000006Z"
    await database.execute(
        "INSERT INTO users (id, username, role, plan, status, password_hash, created_at)"
        " VALUES ('usr-1', 'ada', 'user', 'free', 'active', '', ?)",
        (stamp,),
    )
    await database.execute(
        "INSERT INTO vms (id, owner_id, name, description, wanted, status, created_at,"
        " updated_at, body) VALUES (?, 'usr-1', 'a', '', 'stopped', 'stopped', ?, ?, ?)",
        (vm_id, stamp, stamp, b"{}"),
    )


def vm_sample(
    at: float,
    *,
    vm_id: str = "vm-0123456789ab",
    percent: float = 50.0,
    resident_bytes: int = 100,
    guest_used_bytes: int | None = None,
    disk: IoRates | None = None,
    network: NetRates | None = None,
) -> VmSample:
    """A VM at a moment (Unix seconds)."""
    return VmSample(
        vm_id=vm_id,
        at=datetime.fromtimestamp(at, UTC),
        cpu=VmCpu(percent=percent, count=2),
        memory=VmMemory(
            resident_bytes=resident_bytes,
            limit_bytes=1024,
            balloon_bytes=None,
            guest_used_bytes=guest_used_bytes,
            guest_available_bytes=None,
        ),
        disk=disk,
        network=network,
    )


def disk_rates(write: float) -> IoRates:
    """A disk that is written to."""
    return IoRates(
        read_bytes_per_second=0.0,
        write_bytes_per_second=write,
        reads_per_second=0.0,
        writes_per_second=1.0,
    )


def host_sample(at: float, *, cores: int = 2, percent: float = 10.0) -> HostSample:
    """The host at a moment (Unix seconds)."""
    return HostSample(
        at=datetime.fromtimestamp(at, UTC),
        cpu=HostCpu(percent=percent, per_core=[percent] * cores, load1=0.5),
        memory=HostMemory(total_bytes=8, used_bytes=4, available_bytes=4, swap_used_bytes=0),
        disk=HostDisk(
            read_bytes_per_second=0.0,
            write_bytes_per_second=0.0,
            reads_per_second=0.0,
            writes_per_second=0.0,
            total_bytes=8,
            used_bytes=4,
            free_bytes=4,
        ),
        network=HostNetwork(receive_bytes_per_second=0.0, transmit_bytes_per_second=0.0),
        vms=VmCounts(total=1, running=1),
    )


def sampled(at: float, *vms: VmSample, percent: float = 10.0) -> Sampled:
    """A round."""
    return Sampled(
        host=host_sample(at, percent=percent), vms={vm.vm_id: vm for vm in vms}, counters={}
    )
