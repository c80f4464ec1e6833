"""Folders that are no more needed, removed also where the host has no descriptor left for that."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
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
        await _do(_remove, folder)


async def empty_folder(folder: Path) -> None:
    """Remove all that is in it, if it is there; it stays. Waits and fails as `remove_folders`."""
    await _do(_empty, folder)


async def _do(removal: Callable[[Path], None], folder: Path) -> None:
    while (error := await asyncio.to_thread(_failure, removal, folder)) is not None:
        if of_host(error) is None:
            log.warning("cannot remove %s: %s", folder, error.strerror)
            break
        await asyncio.sleep(RETRY_S)


def _failure(removal: Callable[[Path], None], folder: Path) -> OSError | None:
    while folder.exists():
        try:
            removal(folder)
        except FileNotFoundError:
            # Somebody else removes it, too, and what is left is another try's.
            continue
        except OSError as error:
            return error
        break
    return None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
