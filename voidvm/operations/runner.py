"""Runs operations as tasks, with their newest state in memory and their steps on disk."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from voidvm.bus import Bus, OperationChanged
from voidvm.domain.operation import OperationError, OperationRecord, OperationStatus, Progress
from voidvm.errors import (
    InternalError,
    OperationNotCancellable,
    OperationNotFound,
    VoidVMError,
    of_host,
)
from voidvm.operations.progress import ProgressSink

log = logging.getLogger(__name__)

# How many pieces of long work share the host's disk and cores; the others wait their turn.
AT_ONCE = 4
# How soon an end that could not be written down is tried again.
RETRY_S = 2.0

Work = Callable[[ProgressSink], Awaitable[None]]


class OperationLog(Protocol):
    """Where operations are kept."""

    async def save(self, record: OperationRecord) -> None:
        """Keep the newest state of an operation, durably."""

    async def get(self, operation_id: str) -> OperationRecord | None:
        """An operation of any age."""

    async def interrupt_open(self, *, but: Collection[str]) -> None:
        """Mark what an earlier service left open as interrupted: all `but` these ids."""

    async def forget_old(self) -> None:
        """Drop what ended too long ago."""


class _Running:
    """One operation that is under way."""

    def __init__(self, record: OperationRecord) -> None:
        self.record = record
        self.task: asyncio.Task[None] | None = None
        self.is_cancelled = False
        self.done = asyncio.Event()

    @property
    def may_cancel(self) -> bool:
        """Whether it can be cut short: not any more while its end is written down."""
        return self.record.may_cancel and self.record.is_open


class Operations:
    """The operations of this service; each ends in a state that is on disk."""

    def __init__(self, log_: OperationLog, *, bus: Bus) -> None:
        self._log = log_
        self._bus = bus
        self._running: dict[str, _Running] = {}
        self.is_stopping = False
        self._places = asyncio.Semaphore(AT_ONCE)

    @property
    def places(self) -> asyncio.Semaphore:
        """The places for long work, for what is submitted as quick and has a slow part."""
        return self._places

    async def restore(self) -> None:
        """Mark what an earlier service left open as interrupted. Raises `NoSpace`; tried again."""
        await self._log.forget_old()
        await self._log.interrupt_open(but=self._running)

    async def submit(
        self,
        kind: str,
        work: Work,
        *,
        owner_id: str,
        created_by: str,
        resources: Sequence[str],
        vm_id: str | None = None,
        may_cancel: bool = True,
        is_quick: bool = False,
    ) -> OperationRecord:
        """Begin `work`; on disk when this returns. `is_quick` work does not wait for a place.

        Work that is cancelled must clean up; what it raises becomes the operation's error.
        """
        record = OperationRecord(
            id="op-" + secrets.token_hex(6),
            owner_id=owner_id,
            type=kind,
            resources=list(resources),
            vm_id=vm_id,
            created_by=created_by,
            created_at=datetime.now(UTC),
            may_cancel=may_cancel,
        )
        await self._log.save(record)
        running = _Running(record)
        self._running[record.id] = running
        running.task = asyncio.create_task(
            self._run(running, work, is_quick=is_quick), name=f"{kind}-{record.id}"
        )
        # Into its `try` at once: a task that is cancelled before its first step ends unseen.
        await asyncio.sleep(0)
        return record

    async def get(self, operation_id: str) -> OperationRecord:
        """The newest state. Raises `OperationNotFound`."""
        if (running := self._running.get(operation_id)) is not None:
            return running.record
        record = await self._log.get(operation_id)
        if record is None:
            raise OperationNotFound(operation=operation_id)
        return record

    def newest(self, record: OperationRecord) -> OperationRecord:
        """The state in memory of one that was read from disk."""
        running = self._running.get(record.id)
        return running.record if running is not None else record

    async def wait(self, operation_id: str, *, timeout_s: float) -> OperationRecord:
        """The state when it has ended, or after `timeout_s`."""
        if (running := self._running.get(operation_id)) is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await running.done.wait()
            except TimeoutError:
                pass
            return running.record
        return await self.get(operation_id)

    async def cancel(self, operation_id: str) -> OperationRecord:
        """End it; it has cleaned up when this returns.

        Raises `OperationNotCancellable` for one that has ended or must not be cut short.
        """
        running = self._running.get(operation_id)
        if running is None or running.task is None or not running.may_cancel:
            record = await self.get(operation_id)
            raise OperationNotCancellable(record.status, operation=operation_id)
        if not running.is_cancelled:
            # Once: a second one would cut the cleaning up short.
            running.is_cancelled = True
            running.task.cancel()
        await running.done.wait()
        return running.record

    async def release(self) -> None:
        """Stop all work; what is cut short is found as interrupted by the next service."""
        self.is_stopping = True
        for running in tuple(self._running.values()):
            if running.task is not None:
                if not running.is_cancelled or not running.record.is_open:
                    running.task.cancel()
                await asyncio.wait([running.task])

    async def _run(self, running: _Running, work: Work, *, is_quick: bool) -> None:
        error: OperationError | None = None
        status = OperationStatus.SUCCEEDED
        try:
            if is_quick:
                await self._work(running, work)
            else:
                async with self._places:
                    await self._work(running, work)
        except asyncio.CancelledError:
            if self.is_stopping:
                raise  # the service stops: the log says `running`, the next start `interrupted`
            status = OperationStatus.CANCELLED
        except Exception as failure:
            status = OperationStatus.FAILED
            error = _told(failure)
            if isinstance(_as_ours(failure), InternalError):
                log.exception("operation %s failed", running.record.id)
        await self._end(running, status, error)

    async def _work(self, running: _Running, work: Work) -> None:
        self._set(running, status=OperationStatus.RUNNING, started_at=datetime.now(UTC))
        # Also where it cannot be written down: only the work can clean up what was begun for it.
        await self._is_saved(running.record)

        def tell(progress: Progress) -> None:
            self._set(running, progress=progress)

        await work(ProgressSink(tell))

    async def _end(
        self, running: _Running, status: OperationStatus, error: OperationError | None
    ) -> None:
        progress = running.record.progress
        if status is OperationStatus.SUCCEEDED:
            progress = msgspec.structs.replace(progress, percent=100.0)
        self._set(
            running, status=status, error=error, progress=progress, finished_at=datetime.now(UTC)
        )
        is_saved = await self._is_saved(running.record)
        running.done.set()
        while not is_saved:
            await asyncio.sleep(RETRY_S)
            is_saved = await self._is_saved(running.record)
        self._running.pop(running.record.id, None)

    async def _is_saved(self, record: OperationRecord) -> bool:
        """Whether the state of an operation could be written down."""
        try:
            await self._log.save(record)
        except Exception:
            # A full disk. A service that ends meanwhile leaves it open, to be called interrupted.
            log.exception("cannot record operation %s as %s", record.id, record.status)
            return False
        return True

    def _set(self, running: _Running, **changes: object) -> None:
        running.record = msgspec.structs.replace(running.record, **changes)
        self._bus.publish(OperationChanged(operation=running.record))


def _told(failure: Exception) -> OperationError:
    error = _as_ours(failure)
    return OperationError(code=error.code, message=error.message(), details=error.details)


def _as_ours(failure: Exception) -> VoidVMError:
    return failure if isinstance(failure, VoidVMError) else of_host(failure) or InternalError()
