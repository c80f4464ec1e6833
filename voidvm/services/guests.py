"""From a stored VM to what QEMU is told: files, ports and the accelerator of one start."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from voidvm.domain.account import Principal
from voidvm.domain.disk import DISKS_MAX
from voidvm.domain.vm import BootDevice, Disk, Endpoint, Network, VmRecord
from voidvm.errors import FieldProblem, NotEnoughMemory, ValidationFailed, VmStateConflict
from voidvm.hypervisor.aio import best_aio
from voidvm.hypervisor.guest import (
    CdFile,
    DiskFile,
    FirmwareFiles,
    Forward,
    Guest,
    KernelFiles,
    Nic,
)
from voidvm.services.accelerator import Accel
from voidvm.services.images import Images
from voidvm.supervisor import ports
from voidvm.supervisor.paths import Layout

CD_DRIVE, SEED_DRIVE = "cd0", "cd1"

# Debian's and Ubuntu's package `ovmf`; the 4M build is the one that newer releases ship.
_UEFI_FILES = (
    (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    (Path("/usr/share/OVMF/OVMF_CODE.fd"), Path("/usr/share/OVMF/OVMF_VARS.fd")),
)


def new_mac() -> str:
    """A MAC address of QEMU's range, 52:54:00."""
    tail = secrets.token_bytes(3)
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def with_macs(networks: list[Network]) -> list[Network]:
    """The networks, each with an address of its own that stays."""
    return [
        network if network.mac else msgspec.structs.replace(network, mac=new_mac())
        for network in networks
    ]


def uefi_files() -> tuple[Path, Path]:
    """UEFI code and empty variables. Raises `ValidationFailed` when they are not installed."""
    for code, variables in _UEFI_FILES:
        if code.exists() and variables.exists():
            return code, variables
    problem = FieldProblem("firmware", "the files of 'uefi' are not installed on this host")
    raise ValidationFailed(problem.message, errors=[problem], hint="Install the package 'ovmf'.")


