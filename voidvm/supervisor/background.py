"""What a VM's part of the supervisor does beside what it was asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """Work that goes on by itself; one that fails is logged."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Let it run."""
        task = asyncio.create_task(work, name=f"{name}-{self._whose}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def end(self) -> None:
        """Cut all of it short."""
        for task in tuple(self._tasks):
            task.cancel()
            await asyncio.wait([task])

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
