"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from voidvm.services.clock import Clock


class FakeClock(Clock):
    """Whoever sleeps wakes up when the test has moved the time far enough."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        self._asleep: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Where it stands."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait for the test."""
        if seconds > 0:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._asleep.append((self._now + timedelta(seconds=seconds), woken))
            await woken

    @property
    def waits(self) -> list[float]:
        """For how long each sleeper will still sleep, in seconds."""
        self._asleep = [one for one in self._asleep if not one[1].done()]
        return sorted(round((until - self._now).total_seconds(), 6) for until, _ in self._asleep)

    def advance(self, seconds: float) -> None:
        """Move on; on the loop of those who sleep."""
        self._now += timedelta(seconds=seconds)
        for until, woken in self._asleep:
            if until <= self._now and not woken.done():
                woken.set_result(None)
