"""Changing a VM: at once what can be, the rest with its next start."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
from msgspec import UNSET

from voidvm.domain.account import Principal
from voidvm.domain.compatibility import machine_problems
from voidvm.domain.disk import SATA_MAX
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.validation import refuse
from voidvm.domain.views import show
from voidvm.domain.vm import Hardware, Vm, VmPatch, VmRecord
from voidvm.errors import FieldProblem
from voidvm.services.disks import Disks
from voidvm.services.guests import Guests, uefi_files, with_macs
from voidvm.services.images import Images
from voidvm.services.vms import Vms
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout

_HARDWARE = frozenset(field.name for field in msgspec.structs.fields(Hardware))


class Changes:
    """The one use case that changes what a VM is."""

    def __init__(
        self,
        store: VmStore,
        *,
        vms: Vms,
        fleet: Fleet,
        images: Images,
        guests: Guests,
        disks: Disks,
        layout: Layout,
    ) -> None:
        self._store = store
        self._vms = vms
        self._fleet = fleet
        self._images = images
        self._guests = guests
        self._disks = disks
        self._layout = layout

    async def change(
        self, principal: Principal, ref: str, patch: VmPatch, *, precondition: Precondition = ANY
    ) -> Vm:
        """Change what the patch names; hardware of a running VM waits for its next start.

        Raises `ValidationFailed`, `NameTaken`, `QuotaExceeded`, `PreconditionFailed`, `VmBusy`.
        """
        record = await self._vms.find(principal, ref)
        machine = self._fleet.get(record.id)
        return await machine.perform(
            "update", lambda: self._change(principal, record.id, patch, precondition)
        )

    async def _change(
        self, principal: Principal, vm_id: str, patch: VmPatch, precondition: Precondition
    ) -> Vm:
        # Read now that nobody else can change it.
        record = await self._vms.find(principal, vm_id)
        precondition.check(record.id, record.updated_at)
        await self._check(principal, record, patch)
        changes = {
            field.name: value
            for field in msgspec.structs.fields(VmPatch)
            if (value := getattr(patch, field.name)) is not UNSET
        }
        if patch.networks is not UNSET:
            changes["networks"] = with_macs(patch.networks)
        if patch.firmware == "uefi":
            await self._add_uefi_variables(record)
        size = changes.pop("disk", None)
        hardware = {key: changes.pop(key) for key in tuple(changes) if key in _HARDWARE}

        def update(stored: VmRecord) -> VmRecord:
            precondition.check(stored.id, stored.updated_at)
            changed = msgspec.structs.replace(stored.hardware, **hardware)
            sized = stored if size is None else _with_size(stored, size)
            return msgspec.structs.replace(sized, hardware=changed, **changes)

        # The row first, for it holds the quota; a disk that cannot grow takes all of it back.
        stored = await self._store.change(record.id, update)
        if size is not None:
            first = record.disks[0]
            try:
                await self._disks.grow(record, first.id, size=size, old=first.size)
            except BaseException:
                await self._store.change(record.id, lambda now: _as_before(now, record))
                raise
        self._fleet.get(record.id).state.label = stored.name
        return show(self._vms.fresh(stored))

    async def _check(self, principal: Principal, record: VmRecord, patch: VmPatch) -> None:
        wanted = {
            name: getattr(record.hardware, name) if value is UNSET else value
            for name in ("machine", "firmware", "networks")
            for value in (getattr(patch, name),)
        }
        problems = machine_problems(**wanted)
        sata = sum(disk.bus == "sata" for disk in record.disks)
        if sata > (places := SATA_MAX[wanted["machine"]]):
            problems.append(FieldProblem("machine", f"takes {places} sata disks; there are {sata}"))
        size = record.disks[0].size
        if isinstance(patch.disk, int) and patch.disk < size:
            problems.append(FieldProblem("disk", f"may only grow; it has {size} GiB"))
        refuse(problems)
        if patch.accel == "kvm":
            await self._guests.choose_accel("kvm")
        if isinstance(patch.iso, str):
            await self._images.of_kind(principal, patch.iso, kind="iso", field="iso")
        if patch.kernel:
            await self._images.check_kernel(principal, patch.kernel)
        if patch.name is not UNSET and patch.name != record.name:
            await self._vms.check_name_free(record.owner_id, patch.name)

    async def _add_uefi_variables(self, record: VmRecord) -> None:
        variables = self._layout.vm(record.id).uefi_variables
        if not variables.exists():
            await asyncio.to_thread(shutil.copyfile, uefi_files()[1], variables)
            variables.chmod(0o600)


def _as_before(record: VmRecord, before: VmRecord) -> VmRecord:
    """What a patch may have changed, as it was."""
    names = {"name", "description", "tags", "autostart", "restart_policy", "hardware", "disks"}
    return msgspec.structs.replace(record, **{name: getattr(before, name) for name in names})


def _with_size(record: VmRecord, size_gib: int) -> VmRecord:
    first, *others = record.disks
    return msgspec.structs.replace(
        record, disks=[msgspec.structs.replace(first, size=size_gib), *others]
    )
