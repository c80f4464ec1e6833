"""One VM's serial console: one reader of its line, any number of viewers and writers.

QEMU writes each byte to the history file itself, beside the PTY. The file is the truth: it has
what was said while no service ran, and places every byte. The PTY tells *when* to look, and
stands in with its bytes while the file does not grow (a full disk). Viewers are positions in
the file, so a slow one costs no memory and can hold up nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from voidvm.domain.console import ConsoleMode
from voidvm.domain.states import VmStatus
from voidvm.hypervisor.serial import SerialLine
from voidvm.supervisor.history import Gap, History, Output

log = logging.getLogger(__name__)

CHUNK_BYTES = 65_536
INPUT_MAX_BYTES = 65_536
# A quick guest echoes a key every 0.7 ms; a flood comes as 19-byte reads, 8,000 a second.
# So: any read is passed on at once until more than this many fall into one window.
FLOOD_READS = 48
FLOOD_WINDOW_S = 0.02
FLOOD_PAUSE_S = 0.004
# How long the file may stay behind the PTY before the PTY's bytes are used.
FILE_LAG_S = 0.02
POLL_S = 0.5


class StatusNotice(Struct, frozen=True):
    """The VM's status changed."""

    status: VmStatus


class ViewersNotice(Struct, frozen=True):
    """Somebody came or went."""

    count: int


Seen = Output | Gap | StatusNotice | ViewersNotice


class Viewer:
    """One reader of a console: a place in its history and the news it has not seen."""

    def __init__(self, console: Console, *, offset: int, mode: ConsoleMode) -> None:
        self.mode = mode
        self.offset = offset
        self._console = console
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
            found = self._console.read(self.offset)
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

    def tell_status(self, status: VmStatus) -> None:
        """The newest status; an older one that was not seen yet is of no use any more."""
        self._status = status
        self.wake()

    def tell_count(self, count: int) -> None:
        """The newest number of viewers."""
        self._count = count
        self.wake()


