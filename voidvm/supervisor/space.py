"""The end of the host's disk, where guests wait until there is room again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from voidvm.errors import CommandFailed, VmNotRunning, VmUnresponsive

NO_SPACE = "io-error: no space"
SPACE_EVERY_S = 2.0
SPACE_ENOUGH_BYTES = 16 * 1024**2


async def resume_with_room(
    folder: Path, *, is_wanted: Callable[[], bool], resume: Callable[[], Awaitable[object]]
) -> None:
    """Resume whenever there is room below `folder`, for as long as that is wanted."""
    while is_wanted():
        await asyncio.sleep(SPACE_EVERY_S)
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, folder)
        except FileNotFoundError:
            return  # the VM was deleted meanwhile
        if usage.free >= SPACE_ENOUGH_BYTES and is_wanted():
            with suppress(CommandFailed, VmUnresponsive, VmNotRunning):
                await resume()
