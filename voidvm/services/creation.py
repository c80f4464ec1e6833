"""Making VMs: in milliseconds from what is here, as an operation from what must come first."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from voidvm.domain import cloudinit
from voidvm.domain.account import Principal
from voidvm.domain.catalog import CatalogEntry
from voidvm.domain.compatibility import machine_problems
from voidvm.domain.fields import new_vm_id
from voidvm.domain.image import Image
from voidvm.domain.states import STARTABLE, VmStatus
from voidvm.domain.validation import refuse
from voidvm.domain.vm import Disk, Hardware, VmCreate, VmRecord
from voidvm.errors import (
    CommandFailed,
    DatabaseUnusable,
    FieldProblem,
    InternalError,
    NoSpace,
    VoidVMError,
)
from voidvm.hypervisor.img import QemuImg
from voidvm.hypervisor.seed import write_seed
from voidvm.operations.progress import ProgressSink
from voidvm.operations.runner import Operations
from voidvm.security.guest_passwords import sealed
from voidvm.services.folders import remove_folders
from voidvm.services.guests import Guests, uefi_files, with_macs
from voidvm.services.images import Images
from voidvm.services.imports import Imports
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.space import Space
from voidvm.services.starting import owner_of
from voidvm.services.vms import GIB, Vms
from voidvm.store.idempotency import KEPT
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout

log = logging.getLogger(__name__)


class Creation:
    """The use case that makes VMs."""

    def __init__(
        self,
        store: VmStore,
        *,
        vms: Vms,
        fleet: Fleet,
        images: Images,
        imports: Imports,
        lifecycle: Lifecycle,
        guests: Guests,
        operations: Operations,
        img: QemuImg,
        space: Space,
        layout: Layout,
    ) -> None:
        self._store = store
        self._vms = vms
        self._fleet = fleet
        self._images = images
        self._imports = imports
        self._lifecycle = lifecycle
        self._guests = guests
        self._operations = operations
        self._img = img
        self._space = space
        self._layout = layout

    async def create(
        self,
        principal: Principal,
        wanted: VmCreate,
        *,
        is_dry_run: bool = False,
        seed: bytes | None = None,
    ) -> VmRecord:
        """Make a VM, its disk and all, or nothing.

        When its image must be fetched first, or copied whole, the VM is `creating` and names the
        operation that goes on. What the same `seed` has made a short while ago is it.
        Raises `ValidationFailed`, `UnknownOs`, `ImageNotReady`, `NameTaken`, `QuotaExceeded`,
        `NoSpace`.
        """
        vm_id = new_vm_id(seed)
        if seed is not None and (known := await self._store.get(vm_id)) is not None:
            if datetime.now(UTC) - known.created_at < KEPT:
                return await self._started(principal, known, wanted)
            vm_id = new_vm_id()
        image, missing = await self._check(principal, wanted)
        record = self._record(vm_id, principal, wanted, image, missing)
        if wanted.cloud_init is not None:
            # The clear password ends here: what is kept, on disk and in memory, is its hash.
            cloud_init = await asyncio.to_thread(sealed, wanted.cloud_init)
            record = msgspec.structs.replace(record, cloud_init=cloud_init)
        await self._vms.check_name_free(record.owner_id, record.name)
        await self._store.check_quota(record)
        if is_dry_run:
            return record
        if missing is None and not wanted.full_copy:
            work = asyncio.ensure_future(self._make(record, image))
        else:
            work = asyncio.ensure_future(self._begin(record, wanted, image))
        try:
            made = await asyncio.shield(work)
        finally:
            # A caller who hangs up gets a whole VM or none: the making is not cut short.
            work.add_done_callback(_seen)
        return await self._started(principal, made, wanted)

    async def _started(self, principal: Principal, made: VmRecord, wanted: VmCreate) -> VmRecord:
        """A VM that was made, as it was wanted: running, or not."""
        if wanted.start and made.operation_id is None and made.status in STARTABLE:
            await self._lifecycle.start(principal, made.id)
        return await self._vms.find(principal, made.id)

    async def resume(self) -> None:
        """Go on with the VMs whose creation an earlier service left unfinished."""
        for record in await self._store.all():
            if record.status is VmStatus.CREATING:
                log.info("%s: its creation goes on", record.id)
                with suppress(NoSpace, DatabaseUnusable):
                    await self._submit(record)

    async def _check(
        self, principal: Principal, wanted: VmCreate
    ) -> tuple[Image | None, CatalogEntry | None]:
        """The image, or the entry of the catalogue that must be fetched first."""
        problems = machine_problems(wanted.machine, wanted.firmware, wanted.networks)
        if wanted.os is not None and wanted.image is not None:
            problems.append(FieldProblem("image", "cannot be given together with 'os'"))
        if wanted.full_copy and wanted.os is None and wanted.image is None:
            problems.append(FieldProblem("fullCopy", "needs an 'os' or 'image' to copy"))
        if wanted.cloud_init is not None:
            problems += cloudinit.problems(wanted.cloud_init)
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
            image = await self._images.of_kind(principal, wanted.image, kind="disk", field="image")
            return image, None
        return None, None

    @staticmethod
    def _record(
        vm_id: str,
        principal: Principal,
        wanted: VmCreate,
        image: Image | None,
        missing: CatalogEntry | None,
    ) -> VmRecord:
        least, name = 1, ""
        if image is not None:
            least, name = -(-image.virtual_size_bytes // GIB), image.name
        elif missing is not None:
            least, name = missing.min_disk_gib, missing.id
        if wanted.disk < least:
            refuse([FieldProblem("disk", f"must be at least {least} for '{name}'")])
        now = datetime.now(UTC)
        return VmRecord(
            id=vm_id,
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
            disks=[
                Disk(
                    id="disk0",
                    size=wanted.disk,
                    bus="virtio",
                    image=image.id if image and not wanted.full_copy else None,
                )
            ],
            created_at=now,
            updated_at=now,
        )

    async def _make(self, record: VmRecord, image: Image | None) -> VmRecord:
        """Files first, under a name that nothing looks at; then the name; then the row."""
        try:
            self._space.check()
            await self._make_files(record, image, None)
            await self._store.insert(record)
        except BaseException as error:
            await self._remove_files(record)
            if image is not None and isinstance(error, CommandFailed):
                # Deleted a moment ago, of which qemu-img knows nothing?
                await self._images.by_id(image.id)
            raise
        self._fleet.add(record)
        return record

    async def _begin(self, record: VmRecord, wanted: VmCreate, image: Image | None) -> VmRecord:
        """The row first, so that the VM can be seen while it is made."""
        record = msgspec.structs.replace(
            record,
            status=VmStatus.CREATING,
            wanted="running" if wanted.start else "stopped",
            source=image.id if image is not None else None,
            is_full_copy=wanted.full_copy,
        )
        self._space.check(image.size_bytes if image is not None and wanted.full_copy else 0)
        await self._store.insert(record)
        self._fleet.add(record)
        try:
            return await self._submit(record)
        except (NoSpace, DatabaseUnusable):
            # It has an error by now, with which it stays unless it can be taken back.
            await self._store.delete(record.id)
            await self._fleet.remove(record.id)
            raise

    async def _submit(self, record: VmRecord) -> VmRecord:
        async def work(progress: ProgressSink) -> None:
            machine = self._fleet.get(record.id)
            is_started = record.wanted == "running"
            await machine.perform(
                "create",
                lambda: self._finish(record, progress),
                ends_with_caller=True,
                # A start waits for it by itself; nobody shall be quicker.
                is_recorded=not is_started,
            )
            if is_started:
                progress.stage("start")
                await self._lifecycle.start(owner_of(record), record.id)

        try:
            operation = await self._operations.submit(
                "vm-create",
                work,
                owner_id=record.owner_id,
                created_by=record.owner,
                resources=[f"/api/v1/vms/{record.id}"],
                vm_id=record.id,
                is_quick=True,
            )
        except (NoSpace, DatabaseUnusable) as error:
            await self._give_up(record, f"creation failed: {error}")
            await self._fleet.get(record.id).state.recorded()
            raise
        await self._store.set_operation(record.id, operation.id)
        return msgspec.structs.replace(record, operation_id=operation.id)

    async def _finish(self, record: VmRecord, progress: ProgressSink) -> None:
        try:
            image = await self._source(record, progress)
            if record.disks[0].size * GIB < image.virtual_size_bytes:
                least = -(-image.virtual_size_bytes // GIB)
                refuse([FieldProblem("disk", f"must be at least {least} for '{image.name}'")])
            await self._remove_files(record)
            progress.stage("disk")
            await self._make_files(record, image, progress if record.is_full_copy else None)
            if not record.is_full_copy:
                await self._store.change(record.id, lambda now: _over(now, image))
        except asyncio.CancelledError:
            # When the service stops it stays `creating`, and the next one goes on.
            if not self._operations.is_stopping:
                await self._give_up(record, "creation cancelled")
            raise
        except Exception as error:
            said = error if isinstance(error, VoidVMError) else InternalError()
            await self._give_up(record, f"creation failed: {said}")
            raise
        self._fleet.get(record.id).state.set(VmStatus.STOPPED)

    async def _give_up(self, record: VmRecord, reason: str) -> None:
        await self._remove_files(record)
        self._fleet.get(record.id).state.set(VmStatus.ERROR, reason)

    async def _source(self, record: VmRecord, progress: ProgressSink) -> Image:
        if record.source is not None or record.os is None:
            return await self._images.by_id(record.source or "")
        image, missing = await self._images.of_os(record.os)
        if missing is not None:
            return await self._imports.fetch_os(missing, progress)
        return image or await self._images.by_id(record.os)

    async def _make_files(
        self, record: VmRecord, image: Image | None, progress: ProgressSink | None
    ) -> None:
        paths = self._layout.vm(record.id)
        draft = paths.draft
        draft.disks.mkdir(mode=0o700, parents=True)
        disk = record.disks[0]
        if record.is_full_copy and image is not None:
            self._space.check(image.size_bytes)
            await self._img.convert(
                self._images.file(image),
                source_format="qcow2",
                target=draft.disk(disk.id),
                on_progress=progress.bytes if progress else None,
                is_own=True,
            )
            await self._img.resize(draft.disk(disk.id), size_bytes=disk.size * GIB)
        else:
            await self._img.create(
                draft.disk(disk.id),
                size_bytes=disk.size * GIB,
                backing=self._images.file(image) if image else None,
            )
        if record.hardware.firmware == "uefi":
            await asyncio.to_thread(shutil.copyfile, uefi_files()[1], draft.uefi_variables)
        if record.cloud_init is not None:
            await asyncio.to_thread(
                write_seed,
                draft.seed,
                record.cloud_init,
                instance_id=record.uuid,
                name=record.name,
                macs=[network.mac or "" for network in record.hardware.networks],
            )
        await asyncio.to_thread(_settle, draft.data, paths.data)

    async def _remove_files(self, record: VmRecord) -> None:
        paths = self._layout.vm(record.id)
        await remove_folders(paths.draft.data, paths.data)


def _over(record: VmRecord, image: Image) -> VmRecord:
    first, *others = record.disks
    return msgspec.structs.replace(
        record, disks=[msgspec.structs.replace(first, image=image.id), *others]
    )


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
