"""What QEMU is to run, as plain values: the input of `argv` and `launch`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from voidvm.hypervisor.aio import Aio


class DiskFile(Struct, frozen=True, kw_only=True):
    """A disk: its files from the overlay down to the last backing file, and its boot place."""

    node: str
    files: tuple[Path, ...]
    bootindex: int | None
    bus: Literal["virtio", "scsi", "sata"] = "virtio"
    cache: Literal["none", "writeback", "unsafe"] = "writeback"
    discard: bool = True
    aio: Aio = "threads"


class CdFile(Struct, frozen=True, kw_only=True):
    """A CD drive, its boot place, and what is in it: None for nothing."""

    node: str
    file: Path | None
    bootindex: int


class KernelFiles(Struct, frozen=True, kw_only=True):
    """A kernel that QEMU loads itself."""

    kernel: Path
    initrd: Path | None
    cmdline: str


class FirmwareFiles(Struct, frozen=True, kw_only=True):
    """UEFI: the code that all VMs share and this VM's own variables."""

    code: Path
    variables: Path


class Forward(Struct, frozen=True, kw_only=True):
    """A port of the host that leads into the guest; the port is chosen by now."""

    protocol: Literal["tcp", "udp"]
    host_address: str
    host_port: int
    guest_port: int


class Nic(Struct, frozen=True, kw_only=True):
    """A network card on QEMU's user-mode network."""

    model: Literal["virtio", "e1000"]
    mac: str
    forwards: tuple[Forward, ...]
    is_isolated: bool
    bootindex: int | None


class Guest(Struct, frozen=True, kw_only=True):
    """Everything QEMU is told about one VM."""

    vm_id: str
    uuid: str
    cpus: int
    memory_mib: int
    machine: Literal["q35", "pc", "microvm"]
    accel: Literal["kvm", "tcg"]
    disks: tuple[DiskFile, ...] = ()
    cds: tuple[CdFile, ...] = ()
    nics: tuple[Nic, ...] = ()
    kernel: KernelFiles | None = None
    firmware: FirmwareFiles | None = None
    monitor_socket: Path
    agent_socket: Path
    console_log: Path
    stderr_log: Path
