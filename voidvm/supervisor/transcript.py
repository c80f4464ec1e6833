"""What a console's line and its file say, put in order: each byte once, at its offset, early.

QEMU writes each byte to the PTY and a moment later to the file, often later than we read the
PTY. So while both are in step the line's bytes are passed on at once, and the file's only confirm
them. Where they differ the file tells, and alone until a silence: QEMU drops what it says while it
takes the PTY for unopened, and then nobody knows where the line's next byte belongs. But for one
case: a full line makes QEMU write a byte to the file twice (supervisor/doubles.py).
"""

from __future__ import annotations

from voidvm.supervisor.history import Gap, History, Output

CHUNK_BYTES = 65_536
# After so long without news from either, what is missing was lost: they are in step again.
QUIET_S = 0.05
# A file that stays behind while the line speaks on for so long cannot grow: the disk is full.
FILE_LAG_S = 0.25
# A PTY takes 20,480 bytes that nobody reads (measured on Linux 6.18, written one by one), and gives
# them back 4,095 at a time. Where so many wait it may have been full, and the double is not far.
MANY_BYTES, DOUBTFUL_BYTES = 4095, 32_768
# QEMU tries again four times at most. One in hostile hands shall not fill the disk with notes.
DOUBLES_MAX, DOUBLES_EVER_MAX = 4, 4096
# So many are passed on before the file is looked at; none while QEMU may not have seen the line
# opened, which takes it a second at most.
UNCOMPARED_BYTES, OPENING_S = 2048, 2.0
# So many that the file has just once of late tell where the line is.
TELLING_BYTES = 64
# A search takes half a millisecond, and the line may say the same over and over for long: each is
# the first of these after the last, and twice as long after one that has failed, up to the second.
SEARCH_AGAIN_S, SEARCH_EVERY_S = 0.002, 0.1


