"""Fetches that several operations wait for: each runs once, for as long as somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from voidvm.domain.image import Image
from voidvm.domain.operation import Progress
from voidvm.operations.progress import ProgressSink

Fetch = Callable[[ProgressSink], Awaitable[Image]]


class _Shared:
    """One fetch under way, and those who wait for it."""

    def __init__(self, fetch: Fetch, *, key: str) -> None:
        self.followers: list[ProgressSink] = []
        self.latest = Progress()
        self.task = asyncio.ensure_future(fetch(ProgressSink(self._tell)))
        self.key = key

    def _tell(self, progress: Progress) -> None:
        self.latest = progress
        for follower in self.followers:
            follower.follow(progress)


class Fetches:
    """Who asks for what is being fetched already waits for that; the last to go ends it."""

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}

    async def join(self, key: str, fetch: Fetch, progress: ProgressSink) -> Image:
        """The image of `key`, by `fetch` unless one is under way. Raises what the fetch raises."""
        shared = self._shared.get(key)
        if shared is None or shared.task.done():
            shared = self._shared[key] = _Shared(fetch, key=key)
        shared.followers.append(progress)
        progress.follow(shared.latest)
        try:
            await asyncio.wait([shared.task])
            return shared.task.result()
        finally:
            shared.followers.remove(progress)
            if not shared.followers:
                await self._end(shared)

    async def _end(self, shared: _Shared) -> None:
        # Out of the way first: who comes while it is being ended begins anew.
        if self._shared.get(shared.key) is shared:
            del self._shared[shared.key]
        if not shared.task.done():
            shared.task.cancel()
            await asyncio.wait([shared.task])
