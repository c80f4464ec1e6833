"""The time, for plans that go over minutes; tests bring one of their own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class Clock:
    """The host's."""

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
