"""Where the moving windows of callers are kept: in memory, bounded, without threads.

The storage that comes with `limits` walks over every caller, in a thread each, with every request.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Final

from limits.aio.storage import MovingWindowSupport, Storage

KEPT_MAX: Final = 50_000


class Windows(Storage, MovingWindowSupport):
    """The moments of each caller's latest requests; who asked longest ago is forgotten first."""

    STORAGE_SCHEME = ["voidvm+memory"]  # noqa: RUF012 - the interface of limits

    def __init__(self) -> None:
        super().__init__()
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Note `amount` requests of now, if there is room for them."""
        now = time.time()
        self._forget(now - expiry)
        moments = self._moments.setdefault(key, deque())
        _drop(moments, now - expiry)
        if len(moments) + amount > limit:
            return False
        moments.extend([now] * amount)
        self._moments.move_to_end(key)
        return True

    async def get_moving_window(
        self,
        key: str,
        limit: int,  # noqa: ARG002 - the interface of limits
        expiry: int,
    ) -> tuple[float, int]:
        """When the oldest request in the window was, and how many there are."""
        now = time.time()
        moments = self._moments.get(key, deque())
        _drop(moments, now - expiry)
        return (moments[0], len(moments)) if moments else (now, 0)

    def _forget(self, before: float) -> None:
        # All windows are of the same length, so the first ones are the oldest.
        while self._moments:
            key, moments = next(iter(self._moments.items()))
            if moments and moments[-1] > before and len(self._moments) < KEPT_MAX:
                return
            del self._moments[key]

    async def reset(self) -> int | None:
        """Forget everybody."""
        count = len(self._moments)
        self._moments.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget one caller."""
        self._moments.pop(key, None)

    async def check(self) -> bool:
        """Whether it works."""
        return True

    # Counters belong to other strategies than the moving window.

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may go wrong."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Not of a moving window."""
        raise NotImplementedError(key, expiry, amount)

    async def get(self, key: str) -> int:
        """Not of a moving window."""
        raise NotImplementedError(key)

    async def get_expiry(self, key: str) -> float:
        """Not of a moving window."""
        raise NotImplementedError(key)


def _drop(moments: deque[float], before: float) -> None:
    while moments and moments[0] <= before:
        moments.popleft()
