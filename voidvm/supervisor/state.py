"""A VM's status: one setter that follows the table of moves, tells everybody and is kept."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import NamedTuple, Protocol

from voidvm.bus import Bus, VmStatusChanged
from voidvm.domain.states import VmStatus, check_move
from voidvm.domain.vm import Run

log = logging.getLogger(__name__)

# How soon what could not be recorded is tried again.
RETRY_S = 2.0
UNWRITTEN = 16


class Journal(Protocol):
    """Where the newest state of each VM is kept, and what happened on the way to it."""

    async def record(
        self, vm_id: str, status: VmStatus, reason: str | None, run: Run | None, *, is_wanted: bool
    ) -> None:
        """Keep the newest state of a VM, and that it shall run if it `is_wanted`."""


class _Seen(NamedTuple):
    status: VmStatus
    reason: str | None
    run: Run | None
    is_wanted: bool


class VmState:
    """What is known of one VM; `run` is its present run, or its last.

    `label` is what people call it: its name, in messages only.
    """

    def __init__(
        self,
        vm_id: str,
        *,
        label: str,
        journal: Journal,
        bus: Bus,
        status: VmStatus,
        reason: str | None,
        run: Run | None,
    ) -> None:
        self.vm_id = vm_id
        self.label = label
        self.run = run
        self._journal = journal
        self._bus = bus
        self._status = status
        self._reason = reason
        self._changed = asyncio.Event()
        # Oldest first; of a storm of changes only the newest are written down.
        self._unwritten: deque[_Seen] = deque(maxlen=UNWRITTEN)
        self._writer: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._later: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    @property
    def status(self) -> VmStatus:
        """The observed status."""
        return self._status

    @property
    def reason(self) -> str | None:
        """Why the status is what it is."""
        return self._reason

    def set(self, status: VmStatus, reason: str | None = None, *, patience_s: float = 0.0) -> None:
        """Note what was observed; for `patience_s` its record may wait for what follows.

        Raises `MoveRefused` for a move that the table lacks.
        """
        if status is self._status and reason == self._reason:
            return
        if status is not self._status:
            check_move(self._status, status)
        self._status, self._reason = status, reason
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._record(patience_s)
        self._bus.publish(VmStatusChanged(vm_id=self.vm_id, status=status, reason=reason))

    def note(self, run: Run, *, is_wanted: bool = False) -> None:
        """Note what is known of the present run, and that it is wanted."""
        self.run = run
        self._record(is_wanted=is_wanted)

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    async def secured(self) -> None:
        """Wait until the newest state is written down. Raises what its journal raises."""
        await self.recorded()
        if self._unwritten and self._failure is not None:
            raise self._failure

    async def recorded(self) -> None:
        """Wait until the newest state is written down, or was tried to."""
        if self._later is not None:
            self._record()
        while self._writer is not None:
            await asyncio.shield(self._writer)

    async def close(self) -> None:
        """Wait as `recorded` does; what is not on record then never is."""
        await self.recorded()
        if self._retry is not None:
            self._retry.cancel()

    def _record(self, patience_s: float = 0.0, *, is_wanted: bool = False) -> None:
        """Have the present state written down, after those before it that are not yet."""
        if self._unwritten and self._is_the_last_one():
            is_wanted |= self._unwritten.pop().is_wanted
        self._unwritten.append(_Seen(self._status, self._reason, self.run, is_wanted))
        for timer in (self._later, self._retry):
            if timer is not None:
                timer.cancel()
        self._later = self._retry = None
        if self._writer is not None:
            return
        if patience_s:
            self._later = asyncio.get_running_loop().call_later(patience_s, self._record)
        else:
            self._writer = asyncio.create_task(self._write(), name=f"journal-{self.vm_id}")

    def _is_the_last_one(self) -> bool:
        """Whether the newest state that is to be written is the present one, but for its run."""
        last = self._unwritten[-1]
        return (last.status, last.reason) == (self._status, self._reason)

    async def _write(self) -> None:
        try:
            while self._unwritten:
                seen = self._unwritten.popleft()
                await self._journal.record(
                    self.vm_id, seen.status, seen.reason, seen.run, is_wanted=seen.is_wanted
                )
                self._failure = None
        except Exception as error:
            # The VM goes on, and a disk that is full now has room again one day. Who wanted it to
            # run was told that it does not.
            self._failure = error
            if len(self._unwritten) < UNWRITTEN:
                self._unwritten.appendleft(seen)
            for _ in range(len(self._unwritten)):
                self._unwritten.append(self._unwritten.popleft()._replace(is_wanted=False))
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._record)
            log.exception("%s: cannot record the status", self.vm_id)
        finally:
            self._writer = None
