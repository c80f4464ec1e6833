"""The end of the host's disk, where guests wait until there is room again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

NO_SPACE = "io-error: no space"
SPACE_EVERY_S = 2.0
SPACE_ENOUGH_BYTES = 16 * 1024**2


async def room(folder: Path, *, is_wanted: Callable[[], bool]) -> AsyncIterator[None]:
    """A turn whenever there is room below `folder`, for as long as that is wanted.

    Raises `FileNotFoundError` once the folder is gone.
    """
    while is_wanted():
        await asyncio.sleep(SPACE_EVERY_S)
        usage = await asyncio.to_thread(shutil.disk_usage, folder)
        if usage.free >= SPACE_ENOUGH_BYTES and is_wanted():
            yield