class Guests:
    """Builds guests; `accel` tells what the probe found to work."""

    def __init__(
        self, *, images: Images, layout: Layout, accel: Callable[[], Awaitable[Accel]]
    ) -> None:
        self._images = images
        self._layout = layout
        self._accel = accel

    async def choose_accel(self, wanted: Literal["auto", "kvm", "tcg"]) -> Accel:
        """What a VM that asks for `wanted` gets: KVM only where it works."""
        if wanted == "auto":
            return await self._accel()
        if wanted == "kvm" and await self._accel() != "kvm":
            problem = FieldProblem("accel", "KVM does not work on this host")
            hint = "'voidvm doctor' says why; with accel 'auto' the VM runs under TCG."
            raise ValidationFailed(problem.message, errors=[problem], hint=hint)
        return wanted

    async def build(self, principal: Principal, record: VmRecord) -> tuple[Guest, list[Endpoint]]:
        """The guest of one start, and where its ports will be reached.

        Raises `PortInUse`, `NotEnoughMemory`, `ValidationFailed` for an image that has gone and for
        an accelerator or firmware that this host lacks, `VmStateConflict` for a VM whose creation
        failed.
        """
        hardware = record.hardware
        paths = self._layout.vm(record.id)
        if not paths.data.exists():
            raise VmStateConflict(
                f"{record.status}: its files were never made",
                vm=record.name,
                action="start",
                state=record.status,
                hint="Delete the VM and create it again; its statusReason says what went wrong.",
            )
        _check_memory(hardware.memory)
        place = _boot_places(hardware.boot_order)
        nics, endpoints = _network_cards(hardware.networks, place.get("network"))
        return Guest(
            vm_id=record.id,
            uuid=record.uuid,
            cpus=hardware.cpu,
            memory_mib=hardware.memory,
            machine=hardware.machine,
            accel=await self.choose_accel(hardware.accel),
            disks=tuple(
                self.disk_file(record.id, disk, bootindex=place["disk"] + number)
                for number, disk in enumerate(record.disks)
            ),
            cds=await self._cds(principal, record, place["cdrom"]),
            nics=nics,
            kernel=await self._kernel(principal, record),
            firmware=(
                FirmwareFiles(code=uefi_files()[0], variables=paths.uefi_variables)
                if hardware.firmware == "uefi"
                else None
            ),
            monitor_socket=paths.monitor_socket,
            agent_socket=paths.agent_socket,
            console_log=paths.console_log,
            stderr_log=paths.stderr_log,
        ), endpoints

    def disk_file(self, vm_id: str, disk: Disk, *, bootindex: int | None) -> DiskFile:
        """A disk as QEMU is given it: its own file over that of its image."""
        files = [self._layout.vm(vm_id).disk(disk.id)]
        if disk.image is not None:
            # By id: it stays the disk's base even when the name moves on.
            files.append(self._layout.image(disk.image) / "disk.qcow2")
        return DiskFile(
            node=disk.id,
            files=tuple(files),
            bootindex=bootindex,
            bus=disk.bus,
            cache=disk.cache,
            discard=disk.discard,
            aio=best_aio(is_direct=disk.cache == "none"),
        )

    async def _cds(
        self, principal: Principal, record: VmRecord, bootindex: int
    ) -> tuple[CdFile, ...]:
        iso = record.hardware.iso
        file = None
        if iso is not None:
            image = await self._images.of_kind(principal, iso, kind="iso", field="iso")
            file = self._images.file(image)
        # The drive is there without a CD too, so that one can be put in while the VM runs.
        drives = [CdFile(node=CD_DRIVE, file=file, bootindex=bootindex)]
        if record.cloud_init is not None:
            seed = self._layout.vm(record.id).seed
            drives.append(CdFile(node=SEED_DRIVE, file=seed, bootindex=bootindex + 1))
        return tuple(drives)

    async def _kernel(self, principal: Principal, record: VmRecord) -> KernelFiles | None:
        kernel = record.hardware.kernel
        if kernel is None:
            return None
        image = await self._images.of_kind(
            principal, kernel.image, kind="kernel", field="kernel.image"
        )
        initrd = None
        if kernel.initrd is not None:
            found = await self._images.of_kind(
                principal, kernel.initrd, kind="kernel", field="kernel.initrd"
            )
            initrd = self._images.file(found)
        return KernelFiles(kernel=self._images.file(image), initrd=initrd, cmdline=kernel.cmdline)


def _check_memory(wanted_mib: int) -> None:
    free_mib = psutil.virtual_memory().available // 1024**2
    if wanted_mib > free_mib:
        raise NotEnoughMemory(wanted=wanted_mib, free=free_mib)


def _boot_places(order: list[BootDevice]) -> dict[BootDevice, int]:
    """The first bootindex of each kind of device; as many as a VM may have fit between two.

    Disks and CDs always have one; the network only where the order names it. Place 0 is left
    free: QEMU puts the loader of a `-kernel` there.
    """
    kinds: tuple[BootDevice, ...] = ("disk", "cdrom")
    complete = dict.fromkeys([*order, *kinds])
    return {kind: 1 + number * (DISKS_MAX + 1) for number, kind in enumerate(complete)}


def _network_cards(
    networks: list[Network], first_bootindex: int | None
) -> tuple[tuple[Nic, ...], list[Endpoint]]:
    nics: list[Nic] = []
    endpoints: list[Endpoint] = []
    for number, network in enumerate(networks):
        forwards = tuple(
            Forward(
                protocol=forward.protocol,
                host_address=forward.host_address,
                host_port=ports.choose(forward.host_address, forward.host_port, forward.protocol),
                guest_port=forward.guest_port,
            )
            for forward in network.forwards
        )
        endpoints += [
            Endpoint(
                protocol=forward.protocol,
                host_address=forward.host_address,
                host_port=forward.host_port,
                guest_port=forward.guest_port,
            )
            for forward in forwards
        ]
        nics.append(
            Nic(
                model=network.model,
                mac=network.mac or new_mac(),
                forwards=forwards,
                is_isolated=network.isolated,
                bootindex=None if first_bootindex is None else first_bootindex + number,
            )
        )
    return tuple(nics), endpoints
