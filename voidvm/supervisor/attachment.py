"""The service's hold on one QEMU: process, monitor and console, and what they let us observe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec

from voidvm.domain.restart import FATAL, GUEST_SHUTDOWN, HOST_SIGNAL
from voidvm.domain.states import VmStatus
from voidvm.errors import CommandFailed, VmNotRunning, VmUnresponsive
from voidvm.hypervisor.argv import SERIAL_ID
from voidvm.hypervisor.monitor import (
    QUERY_PTYS,
    CommandRefused,
    Monitor,
    MonitorError,
    MonitorTimeout,
    pty_of,
)
from voidvm.hypervisor.process import Exit, QemuProcess
from voidvm.supervisor import incidents, shutdown
from voidvm.supervisor.background import Background
from voidvm.supervisor.console import Console, Records
from voidvm.supervisor.evidence import CONSOLE_BYTES, Evidence
from voidvm.supervisor.expectations import Expectations, came
from voidvm.supervisor.history import last_bytes
from voidvm.supervisor.paths import VmPaths
from voidvm.supervisor.reasons import of_exit, of_run_state, of_shutdown
from voidvm.supervisor.space import NO_SPACE, resume_with_room
from voidvm.supervisor.state import VmState

T = TypeVar("T")

REATTACH_S = 1.5
# How long the record of `running` waits for the answer to be on its way.
ANSWER_FIRST_S = 0.005
RECOVER_EVERY_S = 1.0
# What a QEMU that ends may take for it.
LAST_WORDS_S = 1.0

# In these the guest's CPUs are taken to run, so that a halt is news.
_LIVE = frozenset({VmStatus.STARTING, VmStatus.RUNNING, VmStatus.UNRESPONSIVE})


class Attachment:
    """Holds at most one QEMU at a time and sets the VM's status from what it does.

    `expected_end` is the reason of an end that was asked for, or of a failure for which it is
    ended; an end while it is None is unexpected and leaves an incident.
    """

    def __init__(self, state: VmState, *, paths: VmPaths, records: Records) -> None:
        self.expected_end: str | None = None
        self.pause_reason: str | None = None
        # What QEMU has still to close: see `hotplug.close_files`.
        self.closing: set[str] = set()
        self._state = state
        self._paths = paths
        self._records = records
        self._process: QemuProcess | None = None
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self._is_ending = False
        self._awaits_space = False
        # Why the guest halts, as far as it was told of; None: it runs.
        self._halted_by: str | None = None
        self._halts = 0  # told, and not asked about yet
        self._evidence = Evidence(state, paths=paths)
        self._expected = Expectations()
        self._background = Background(state.vm_id)

    # Parts

    @property
    def has_process(self) -> bool:
        """Whether there is a QEMU."""
        return self._process is not None

    @property
    def is_running(self) -> bool:
        """Whether the guest's CPUs run."""
        return self._state.status is VmStatus.RUNNING

    @property
    def console(self) -> Console:
        """The serial console; its file is opened at the first use."""
        if self._console is None:
            self._console = Console(self._paths.console_log, records=self._records)
        return self._console

    @property
    def process(self) -> QemuProcess:
        """The QEMU. Raises `VmNotRunning` without one."""
        if self._process is None:
            raise VmNotRunning(vm=self._state.label, details=self._state.status)
        return self._process

    @property
    def monitor(self) -> Monitor:
        """The monitor. Raises `VmNotRunning` without a QEMU, `VmUnresponsive` without a line."""
        if self._monitor is None:
            _ = self.process
            raise VmUnresponsive(vm=self._state.label)
        return self._monitor

    # Coming and going

    def watch(self, process: QemuProcess) -> None:
        """Take hold of a process."""
        self._process = process
        self._is_ending = False
        self.expected_end = self.pause_reason = None
        self._halted_by = self._state.reason
        self.closing.clear()
        self._evidence.begin(process)
        process.exited.add_done_callback(self._on_exit)

    def unwatch(self) -> None:
        """Let go of the process; it goes on."""
        if self._process is not None:
            self._process.exited.remove_done_callback(self._on_exit)
            self._process.release()
            self._process = None

    async def connect(self, *, timeout_s: float) -> None:
        """Connect the monitor and the console, unless they are.

        Raises `MonitorError`, `OSError`, and as `command` does.
        """
        process = self.process
        if self._monitor is None or not self._monitor.is_connected:
            await self._connect_monitor(timeout_s=timeout_s)
        path = await self.monitor.pty(SERIAL_ID)
        self.console.attach(process.open_line(path), is_silent=False)

    async def begin(self, *, timeout_s: float) -> None:
        """Let the CPUs of a new guest run and open its line; returns when they were seen to.

        All is asked for before QEMU is ready. What the guest says before the line is open stands
        in the file; it may even have switched itself off by then, and is seen to have run all the
        same. Raises `MonitorError`, `OSError` for the line, `VmNotRunning` and `VmUnresponsive`.
        """
        process, has_run = self.process, self.expect("RESUME")
        try:
            await self._connect_monitor(QUERY_PTYS, "cont", timeout_s=timeout_s)
            lines, _ = await self.monitor.opened()
            self.console.attach(process.open_line(pty_of(lines, SERIAL_ID)))
            if not await came(has_run, before=process.exited, timeout_s=timeout_s):
                raise VmUnresponsive("it does not run in time", vm=self._state.label)
        except (MonitorError, OSError, VmNotRunning):
            # A QEMU that ends hangs up, and closes its line a little earlier.
            has_come = await came(has_run, before=process.exited, timeout_s=LAST_WORDS_S)
            if not (has_come and (self.expected_end or await process.wait(timeout_s=LAST_WORDS_S))):
                raise
        finally:
            has_run.cancel()

    async def _connect_monitor(self, *opening: str, timeout_s: float) -> None:
        """Connect; QEMU answers once it is ready. Raises `MonitorError`."""
        monitor = Monitor(
            on_event=self._on_event,
            on_lost=self._on_monitor_lost,
            on_command=self._records.telemetry.qmp_command,
            opening=opening,
        )
        await monitor.connect(self._paths.monitor_socket, timeout_s=timeout_s)
        self._monitor = monitor

    async def observe(self, *, wants_running: bool) -> None:
        """Set the status from what QEMU says its run state is. Raises `MonitorError`."""
        state = await self.monitor.status()
        if state == "running":
            self._mark_running()
        elif state == "shutdown":
            self._finish_shutdown(GUEST_SHUTDOWN)
        elif state != "prelaunch":
            is_full = state == "io-error" and await self.monitor.lacks_space()
            self._mark_paused(NO_SPACE if is_full else of_run_state(state))
        elif self._state.status is VmStatus.PAUSED:
            pass  # a paused guest that was reset
        # An earlier service died between the spawn and `cont`: finish what it began.
        elif wants_running:
            await self.monitor.execute("cont")
        else:
            self._finish_shutdown("host-request")

    async def command(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """QEMU's answer. Raises `CommandFailed`, `VmUnresponsive` or `VmNotRunning`."""
        return await self._ask(self.monitor.execute(name, arguments))

    async def hand_over(self, fd: int) -> str:
        """Give QEMU a descriptor; the path that stands for it there. Raises as `command`."""
        return await self._ask(self.monitor.add_fd(fd))

    def expect(self, event: str, **fields: object) -> asyncio.Future[None]:
        """Resolves when QEMU says this event with these fields; ask before what causes it."""
        return self._expected.add(event, fields)

    async def _ask(self, question: Awaitable[T]) -> T:
        try:
            return await question
        except CommandRefused as error:
            raise CommandFailed(str(error), tool="QEMU") from error
        except MonitorTimeout as error:
            self.found_hung()
            raise VmUnresponsive(str(error), vm=self._state.label) from error
        except MonitorError as error:
            raise VmNotRunning(vm=self._state.label, details=str(error)) from error

    async def until(self, status: VmStatus, *, timeout_s: float) -> None:
        """Wait for a status. Raises `VmNotRunning` when QEMU ends, `VmUnresponsive` in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._state.status is not status:
                    _ = self.process
                    await self._state.changed()
        except TimeoutError as error:
            raise VmUnresponsive(f"not {status} in time", vm=self._state.label) from error

    async def end(self, *, at_once: bool) -> None:
        """Go down the stop ladder; returns when the status shows it."""
        if self._process is None:
            return
        self._is_ending = True
        try:
            await shutdown.end(self._process, self._monitor, at_once=at_once)
        except shutdown.StillAlive as error:
            raise VmUnresponsive(str(error), vm=self._state.label) from error
        finally:
            self._is_ending = False
        # The exit's own callback sets the status; let it run before anybody looks.
        await asyncio.sleep(0)

    def said(self) -> str:
        """What QEMU wrote to its stderr, for people."""
        return self._evidence.said()

    def found_hung(self) -> None:
        """QEMU lives but does not answer: say so, and ask again until it does."""
        if self._process is None or self._process.has_exited:
            return
        if self._state.status not in {VmStatus.UNRESPONSIVE, VmStatus.STOPPING}:
            self._state.set(VmStatus.UNRESPONSIVE, "QEMU does not answer")
            self._background.begin(self._recover(), name="recover")

    def found_gone(self, *, status: VmStatus, reason: str) -> None:
        """The QEMU that the records speak of is no more."""
        self._paths.remove_sockets()
        if status is VmStatus.CRASHED:
            end = last_bytes(self._paths.console_log, limit_bytes=CONSOLE_BYTES)
            self._evidence.keep(status, reason, outcome=Exit(), console=end, is_witnessed=False)
        self._state.set(status, reason)

    async def release(self) -> None:
        """Let go of everything; the guest goes on."""
        await self._background.end()
        self.unwatch()
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None
        await self.close_console()

    def tell_viewers(self) -> None:
        """Tell whoever watches the console what the status is now."""
        if self._console is not None:
            self._console.tell_status(self._state.status)

    async def close_console(self) -> None:
        """Close the console's file, if it is open."""
        if self._console is not None:
            console, self._console = self._console, None
            await console.close()

    async def rest(self) -> None:
        """Close the console's file when nobody needs it: a thousand idle VMs hold no files."""
        if self._process is None and self._console is not None and not self._console.viewers:
            await self.close_console()

    # Observations

    def _on_event(self, name: str, data: Mapping[str, object]) -> None:
        self._evidence.event(name, data)
        self._expected.fulfil(name, data)
        status = self._state.status
        if name == "RESUME":
            self.pause_reason = None
            if status in _LIVE or status is VmStatus.PAUSED:
                self._mark_running()
        elif name == "STOP" and status in _LIVE:
            self._halts += 1
            if self._halts == 1:
                self._background.begin(self._on_halt(), name="halt")
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self.pause_reason = NO_SPACE if data.get("nospace") else "io-error"
        elif name == "SHUTDOWN":
            self._finish_shutdown(of_shutdown(data))

    def _mark_running(self) -> None:
        self._halted_by = None
        run = self._state.run
        if run is not None and run.started_at is None:
            self._state.run = msgspec.structs.replace(run, started_at=incidents.now())
        # Whoever waits for it has the answer first; a service that dies before sees it again.
        self._state.set(VmStatus.RUNNING, patience_s=ANSWER_FIRST_S)

    def _mark_paused(self, reason: str) -> None:
        if reason in FATAL and reason != self._halted_by:
            self._keep(VmStatus.PAUSED, reason, Exit(), self.console.tail(CONSOLE_BYTES))
        self._halted_by = reason
        self._state.set(VmStatus.PAUSED, reason)
        if reason == NO_SPACE and not self._awaits_space:
            self._awaits_space = True
            self._background.begin(self._resume_with_space(), name="await-space")

    async def _resume_with_space(self) -> None:
        """Let a guest that hit the full disk go on by itself when there is room again.

        With `werror=stop` QEMU tries the failed write again, so the guest sees no error.
        """
        try:
            await resume_with_room(
                self._paths.data,
                is_wanted=lambda: self._state.reason == NO_SPACE,
                resume=lambda: self.command("cont"),
            )
        finally:
            self._awaits_space = False

    async def _on_halt(self) -> None:
        """The CPUs halted: ask why, once for all halts so far, unless it is that of a power-off."""
        while self._halts:
            self._halts, state = 1, "paused"
            with suppress(MonitorError, VmUnresponsive, VmNotRunning):
                state = await self.monitor.status()
            if state not in {"shutdown", "running"} and self._state.status in _LIVE:
                self._mark_paused(self.pause_reason or of_run_state(state))
            self._halts -= 1

    def _finish_shutdown(self, reason: str) -> None:
        """The guest is off, or will be: end its QEMU, which `-no-shutdown` keeps alive."""
        if self.expected_end is None:
            self.expected_end = reason
        if self._state.status is not VmStatus.STOPPING:
            self._state.set(VmStatus.STOPPING, self.expected_end)
        if not self._is_ending:
            self._background.begin(self.end(at_once=False), name="finish")

    def _on_monitor_lost(self) -> None:
        self._background.begin(self._after_monitor_lost(), name="monitor-lost")

    async def _after_monitor_lost(self) -> None:
        # An exit takes the line with it; only a QEMU that lives without a line is sick.
        if self._process is not None and await self._process.wait(timeout_s=1.0) is None:
            self.found_hung()

    async def _recover(self) -> None:
        """Ask again until QEMU answers or ends."""
        while self._state.status is VmStatus.UNRESPONSIVE and self._process is not None:
            if await self._process.wait(timeout_s=RECOVER_EVERY_S) is not None:
                return
            with suppress(MonitorError, OSError, VmUnresponsive, VmNotRunning):
                if not (self._monitor and self._monitor.is_connected and self.console.has_line):
                    await self.connect(timeout_s=REATTACH_S)
                await self.observe(wants_running=True)

    def _on_exit(self, exited: asyncio.Future[Exit]) -> None:
        if exited.cancelled():
            return
        self._process = None
        monitor, self._monitor = self._monitor, None
        console_end = b""
        if self._console is not None:
            self._console.detach()
            console_end = self._console.tail(CONSOLE_BYTES)
        if monitor is not None:
            self._background.begin(monitor.close(), name="monitor-close")
        self._paths.remove_sockets()
        status, reason = of_exit(
            exited.result(), expected=self.expected_end, before=self._state.status
        )
        if self.expected_end in {None, HOST_SIGNAL}:
            self._keep(status, reason, exited.result(), console_end)
        self._evidence.end()
        self._state.set(status, reason)
        self._background.begin(self.rest(), name="rest")

    def _keep(self, status: VmStatus, reason: str, outcome: Exit, console: bytes) -> None:
        incident = self._evidence.keep(status, reason, outcome=outcome, console=console)
        self._background.begin(self._evidence.ask_kernel(incident), name="ask-kernel")
