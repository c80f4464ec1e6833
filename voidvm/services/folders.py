"""Folders that are no more needed, removed also where the host has no descriptor left for that."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Final

from voidvm.errors import of_host

log = logging.getLogger(__name__)

# How soon a folder that could not be opened is tried again.
RETRY_S: Final = 0.5


async def remove_folders(*folders: Path) -> None:
    """Remove them with all that is in them, those that are there.

    It waits for as long as the host lacks what removing takes. Whatever else keeps one is told in
    the log, and the next start of the service removes what belongs to nothing.
    """
    for folder in folders:
        while (error := await asyncio.to_thread(_failure, folder)) is not None:
            if of_host(error) is None:
                log.warning("cannot remove %s: %s", folder, error.strerror)
                break
            await asyncio.sleep(RETRY_S)


def _failure(folder: Path) -> OSError | None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        # It is not there; or somebody else removes it, too, and what is left is another try's.
        return _failure(folder) if folder.exists() else None
    except OSError as error:
        return error
    return None
