"""One VM at run time: what can be asked of it, one job at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from voidvm.domain.states import STARTABLE, WITH_PROCESS, VmStatus
from voidvm.domain.vm import Endpoint, Hardware, Run
from voidvm.errors import (
    CommandFailed,
    VmAlreadyRunning,
    VmBusy,
    VmNotRunning,
    VmStartFailed,
    VmStateConflict,
    VmUnresponsive,
)
from voidvm.hypervisor.argv import SERIAL_ID
from voidvm.hypervisor.cgroup import Share
from voidvm.hypervisor.guest import DiskFile, Guest
from voidvm.hypervisor.launch import Launcher, LaunchFailed
from voidvm.hypervisor.monitor import MonitorError
from voidvm.hypervisor.process import ProcessGone, QemuProcess
from voidvm.supervisor import forwards, hotplug, shutdown
from voidvm.supervisor.attachment import REATTACH_S, Attachment
from voidvm.supervisor.console import Console, Records
from voidvm.supervisor.heartbeat import Pulse
from voidvm.supervisor.meter import VmMeter
from voidvm.supervisor.paths import VmPaths
from voidvm.supervisor.state import VmState

log = logging.getLogger(__name__)

GREETING_S = 20.0
RESUME_S = 10.0
# How long the record of `starting` waits for its process to be part of it.
SPAWN_FIRST_S = 0.05
PRESS_AGAIN_S = 1.0
# A QEMU that refuses its arguments is gone in a moment.
LAST_WORDS_S = 0.5

# Jobs that a forced stop cuts short, since they end with a running guest.
_CUT_BY_FORCE = frozenset({"start", "restart"})

T = TypeVar("T")


class Machine:
    """Every action raises the errors of `voidvm.errors` and ends in a status that was observed.

    An action goes on when its caller goes away.
    """

    def __init__(
        self,
        state: VmState,
        *,
        paths: VmPaths,
        launcher: Launcher,
        records: Records,
        boot_id: str,
    ) -> None:
        self.vm_id = state.vm_id
        self.state = state
        self.paths = paths
        self._launcher = launcher
        self._boot_id = boot_id
        self._hold = Attachment(state, paths=paths, records=records)
        self.meter = VmMeter(state, self._hold, agent_socket=paths.agent_socket)
        self.pulse = Pulse(state, self._hold)
        # How many starts this service has begun.
        self.starts = 0
        self._job: str | None = None
        self._task: asyncio.Task[Any] | None = None

    @property
    def status(self) -> VmStatus:
        """The observed status."""
        return self.state.status

    @property
    def console(self) -> Console:
        """The serial console."""
        return self._hold.console

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    @property
    def has_process(self) -> bool:
        """Whether there is a QEMU."""
        return self._hold.has_process

    # Jobs

    async def perform(
        self,
        job: str,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        ends_with_caller: bool = False,
        is_recorded: bool = True,
    ) -> T:
        """Do `work` as the one job of this VM; it goes on when the caller is cancelled.

        With `ends_with_caller` it is cancelled too, and has ended when this raises. What state it
        leaves is on record when this returns, unless `is_recorded` says that nobody waits for it.
        Raises `VmBusy` while another job holds the VM, `VmStateConflict` when a forced stop cuts
        the work short.
        """
        if self._job is not None:
            raise VmBusy(vm=self.state.label, job=self._job, details=self._job)
        self._job = job
        task = asyncio.create_task(work(), name=f"{job}-{self.vm_id}")
        self._task = task
        task.add_done_callback(self._job_done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise VmStateConflict(
                    vm=self.state.label,
                    action=job,
                    state=self.status,
                    details="a forced stop cut it short",
                ) from None
            if ends_with_caller:
                task.cancel()
                await asyncio.wait([task])
            raise
        finally:
            if is_recorded:
                # Not in the job: whoever acts on the state that it leaves is not refused.
                await self.state.recorded()

    def _job_done(self, task: asyncio.Task[Any]) -> None:
        self._job = None
        self._task = None
        if not task.cancelled():
            task.exception()  # seen, even where the caller has gone away

    async def settled(self) -> None:
        """Wait until the job under way has ended, however it does."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # Actions

    async def start(self, guest: Guest, *, hardware: Hardware, endpoints: list[Endpoint]) -> None:
        """Spawn QEMU and return when the guest's CPUs run.

        They do not before it is on record that they shall, which is written while QEMU gets ready.
        A service that dies earlier leaves a QEMU that has run nothing, which the next one ends.

        Raises `VmStartFailed` with what QEMU said or kept it from the record; no process is left.
        """
        if self.status not in STARTABLE:
            raise VmAlreadyRunning(vm=self.state.label, details=self.status)
        self.starts += 1
        self.state.run = Run(
            boot_id=self._boot_id,
            accel=guest.accel,
            hardware=hardware,
            endpoints=endpoints,
            console_start=self._hold.console.end,
        )
        # Written down with its process: a transaction beside the spawn would hold that up.
        self.state.set(VmStatus.STARTING, patience_s=SPAWN_FIRST_S)
        try:
            process = await self._launcher.launch(guest)
        except LaunchFailed as error:
            self.state.set(VmStatus.ERROR, "did not start")
            raise VmStartFailed(str(error), vm=self.state.label) from error
        except asyncio.CancelledError:
            self.state.set(VmStatus.STOPPED, "host-request")
            raise
        self._note_process(process, started_at=datetime.now(UTC), is_wanted=True)
        self._hold.watch(process)
        try:
            await self.state.secured()
            await self._hold.begin(timeout_s=GREETING_S)
        except (MonitorError, OSError, VmUnresponsive, CommandFailed, VmNotRunning) as error:
            said = await self._end_failed_start(process)
            raise VmStartFailed(said or str(error), vm=self.state.label) from error
        except BaseException:
            # A forced stop, or a bug: in neither case may a half-started QEMU stay.
            self._hold.expected_end = "host-request"
            await self._hold.end(at_once=True)
            raise
        # That it runs is written soon; whoever finds this QEMU again would see it, too.

    def _note_process(
        self,
        process: QemuProcess,
        *,
        started_at: datetime | None = None,
        is_wanted: bool = False,
    ) -> None:
        if (run := self.state.run) is not None:
            self.state.note(
                msgspec.structs.replace(
                    run,
                    pid=process.pid,
                    pid_start=process.ticks,
                    started_at=started_at or run.started_at,
                ),
                is_wanted=is_wanted,
            )

    async def _end_failed_start(self, process: QemuProcess) -> str:
        if await process.wait(timeout_s=LAST_WORDS_S) is None:
            await self._hold.end(at_once=True)
        await asyncio.sleep(0)
        await self.state.recorded()
        return self._hold.said()

    async def stop(self, *, timeout_s: float) -> None:
        """Press the power button; after `timeout_s` end QEMU without the guest's consent."""
        process = self._hold.process
        self._hold.expected_end = "host-request"
        self.state.set(VmStatus.STOPPING)
        try:
            async with asyncio.timeout(timeout_s):
                await self._press_power_button()
                await process.wait(timeout_s=timeout_s)
        except TimeoutError:
            log.info("%s: not off after %g s", self.vm_id, timeout_s)
        if not process.has_exited:
            await self._hold.end(at_once=False)
        await asyncio.sleep(0)

    async def _press_power_button(self) -> None:
        """Ask until QEMU takes it: one that hangs for a moment is no reason to pull the plug."""
        while self.has_process:
            try:
                await shutdown.ask(self._hold.monitor)
            except (MonitorError, VmUnresponsive, VmNotRunning) as error:
                log.info("%s: power button not pressed: %s", self.vm_id, error)
                await asyncio.sleep(PRESS_AGAIN_S)
            else:
                return

    async def force_stop(self) -> None:
        """End QEMU at once, whatever else is under way. Raises `VmNotRunning` without one."""
        task, is_cut = self._task, self._job in _CUT_BY_FORCE
        if not self._hold.has_process and not is_cut:
            raise VmNotRunning(vm=self.state.label, details=self.status)
        if task is not None and is_cut and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])
        if self._hold.has_process:
            self._hold.expected_end = "host-request"
            await self._hold.end(at_once=True)
        await self.state.recorded()

    async def give_up(self, reason: str) -> None:
        """End the QEMU of a guest that has failed for that reason: it is `crashed` by that."""
        if self._hold.has_process and self.state.reason == reason:
            self._hold.expected_end = reason
            await self._hold.end(at_once=True)

    async def call_off(self) -> None:
        """A VM that was to be started by itself is off now because a user says so."""
        if self.status in STARTABLE:
            self.state.set(VmStatus.STOPPED, "host-request")
            await self.state.recorded()

    async def reset(self) -> None:
        """Press the reset button."""
        _ = self._hold.process
        await self._hold.command("system_reset")

    async def pause(self) -> None:
        """Halt the guest's CPUs."""
        _ = self._hold.process
        if self.status is VmStatus.PAUSED:
            raise VmStateConflict(
                vm=self.state.label, action="pause", state=self.status, details=self.status
            )
        self._hold.pause_reason = "host-request"
        await self._hold.command("stop")
        await self._hold.until(VmStatus.PAUSED, timeout_s=RESUME_S)

    async def resume(self) -> None:
        """Let the guest's CPUs go on."""
        _ = self._hold.process
        if self.status is VmStatus.RUNNING:
            raise VmAlreadyRunning(vm=self.state.label, details=self.status)
        await self._hold.command("cont")
        await self._hold.until(VmStatus.RUNNING, timeout_s=RESUME_S)
        await hotplug.close_files(self._hold)

    async def resize_disk(self, node: str, *, size_bytes: int) -> None:
        """Grow a disk of the running guest, which sees it grow."""
        _ = self._hold.process
        await self._hold.command("block_resize", {"node-name": node, "size": size_bytes})

    async def plug_disk(self, disk: DiskFile) -> None:
        """Plug a disk into the running guest. Raises `CommandFailed`."""
        _ = self._hold.process
        await hotplug.plug_disk(self._hold, disk)

    async def unplug_disk(self, node: str) -> None:
        """Unplug a disk from the running guest. Raises `CommandFailed`, `VmUnresponsive`."""
        _ = self._hold.process
        try:
            await hotplug.unplug_disk(self._hold, node)
        except TimeoutError as error:
            raise CommandFailed("the guest does not let go of the disk", tool="QEMU") from error

    async def change_cd(self, drive: str, file: Path | None, *, iso: str | None) -> None:
        """Put another CD into the running guest's drive, or none; `iso` is its name."""
        _ = self._hold.process
        await hotplug.change_cd(self._hold, drive, file)
        if (run := self.state.run) is not None:
            hardware = msgspec.structs.replace(run.hardware, iso=iso)
            self.state.note(msgspec.structs.replace(run, hardware=hardware))

    async def is_listening(self, endpoint: Endpoint) -> bool:
        """Whether something in the guest takes connections that a forward leads to it."""
        return await forwards.is_listening(self._hold, endpoint)

    async def send_break(self) -> None:
        """Send a break on the serial line."""
        _ = self._hold.process
        await self._hold.command("chardev-send-break", {"id": SERIAL_ID})

    # Life across services

    async def adopt(self, pid: int, *, uuid: str, wants_running: bool) -> None:
        """Take over the QEMU that an earlier service spawned.

        Raises `ProcessGone` when `pid` is not that QEMU. One that does not answer becomes
        `unresponsive` and is asked again.
        """
        run = self.state.run
        ticks = run.pid_start if run and run.pid == pid and run.boot_id == self._boot_id else None
        process = QemuProcess.adopt(pid, vm_id=self.vm_id, ticks=ticks)
        self._note_process(process)
        if run is not None:
            had = run.hardware
            share = Share(cpus=had.cpu, memory_mib=had.memory, accel=run.accel)
            self._launcher.confine(process, vm_id=self.vm_id, share=share)
        if self.status not in WITH_PROCESS:
            self.state.set(VmStatus.STARTING)
        self._hold.watch(process)
        try:
            await self._hold.connect(timeout_s=REATTACH_S)
            if await self._hold.monitor.uuid() != uuid:
                self._hold.unwatch()
                raise ProcessGone(f"process {pid} runs another guest")
            await self._hold.observe(wants_running=wants_running)
        except (MonitorError, OSError, VmUnresponsive, VmNotRunning) as error:
            log.warning("%s: QEMU (pid %d) does not answer: %s", self.vm_id, pid, error)
            self._hold.found_hung()

    def found_gone(self, *, is_same_boot: bool) -> None:
        """No QEMU was found for this VM; say what that means."""
        if self.status is VmStatus.STOPPING:
            # What it was about to end for.
            reason = self.state.reason or "host-request"
            self._hold.found_gone(status=VmStatus.STOPPED, reason=reason)
        elif not is_same_boot:
            self._hold.found_gone(status=VmStatus.STOPPED, reason="host-restart")
        else:
            self._hold.found_gone(
                status=VmStatus.CRASHED, reason="ended while the service was away"
            )

    def tell_viewers(self) -> None:
        """Tell whoever watches the console what the status is now."""
        self._hold.tell_viewers()

    async def release(self) -> None:
        """Let go of everything; the guest goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.state.close()
        await self.meter.close()
        await self.pulse.close()
        await self._hold.release()

    async def close_console(self) -> None:
        """Close the console's file, if it is open."""
        await self._hold.close_console()

    async def rest(self) -> None:
        """Give back what an idle VM does not need."""
        await self._hold.rest()
