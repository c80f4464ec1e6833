"""VMs as things that are made, changed and deleted."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from voidvm.bus import Bus, VmDeleted
from voidvm.domain.account import Principal
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.fields import normal_name
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.views import show
from voidvm.domain.vm import (
    Vm,
    VmRecord,
)
from voidvm.errors import (
    DatabaseUnusable,
    NameTaken,
    NoSpace,
    OperationNotCancellable,
    VmAlreadyRunning,
    VmBusy,
    VmNotFound,
    VmStateConflict,
)
from voidvm.operations.runner import Operations
from voidvm.services.folders import empty_folder, remove_folders
from voidvm.services.upkeep import Upkeep
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine
from voidvm.supervisor.paths import Layout

log = logging.getLogger(__name__)

GIB = 1024**3
# How soon a deletion that the database refused is tried again.
RETRY_S = 2.0


class Vms:
    """The use cases around a VM's being; its life is in `services.lifecycle`."""

    def __init__(
        self,
        store: VmStore,
        *,
        fleet: Fleet,
        operations: Operations,
        upkeep: Upkeep,
        layout: Layout,
        bus: Bus,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._operations = operations
        self._upkeep = upkeep
        self._layout = layout
        self._bus = bus
        self._unfinished: set[asyncio.Task[None]] = set()

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

    async def own(self, principal: Principal) -> list[VmRecord]:
        """All of the caller's VMs, oldest first."""
        records = await self._store.all(owner_id=None if principal.sees_all else principal.user_id)
        return list(self._fresh(records))

    async def own_ids(self, principal: Principal) -> frozenset[str]:
        """The ids of the VMs whose owner the caller is itself."""
        return await self._store.ids(principal.user_id)

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
            await self.recorded()
        records, total = await self._store.page(
            owner_id=None if principal.sees_all else principal.user_id,
            status=status,
            owner=owner,
            q=None if q is None else normal_name(q),
            tag=tag,
            page=page,
            limit=limit,
        )
        return [show(record) for record in self._fresh(records)], total

    async def recorded(self) -> None:
        """Wait until what was answered of any VM's status is on record, with its event."""
        await self._fleet.recorded()

    def _fresh(self, records: list[VmRecord]) -> Iterator[VmRecord]:
        for record in records:
            with suppress(VmNotFound):  # deleted a moment ago
                yield self.fresh(record)

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
        if machine.status is VmStatus.CREATING and record.operation_id is not None:
            with suppress(OperationNotCancellable):
                await self._operations.cancel(record.operation_id)
        if force or self._upkeep.is_due(record.id):
            await self._upkeep.call_off(record.id)
        if force and machine.status in WITH_PROCESS:
            await machine.force_stop()
            # A graceful stop that waited for the guest ends now, too.
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
        await self._remove_files(record.id)
        try:
            await self._forget(record.id)
        except (NoSpace, DatabaseUnusable):
            self._begin_forgetting(machine)
            raise

    async def _remove_files(self, vm_id: str) -> None:
        """First, since on a full disk they make the room in which the row can be deleted.

        An empty folder stays for as long as the row: what says that a deletion has begun, also
        where there was no room for the status.
        """
        paths = self._layout.vm(vm_id)
        await asyncio.to_thread(_rename, paths.data, paths.doomed)
        # The draft of a creation that was cancelled while it gave up, for want of descriptors.
        await remove_folders(paths.draft.data, paths.data, paths.run)
        await empty_folder(paths.doomed)

    async def _forget(self, vm_id: str) -> None:
        await self._store.delete(vm_id)
        # At once: the same request may make a VM of the same id again.
        await self._fleet.remove(vm_id)
        self._bus.publish(VmDeleted(vm_id=vm_id))
        await remove_folders(self._layout.vm(vm_id).doomed)

    def _begin_forgetting(self, machine: Machine) -> None:
        task = asyncio.create_task(self._forget_later(machine), name=f"forget-{machine.vm_id}")
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)

    async def _forget_later(self, machine: Machine) -> None:
        """Finish a deletion whose row the database did not let go of.

        What a service that ends meanwhile leaves, the next one finishes.
        """

        async def work() -> None:
            while True:
                await asyncio.sleep(RETRY_S)
                with suppress(NoSpace, DatabaseUnusable):
                    return await self._forget(machine.vm_id)

        await machine.settled()
        with suppress(VmBusy, VmStateConflict):  # somebody else is at it, or the service stops
            await machine.perform("delete", work)

    async def restore(self) -> None:
        """Finish what an earlier service began, and find every running VM again."""
        left: list[VmRecord] = []
        for record in await self._store.all():
            paths = self._layout.vm(record.id)
            if paths.data.exists():
                # Made since: what is left is of an earlier VM of that id, or of a copy by hand.
                await remove_folders(paths.doomed)
            if paths.doomed.exists() or record.status is VmStatus.DELETING:
                await self._remove_files(record.id)
                try:
                    await self._store.delete(record.id)
                except NoSpace:
                    left.append(msgspec.structs.replace(record, status=VmStatus.DELETING))
                else:
                    await remove_folders(paths.doomed)
            else:
                left.append(record)
        await asyncio.to_thread(self._sweep, {record.id for record in left})
        await self._fleet.restore(left)
        for record in left:
            if record.status is VmStatus.DELETING:
                self._begin_forgetting(self._fleet.get(record.id))

    def _sweep(self, known: set[str]) -> None:
        """Remove folders that no row speaks of: a creation or deletion that was cut short."""
        folder = self._layout.data / "vms"
        places = (self._layout.vm(vm_id) for vm_id in known)
        kept = {path for place in places for path in (place.data, place.doomed)}
        for path in folder.iterdir() if folder.exists() else ():
            if path not in kept:
                log.warning("removing %s, which belongs to no VM", path.name)
                shutil.rmtree(path, ignore_errors=True)


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except FileNotFoundError:
        # Never made, or renamed by an earlier try.
        with suppress(OSError):
            target.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        log.warning("cannot rename %s: %s", path, error.strerror)