class Transcript:
    """The newest end of a console; times are those of one monotonic clock.

    *In step*, each byte that the line says has its place: `_on_line` is what the file lacks, or was
    not compared with it, `_in_file` what waits on the line, and never are there both for long.
    *Out of step* the file is taken at its word at once, and the line is listened to (`_said`) for
    a sign of where it is.

    Not known are: doubles of a service that is killed while it hangs before a full line, or hangs
    in the second in which QEMU has not seen the line opened again; and those of output in which
    nothing is said just once (`yes`), while it is out of step.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        # Offsets: how far line and file are known to agree, and how far they were passed on.
        self._agreed = self._end = history.end
        # What just one of them is known to have said, from there on; both are empty out of step.
        self._in_file = self._on_line = b""
        # Without a line there is no step.
        self._is_in_step = False
        # In step: the byte before `_agreed` if both have said it, up to where such a one may be in
        # the file twice, and how many may be.
        self._last = b""
        self._doubtful_until = self._doubles_left = 0
        # How far the file's word was passed on. Out of step: what the line has said last, how many
        # bytes more than the file, how many waited there, and when that is looked for in the file.
        self._believed = 0
        self._said = b""
        self._surplus = self._waited = 0
        self._search_at, self._search_again_s = 0.0, SEARCH_AGAIN_S
        self._searched_at = 0.0
        # From when on the line is believed before the file was looked at.
        self._sure_from = 0.0
        # The newest bytes, among them all that the file lacks.
        self._latest = Output(self._end, b"")
        self._spoke_at = self._grew_at = 0.0
        # Since when the file has more than the line, and the line speaks while no file grows.
        self._ahead_since = 0.0
        self._alone_since: float | None = None

    @property
    def end(self) -> int:
        """The offset behind the newest byte that was passed on."""
        return self._end

    @property
    def needs_looks(self) -> bool:
        """Whether only the file can tell what comes next, so that it is worth looking at."""
        return not self._is_in_step or bool(self._in_file)

    @property
    def _filed(self) -> int:
        """How far the file was read."""
        return self._agreed + len(self._in_file)

    def read(self, offset: int, *, limit: int = CHUNK_BYTES) -> Output | Gap | None:
        """What stands at `offset`, None when nothing has come yet."""
        if offset >= self._end:
            return None
        latest = self._latest
        if offset == latest.offset and len(latest.data) <= limit:
            return latest
        if latest.offset <= offset < latest.end:
            skipped = offset - latest.offset
            return Output(offset, latest.data[skipped : skipped + limit])
        # No further than they agree: a double may stand behind that.
        known = self._agreed if offset < self._agreed < self._end else self._end
        return self._history.read(offset, limit=min(limit, known - offset))

    def begin(self, now: float, *, is_silent: bool) -> None:
        """A line was opened of which nothing is read yet; `is_silent`: its guest is only begun.

        Any other may have spoken after it was opened and before the file is read here: both have
        that, so they are in step after a silence only, and until then the file tells.
        """
        self.believe_file()
        # What was passed on keeps its place, even if the last QEMU did not get to file it.
        self._history.bridge(self._end)
        self.catch_up(now)
        self._agreed = self._end
        self._is_in_step = is_silent
        self._last, self._doubtful_until = b"", 0
        self._surplus = self._waited = 0
        self._search_at, self._search_again_s = now, SEARCH_AGAIN_S
        self._sure_from = now + OPENING_S
        self._spoke_at = self._grew_at = now
        self._alone_since = None

    def hear(self, data: bytes, now: float) -> int | None:
        """The line has spoken; the offset at which just that is to be passed on at once.

        It is compared later. Without such an offset `compare` tells what is to be passed on.
        A line that QEMU has seen opened loses nothing, unless it is full. So what it says need not
        wait for a look at the file, and nor does the client that a key's echo has woken: it often
        has its turn when ours ends.
        """
        self._spoke_at, self._waited = now, len(data)
        if not self._is_in_step:
            self._said = (self._said + data)[-TELLING_BYTES:]
            self._surplus += len(data)
            return None
        self._on_line += data
        if len(data) >= MANY_BYTES:
            self._doubt(len(data))
        if now < self._sure_from or not self._last or self._in_file:
            return None
        if self._agreed < self._doubtful_until:
            return None
        start, end = self._end, self._agreed + len(self._on_line)
        if start != end - len(data) or len(self._on_line) >= UNCOMPARED_BYTES:
            return None
        self._latest, self._end = Output(self._agreed, self._on_line), end
        return start

    def compare(self, now: float) -> bool:
        """Compare what was heard with the file; whether there is more to pass on."""
        before, heard, was_in_step = self._end, self._on_line, self._is_in_step
        self.catch_up(now)
        if self._is_in_step:
            self._extend(heard, self._agreed + len(self._on_line))
        else:
            if was_in_step:
                self._said = heard[-TELLING_BYTES:]
            if now >= max(self._search_at, self._searched_at + SEARCH_AGAIN_S):
                self._find_step(now)
        if not (self._on_line if self._is_in_step else self._surplus > 0):
            self._alone_since = None
        elif len(self._on_line) > CHUNK_BYTES:
            self._give_up_file()
        elif self._alone_since is None:
            self._alone_since = now
        elif self._spoke_at - self._alone_since >= FILE_LAG_S:
            self._give_up_file()
        return self._end > before

    def catch_up(self, now: float) -> bool:
        """Read what the file has more than it had; whether there is more to pass on."""
        before = self._end
        if not self._in_file:
            self._ahead_since = now
        while data := self._history.appended(self._filed, limit=CHUNK_BYTES):
            self._grew_at, self._alone_since = now, None
            self._in_file += data
            if self._is_in_step:
                self._agree()
            else:
                self._surplus -= len(self._in_file)
                self._take_file()
            if len(data) < CHUNK_BYTES:
                break
        if self._in_file and self._on_line:
            self._agree()
        return self._end > before

    def settle(self, now: float) -> bool:
        """Draw conclusions from a silence, if it was long enough; whether there is more to pass on.

        What the file alone has was lost on the line, or stands there twice. The line must have
        nothing more to read: what waits there is in the file already.
        """
        before = self._end
        # On a busy host QEMU may be held up before it tries again, or between line and file.
        quiet_s = FILE_LAG_S if self._is_doubtful else QUIET_S
        if self._in_file and now - max(self._spoke_at, self._ahead_since) >= quiet_s:
            self._drop_doubles()
            if self._in_file:
                self.believe_file()
        quiet_s = QUIET_S if self._grew_at >= self._spoke_at else FILE_LAG_S
        if not self._is_in_step and now - max(self._spoke_at, self._grew_at) >= quiet_s:
            self._is_in_step = True
            self._alone_since = None
        return self._end > before

    def lose_line(self) -> None:
        """There is no line any more: the file alone tells."""
        self._drop_doubles()
        self.believe_file()

    def believe_file(self) -> None:
        """Pass on what the file has, which alone tells from here on."""
        if self._is_in_step:
            self._surplus = len(self._on_line) - len(self._in_file)
            self._search_at, self._search_again_s = 0.0, SEARCH_AGAIN_S
        self._is_in_step = False
        self._on_line = self._said = b""
        self._take_file()

    def _agree(self) -> None:
        """Compare what was heard with what was filed, as far as both go."""
        if self._in_file == self._on_line:
            # The way of every key and echo.
            self._agreed += len(self._on_line)
            self._last = self._on_line[-1:]
            self._in_file = self._on_line = b""
            return
        is_short = len(self._in_file) < len(self._on_line)
        while (size := min(len(self._in_file), len(self._on_line))) and self._is_in_step:
            heard, filed = self._on_line[:size], self._in_file[:size]
            if heard != filed:
                pairs = enumerate(zip(heard, filed, strict=True))
                size = next(number for number, (one, other) in pairs if one != other)
            if size:
                self._last = heard[size - 1 : size]
                self._agreed += size
                self._on_line, self._in_file = self._on_line[size:], self._in_file[size:]
            elif self._is_doubtful and filed[:1] == self._last:
                self._step_over()
            elif is_short and self._believed <= self._agreed < self._end:
                # Passed on, and denied: a full disk has swallowed it, and has room again.
                self._extend(self._on_line, self._agreed + len(self._on_line))
                self._give_up_file()
            else:
                self.believe_file()
        # More than a PTY can hold: the line has lost it.
        if len(self._in_file) > CHUNK_BYTES:
            self.believe_file()

    def _drop_doubles(self) -> None:
        """Step over what the file alone has, if it is but the last byte again."""
        if not self._in_file.strip(self._last):
            while self._in_file and self._is_doubtful:
                self._step_over()

    def _step_over(self) -> None:
        """Drop what the file has next: it is what it had last. If it was shown it stays there."""
        self._doubles_left -= 1
        self._in_file = self._in_file[1:]
        if self._agreed < self._believed:
            # It was passed on, and keeps its place.
            self._agreed += 1
        else:
            self._history.step_over(self._agreed)

    def _find_step(self, now: float) -> None:
        """Find the line's place in the midst of output, by what it says."""
        if len(self._said) < TELLING_BYTES:
            return
        self._searched_at = now
        filed = self._history.tail(CHUNK_BYTES, end=self._agreed)
        start = filed.find(self._said)
        if start < 0 or filed.find(self._said, start + 1) >= 0:
            self._search_at = now + self._search_again_s
            self._search_again_s = min(2 * self._search_again_s, SEARCH_EVERY_S)
            return
        self._in_file = filed[start + TELLING_BYTES :]
        self._agreed -= len(self._in_file)
        self._last, self._said = self._said[-1:], b""
        self._is_in_step = True
        if self._waited >= MANY_BYTES:
            self._doubt(self._waited)

    def _doubt(self, waiting: int) -> None:
        """Note that so many bytes have waited on the line: it may have been full."""
        self._doubtful_until = self._agreed + waiting + DOUBTFUL_BYTES
        self._doubles_left = DOUBLES_MAX

    @property
    def _is_doubtful(self) -> bool:
        if self._agreed >= self._doubtful_until or not self._last:
            return False
        return self._doubles_left > 0 and self._history.doubles < DOUBLES_EVER_MAX

    def _take_file(self) -> None:
        """Take the file's word for all that it has."""
        filed, self._in_file = self._in_file, b""
        self._agreed += len(filed)
        self._last = b""
        self._believed = self._agreed
        self._extend(filed, self._agreed)

    def _give_up_file(self) -> None:
        """The file cannot grow: offsets stay true, what it could not take becomes a hole in it."""
        # A slow disk holds up QEMU, too: one that spoke on has failed to write.
        self._history.bridge(self._end)
        self._agreed = self._end
        self._in_file = self._on_line = self._last = b""
        self._is_in_step = True
        self._alone_since = None

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
