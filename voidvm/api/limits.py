"""How much one caller may ask: requests a minute, and WebSockets at once."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.aio.strategies import MovingWindowRateLimiter

from voidvm.api.windows import Windows
from voidvm.errors import RateLimited


class RequestLimit:
    """A moving window of a minute for each user, and for each address before a sign-in.

    `per_minute` gives the limit as it is now; 0: none.
    """

    def __init__(self, per_minute: Callable[[], int]) -> None:
        self._per_minute = per_minute
        self._limiter = MovingWindowRateLimiter(Windows())
        self._once = RateLimitItemPerMinute(1)

    async def take(self, kind: str, caller: str) -> dict[str, str]:
        """Count a request; the `RateLimit-*` headers.

        Raises `RateLimited` with them, and with `is_news` for the first one of a minute.
        """
        if not (per_minute := self._per_minute()):
            return {}
        item = RateLimitItemPerMinute(per_minute)
        is_free = await self._limiter.hit(item, kind, caller)
        stats = await self._limiter.get_window_stats(item, kind, caller)
        reset_s = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {
            "ratelimit-limit": str(per_minute),
            "ratelimit-remaining": str(stats.remaining),
            "ratelimit-reset": str(reset_s),
        }
        if not is_free:
            details = f"{per_minute} a minute"
            is_news = await self._limiter.hit(self._once, "news", kind, caller)
            raise RateLimited(details, retry_after=reset_s, headers=headers, is_news=is_news)
        return headers


class SocketPlaces:
    """How many WebSockets each user has open; `per_user` gives the limit, 0: none."""

    def __init__(self, per_user: Callable[[], int]) -> None:
        self._limit = per_user
        self._taken: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def taken(self, user_id: str) -> Iterator[bool]:
        """Hold a place for as long as the block lasts; False when there was none left."""
        limit = self._limit()
        has_place = not limit or self._taken[user_id] < limit
        self._taken[user_id] += 1
        try:
            yield has_place
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]
