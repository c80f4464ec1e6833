"""One VM's serial console: one reader of its line, any number of viewers and writers.

QEMU writes each byte to the history file itself, beside the PTY. The file is the truth: it has
what was said while no service ran, and places every byte. The PTY tells *when* to look, and how
it goes on before the file has it (supervisor/transcript.py). Viewers are positions in the file,
so a slow one costs no memory and can hold up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from voidvm.domain.console import ConsoleMode
from voidvm.domain.states import VmStatus
from voidvm.hypervisor.serial import SerialLine
from voidvm.supervisor.history import Gap, History, Output
from voidvm.supervisor.transcript import FILE_LAG_S, QUIET_S, Transcript
from voidvm.supervisor.viewer import Viewer
from voidvm.telemetry import Telemetry

log = logging.getLogger(__name__)

INPUT_MAX_BYTES = 65_536
# A quick guest echoes a key every 0.7 ms; a flood comes as 19-byte reads, 8,000 a second.
# So: any read is passed on at once until more than this many fall into one window.
FLOOD_READS = 48
FLOOD_WINDOW_S = 0.02
# After a pause as many bytes as that rate has brought tell that the flood goes on.
FLOOD_PAUSE_S, FLOOD_BYTES = 0.008, 256
# Looks at a file that alone can tell what comes next; each waits twice as long as the last.
FIRST_LOOK_S = 0.001
# Looks at a file whose line may be silent: QEMU takes up to a second to see it open, and says
# meanwhile what only the file has. Later they are for what nobody has thought of.
WATCHFUL_S, WATCHFUL_EVERY_S, EVERY_S = 5.0, 0.5, 4.0


class Records(Struct, frozen=True, kw_only=True):
    """What is kept of a run beside its status: so much of its console, and figures."""

    console_bytes: Callable[[], int]
    telemetry: Telemetry


class Console:
    """The console of one VM, from its making to its deletion, through any number of runs."""

    def __init__(self, path: Path, *, records: Records) -> None:
        self._history = History(path, cap_bytes=records.console_bytes)
        self._transcript = Transcript(self._history)
        self._traffic = records.telemetry.console
        self._loop = asyncio.get_running_loop()
        self._line: SerialLine | None = None
        self._viewers: set[Viewer] = set()
        self._window_start = 0.0
        self._window_reads = 0
        self._resume: asyncio.TimerHandle | None = None
        self._compare: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchful_until = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._trim_from = 0.0
        self._input: deque[bytes] = deque()
        self._input_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._cap()

    # What viewers use

    @property
    def first(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self._history.first

    @property
    def end(self) -> int:
        """The offset behind the newest byte that was passed on."""
        return self._transcript.end

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers)

    def tail(self, size: int) -> bytes:
        """The last bytes, at most `size`."""
        return self._history.tail(size)

    def read(self, offset: int, *, limit: int) -> Output | Gap | None:
        """What stands at `offset`, None when nothing has come yet."""
        return self._transcript.read(offset, limit=limit)

    @asynccontextmanager
    async def viewing(self, *, offset: int, mode: ConsoleMode) -> AsyncIterator[Viewer]:
        """A viewer from `offset` on, for as long as the block lasts."""
        viewer = Viewer(self._transcript, offset=max(0, min(offset, self.end)), mode=mode)
        self._viewers.add(viewer)
        self._tell_count(but=viewer)
        self._catch_up()
        self._look_soon()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            self._tell_count()

    def type_now(self, data: bytes) -> bool:
        """Type as `type` does if that needs no waiting; False: nothing was typed."""
        line = self._line
        if self._input or len(data) > INPUT_MAX_BYTES:
            return False
        if line is None:
            return True
        taken = line.write(data)
        self._traffic.input_bytes += len(data)
        if taken < len(data):
            self._input.append(data[taken:])
            self._input_bytes += len(data) - taken
            line.when_writable(self._flush_input)
        return True

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
            self._traffic.input_bytes += len(part)
            self._input.append(part)
            self._input_bytes += len(part)
            self._flush_input()

    # What the machine uses

    @property
    def has_line(self) -> bool:
        """Whether a line is open."""
        return self._line is not None

    def attach(self, line: int, *, is_silent: bool = True) -> None:
        """Take the open line of a new run, and catch up with its file.

        One that is found again is not `is_silent`: its guest may speak in this very moment.
        """
        try:
            self.detach()
        except BaseException:
            os.close(line)
            raise
        self._line = SerialLine(line, on_readable=self._on_readable)
        self._transcript.begin(self._loop.time(), is_silent=is_silent)
        self._watchful_until = self._loop.time() + WATCHFUL_S
        self._wake()
        self._look_regularly()
        self._look_soon()

    def detach(self) -> None:
        """Let go of the line; what QEMU said last is read from the file."""
        for timer in (self._resume, self._look, self._compare):
            if timer is not None:
                timer.cancel()
        self._resume = self._look = self._compare = None
        if self._line is not None:
            self._line.close()
            self._line = None
        self._input.clear()
        self._input_bytes = 0
        self._room.set()
        self._catch_up(is_line_lost=True)

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
        if not data:
            self._on_nothing(line)
            return
        now = self._loop.time()
        is_sure = self._hear(data, now)
        if now - self._window_start > FLOOD_WINDOW_S:
            self._window_start, self._window_reads = now, 0
        self._window_reads += 1
        if self._window_reads > FLOOD_READS:
            self._pause(line)
        if not is_sure:
            self._look_soon()

    def _on_nothing(self, line: SerialLine) -> None:
        if line.is_hung_up:
            # QEMU has closed its end; the machine will see it exit and detach.
            line.pause()
            self._catch_up(is_line_lost=True)

    def _hear(self, data: bytes, now: float) -> bool:
        """Pass on what the line has said; whether its word was enough for that."""
        offset = self._transcript.hear(data, now)
        if offset is None:
            self._compare_now()
        else:
            for viewer in self._viewers:
                viewer.offer(offset, data)
            if self._compare is None:
                self._compare = self._loop.call_later(FILE_LAG_S, self._compare_now)
        self._traffic.output_bytes += len(data)
        return offset is not None

    def _compare_now(self) -> None:
        if self._compare is not None:
            self._compare.cancel()
            self._compare = None
        if self._transcript.compare(self._loop.time()):
            self._wake()
        else:
            self._cap()

    def _pause(self, line: SerialLine) -> None:
        line.pause()
        self._resume = self._loop.call_later(FLOOD_PAUSE_S, self._go_on, line)

    def _go_on(self, line: SerialLine) -> None:
        self._resume = None
        size = 0
        try:
            data = line.read()
            size = len(data)
            if data:
                self._hear(data, self._loop.time())
            else:
                self._on_nothing(line)
        finally:
            # In a flood nobody need tell us that there is more: that takes eight calls of the
            # system. After it nobody is kept waiting.
            if size >= FLOOD_BYTES:
                self._pause(line)
            else:
                self._window_reads = 0
                line.resume()
        self._look_soon()

    def _catch_up(self, *, is_line_lost: bool = False) -> bool:
        """Pass on what the file has more than it had, and tell whether there was anything."""
        before = self.end
        if is_line_lost:
            self._transcript.lose_line()
        self._transcript.catch_up(self._loop.time())
        if has_more := self.end > before:
            self._wake()
        return has_more

    def _look_soon(self) -> None:
        """Look if it is of use, and if no pause is on after which we look anyway."""
        if self._transcript.needs_looks and self._resume is None:
            if self._look is not None:
                self._look.cancel()
            self._look_again(FIRST_LOOK_S)

    def _look_again(self, delay_s: float) -> None:
        self._look = self._loop.call_later(delay_s, self._look_now, delay_s)

    def _look_now(self, waited_s: float) -> None:
        self._look = None
        before = self.end
        self._catch_up()
        self._settle()
        # In a flood the line's timer looks, too.
        if self._transcript.needs_looks and self._resume is None:
            self._look_again(FIRST_LOOK_S if self.end > before else min(waited_s * 2, QUIET_S))

    def _settle(self) -> None:
        is_silent = self._line is None or not self._line.has_output
        if is_silent and self._transcript.settle(self._loop.time()):
            self._wake()

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.wake()
        self._cap()

    def _cap(self) -> None:
        if self._history.is_over_cap(self.end):
            self._trim()

    def _look_regularly(self) -> None:
        """Look at the file now and then, often while the line may not tell all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line is not None:
            now = self._loop.time()
            if self._catch_up() or self._transcript.needs_looks:
                self._watchful_until = now + WATCHFUL_S
            self._settle()
            self._look_soon()
            every_s = WATCHFUL_EVERY_S if now < self._watchful_until else EVERY_S
            self._timer = self._loop.call_later(every_s, self._look_regularly)

    def _trim(self) -> None:
        is_idle = self._trimming is None or self._trimming.done()
        if is_idle and self._loop.time() >= self._trim_from:
            self._trimming = self._loop.create_task(self._trim_in_thread(), name="console-trim")

    async def _trim_in_thread(self) -> None:
        try:
            await asyncio.to_thread(self._history.trim)
        except OSError as error:
            log.warning("cannot cap a console history: %s", error)
            # Once a minute at most: the file system will not learn it meanwhile.
            self._trim_from = self._loop.time() + 60

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
