"""Notices a QEMU that no longer answers, also when nobody asks it anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from voidvm.domain.states import VmStatus
from voidvm.errors import VmNotRunning, VmUnresponsive
from voidvm.hypervisor.monitor import Monitor, MonitorError
from voidvm.supervisor.attachment import Attachment
from voidvm.supervisor.state import VmState

log = logging.getLogger(__name__)

# A QEMU that was silent for half the looks is asked, for all of them it is unresponsive.
LOOKS: Final = 10
ASK_AFTER: Final = LOOKS // 2
# One question is enough: whenever it is answered, that is a sign of life.
OPEN_S: Final = 600.0


class Pulse:
    """Whether one QEMU says anything, in looks that come at an even pace.

    Whatever it says counts, so that one that is asked by others costs no question of ours. Looks
    are counted, not seconds: a service that was itself held up has looked once, however long.
    """

    def __init__(self, state: VmState, hold: Attachment) -> None:
        self._state = state
        self._hold = hold
        self._heard: tuple[Monitor | None, int] = None, 0
        self._silent = 0
        self._question: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Look once; a QEMU that was silent for too many looks is found hung."""
        monitor = self._line
        heard = monitor, monitor.heard if monitor else 0
        if monitor is None or heard != self._heard:
            self._heard, self._silent = heard, 0
            return
        self._silent += 1
        if self._silent == ASK_AFTER and (self._question is None or self._question.done()):
            self._question = asyncio.create_task(
                self._ask(monitor), name=f"pulse-{self._state.vm_id}"
            )
        elif self._silent >= LOOKS:
            self._hold.found_hung()

    async def close(self) -> None:
        """Take the open question back."""
        if self._question is not None:
            self._question.cancel()
            await asyncio.wait([self._question])

    @property
    def _line(self) -> Monitor | None:
        """The monitor, where it is this one's turn to notice that nobody answers.

        A QEMU that is known to hang is asked by `Attachment`; a start has deadlines of its own.
        """
        if self._state.status not in {VmStatus.UNRESPONSIVE, VmStatus.STARTING}:
            with suppress(VmNotRunning, VmUnresponsive):
                return self._hold.monitor
        return None

    @staticmethod
    async def _ask(monitor: Monitor) -> None:
        with suppress(MonitorError):
            await monitor.execute("query-status", timeout_s=OPEN_S)


class Heartbeat:
    """One task that looks at every pulse; `patience_s`: how long a QEMU may be silent."""

    def __init__(
        self, pulses: Callable[[], list[Pulse]], *, patience_s: Callable[[], float]
    ) -> None:
        self._pulses = pulses
        self._patience_s = patience_s

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Looks for as long as the block lasts."""
        task = asyncio.create_task(self._run(), name="heartbeat")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._patience_s() / LOOKS)
            try:
                for pulse in self._pulses():
                    pulse.look()
            except Exception:
                # The next look comes soon.
                log.exception("cannot look at the pulses")
