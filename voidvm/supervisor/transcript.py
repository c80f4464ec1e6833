"""What a console's line and its file say, put in order: each byte once, at its offset, early.

QEMU writes each byte to the PTY and a moment later to the file, often later than we read the
PTY. So the line's bytes are passed on at once, and the file's are known when they come. Only the
file places a byte, though, so that holds while both are in step: QEMU drops what it says while it
takes the PTY for unopened, and then nobody knows where the next byte belongs until the file tells.
"""

from __future__ import annotations

from voidvm.supervisor.history import Gap, History, Output

CHUNK_BYTES = 65_536
# After so long without news from either, what is missing was lost: they are in step again.
QUIET_S = 0.05
# A file that stays behind while the line speaks on for so long cannot grow: the disk is full.
FILE_LAG_S = 0.25


class Transcript:
    """The newest end of a console; times are those of one monotonic clock."""

    def __init__(self, history: History) -> None:
        self._history = history
        # Offsets: how far the file goes, the line was heard, and was passed on.
        self._filed = self._heard = self._end = history.end
        self._is_in_step = True
        # The newest bytes, among them all that the file lacks.
        self._latest = Output(self._end, b"")
        self._spoke_at = self._grew_at = self._ahead_since = 0.0

    @property
    def end(self) -> int:
        """The offset behind the newest byte that was passed on."""
        return self._end

    @property
    def needs_looks(self) -> bool:
        """Whether only the file can tell what comes next, so that it is worth looking at."""
        return not self._is_in_step

    def read(self, offset: int, *, limit: int) -> Output | Gap | None:
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

    def begin(self, now: float, *, is_silent: bool) -> None:
        """A line was opened of which nothing is read yet; `is_silent`: its guest is only begun.

        Any other may have spoken after it was opened and before the file is read here: both have
        that, so they are in step after a silence only, and until then the file tells.
        """
        # What was passed on keeps its place, even if the last QEMU did not get to file it.
        self._history.bridge(self._end)
        self.catch_up(now)
        self._heard = self._filed = self._end
        self._is_in_step = is_silent
        self._spoke_at = self._grew_at = self._ahead_since = now

    def hear(self, data: bytes, now: float) -> bool:
        """The line has spoken; whether there is more to pass on."""
        before = self._end
        if self._heard <= self._filed:
            self._ahead_since = now
        self._heard += len(data)
        self._spoke_at = now
        # First, and each time: only a file that is not ahead of the line lets its bytes be placed.
        self.catch_up(now)
        if self._is_in_step:
            self._extend(data, self._heard)
        self._give_up_file()
        return self._end > before

    def catch_up(self, now: float) -> bool:
        """Read what the file has more than it had; whether there is more to pass on."""
        before = self._end
        while data := self._history.appended(self._filed, limit=CHUNK_BYTES):
            self._filed += len(data)
            self._extend(data, self._filed)
            self._grew_at = self._ahead_since = now
            if len(data) < CHUNK_BYTES:
                break
        if self._heard < self._filed:
            self._is_in_step = False
        return self._end > before

    def settle(self, now: float) -> None:
        """Draw the conclusion from a silence, if it was long enough for one.

        The line must have nothing more to read: what waits there is in the file already.
        """
        if not self._is_in_step and now - max(self._spoke_at, self._grew_at) >= QUIET_S:
            self._heard = self._filed
            self._is_in_step = True

    def _give_up_file(self) -> None:
        """Note that the file cannot grow, if the line has spoken on for long enough without it."""
        if self._heard > self._filed and self._spoke_at - self._ahead_since >= FILE_LAG_S:
            # A slow disk holds up QEMU, too: one that spoke on has failed to write.
            # Offsets stay true: what the file could not take becomes a hole in it.
            self._history.bridge(self._end)
            self._heard = self._filed = self._end
            self._is_in_step = True

    def _extend(self, data: bytes, end: int) -> None:
        """Take what is new of `data`, which goes up to the offset `end`."""
        start = self._end
        if end <= start:
            return
        data = data[start - end :]
        if start > self._filed:
            # The bytes before are not in the file either: keep them, for viewers a step behind.
            data = (self._latest.data + data)[-CHUNK_BYTES:]
        self._latest = Output(end - len(data), data)
        self._end = end
