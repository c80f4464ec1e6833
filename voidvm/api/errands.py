"""Work that goes on when the connection that asked for it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Errands:
    """Owns such tasks until they end, or the service does."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """Run `work`, which reports its failures itself."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self) -> None:
        """Cut short what is left."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
