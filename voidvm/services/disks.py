"""A VM's disks and its CD: added, grown, taken away, also while it runs."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.disk import DISKS_MAX, SATA_MAX, DiskCreate
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.image import Image
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.validation import refuse
from voidvm.domain.views import show
from voidvm.domain.vm import Disk, DiskBus, Vm, VmRecord
from voidvm.errors import (
    DiskNotFound,
    FieldProblem,
    VmBusy,
    VmNotFound,
    VmStateConflict,
    VoidVMError,
)
from voidvm.hypervisor.header import virtual_size_bytes
from voidvm.hypervisor.img import QemuImg, partial, sync_folder
from voidvm.services.guests import CD_DRIVE, Guests
from voidvm.services.images import Images
from voidvm.services.space import Space
from voidvm.services.vms import GIB, Vms
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine
from voidvm.supervisor.paths import Layout

log = logging.getLogger(__name__)

_HOT_HINT = "Only disks on the bus 'scsi' come and go while the VM runs; stop it first."


class Disks:
    """Each use case is one job of the VM; the row comes first, for it holds the quota."""

    def __init__(
        self,
        store: VmStore,
        *,
        vms: Vms,
        fleet: Fleet,
        images: Images,
        guests: Guests,
        img: QemuImg,
        space: Space,
        layout: Layout,
    ) -> None:
        self._store = store
        self._vms = vms
        self._fleet = fleet
        self._images = images
        self._guests = guests
        self._img = img
        self._space = space
        self._layout = layout

    async def of_vm(self, principal: Principal, ref: str) -> list[Disk]:
        """The VM's disks."""
        return (await self._vms.find(principal, ref)).disks

    async def attach(self, principal: Principal, ref: str, wanted: DiskCreate) -> Disk:
        """Make a disk and add it, to the running guest too.

        Raises `ValidationFailed`, `QuotaExceeded`, `NoSpace`, `VmStateConflict`, `CommandFailed`.
        """
        record, machine = await self._find(principal, ref)
        return await machine.perform(
            "attach-disk", lambda: self._attach(principal, record, machine, wanted)
        )

    async def _attach(
        self, principal: Principal, record: VmRecord, machine: Machine, wanted: DiskCreate
    ) -> Disk:
        image = None
        if wanted.image is not None:
            image = await self._images.of_kind(principal, wanted.image, kind="disk", field="image")
            if wanted.size * GIB < image.virtual_size_bytes:
                least = -(-image.virtual_size_bytes // GIB)
                refuse([FieldProblem("size", f"must be at least {least} for '{image.name}'")])
        bus = wanted.bus or ("scsi" if machine.has_process else "virtio")
        if machine.has_process and bus != "scsi":
            raise VmStateConflict(
                vm=record.name,
                action=f"take a {bus} disk",
                state=machine.status,
                details=machine.status,
                hint=_HOT_HINT,
            )
        _check_bus(record, bus)
        self._space.check()
        disk = Disk(
            id=self._free_id(record),
            size=wanted.size,
            bus=bus,
            cache=wanted.cache,
            discard=wanted.discard,
            image=image.id if image else None,
        )
        file = self._layout.vm(record.id).disk(disk.id)
        await self._store.change(record.id, lambda now: _with(now, [*now.disks, disk]))
        try:
            await self._make(file, disk, image)
            if machine.has_process:
                await machine.plug_disk(self._guests.disk_file(record.id, disk, bootindex=None))
        except BaseException:
            await self._store.change(record.id, lambda now: _without(now, disk.id))
            file.unlink(missing_ok=True)
            raise
        return disk

    async def _make(self, file: Path, disk: Disk, image: Image | None) -> None:
        """The disk's file, whole or not at all: a killed qemu-img leaves half a header."""
        draft = partial(file)
        draft.unlink(missing_ok=True)
        try:
            await self._img.create(
                draft,
                size_bytes=disk.size * GIB,
                backing=self._images.file(image) if image else None,
            )
            draft.chmod(0o600)
            await asyncio.to_thread(_settle, draft, file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    async def restore(self) -> None:
        """Make rows and files agree again where an earlier service ended in between.

        A disk without a file was never there; a file without a disk is gone; a disk that is
        smaller than its row grows. Raises `NoSpace`; may be tried again at any time.
        """
        for record in await self._store.all():
            # Busy: somebody has changed its disks since. Not found: it is being deleted.
            with suppress(VmBusy, VmNotFound, FileNotFoundError):
                if self._is_settled(record):
                    continue
                machine = self._fleet.get(record.id)
                if machine.status is VmStatus.DELETING:
                    continue
                await machine.perform("check-disks", functools.partial(self._reconcile, record.id))

    def _is_settled(self, record: VmRecord) -> bool:
        """Whether its files are those of its disks and as large, or are yet to be made."""
        folder = self._layout.vm(record.id).disks
        if record.status is VmStatus.CREATING or not folder.exists():
            return True
        sizes = {self._file(record, disk): disk.size * GIB for disk in record.disks}
        return set(folder.iterdir()) == set(sizes) and all(
            _size_bytes(file) >= size for file, size in sizes.items()
        )

    async def _reconcile(self, vm_id: str) -> None:
        record = await self._store.get(vm_id)
        if record is None or self._is_settled(record):
            return
        folder = self._layout.vm(vm_id).disks
        lost = {disk.id for disk in record.disks[1:] if not self._file(record, disk).exists()}
        if lost:
            log.warning("%s: %s never came to be", record.id, ", ".join(sorted(lost)))
            await self._store.change(record.id, _without_all(lost))
        known = {self._file(record, disk) for disk in record.disks if disk.id not in lost}
        for stray in set(folder.iterdir()) - known:
            log.warning("removing %s of %s, which is no disk", stray.name, record.id)
            stray.unlink()
        for disk in record.disks:
            await self._finish_growth(record, disk)

    async def _finish_growth(self, record: VmRecord, disk: Disk) -> None:
        file = self._file(record, disk)
        found = _size_bytes(file)
        if not found:
            log.warning("%s of %s cannot be read", disk.id, record.id)
        elif found < disk.size * GIB:
            log.warning("%s of %s goes on growing", disk.id, record.id)
            try:
                await self.grow(record, disk.id, size=disk.size, old=-(-found // GIB))
            except VoidVMError as error:
                log.warning("%s of %s: %s", disk.id, record.id, error)

    def _file(self, record: VmRecord, disk: Disk) -> Path:
        return self._layout.vm(record.id).disk(disk.id)

    @staticmethod
    def _free_id(record: VmRecord) -> str:
        if len(record.disks) >= DISKS_MAX:
            refuse([FieldProblem("disk", f"a VM may have {DISKS_MAX}")])
        taken = {disk.id for disk in record.disks}
        return next(name for n in range(DISKS_MAX + 1) if (name := f"disk{n}") not in taken)

    async def expand(self, principal: Principal, ref: str, disk_id: str, *, size: int) -> Disk:
        """Grow a disk; the running guest sees it. Raises `ValidationFailed`, `QuotaExceeded`."""
        record, machine = await self._find(principal, ref)
        self._disk(record, disk_id)
        await machine.perform("expand-disk", lambda: self._expand(record, disk_id, size))
        return self._disk(await self._vms.find(principal, record.id), disk_id)

    async def _expand(self, record: VmRecord, disk_id: str, size: int) -> None:
        old = self._disk(record, disk_id).size
        if size < old:
            refuse([FieldProblem("size", f"may only grow; it has {old} GiB")])
        await self._store.change(record.id, lambda now: _sized(now, disk_id, size))
        await self.grow(record, disk_id, size=size, old=old)

    async def grow(self, record: VmRecord, disk_id: str, *, size: int, old: int) -> None:
        """Make a disk as large as its row says; on failure the row says how large it is.

        When the service stops meanwhile, the next one goes on.
        """
        machine, file = self._fleet.get(record.id), self._file(record, self._disk(record, disk_id))
        try:
            if machine.has_process:
                await machine.resize_disk(disk_id, size_bytes=size * GIB)
            else:
                await self._img.resize(file, size_bytes=size * GIB)
        except Exception:
            # A qemu-img that is killed may have done it.
            found = max(old, virtual_size_bytes(file) // GIB)
            await self._store.change(record.id, lambda now: _sized(now, disk_id, found))
            raise

    async def detach(
        self,
        principal: Principal,
        ref: str,
        disk_id: str,
        *,
        precondition: Precondition = ANY,
    ) -> None:
        """Take a disk away and delete it. Raises `DiskNotFound`, `VmStateConflict`."""
        record, machine = await self._find(principal, ref)
        precondition.check(record.id, record.updated_at)
        await machine.perform("detach-disk", lambda: self._detach(record, machine, disk_id))

    async def _detach(self, record: VmRecord, machine: Machine, disk_id: str) -> None:
        disk = self._disk(record, disk_id)
        if disk.id == record.disks[0].id:
            refuse([FieldProblem("disk", "the first disk goes with its VM")])
        if machine.has_process:
            if disk.bus != "scsi":
                raise VmStateConflict(
                    vm=record.name,
                    action=f"give a {disk.bus} disk away",
                    state=machine.status,
                    details=machine.status,
                    hint=_HOT_HINT,
                )
            await machine.unplug_disk(disk.id)
        await self._store.change(record.id, lambda now: _without(now, disk.id))
        self._layout.vm(record.id).disk(disk.id).unlink(missing_ok=True)

    async def change_iso(
        self,
        principal: Principal,
        ref: str,
        image: str | None,
        *,
        precondition: Precondition = ANY,
    ) -> Vm:
        """Put another CD into the drive, or none; at once, also while the VM runs."""
        record, machine = await self._find(principal, ref)
        precondition.check(record.id, record.updated_at)
        await machine.perform(
            "change-iso", lambda: self._change_iso(principal, record, machine, image)
        )
        return show(await self._vms.find(principal, record.id))

    async def _change_iso(
        self, principal: Principal, record: VmRecord, machine: Machine, ref: str | None
    ) -> None:
        file = None
        if ref is not None:
            image = await self._images.of_kind(principal, ref, kind="iso", field="image")
            file = self._images.file(image)
        if machine.has_process:
            await machine.change_cd(CD_DRIVE, file, iso=ref)

        def update(now: VmRecord) -> VmRecord:
            hardware = msgspec.structs.replace(now.hardware, iso=ref)
            return msgspec.structs.replace(now, hardware=hardware)

        await self._store.change(record.id, update)

    async def _find(self, principal: Principal, ref: str) -> tuple[VmRecord, Machine]:
        record = await self._vms.find(principal, ref)
        machine = self._fleet.get(record.id)
        if machine.status in WITH_PROCESS and machine.status is not VmStatus.RUNNING:
            if machine.status is VmStatus.PAUSED:
                return record, machine
            raise VmStateConflict(
                vm=record.name,
                action="change its disks",
                state=machine.status,
                details=machine.status,
            )
        return record, machine

    @staticmethod
    def _disk(record: VmRecord, disk_id: str) -> Disk:
        for disk in record.disks:
            if disk.id == disk_id:
                return disk
        raise DiskNotFound(vm=record.name, disk=disk_id)


def _check_bus(record: VmRecord, bus: DiskBus) -> None:
    """Raise `ValidationFailed` for a bus without a place for one more disk."""
    places = SATA_MAX[record.hardware.machine]
    if bus == "sata" and sum(disk.bus == "sata" for disk in record.disks) >= places:
        refuse([FieldProblem("bus", f"a {record.hardware.machine} takes {places} sata disks")])


def _with(record: VmRecord, disks: list[Disk]) -> VmRecord:
    return msgspec.structs.replace(record, disks=disks)


def _without(record: VmRecord, disk_id: str) -> VmRecord:
    return _with(record, [disk for disk in record.disks if disk.id != disk_id])


def _without_all(disk_ids: set[str]) -> Callable[[VmRecord], VmRecord]:
    return lambda now: _with(now, [disk for disk in now.disks if disk.id not in disk_ids])


def _settle(draft: Path, file: Path) -> None:
    """Make a file durable, then give it its name."""
    fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.rename(file)
    sync_folder(file.parent)


def _sized(record: VmRecord, disk_id: str, size: int) -> VmRecord:
    return _with(
        record,
        [
            msgspec.structs.replace(disk, size=size) if disk.id == disk_id else disk
            for disk in record.disks
        ],
    )


def _size_bytes(file: Path) -> int:
    """The size that the guest sees; 0 for what is no disk: one VM's must not hold up the start."""
    try:
        return virtual_size_bytes(file)
    except (OSError, struct.error):
        return 0
