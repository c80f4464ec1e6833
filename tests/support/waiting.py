"""Waiting for a condition on a test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(is_so: Callable[[], bool], *, timeout_s: float = 20) -> None:
    """Return once it is so. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)
