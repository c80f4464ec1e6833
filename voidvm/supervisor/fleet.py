"""All VMs at run time, and the finding of their QEMUs when the service starts."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable

from voidvm.bus import Bus, News, VmStatusChanged
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.vm import VmRecord
from voidvm.errors import VmNotFound
from voidvm.hypervisor.launch import Launcher
from voidvm.hypervisor.process import ProcessGone, running_guests
from voidvm.supervisor.console import Records
from voidvm.supervisor.machine import Machine
from voidvm.supervisor.paths import Layout
from voidvm.supervisor.state import Journal, VmState

log = logging.getLogger(__name__)


class Fleet:
    """One `Machine` per VM."""

    def __init__(
        self,
        *,
        layout: Layout,
        launcher: Launcher,
        journal: Journal,
        bus: Bus,
        records: Records,
        boot_id: str,
    ) -> None:
        self._layout = layout
        self._launcher = launcher
        self._journal = journal
        self._bus = bus
        self._records = records
        self._boot_id = boot_id
        self._machines: dict[str, Machine] = {}
        bus.subscribe(self._on_news)

    def __len__(self) -> int:
        return len(self._machines)

    def get(self, vm_id: str) -> Machine:
        """The machine of a VM. Raises `VmNotFound`."""
        try:
            return self._machines[vm_id]
        except KeyError:
            raise VmNotFound(vm=vm_id) from None

    def running(self) -> list[Machine]:
        """The machines that have a QEMU."""
        return [machine for machine in self._machines.values() if machine.has_process]

    def add(self, record: VmRecord) -> Machine:
        """A machine for a VM that was made or read from the store."""
        state = VmState(
            record.id,
            label=record.name,
            journal=self._journal,
            bus=self._bus,
            status=record.status,
            reason=record.status_reason,
            run=record.run,
        )
        machine = Machine(
            state,
            paths=self._layout.vm(record.id),
            launcher=self._launcher,
            records=self._records,
            boot_id=self._boot_id,
        )
        self._machines[record.id] = machine
        return machine

    async def remove(self, vm_id: str) -> None:
        """Forget a VM that has been deleted."""
        if machine := self._machines.pop(vm_id, None):
            await machine.close_console()

    async def restore(self, records: Iterable[VmRecord]) -> None:
        """Machines for all VMs; those whose QEMU still runs are taken over as they are."""
        found: dict[str, list[int]] = defaultdict(list)
        for pid, vm_id in await asyncio.to_thread(lambda: list(running_guests())):
            found[vm_id].append(pid)
        async with asyncio.TaskGroup() as group:
            for record in records:
                machine = self.add(record)
                if pids := found.get(record.id):
                    group.create_task(self._adopt(machine, pids, record))
                else:
                    self._gone(machine, record)

    async def _adopt(self, machine: Machine, pids: list[int], record: VmRecord) -> None:
        for pid in pids:
            try:
                await machine.adopt(pid, uuid=record.uuid, wants_running=record.wanted == "running")
            except ProcessGone as error:
                log.info("%s: %s", record.id, error)
            else:
                log.info("%s: found again, pid %d, %s", record.id, pid, machine.status)
                return
        self._gone(machine, record)

    def _gone(self, machine: Machine, record: VmRecord) -> None:
        if machine.status not in WITH_PROCESS:
            # Of a QEMU that began and ended without a record, since the service died with it.
            machine.paths.remove_sockets()
            return
        is_same_boot = record.run is not None and record.run.boot_id == self._boot_id
        machine.found_gone(is_same_boot=is_same_boot)
        log.info("%s: its QEMU is gone: %s, %s", record.id, machine.status, machine.state.reason)

    async def release(self) -> None:
        """Let go of every QEMU; the guests go on."""
        await asyncio.gather(*(machine.release() for machine in self._machines.values()))

    async def recorded(self) -> None:
        """Wait until the newest state of every VM is written down."""
        for machine in tuple(self._machines.values()):
            await machine.state.recorded()

    def statuses(self) -> dict[VmStatus, int]:
        """How many VMs have which status."""
        counts: dict[VmStatus, int] = defaultdict(int)
        for machine in self._machines.values():
            counts[machine.status] += 1
        return dict(counts)

    def statuses_by_vm(self) -> dict[str, VmStatus]:
        """The status of each VM, by its id."""
        return {vm_id: machine.status for vm_id, machine in self._machines.items()}

    def _on_news(self, news: News) -> None:
        if isinstance(news, VmStatusChanged) and (machine := self._machines.get(news.vm_id)):
            machine.tell_viewers()
