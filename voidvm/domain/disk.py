"""Bodies of the calls on a VM's disks and its CD."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm.domain.fields import DiskGib, ImageRef
from voidvm.domain.vm import Disk, DiskBus, DiskCache, MachineType, Value

DISKS_MAX = 16
# q35 has an AHCI controller of six ports, pc two IDE cables for two disks each.
SATA_MAX: dict[MachineType, int] = {"q35": 6, "pc": 4, "microvm": 0}


class DiskCreate(Value, frozen=True, kw_only=True):
    """A disk to add: empty, or a thin overlay over an image."""

    size: DiskGib
    bus: Annotated[
        DiskBus | None,
        Meta(description="Default virtio; scsi while the VM runs, since only that takes disks."),
    ] = None
    image: ImageRef | None = None
    cache: DiskCache = "writeback"
    discard: Annotated[bool, Meta(description="Give freed space back to the host.")] = True


class DiskExpand(Value, frozen=True, kw_only=True):
    """The new size of a disk."""

    size: DiskGib


class IsoChange(Value, frozen=True, kw_only=True):
    """The CD to put into the drive."""

    image: ImageRef


class DiskList(Value, frozen=True, kw_only=True):
    """A VM's disks, the one it boots from first."""

    disks: list[Disk]
