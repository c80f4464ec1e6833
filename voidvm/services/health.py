"""Whether the service works: looked at in the background, so that an answer costs nothing.

The health of guests is not that of the service: nothing here waits for a sick VM.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Final

from voidvm.bus import News, Sampled
from voidvm.config import Qemu
from voidvm.domain.event import EventKind
from voidvm.domain.health import HealthCode, reason
from voidvm.services.configuration import Tell
from voidvm.services.space import SPARE_BYTES
from voidvm.store.database import Database, Trouble
from voidvm.supervisor.paths import Layout
from voidvm.telemetry import Telemetry

log = logging.getLogger(__name__)

CHECK_EVERY_S = 2.0
# While nothing else writes, or what was written failed, a write is tried out.
TRY_EVERY_S: Final = 30.0
# A transaction takes milliseconds; a disk that hangs gives no error.
STUCK_AFTER_S: Final = 10.0
# Before `Space` refuses new disks and images.
LOW_BYTES: Final = 4 * SPARE_BYTES
LOW_SHARE: Final = 0.01
LAG_EVERY_S: Final = 0.5
# About half a minute: a moment's load is no illness.
LAGS_KEPT: Final = 60
LAG_MAX_S: Final = 0.25
MISSED_SAMPLES: Final = 6
STALLED_AFTER_S: Final = 30.0

_TROUBLES: Final[dict[Trouble, HealthCode]] = {
    "full": HealthCode.DATABASE_FULL,
    "unusable": HealthCode.DATABASE_UNUSABLE,
}


class HealthWatch:
    """Looks again and again, and tells when something changes."""

    def __init__(
        self,
        *,
        database: Database,
        layout: Layout,
        qemu: Qemu,
        telemetry: Telemetry,
        sampling_s: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._database = database
        self._layout = layout
        self._qemu = qemu
        self._telemetry = telemetry
        self._sampling_s = sampling_s
        self._tell = tell
        self._found: tuple[HealthCode, ...] = ()
        self._told: tuple[HealthCode, ...] = ()
        self._lags: deque[float] = deque(maxlen=LAGS_KEPT)
        self._sampled_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None

    @property
    def codes(self) -> tuple[HealthCode, ...]:
        """What is wrong: with the database as of now, with all else as of the last look."""
        if (trouble := self._database.trouble) is not None:
            return (_TROUBLES[trouble], *self._found)
        if self._database.stuck_s > STUCK_AFTER_S:
            return (HealthCode.DATABASE_STUCK, *self._found)
        return self._found

    # Life

    def start(self) -> None:
        """Look for the first time, and go on in the background."""
        loop = asyncio.get_running_loop()
        self._sampled_at = loop.time()
        self._found = tuple(self._look())
        self._tasks = [
            loop.create_task(self._watch(), name="health"),
            loop.create_task(self._measure_lag(), name="event-loop-lag"),
        ]

    async def close(self) -> None:
        """Look no more."""
        tasks = [*self._tasks, *([self._writing] if self._writing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_news(self, news: News) -> None:
        """What the bus says."""
        if isinstance(news, Sampled):
            self._sampled_at = asyncio.get_running_loop().time()

    # Looking

    async def _watch(self) -> None:
        while True:
            try:
                self._found = tuple(self._look())
            except Exception:
                # It must go on: whoever asks would be told of the past.
                log.exception("cannot look at the health of the service")
            if self._writing is None or self._writing.done():
                self._writing = asyncio.create_task(self._write(), name="health-write")
            await asyncio.sleep(CHECK_EVERY_S)

    async def _write(self) -> None:
        """Beside the looking, which a disk that hangs must not keep from going on."""
        if self._database.trouble is not None or self._database.idle_s > TRY_EVERY_S:
            await self._database.try_out()
        await self._tell_changes()

    def _look(self) -> Iterator[HealthCode]:
        usage = shutil.disk_usage(self._layout.data)
        if usage.free < max(LOW_BYTES, LOW_SHARE * usage.total):
            yield HealthCode.DISK_NEARLY_FULL
        if len(self._lags) == LAGS_KEPT and fmean(self._lags) > LAG_MAX_S:
            yield HealthCode.EVENT_LOOP_SLOW
        silence_s = asyncio.get_running_loop().time() - self._sampled_at
        if silence_s > max(STALLED_AFTER_S, MISSED_SAMPLES * self._sampling_s()):
            yield HealthCode.SAMPLER_STALLED
        if shutil.which(self._qemu.binary) is None:
            yield HealthCode.QEMU_MISSING
        if shutil.which(self._qemu.img_binary) is None:
            yield HealthCode.QEMU_IMG_MISSING

    async def _tell_changes(self) -> None:
        """Tell what has changed since it was told: once, in the log and as an event."""
        found = self.codes
        if found == self._told:
            return
        for code in found:
            if code not in self._told:
                log.warning("degraded: %s", reason(code).message)
        for code in self._told:
            if code not in found:
                log.info("no longer so: %s", reason(code).message)
        self._told = found
        data = {"status": "degraded" if found else "ok", "reasons": list(found)}
        await self._tell(EventKind.SYSTEM_HEALTH, data, "warning" if found else "info")

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            lag_s = max(0.0, loop.time() - due)
            self._lags.append(lag_s)
            self._telemetry.event_loop_lag(lag_s)
