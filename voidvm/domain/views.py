"""How a stored VM is shown to clients."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from voidvm.domain import cloudinit
from voidvm.domain.states import WITH_PROCESS
from voidvm.domain.vm import Hardware, Vm, VmRecord


def pending_changes(record: VmRecord) -> dict[str, object]:
    """The hardware fields whose new value waits for the next start, by their names in JSON."""
    if record.run is None or record.status not in WITH_PROCESS:
        return {}
    wanted, running = record.hardware, record.run.hardware
    if wanted == running:
        return {}
    return {
        field.encode_name: msgspec.to_builtins(getattr(wanted, field.name))
        for field in msgspec.structs.fields(Hardware)
        if getattr(wanted, field.name) != getattr(running, field.name)
    }


def show(record: VmRecord, *, now: datetime | None = None) -> Vm:
    """The VM as clients see it: while it runs, with the hardware that it runs with."""
    run = record.run if record.status in WITH_PROCESS else None
    hardware = run.hardware if run else record.hardware
    pending = pending_changes(record)
    started_at = run.started_at if run else None
    moment = now or datetime.now(UTC)
    return Vm(
        id=record.id,
        name=record.name,
        owner=record.owner,
        status=record.status,
        status_reason=record.status_reason,
        cpu=hardware.cpu,
        memory=hardware.memory,
        disk=record.disks[0].size,
        os=record.os,
        image=record.image,
        iso=hardware.iso,
        kernel=hardware.kernel,
        description=record.description,
        tags=record.tags,
        firmware=hardware.firmware,
        machine=hardware.machine,
        accel=hardware.accel,
        accel_in_use=run.accel if run else None,
        networks=hardware.networks,
        boot_order=hardware.boot_order,
        cloud_init=cloudinit.shown(record.cloud_init) if record.cloud_init else None,
        autostart=record.autostart,
        restart_policy=record.restart_policy,
        restart=record.restart,
        disks=record.disks,
        endpoints=run.endpoints if run else [],
        created_at=record.created_at,
        updated_at=record.updated_at,
        started_at=started_at,
        uptime=round((moment - started_at).total_seconds(), 3) if started_at else None,
        pid=run.pid if run else None,
        pending=pending,
        needs_restart=bool(pending),
        operation_id=record.operation_id,
    )
