"""VMs as things that are made, changed and deleted."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from voidvm.bus import Bus, VmDeleted
from voidvm.domain.account import Principal
from voidvm.domain.compatibility import machine_problems
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.fields import new_vm_id, normal_name
from voidvm.domain.image import Image
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.validation import refuse
from voidvm.domain.views import show
from voidvm.domain.vm import (
    Disk,
    Hardware,
    Vm,
    VmCreate,
    VmRecord,
)
from voidvm.errors import (
    FieldProblem,
    NameTaken,
    NoSpace,
    VmAlreadyRunning,
    VmNotFound,
)
from voidvm.hypervisor.img import QemuImg
from voidvm.services.guests import Guests, uefi_files, with_macs
from voidvm.services.images import Images
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout, VmPaths

log = logging.getLogger(__name__)

GIB = 1024**3
# What must stay free on the disk: a qcow2 header, the database's next pages, a log line.
SPARE_BYTES = 64 * 1024**2
_HARDWARE = frozenset(field.name for field in msgspec.structs.fields(Hardware))


class Vms:
    """The use cases around a VM's being; its life is in `services.lifecycle`."""

    def __init__(
        self,
        store: VmStore,
        *,
        fleet: Fleet,
        images: Images,
        guests: Guests,
        img: QemuImg,
        layout: Layout,
        bus: Bus,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._images = images
        self._guests = guests
        self._img = img
        self._layout = layout
        self._bus = bus

    async def find(self, principal: Principal, ref: str) -> VmRecord:
        """The caller's VM of that id or name. Raises `VmNotFound`, also for somebody else's."""
        record = await self._store.find(normal_name(ref), principal=principal)
        if record is None:
            raise VmNotFound(vm=ref)
        return self.fresh(record)

    def fresh(self, record: VmRecord) -> VmRecord:
        """The record with what is observed now, which the store may learn a moment later."""
        state = self._fleet.get(record.id).state
        if record.status is VmStatus.DELETING:
            return record
        return msgspec.structs.replace(
            record, status=state.status, status_reason=state.reason, run=state.run
        )

    async def get(self, principal: Principal, ref: str) -> Vm:
        """One VM."""
        return show(await self.find(principal, ref))

    async def page(
        self,
        principal: Principal,
        *,
        status: VmStatus | None,
        owner: str | None,
        q: str | None,
        tag: str | None,
        page: int,
        limit: int,
    ) -> tuple[list[Vm], int]:
        """One page of the caller's VMs, and how many there are."""
        if status is not None:
            # The store is asked, so it must know what has been answered.
            await self._fleet.recorded()
        records, total = await self._store.page(
            owner_id=None if principal.sees_all else principal.user_id,
            status=status,
            owner=owner,
            q=None if q is None else normal_name(q),
            tag=tag,
            page=page,
            limit=limit,
        )
        return [show(self.fresh(record)) for record in records], total

    async def create(
        self, principal: Principal, wanted: VmCreate, *, is_dry_run: bool = False
    ) -> VmRecord:
        """Make a VM, its disk and all, or nothing.

        Raises `ValidationFailed`, `UnknownOs`, `ImageNotReady`, `NameTaken`, `QuotaExceeded`,
        `NoSpace`.
        """
        image = await self._check(principal, wanted)
        record = self._record(principal, wanted, image)
        await self.check_name_free(record.owner_id, record.name)
        await self._store.check_quota(record)
        if is_dry_run:
            return record
        work = asyncio.ensure_future(self._make(record, image))
        try:
            return await asyncio.shield(work)
        finally:
            # A caller who hangs up gets a whole VM or none: the making is not cut short.
            work.add_done_callback(_seen)

    async def _check(self, principal: Principal, wanted: VmCreate) -> Image | None:
        problems = machine_problems(wanted.machine, wanted.firmware, wanted.networks)
        if wanted.os is not None and wanted.image is not None:
            problems.append(FieldProblem("image", "cannot be given together with 'os'"))
        refuse(problems)
        if wanted.firmware == "uefi":
            uefi_files()
        if wanted.accel == "kvm":
            await self._guests.choose_accel("kvm")
        if wanted.iso is not None:
            await self._images.of_kind(principal, wanted.iso, kind="iso", field="iso")
        if wanted.kernel is not None:
            await self._images.check_kernel(principal, wanted.kernel)
        if wanted.os is not None:
            return await self._images.of_os(wanted.os)
        if wanted.image is not None:
            return await self._images.of_kind(principal, wanted.image, kind="disk", field="image")
        return None

    @staticmethod
    def _record(principal: Principal, wanted: VmCreate, image: Image | None) -> VmRecord:
        if image is not None and wanted.disk * GIB < image.virtual_size_bytes:
            least = -(-image.virtual_size_bytes // GIB)
            refuse([FieldProblem("disk", f"must be at least {least} for '{image.name}'")])
        now = datetime.now(UTC)
        return VmRecord(
            id=new_vm_id(),
            owner_id=principal.user_id,
            owner=principal.username,
            name=wanted.name,
            uuid=str(uuid.uuid4()),
            os=wanted.os,
            image=image.name if image is not None and wanted.os is None else None,
            description=wanted.description,
            tags=wanted.tags,
            autostart=wanted.autostart,
            restart_policy=wanted.restart_policy,
            hardware=Hardware(
                cpu=wanted.cpu,
                memory=wanted.memory,
                iso=wanted.iso,
                kernel=wanted.kernel,
                firmware=wanted.firmware,
                machine=wanted.machine,
                accel=wanted.accel,
                networks=with_macs(wanted.networks),
                boot_order=wanted.boot_order,
            ),
            disks=[Disk(id="disk0", size=wanted.disk, image=image.id if image else None)],
            created_at=now,
            updated_at=now,
        )

    async def _make(self, record: VmRecord, image: Image | None) -> VmRecord:
        """Files first, under a name that nothing looks at; then the name; then the row."""
        paths = self._layout.vm(record.id)
        draft = VmPaths(data=paths.data.with_name(f".{record.id}.tmp"), run=paths.run)
        try:
            self._check_space()
            draft.disks.mkdir(mode=0o700, parents=True)
            disk = record.disks[0]
            await self._img.create(
                draft.disk(disk.id),
                size_bytes=disk.size * GIB,
                backing=self._images.file(image) if image else None,
            )
            if record.hardware.firmware == "uefi":
                await asyncio.to_thread(shutil.copyfile, uefi_files()[1], draft.uefi_variables)
            await asyncio.to_thread(_settle, draft.data, paths.data)
            await self._store.insert(record)
        except BaseException:
            for folder in (draft.data, paths.data):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        self._fleet.add(record)
        return record

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._layout.data).free
        if free < SPARE_BYTES:
            raise NoSpace(f"{free // 1024**2} MiB are left")

    async def check_name_free(self, owner_id: str, name: str) -> None:
        """Raise `NameTaken` when the owner has a VM of that name."""
        if await self._store.is_name_taken(owner_id, name):
            raise NameTaken(name=name)

    async def delete(
        self,
        principal: Principal,
        ref: str,
        *,
        force: bool = False,
        precondition: Precondition = ANY,
    ) -> None:
        """Delete a VM and its disks.

        Raises `VmAlreadyRunning` unless it is off or `force`, `PreconditionFailed`.
        """
        record = await self.find(principal, ref)
        precondition.check(record.id, record.updated_at)
        machine = self._fleet.get(record.id)
        if force and machine.status in WITH_PROCESS:
            await machine.force_stop()
            # A graceful stop that waited for the guest has just been answered, too.
            await machine.settled()
        await machine.perform("delete", lambda: self._delete(record.id, precondition))

    async def _delete(self, vm_id: str, precondition: Precondition) -> None:
        record = await self._store.get(vm_id)
        if record is None:
            raise VmNotFound(vm=vm_id)
        # Again, now that nobody can change it meanwhile.
        precondition.check(record.id, record.updated_at)
        machine = self._fleet.get(record.id)
        if machine.has_process or machine.status in WITH_PROCESS:
            raise VmAlreadyRunning(
                vm=record.name,
                details=machine.status,
                hint="Stop it first, or delete it with ?force=true.",
            )
        machine.state.set(VmStatus.DELETING)
        await machine.state.recorded()
        await self._remove(record.id)
        await self._fleet.remove(record.id)
        self._bus.publish(VmDeleted(vm_id=record.id))

    async def _remove(self, vm_id: str) -> None:
        paths = self._layout.vm(vm_id)
        for folder in (paths.data, paths.run):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await self._store.delete(vm_id)

    async def restore(self) -> None:
        """Finish what an earlier service began, and find every running VM again."""
        records = await self._store.all()
        for record in records:
            if record.status is VmStatus.DELETING:
                await self._remove(record.id)
        left = [record for record in records if record.status is not VmStatus.DELETING]
        await asyncio.to_thread(self._sweep, {record.id for record in left})
        await self._fleet.restore(left)

    def _sweep(self, known: set[str]) -> None:
        """Remove folders that no row speaks of: a creation that was cut short."""
        folder = self._layout.data / "vms"
        for path in folder.iterdir() if folder.exists() else ():
            if path.name not in known:
                log.warning("removing %s, which belongs to no VM", path.name)
                shutil.rmtree(path, ignore_errors=True)


def _settle(draft: Path, final: Path) -> None:
    """Make a folder's content durable, then give it its name."""
    for path in (*draft.rglob("*"), draft):
        fd = os.open(path, os.O_RDONLY)
        try:
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.fsync(fd)
        finally:
            os.close(fd)
    draft.rename(final)
    fd = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _seen(work: asyncio.Future[VmRecord]) -> None:
    if not work.cancelled():
        work.exception()
