"""What was measured is found again, whether it is on disk already or not."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from unittest import mock

import pytest

from tests.support.measured import NOON, add_vm, sampled, vm_sample
from voidvm.bus import Bus
from voidvm.domain.rollup import levels
from voidvm.errors import NoSpace
from voidvm.services.metrics import ROUNDS_MAX, Metrics
from voidvm.services.vms import Vms
from voidvm.store.database import Database
from voidvm.store.metrics import MetricStore
from voidvm.supervisor.metrics import Sampler


class Measured:
    """A `Metrics` whose rounds and clock are the test's."""

    def __init__(self, database: Database) -> None:
        self.now = NOON
        self.bus = Bus()
        sampler = mock.Mock(interval_s=5, latest=None, close=mock.AsyncMock())
        self.store = MetricStore(database, levels(5))
        self.metrics = Metrics(
            cast("Sampler", sampler),
            self.store,
            vms=cast("Vms", mock.Mock()),
            bus=self.bus,
            now=lambda: datetime.fromtimestamp(self.now, UTC),
        )

    def round(self, percent: float) -> None:
        """A round, and the time to the next one."""
        self.bus.publish(sampled(self.now, percent=percent))
        self.now += 5

    async def percents(self) -> list[float]:
        """The host's CPU in the last hour."""
        found = await self.metrics.of_host("1h")
        assert found.resolution == 5
        assert [one.at for one in found.samples] == sorted(one.at for one in found.samples)
        return [one.cpu.percent for one in found.samples]


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    folder = Path(tempfile.mkdtemp(prefix="vv-"))
    database = await Database.open(folder / "voidvm.db")
    yield database
    await database.close()
    shutil.rmtree(folder)


@pytest.fixture
def measured(database: Database) -> Measured:
    return Measured(database)


async def writes(database: Database) -> int:
    rows = await database.read("SELECT ifnull(sum(weight), 0) FROM metrics WHERE step = 5")
    return int(rows[0][0])


async def settle(measured: Measured) -> None:
    while (writer := measured.metrics._writer) is not None:
        await asyncio.wait([writer])


async def test_the_newest_minute_is_there_before_it_is_on_disk(
    database: Database, measured: Measured
) -> None:
    for number in range(10):
        measured.round(float(number))
    assert await writes(database) == 0
    assert await measured.percents() == [float(number) for number in range(10)]


async def test_it_is_written_once_a_minute_and_read_without_gap_or_repetition(
    database: Database, measured: Measured
) -> None:
    written = []
    for number in range(30):
        measured.round(float(number))
        await settle(measured)
        written.append(await writes(database))
        assert await measured.percents() == [float(one) for one in range(number + 1)]
    assert sorted(set(written)) == [0, 13, 25], "two writes in two and a half minutes"


async def test_a_clean_stop_writes_the_rest_and_the_next_service_goes_on(
    database: Database, measured: Measured
) -> None:
    for number in range(6):
        measured.round(float(number))
    await measured.metrics.close()
    following = Measured(database)
    following.now = measured.now
    for number in range(6, 12):
        following.round(float(number))
    assert await following.percents() == [float(number) for number in range(12)]
    await following.metrics.close()
    day = await following.metrics.of_host("24h")
    assert (day.resolution, [one.cpu.percent for one in day.samples]) == (60, [5.5])
    month = await following.metrics.of_host("30d")
    assert (month.resolution, [one.cpu.percent for one in month.samples]) == (1800, [5.5])


async def test_a_full_disk_costs_nothing_but_the_oldest_rounds(
    database: Database, measured: Measured
) -> None:
    with mock.patch.object(measured.store, "add", side_effect=NoSpace):
        for number in range(ROUNDS_MAX + 10):
            measured.round(float(number % 100))
            await settle(measured)
    assert len(await measured.percents()) == ROUNDS_MAX
    for _ in range(13):
        measured.round(1.0)
    await settle(measured)
    assert await writes(database) >= ROUNDS_MAX - 13


async def test_a_vm_has_the_time_that_was_asked_for(database: Database, measured: Measured) -> None:
    vm_id = "vm-0123456789ab"
    await add_vm(database, vm_id)
    find = mock.AsyncMock(return_value=mock.Mock(id=vm_id))
    measured.metrics._vms = mock.Mock(find=find)
    for number in range(20):
        at = measured.now
        measured.bus.publish(sampled(at, *([vm_sample(at, percent=number)] if number > 9 else [])))
        measured.now += 5
    since = datetime.fromtimestamp(NOON + 61, UTC)
    found = await measured.metrics.of_vm(
        mock.Mock(), "a", since=since, until=since + timedelta(seconds=10)
    )
    assert (found.vm_id, found.since, found.latest) == (vm_id, since, None)
    # From the step that the time begins in.
    assert [one.cpu.percent for one in found.samples] == [12, 13, 14]
    everything = await measured.metrics.of_vm(mock.Mock(), "a", since=None, until=None)
    assert len(everything.samples) == 10, "none of when it was off"
    ever = await measured.metrics.of_vm(
        mock.Mock(), "a", since=datetime(2001, 1, 1, tzinfo=UTC), until=None
    )
    assert ever.resolution == 1800, "no coarser than for the 30 days that are kept"
    round_ = sampled(measured.now, vm_sample(measured.now))
    measured.metrics._sampler.latest = round_
    newest = await measured.metrics.of_vm(mock.Mock(), "a", since=None, until=None)
    assert newest.latest == round_.vms[vm_id]
