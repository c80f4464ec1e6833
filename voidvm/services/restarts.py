"""VMs that end by themselves are started again, as their restart policy says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from voidvm import config
from voidvm.bus import Bus, EventHappened, News, VmDeleted, VmStatusChanged
from voidvm.domain.event import EventKind
from voidvm.domain.restart import GUEST_SHUTDOWN, is_end, is_restarted, next_attempt
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.vm import Restart, VmRecord
from voidvm.errors import VmAlreadyRunning, VmBusy, VmNotFound, VoidVMError
from voidvm.services.clock import Clock
from voidvm.services.starting import Starting
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine

log = logging.getLogger(__name__)


class Restarts:
    """One task for each VM that is to be started again, or was and is not stable yet.

    What is planned is on disk before it is waited for, so that a later service goes on with it.
    """

    def __init__(
        self,
        store: VmStore,
        *,
        fleet: Fleet,
        starting: Starting,
        settings: Callable[[], config.Restart],
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._starting = starting
        self._settings = settings
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # What stands in the rows.
        self._noted: dict[str, Restart] = {}
        # Their tasks end or start a QEMU right now: what is seen of it is no news.
        self._acting: set[str] = set()
        # They run, and their tasks only wait whether they go on to.
        self._settling: set[str] = set()
        self._is_open = False
        bus.subscribe(self._on_news)

    # Life

    async def restore(self) -> None:
        """Go on with what an earlier service planned, and see to what ended meanwhile."""
        if self._is_open:  # by an earlier try, after which something else found no room
            return
        records = await self._store.all()
        # From here on each end is news; those before are seen below.
        self._is_open = True
        for record in records:
            if record.restart is not None:
                self._noted[record.id] = record.restart
            self._take_up(record)

    def _take_up(self, record: VmRecord) -> None:
        state = self._fleet.get(record.id).state
        planned = record.restart
        has_process, has_ended = state.status in WITH_PROCESS, is_end(state.status, state.reason)
        if has_process and not has_ended:
            if planned is not None:
                run = state.run
                since = run.started_at if run and run.started_at else self._clock.now()
                up_s = (self._clock.now() - since).total_seconds()
                self._follow(record.id, self._settle(record.id, up_s=up_s))
        elif record.wanted == "running" and not (planned and planned.gave_up):
            if planned is not None and planned.next_attempt_at is not None and not has_process:
                self._follow(record.id, self._keep_up(record.id, planned))
            elif has_ended:
                self._follow(record.id, self._keep_up(record.id, None))

    async def close(self) -> None:
        """Start nothing more; what is planned stays so."""
        self._is_open = False
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # What others ask

    def is_due(self, vm_id: str) -> bool:
        """Whether a VM that has ended is to be started again."""
        return vm_id in self._tasks and vm_id not in self._settling

    async def call_off(self, vm_id: str) -> bool:
        """A user has decided: no start is due any more, and none under way. Whether one was."""
        was_due = self.is_due(vm_id)
        if (task := self._tasks.get(vm_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
        if vm_id in self._noted:
            await self._note(vm_id, None)
        return was_due

    def retry(self, vm_id: str, reason: str) -> None:
        """A VM could not be started; go on as after any other failure."""
        self._follow(vm_id, self._keep_up(vm_id, None, failure=reason))

    # The bus

    def _on_news(self, news: News) -> None:
        if isinstance(news, VmDeleted):
            self._noted.pop(news.vm_id, None)
        elif isinstance(news, VmStatusChanged):
            if news.vm_id not in self._acting and is_end(news.status, news.reason):
                self._follow(news.vm_id, self._keep_up(news.vm_id, None))
        elif isinstance(news, EventHappened) and news.event.kind is EventKind.VM_UPDATED:
            vm_id = news.event.vm_id or ""
            is_waiting = self.is_due(vm_id) and vm_id not in self._acting
            if is_waiting and "restartPolicy" in news.event.data["fields"]:
                self._follow(vm_id, self._keep_up(vm_id, self._noted.get(vm_id)))

    def _follow(self, vm_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Have this task for the VM, in the place of the one it had."""
        before = self._tasks.get(vm_id)
        if before is not None:
            before.cancel()
        if not self._is_open:
            work.close()
            return
        self._settling.discard(vm_id)
        task = self._tasks[vm_id] = asyncio.create_task(work, name=f"restart-{vm_id}")
        task.add_done_callback(lambda task: self._done(vm_id, task))

    def _done(self, vm_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(vm_id) is task:
            del self._tasks[vm_id]
            self._settling.discard(vm_id)
        error = None if task.cancelled() else task.exception()
        # What is not found was deleted meanwhile.
        if error is not None and not isinstance(error, VmNotFound):
            log.error("%s: not started again", vm_id, exc_info=error)

    # The one task of a VM

    async def _keep_up(
        self, vm_id: str, planned: Restart | None, *, failure: str | None = None
    ) -> None:
        """Start it until it stands, or until it shall not be any more."""
        while (planned := await self._plan(vm_id, planned, failure)) is not None:
            if planned.next_attempt_at is not None:
                wait_s = (planned.next_attempt_at - self._clock.now()).total_seconds()
                # The host's clock may have been set back.
                await self._clock.sleep(min(max(0.0, wait_s), self._settings().max_delay))
            failure = await self._attempt(vm_id, planned)
            if failure is None:
                return await self._settle(vm_id)
            planned = None
        return None

    async def _plan(
        self, vm_id: str, planned: Restart | None, failure: str | None
    ) -> Restart | None:
        """The next attempt, on disk; None when there shall be none."""
        machine = self._fleet.get(vm_id)
        await machine.settled()
        await machine.state.recorded()
        if failure is None and planned is None and not is_end(machine.status, machine.state.reason):
            return None
        reason = failure or (planned.reason if planned else machine.state.reason) or "ended"
        record = await self._store.get(vm_id)
        if record is None or not _is_wanted(record, reason):
            if reason == GUEST_SHUTDOWN:
                await self._store.set_wanted(vm_id, "stopped")
            await self._note(vm_id, None)
            return None
        if machine.status is VmStatus.PAUSED:
            await self._end(machine, reason)
            if machine.has_process:
                return None  # a user has reset it meanwhile
        if planned is not None:
            return planned
        now = self._settings()
        planned = next_attempt(
            self._noted.get(vm_id),
            reason=reason,
            now=self._clock.now(),
            delay_s=now.delay,
            max_delay_s=now.max_delay,
            max_attempts=now.max_attempts,
        )
        await self._note(vm_id, planned)
        return None if planned.gave_up else planned

    async def _end(self, machine: Machine, reason: str) -> None:
        """End the QEMU of a guest that only a new start can bring back."""
        self._acting.add(machine.vm_id)
        try:
            await self._unless_busy(
                machine,
                lambda: machine.perform(
                    "stop", lambda: machine.give_up(reason), ends_with_caller=True
                ),
            )
        finally:
            self._acting.discard(machine.vm_id)

    @staticmethod
    async def _unless_busy(machine: Machine, work: Callable[[], Awaitable[object]]) -> None:
        """Do it when no job of somebody else's holds the VM."""
        while True:
            try:
                await work()
            except VmBusy:
                await machine.settled()
            else:
                return

    async def _attempt(self, vm_id: str, planned: Restart) -> str | None:
        """Start it; why it does not run, if so."""
        machine = self._fleet.get(vm_id)
        self._acting.add(vm_id)
        try:
            await self._unless_busy(
                machine,
                lambda: self._starting.start_by_itself(
                    vm_id, is_due=lambda record: _is_wanted(record, planned.reason)
                ),
            )
        except VmAlreadyRunning:
            pass  # somebody was quicker
        except VmNotFound:
            raise
        except VoidVMError as error:
            log.warning("%s: not started again: %s", vm_id, error)
            return str(error)
        except Exception:
            # A database that cannot be written, most likely: later it may.
            log.exception("%s: not started again", vm_id)
            return "internal error"
        finally:
            self._acting.discard(vm_id)
        has_ended = not machine.has_process or is_end(machine.status, machine.state.reason)
        return machine.state.reason or "ended" if has_ended else None

    async def _settle(self, vm_id: str, *, up_s: float = 0.0) -> None:
        """A VM that runs for long enough begins anew with its attempts."""
        self._settling.add(vm_id)
        if (noted := self._noted.get(vm_id)) is not None:
            await self._note(vm_id, replace(noted, next_attempt_at=None))
        await self._clock.sleep(max(0.0, self._settings().stable_after - up_s))
        await self._note(vm_id, None)

    async def _note(self, vm_id: str, restart: Restart | None) -> None:
        if restart == self._noted.get(vm_id):
            return
        # First: who is cancelled below has written all the same.
        if restart is None:
            del self._noted[vm_id]
        else:
            self._noted[vm_id] = restart
        try:
            await self._store.set_restart(vm_id, restart)
        except Exception:
            # The attempts go on; only a later service would not know of them.
            log.exception("%s: cannot write down its restarts", vm_id)


def _is_wanted(record: VmRecord, reason: str) -> bool:
    return record.wanted == "running" and is_restarted(record.restart_policy, reason)
