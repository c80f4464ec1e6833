"""The start of a VM: for a user who asks for it, and for the service that does so by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voidvm.domain.account import Principal
from voidvm.domain.permission import Permission
from voidvm.domain.states import STARTABLE
from voidvm.domain.vm import VmRecord
from voidvm.errors import VmAlreadyRunning, VmNotFound
from voidvm.services.guests import Guests
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine


class Starting:
    """Builds the guest from what is stored now; `parallel` automatic starts go on at a time."""

    def __init__(self, store: VmStore, *, fleet: Fleet, guests: Guests, parallel: int) -> None:
        self._store = store
        self._fleet = fleet
        self._guests = guests
        self._places = asyncio.Semaphore(parallel)
        self._holds = 0
        self._is_free = asyncio.Event()
        self._is_free.set()
        # VMs whose automatic start is under way.
        self._automatic: set[str] = set()

    @property
    def automatic(self) -> frozenset[str]:
        """The VMs that are being started by themselves right now."""
        return frozenset(self._automatic)

    def hold(self) -> None:
        """Let no automatic start begin; those that are planned wait until `free`."""
        self._holds += 1
        self._is_free.clear()

    def free(self) -> None:
        """Take back one `hold`."""
        self._holds -= 1
        if not self._holds:
            self._is_free.set()

    async def start(self, principal: Principal, record: VmRecord, machine: Machine) -> VmRecord:
        """Start it, as a part of a job of its machine; the record that it was started from."""
        if machine.status not in STARTABLE:
            raise VmAlreadyRunning(vm=record.name, details=machine.status)
        stored = await self._store.get(record.id) or record
        guest, endpoints = await self._guests.build(principal, stored)
        await machine.start(guest, hardware=stored.hardware, endpoints=endpoints)
        return stored

    async def start_by_itself(self, vm_id: str, *, is_due: Callable[[VmRecord], bool]) -> bool:
        """Start a VM in its owner's name, unless by its turn it is not due any more.

        A cancelled call leaves no QEMU behind that it began. Raises as `Lifecycle.start` does.
        """
        async with self._places:
            while self._holds:
                await self._is_free.wait()
            machine = self._fleet.get(vm_id)

            async def work() -> bool:
                record = await self._store.get(vm_id)
                if record is None:
                    raise VmNotFound(vm=vm_id)
                if is_due(record):
                    await self.start(owner_of(record), record, machine)
                    return True
                return False

            self._automatic.add(vm_id)
            try:
                return await machine.perform(
                    "start", work, ends_with_caller=True, is_recorded=False
                )
            finally:
                self._automatic.discard(vm_id)


def owner_of(record: VmRecord) -> Principal:
    """The VM's owner, for work that nobody asks for just now."""
    return Principal(
        user_id=record.owner_id,
        username=record.owner,
        role="user",
        session_id="",
        permissions=frozenset(Permission),
    )
