"""What VMs and the host use, now and in the past."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from msgspec import Struct

from voidvm.bus import Bus, News, Sampled
from voidvm.domain.account import Principal
from voidvm.domain.metrics import HostMetrics, HostSample, Period, VmMetrics, VmSample
from voidvm.domain.rollup import (
    HOST,
    Incomplete,
    Key,
    Mean,
    Number,
    choose,
    flat,
    grouped,
    levels,
    put,
    restored,
    start_of,
)
from voidvm.domain.validation import refuse
from voidvm.errors import FieldProblem
from voidvm.services.vms import Vms
from voidvm.store.metrics import MetricStore
from voidvm.supervisor.metrics import Sampler

log = logging.getLogger(__name__)

# One transaction a minute, not one a round: each is a sync of the disk.
WRITE_EVERY_S: Final = 60.0
# Rounds that wait to be written; more can only gather while the disk is full.
ROUNDS_MAX: Final = 240
PERIODS: Final[dict[Period, timedelta]] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
# An hour before it can still be said.
EARLIEST: Final = datetime(1971, 1, 1, tzinfo=UTC)
_CHUNK: Final = 100

S = TypeVar("S", bound=Struct)
Round = tuple[float, dict[str, dict[str, Number]]]


class Metrics:
    """The newest measurements, and the history of them: on disk but for the last minute."""

    def __init__(
        self,
        sampler: Sampler,
        store: MetricStore,
        *,
        vms: Vms,
        bus: Bus,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sampler = sampler
        self._store = store
        self._levels = levels(int(sampler.interval_s))
        self._vms = vms
        self._now = now
        self._rounds: list[Round] = []
        self._written_at = 0.0
        self._writer: asyncio.Task[None] | None = None
        # A round is either on disk or in memory, for those who read.
        self._lock = asyncio.Lock()
        bus.subscribe(self._on_news)

    @property
    def interval_s(self) -> float:
        """The time between two rounds."""
        return self._sampler.interval_s

    @property
    def latest(self) -> Sampled | None:
        """The newest round; None before the first."""
        return self._sampler.latest

    # Life

    def start(self) -> None:
        """Measure from now on."""
        self._sampler.start()

    async def close(self) -> None:
        """Measure no more, and write down what was."""
        await self._sampler.close()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await self._write()

    def _on_news(self, news: News) -> None:
        if not isinstance(news, Sampled):
            return
        at = news.host.at.timestamp()
        samples: dict[str, dict[str, Number]] = {HOST: flat(news.host)}
        samples |= {vm_id: flat(sample) for vm_id, sample in news.vms.items()}
        self._rounds.append((at, samples))
        del self._rounds[:-ROUNDS_MAX]
        if not self._written_at:
            self._written_at = at
        if self._writer is None and abs(at - self._written_at) >= WRITE_EVERY_S:
            self._written_at = at
            self._writer = asyncio.create_task(self._write(), name="metrics")

    async def _write(self) -> None:
        try:
            async with self._lock:
                rounds = tuple(self._rounds)
                means = await self._means(rounds)
                if means:
                    await self._store.add(means, now=rounds[-1][0])
                    self._rounds = [one for one in self._rounds if one[0] > rounds[-1][0]]
        except Exception:
            # A full disk must not stop the measuring; what it lacks is written when there is room.
            log.exception("cannot write the history of measurements")
        finally:
            self._writer = None

    async def _means(self, rounds: Iterable[Round]) -> dict[Key, Mean]:
        found: dict[Key, Mean] = {}
        for at, samples in rounds:
            for level in self._levels:
                for subject, values in samples.items():
                    put(found, Key(subject, level.step_s, start_of(at, level.step_s)), values)
                await asyncio.sleep(0)
        return found

    # History

    async def of_vm(
        self,
        principal: Principal,
        ref: str,
        *,
        since: datetime | None,
        until: datetime | None,
    ) -> VmMetrics:
        """What a VM used, in the last hour unless told. Raises `VmNotFound`, `ValidationFailed`."""
        record = await self._vms.find(principal, ref)
        end = until or self._now()
        if end < EARLIEST:
            refuse([FieldProblem("to", "must not be before 1971")])
        begin = since or end - PERIODS["1h"]
        if begin >= end:
            refuse([FieldProblem("from", "must be before 'to', or before now without it")])
        resolution, means = await self._history(record.id, begin, end)
        samples = await _samples(VmSample, means, vm_id=record.id)
        latest = self.latest
        return VmMetrics(
            vm_id=record.id,
            since=begin,
            until=end,
            resolution=resolution,
            samples=samples,
            latest=latest.vms.get(record.id) if latest else None,
        )

    async def of_host(self, period: Period) -> HostMetrics:
        """What the host used."""
        end = self._now()
        resolution, means = await self._history(HOST, end - PERIODS[period], end)
        samples = await _samples(HostSample, means)
        latest = self.latest
        return HostMetrics(
            period=period,
            resolution=resolution,
            samples=samples,
            latest=latest.host if latest else None,
        )

    async def _history(
        self, subject: str, begin: datetime, end: datetime
    ) -> tuple[int, dict[int, Mean]]:
        """The resolution that fits, and the means of its steps."""
        now, until = self._now().timestamp(), end.timestamp()
        # Nothing is older: to reach back further would only make the steps longer.
        since = max(begin.timestamp(), now - self._levels[-1].kept_s)
        step_s, resolution_s = choose(
            self._levels, age_s=now - since, span_s=min(until, now) - since
        )
        async with self._lock:
            # The step that the time begins in is a part of it.
            first = start_of(since, resolution_s)
            found = await self._store.between(subject, step_s=step_s, since=first, until=until)
            rounds = tuple(self._rounds)
        for at, samples in rounds:
            start = start_of(at, step_s)
            if first <= start < until and (values := samples.get(subject)) is not None:
                put(found, start, values)
        return resolution_s, grouped(found, resolution_s)


async def _samples(kind: type[S], means: Mapping[int, Mean], **beside: object) -> list[S]:
    found: list[S] = []
    for number, (at, mean) in enumerate(sorted(means.items())):
        # What an older version did not measure cannot be shown.
        with suppress(Incomplete):
            moment = datetime.fromtimestamp(at, UTC)
            found.append(restored(kind, mean.values, at=moment, **beside))
        if number % _CHUNK == 0:
            await asyncio.sleep(0)
    return found
