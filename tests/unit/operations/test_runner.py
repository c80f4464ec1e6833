"""Operations whose states cannot be written down."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from tests.support.waiting import until
from voidvm.bus import Bus
from voidvm.domain.operation import OperationRecord, OperationStatus
from voidvm.errors import NoSpace, OperationNotCancellable
from voidvm.operations import runner
from voidvm.operations.progress import ProgressSink
from voidvm.operations.runner import Operations


class FullDisk:
    """A log that takes nothing while `is_full`, and never what is `refused`."""

    def __init__(self, *refused: OperationStatus) -> None:
        self.is_full = False
        self._refused = refused
        self.records: dict[str, OperationRecord] = {}

    async def save(self, record: OperationRecord) -> None:
        if self.is_full or record.status in self._refused:
            raise NoSpace
        self.records[record.id] = record

    async def get(self, operation_id: str) -> OperationRecord | None:
        return self.records.get(operation_id)

    async def interrupt_open(self, *, but: Collection[str]) -> None:
        """Nothing was left open here."""

    async def forget_old(self) -> None:
        """Nothing is old here."""


async def ended_on_a_full_disk(operations: Operations, disk: FullDisk) -> OperationRecord:
    async def work(_: ProgressSink) -> None:
        disk.is_full = True

    begun = await operations.submit("test", work, owner_id="u", created_by="u", resources=[])
    return await operations.wait(begun.id, timeout_s=20)


async def test_an_end_that_cannot_be_recorded_is_true_and_recorded_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.01)
    disk = FullDisk()
    operations = Operations(disk, bus=Bus())
    ended = await ended_on_a_full_disk(operations, disk)
    assert ended.status is OperationStatus.SUCCEEDED
    assert (await operations.get(ended.id)).status is OperationStatus.SUCCEEDED
    assert disk.records[ended.id].status is OperationStatus.RUNNING
    with pytest.raises(OperationNotCancellable):
        await operations.cancel(ended.id)
    disk.is_full = False
    await until(lambda: disk.records[ended.id].status is OperationStatus.SUCCEEDED)


async def test_work_is_done_also_where_its_begin_cannot_be_recorded() -> None:
    # It is the work that cleans up: a VM whose making never began would be `creating` for ever.
    disk = FullDisk(OperationStatus.RUNNING)
    operations = Operations(disk, bus=Bus())
    done: list[ProgressSink] = []

    async def work(progress: ProgressSink) -> None:
        done.append(progress)

    begun = await operations.submit("test", work, owner_id="u", created_by="u", resources=[])
    await operations.wait(begun.id, timeout_s=20)
    assert disk.records[begun.id].status is OperationStatus.SUCCEEDED
    assert len(done) == 1


async def test_a_service_that_ends_does_not_wait_for_room() -> None:
    disk = FullDisk()
    operations = Operations(disk, bus=Bus())
    await ended_on_a_full_disk(operations, disk)
    async with asyncio.timeout(20):
        await operations.release()
