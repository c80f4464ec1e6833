"""A VM's life: start, stop and what lies between."""

from __future__ import annotations

import asyncio
from typing import Literal

from voidvm.domain.account import Principal
from voidvm.domain.incident import Incident
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.views import show
from voidvm.domain.vm import RestartRequest, StopRequest, Vm, VmRecord
from voidvm.errors import VmAlreadyRunning, VmNotRunning, VmStateConflict
from voidvm.services.starting import Starting
from voidvm.services.upkeep import Upkeep
from voidvm.services.vms import Vms
from voidvm.store.vms import VmStore
from voidvm.supervisor import incidents
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine
from voidvm.supervisor.paths import Layout

SimpleAction = Literal["reset", "pause", "resume"]


class Lifecycle:
    """Each method answers when what it asked for was observed."""

    def __init__(
        self,
        store: VmStore,
        *,
        vms: Vms,
        fleet: Fleet,
        starting: Starting,
        upkeep: Upkeep,
        layout: Layout,
    ) -> None:
        self._store = store
        self._vms = vms
        self._fleet = fleet
        self._starting = starting
        self._upkeep = upkeep
        self._layout = layout

    async def start(self, principal: Principal, ref: str) -> Vm:
        """Start a VM; its guest's CPUs run when this returns."""
        record, machine = await self._find(principal, ref)
        if machine.status in WITH_PROCESS and machine.status is not VmStatus.STARTING:
            raise VmAlreadyRunning(vm=record.name, details=machine.status)
        if not machine.is_busy:
            await self._upkeep.call_off(record.id)
        stored = await machine.perform(
            "start", lambda: self._starting.start(principal, record, machine), is_recorded=False
        )
        return show(self._vms.fresh(stored))

    async def stop(self, principal: Principal, ref: str, request: StopRequest) -> Vm:
        """Stop a VM; a forced stop works whatever else is under way.

        One that was to be started by itself is not, and is stopped by that.
        """
        record, machine = await self._find(principal, ref)
        was_due = await self._upkeep.call_off(record.id)
        starts = machine.starts
        if was_due and machine.status not in WITH_PROCESS:
            await self._note_unwanted(machine, starts=starts)
            # Again, for an end that was seen meanwhile.
            await self._upkeep.call_off(record.id)
            await machine.call_off()
        elif request.force:
            try:
                await machine.force_stop()
            finally:
                await self._note_unwanted(machine, starts=starts)
        else:
            self._require_process(record, machine)
            await machine.perform("stop", lambda: self._stop(machine, timeout_s=request.timeout))
        return await self._vms.get(principal, record.id)

    async def _stop(self, machine: Machine, *, timeout_s: float) -> None:
        await self._note_unwanted(machine, starts=machine.starts)
        await machine.stop(timeout_s=timeout_s)

    async def _note_unwanted(self, machine: Machine, *, starts: int) -> None:
        """Note it after what the last start has noted, unless there is another since `starts`."""
        await machine.state.recorded()
        if machine.starts == starts:
            await self._store.set_wanted(machine.vm_id, "stopped")

    async def restart(self, principal: Principal, ref: str, request: RestartRequest) -> Vm:
        """Stop, then start."""
        record, machine = await self._find(principal, ref)
        self._require_process(record, machine)
        await machine.perform(
            "restart",
            lambda: self._restart(principal, record, machine, request),
            is_recorded=False,
        )
        return await self._vms.get(principal, record.id)

    async def _restart(
        self, principal: Principal, record: VmRecord, machine: Machine, request: RestartRequest
    ) -> None:
        if request.mode == "force":
            await machine.force_stop()
        else:
            await machine.stop(timeout_s=request.timeout)
        await self._starting.start(principal, record, machine)

    async def act(self, principal: Principal, ref: str, action: SimpleAction) -> Vm:
        """Reset, pause or resume a VM."""
        record, machine = await self._find(principal, ref)
        self._require_process(record, machine)
        if action == "resume" and machine.status is VmStatus.RUNNING:
            raise VmAlreadyRunning(vm=record.name, details=machine.status)
        if action == "pause" and machine.status is VmStatus.PAUSED:
            raise VmStateConflict(
                vm=record.name, action=action, state=machine.status, details=machine.status
            )
        await machine.perform(action, getattr(machine, action))
        return await self._vms.get(principal, record.id)

    async def incidents(self, principal: Principal, ref: str) -> list[Incident]:
        """What is known of the VM's unexpected ends, newest first."""
        record = await self._vms.find(principal, ref)
        folder = self._layout.vm(record.id).incidents
        return await asyncio.to_thread(incidents.read_all, folder)

    async def _find(self, principal: Principal, ref: str) -> tuple[VmRecord, Machine]:
        record = await self._vms.find(principal, ref)
        return record, self._fleet.get(record.id)

    @staticmethod
    def _require_process(record: VmRecord, machine: Machine) -> None:
        if machine.status not in WITH_PROCESS:
            raise VmNotRunning(vm=record.name, details=machine.status)
