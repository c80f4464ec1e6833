"""After a boot of the host the VMs start that shall: once, in order, a few at a time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

from voidvm.domain.states import STARTABLE, VmStatus
from voidvm.domain.vm import VmRecord
from voidvm.errors import VmAlreadyRunning, VmBusy, VmNotFound, VoidVMError
from voidvm.services.clock import Clock
from voidvm.services.restarts import Restarts
from voidvm.services.starting import Starting
from voidvm.store.host import HostStore
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet

log = logging.getLogger(__name__)

# How a VM was ended by the host's going down, not by a user or its guest.
_BY_THE_HOST = frozenset({"host-restart", "host-request", "host-signal"})


class Autostarts:
    """Who is to be started is on disk before the first is, so that a later service goes on.

    `resumes`: whether every VM comes back that was running when the host went down; without it
    only those with the restart policy `always`.
    """

    def __init__(
        self,
        store: HostStore,
        vms: VmStore,
        *,
        fleet: Fleet,
        starting: Starting,
        restarts: Restarts,
        resumes: Callable[[], bool],
        boot_id: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._vms = vms
        self._fleet = fleet
        self._starting = starting
        self._restarts = restarts
        self._resumes = resumes
        self._boot_id = boot_id
        self._clock = clock
        self._due: frozenset[str] = frozenset()
        self._has_looked = False
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def restore(self) -> None:
        """See whether the host has booted, and begin to start who is due.

        Raises `NoSpace`; may be tried again, and users' words in between count.
        """
        records = await self._vms.all()
        seen = await self._store.boot()
        if seen != self._boot_id:
            if not self._has_looked:
                # The first service of all has seen no boot: nothing can be due.
                due = (one.id for one in records if seen and self._is_due(one, seen=seen))
                self._due, self._has_looked = frozenset(due), True
            left = self._due & {record.id for record in records}
            await self._store.begin_boot(self._boot_id, left)
        self._due = await self._store.due()
        if self._due:
            log.info("%d VMs are to be started after the host's boot", len(self._due))
            waiting = [record for record in records if record.id in self._due]
            waiting.sort(key=lambda record: (record.autostart.order, record.created_at))
            self._task = asyncio.create_task(self._run(waiting), name="autostart")

    async def close(self) -> None:
        """Start nothing more; who is due stays so."""
        for task in (self._task, *self._starts.values()):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    def is_due(self, vm_id: str) -> bool:
        """Whether a VM is still to be started."""
        return vm_id in self._due

    async def call_off(self, vm_id: str) -> bool:
        """A user has decided: it is not due any more, nor under way. Whether it was."""
        if not self.is_due(vm_id):
            return False
        self._due -= {vm_id}
        if (task := self._starts.get(vm_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._store.done(vm_id)
        return True

    def _is_due(self, record: VmRecord, *, seen: str) -> bool:
        state = self._fleet.get(record.id).state
        if state.status not in STARTABLE:
            return False
        if record.autostart.enabled:
            return True
        was_running = (
            record.wanted == "running"
            and state.status is VmStatus.STOPPED
            and state.reason in _BY_THE_HOST
            and state.run is not None
            and state.run.boot_id == seen
        )
        return was_running and (record.restart_policy == "always" or self._resumes())

    async def _run(self, waiting: list[VmRecord]) -> None:
        """One place in the order after the other; in the same place they start side by side."""
        for _, place in itertools.groupby(waiting, key=lambda record: record.autostart.order):
            begun: list[asyncio.Task[None]] = []
            for record in place:
                await self._clock.sleep(record.autostart.delay)
                if self.is_due(record.id):
                    begun.append(self._begin(record.id))
            if begun:
                await asyncio.wait(begun)

    def _begin(self, vm_id: str) -> asyncio.Task[None]:
        task = self._starts[vm_id] = asyncio.create_task(
            self._start(vm_id), name=f"autostart-{vm_id}"
        )
        task.add_done_callback(lambda task: self._done(vm_id, task))
        return task

    def _done(self, vm_id: str, task: asyncio.Task[None]) -> None:
        del self._starts[vm_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: autostart failed", vm_id, exc_info=error)

    async def _start(self, vm_id: str) -> None:
        try:
            # A boot is a new beginning: what failed before does not count any more.
            if self._fleet.get(vm_id).status in STARTABLE:
                await self._restarts.call_off(vm_id)
            await self._vms.set_wanted(vm_id, "running")
            await self._starting.start_by_itself(vm_id, is_due=lambda now: self.is_due(now.id))
        except (VmAlreadyRunning, VmBusy, VmNotFound):
            pass  # a user was quicker
        except VoidVMError as error:
            log.warning("%s: not started after the host's boot: %s", vm_id, error)
            await self._store.failed(vm_id, str(error))
            self._due -= {vm_id}
            self._restarts.retry(vm_id, str(error))
            return
        await self._store.done(vm_id)
        self._due -= {vm_id}