class Console:
    """The console of one VM, from its making to its deletion, through any number of runs."""

    def __init__(self, path: Path, *, cap_bytes: int) -> None:
        self._history = History(path, cap_bytes=cap_bytes)
        self._loop = asyncio.get_running_loop()
        self._line: SerialLine | None = None
        self._viewers: set[Viewer] = set()
        self._end = self._history.end
        self._latest = Output(self._end, b"")
        # PTY bytes minus file bytes since both were last seen quiet; > 0: the file is behind.
        self._balance = 0
        self._unfiled = b""
        self._window_start = 0.0
        self._window_reads = 0
        self._resume: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lag: asyncio.TimerHandle | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._input: deque[bytes] = deque()
        self._input_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        if self._history.is_over_cap:
            self._trim()

    # What viewers use

    @property
    def first(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self._history.first

    @property
    def end(self) -> int:
        """The offset behind the newest byte that was passed on."""
        return self._end

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers)

    def tail(self, size: int) -> bytes:
        """The last bytes, at most `size`."""
        return self._history.tail(size)

    def read(self, offset: int, *, limit: int = CHUNK_BYTES) -> Output | Gap | None:
        """What stands at `offset`, None when nothing has come yet."""
        if offset >= self._end:
            return None
        latest = self._latest
        if offset == latest.offset and len(latest.data) <= limit:
            return latest
        if latest.offset < offset < latest.end:
            skipped = offset - latest.offset
            return Output(offset, latest.data[skipped : skipped + limit])
        return self._history.read(offset, limit=min(limit, self._end - offset))

    @asynccontextmanager
    async def viewing(self, *, offset: int, mode: ConsoleMode) -> AsyncIterator[Viewer]:
        """A viewer from `offset` on, for as long as the block lasts."""
        viewer = Viewer(self, offset=max(0, min(offset, self._end)), mode=mode)
        self._viewers.add(viewer)
        self._tell_count(but=viewer)
        self._look_regularly()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            self._tell_count()

    async def type(self, data: bytes) -> None:
        """Type on the guest's line; waits while the guest takes nothing and the queue is full.

        Without a line (the VM is off) what is typed is lost, as on any switched-off machine.
        """
        for start in range(0, len(data), INPUT_MAX_BYTES // 4):
            part = data[start : start + INPUT_MAX_BYTES // 4]
            while self._line is not None and self._input_bytes + len(part) > INPUT_MAX_BYTES:
                self._room.clear()
                await self._room.wait()
            if self._line is None:
                return
            self._input.append(part)
            self._input_bytes += len(part)
            self._flush_input()

    # What the machine uses

    def attach(self, line_path: str) -> None:
        """Open the line of a new run (or of one found again) and catch up with its file."""
        self.detach()
        self._line = SerialLine(line_path, on_readable=self._on_readable)
        self._balance, self._unfiled = 0, b""
        self._catch_up()
        self._look_regularly()

    def detach(self) -> None:
        """Let go of the line; what QEMU said last is read from the file."""
        for timer in (self._resume, self._lag):
            if timer is not None:
                timer.cancel()
        self._resume = self._lag = None
        if self._line is not None:
            self._line.close()
            self._line = None
        self._input.clear()
        self._input_bytes = 0
        self._room.set()
        self._catch_up()

    def tell_status(self, status: VmStatus) -> None:
        """Tell every viewer."""
        for viewer in self._viewers:
            viewer.tell_status(status)

    async def close(self) -> None:
        """Let go of line and file; viewers must be gone by now."""
        self.detach()
        if self._timer is not None:
            self._timer.cancel()
        if self._trimming is not None:
            await asyncio.gather(self._trimming, return_exceptions=True)
        self._history.close()

    # The line

    def _on_readable(self) -> None:
        line = self._line
        if line is None:
            return
        data = line.read()
        if data is None:
            # QEMU has closed its end; the machine will see it exit and detach.
            line.pause()
            self._catch_up()
            return
        self._balance += len(data)
        self._unfiled = (self._unfiled + data)[-CHUNK_BYTES:]
        self._catch_up()
        self._slow_down_in_flood(line)

    def _slow_down_in_flood(self, line: SerialLine) -> None:
        now = self._loop.time()
        if now - self._window_start > FLOOD_WINDOW_S:
            self._window_start, self._window_reads = now, 0
        self._window_reads += 1
        if self._window_reads > FLOOD_READS:
            line.pause()
            # Stay in the flood's rhythm: a few reads left before the next pause.
            self._window_start, self._window_reads = now + FLOOD_PAUSE_S, FLOOD_READS - 1
            self._resume = self._loop.call_later(FLOOD_PAUSE_S, line.resume)

    def _catch_up(self) -> None:
        """Pass on what the file has more than was passed on."""
        has_grown = False
        while True:
            found = self._history.read(self._end, limit=CHUNK_BYTES)
            if found is None:
                break
            has_grown = True
            self._balance -= found.end - self._end
            self._end = found.end
            if isinstance(found, Output):
                self._latest = found
        if self._balance <= 0:
            self._unfiled = b""
        elif self._lag is None:
            self._lag = self._loop.call_later(FILE_LAG_S, self._use_unfiled)
        if has_grown:
            self._wake()

    def _use_unfiled(self) -> None:
        """The file did not grow although the line spoke: pass on the line's own bytes."""
        self._lag = None
        self._catch_up()
        if self._lag is not None:
            self._lag.cancel()
            self._lag = None
        if self._balance > 0:
            data = self._unfiled[-self._balance :]
            self._latest = Output(self._end, data)
            self._end += len(data)
            self._history.bridge(self._end)
            self._balance, self._unfiled = 0, b""
            self._wake()

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.wake()
        if self._history.is_over_cap:
            self._trim()

    def _look_regularly(self) -> None:
        """Look at the file now and then: the line is silent before QEMU sees it open."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line is not None:
            if self._lag is None and self._history.end == self._end:
                self._balance = 0
            self._catch_up()
            self._timer = self._loop.call_later(POLL_S, self._look_regularly)

    def _trim(self) -> None:
        if self._trimming is None or self._trimming.done():
            self._trimming = self._loop.create_task(self._trim_in_thread(), name="console-trim")

    async def _trim_in_thread(self) -> None:
        try:
            await asyncio.to_thread(self._history.trim)
        except OSError as error:
            log.warning("cannot cap a console history: %s", error)
            # Once a minute at most: the file system will not learn it meanwhile.
            await asyncio.sleep(60)

    # Input

    def _flush_input(self) -> None:
        line = self._line
        if line is None:
            return
        while self._input:
            part = self._input[0]
            taken = line.write(part)
            self._input_bytes -= taken
            if taken < len(part):
                self._input[0] = part[taken:]
                line.when_writable(self._flush_input)
                break
            self._input.popleft()
        else:
            line.when_writable(None)
        if self._input_bytes <= INPUT_MAX_BYTES // 2:
            self._room.set()

    def _tell_count(self, *, but: Viewer | None = None) -> None:
        for viewer in self._viewers:
            if viewer is not but:
                viewer.tell_count(len(self._viewers))
