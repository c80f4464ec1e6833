"""One viewer of a console: what it has not seen, in order, for whoever sends it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from voidvm.domain.console import ConsoleMode
from voidvm.domain.states import VmStatus
from voidvm.supervisor.history import Gap, Output
from voidvm.supervisor.transcript import Transcript


class StatusNotice(Struct, frozen=True):
    """The VM's status changed."""

    status: VmStatus


class ViewersNotice(Struct, frozen=True):
    """Somebody came or went."""

    count: int


Seen = Output | Gap | StatusNotice | ViewersNotice


class Viewer:
    """One reader of a console: a place in its history and the news it has not seen.

    While somebody waits in `next`, what the line says goes to `sink` instead, if there is one and
    it takes it: an echo is on its way without waking a task.
    """

    def __init__(self, transcript: Transcript, *, offset: int, mode: ConsoleMode) -> None:
        self.mode = mode
        self.offset = offset
        self.sink: Callable[[bytes], bool] | None = None
        self._transcript = transcript
        self._status: VmStatus | None = None
        self._count: int | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def next(self) -> Seen:
        """What comes next for this viewer; waits until there is something."""
        while True:
            if self._status is not None:
                status, self._status = self._status, None
                return StatusNotice(status)
            if self._count is not None:
                count, self._count = self._count, None
                return ViewersNotice(count)
            found = self._transcript.read(self.offset)
            if found is not None:
                self.offset = found.end
                return found
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def wake(self) -> None:
        """Look again: there may be something."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def offer(self, offset: int, data: bytes) -> None:
        """Take at once what goes on at `offset`, or look later."""
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        if self.offset == offset and self.sink is not None and self.sink(data):
            self.offset += len(data)
        else:
            waiting.set_result(None)

    def tell_status(self, status: VmStatus) -> None:
        """The newest status; an older one that was not seen yet is of no use any more."""
        self._status = status
        self.wake()

    def tell_count(self, count: int) -> None:
        """The newest number of viewers."""
        self._count = count
        self.wake()
