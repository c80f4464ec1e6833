"""A little room that guests cannot take: the service must work on a disk that they have filled."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from voidvm.bus import News, VmStatusChanged
from voidvm.domain.states import VmStatus
from voidvm.supervisor.paths import Layout
from voidvm.supervisor.space import NO_SPACE, SPACE_ENOUGH_BYTES

log = logging.getLogger(__name__)

# Less than what lets a paused guest go on, so that none is woken to take it.
RESERVE_BYTES: Final = 8 * 1024**2
_TAKEN_ABOVE_BYTES: Final = RESERVE_BYTES + 2 * SPACE_ENOUGH_BYTES


class Reserve:
    """A file without content, given up when the disk is full: the database's next pages fit."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.data
        self._file = layout.data / "reserve"

    def give_when_full(self) -> None:
        """Before the database is opened, which writes."""
        if _free(self._folder) < RESERVE_BYTES:
            self._give()

    def take(self) -> None:
        """Take the room, unless it is taken, or there is hardly any."""
        if self._file.exists() or _free(self._folder) < _TAKEN_ABOVE_BYTES:
            return
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("no room is kept for a full disk: %s", error.strerror)
            self._give()

    def on_news(self, news: News) -> None:
        """Give it when a guest has met the full disk, take it when one goes on."""
        if isinstance(news, VmStatusChanged):
            if news.reason == NO_SPACE:
                self._give()
            elif news.status is VmStatus.RUNNING:
                self.take()

    def _give(self) -> None:
        with suppress(FileNotFoundError):
            self._file.unlink()
            log.warning("the disk of %s is full: its reserve is in use", self._folder)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
