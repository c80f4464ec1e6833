"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.vm`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from voidvm.client.record import Record
from voidvm.client.types.cloudinit import CloudInit
from voidvm.client.types.states import VmStatus


class Autostart(Record):
    """Whether and when the VM starts after the host has booted, once a boot."""

    enabled: bool
    order: int
    delay: int


class Disk(Record):
    """One disk of a VM: a qcow2 file, thin, over its image if it has one."""

    id: str
    size: int
    format: Literal["qcow2"]
    bus: Literal["virtio", "scsi", "sata"]
    cache: Literal["none", "writeback", "unsafe"]
    discard: bool
    image: str | None


class Endpoint(Record):
    """Where a port of the guest is reached while it runs."""

    protocol: Literal["tcp", "udp"]
    host_address: str
    host_port: int
    guest_port: int


class Kernel(Record):
    """Direct boot: images of kind `kernel` that QEMU loads without firmware or boot loader."""

    image: str
    initrd: str | None
    cmdline: str


class Network(Record):
    """One network card; `user` is QEMU's own NAT, which needs no rights on the host."""

    type: Literal["user"]
    model: Literal["virtio", "e1000"]
    mac: str | None
    forwards: list[PortForward]
    isolated: bool


class PortForward(Record):
    """A port of the host that leads to a port of the guest."""

    guest_port: int
    host_port: int
    host_address: str
    protocol: Literal["tcp", "udp"]


class Restart(Record):
    """How far the automatic starts of a VM have got that does not stay up."""

    attempts: int
    next_attempt_at: datetime | None
    gave_up: bool
    reason: str


class Vm(Record):
    """A VM as clients see it."""

    id: str
    name: str
    owner: str
    status: VmStatus
    status_reason: str | None
    cpu: int
    memory: int
    disk: int
    os: str | None
    image: str | None
    iso: str | None
    kernel: Kernel | None
    description: str
    tags: list[str]
    firmware: Literal["bios", "uefi"]
    machine: Literal["q35", "pc", "microvm"]
    accel: Literal["auto", "kvm", "tcg"]
    accel_in_use: Literal["kvm", "tcg"] | None
    networks: list[Network]
    boot_order: list[Literal["disk", "cdrom", "network"]]
    cloud_init: CloudInit | None
    autostart: Autostart
    restart_policy: Literal["never", "on-failure", "always"]
    restart: Restart | None
    disks: list[Disk]
    endpoints: list[Endpoint]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    uptime: float | None
    pid: int | None
    pending: dict[str, Any]
    needs_restart: bool
    operation_id: str | None
