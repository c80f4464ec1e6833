"""A VM's serial console for programs: read, write, expect."""

from __future__ import annotations

import re
import time
from typing import Final, Literal, NamedTuple

from voidvm.client.core import Core
from voidvm.client.errors import ExpectTimeout
from voidvm.client.flavours import Closing, F, flow
from voidvm.client.link import Attached, Gap, Link, Output, Since, StatusNews, ViewersNews
from voidvm.client.requests import Ref

Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]

# Of output that nobody takes, the newest is kept.
KEPT_BYTES: Final = 4 * 1024**2
# A match may begin so far back in what was looked through before; all again would take its time.
OVERLAP_BYTES: Final = 65_536


class Expected(NamedTuple):
    """What fitted: its bytes, what came before them, and the place behind them."""

    match: re.Match[bytes]
    before: bytes
    offset: int

    @property
    def text(self) -> str:
        """What fitted, as text."""
        return self.match[0].decode(errors="replace")

    @property
    def groups(self) -> tuple[str | None, ...]:
        """The pattern's groups, as text."""
        return tuple(
            None if group is None else group.decode(errors="replace")
            for group in self.match.groups()
        )


class Console(Closing[F]):
    """One VM's serial console.

    It stays attached while the VM stops and starts. When the connection breaks, it is made again
    and goes on with the next byte: nothing is missing, and nothing comes twice. One thread or
    task may read and another one write.
    """

    def __init__(
        self, core: Core, vm: Ref, *, mode: Literal["read", "write"], since: Since
    ) -> None:
        super().__init__(core)
        self._link = Link(core, vm, mode=mode, since=since)
        self._kept = bytearray()
        self._end = since if isinstance(since, int) else None
        self.status: str | None = None
        """The VM's, as far as it is known."""
        self.viewers: int | None = None
        """How many watch, this one included."""
        self.missing = 0
        """Bytes that were kept no more when they were to be read."""

    @property
    def offset(self) -> int | None:
        """The place of the next byte that `read` or `expect` looks at; None before any."""
        return None if self._end is None else self._end - len(self._kept)

    @flow
    async def open(self) -> None:
        """Connect now, and not only when it is needed. Raises `VoidVMError`."""
        await self._opened()

    @flow
    async def read(self, *, timeout: float = 60) -> bytes:  # noqa: ASYNC109 - as its docstring says
        """What the guest wrote next; b"" when that was nothing for `timeout` seconds.

        Raises `VoidVMError` when there is no way back to the VM, as when it was deleted.
        """
        if not self._kept:
            await self._more(time.monotonic() + timeout)
        data = bytes(self._kept)
        self._kept.clear()
        return data

    @flow
    async def write(self, data: str | bytes) -> None:
        """Type on the line; text goes as UTF-8. Enter is a line feed."""
        await self._link.send(data.encode() if isinstance(data, str) else data)

    @flow
    async def expect(self, pattern: Pattern, *, timeout: float = 60) -> Expected:  # noqa: ASYNC109 - as its docstring says
        """Read until a regular expression fits; the next read begins behind it.

        It looks at all that was not read yet, so that what was written before is found too. Lines
        end with CR LF. Raises `ExpectTimeout` after `timeout` seconds; what came stays unread.
        """
        wanted = _compiled(pattern)
        ends_at = time.monotonic() + timeout
        begin = 0
        while (found := wanted.search(bytes(self._kept[begin:]))) is None:
            looked_at = self._end or 0
            if not await self._more(ends_at):
                raise ExpectTimeout(
                    f"{wanted.pattern!r} did not come within {timeout:g} s.", seen=bytes(self._kept)
                )
            new = (self._end or 0) - looked_at
            begin = max(0, len(self._kept) - new - OVERLAP_BYTES)
        before = bytes(self._kept[: begin + found.start()])
        del self._kept[: begin + found.end()]
        return Expected(found, before, self.offset or 0)

    @flow
    async def send_break(self) -> None:
        """Send a break on the line."""
        await self._link.send('{"type": "break"}')

    @flow
    async def seek(self, offset: int) -> None:
        """Read on from another place of the history."""
        await self._link.seek(offset)
        self._kept.clear()
        self._end = offset

    async def _opened(self) -> None:
        await self._link.attached(None)
        while self.status is None:
            await self._look(None)

    async def _close(self) -> None:
        await self._link.close()

    async def _more(self, ends_at: float) -> bool:
        """Wait for output; False when there was none in time."""
        try:
            while not await self._look(max(0.0, ends_at - time.monotonic())):
                pass
        except TimeoutError:
            return False
        return True

    async def _look(self, timeout_s: float | None) -> bool:
        """Take in what comes next; True when it is output. Raises `TimeoutError`."""
        news = await self._link.next(timeout_s)
        if isinstance(news, Output):
            self._kept += news.data
            self._end = news.offset + len(news.data)
            if len(self._kept) > KEPT_BYTES:
                del self._kept[:-KEPT_BYTES]
        elif isinstance(news, Gap):
            self._skip(news.end)
        elif isinstance(news, Attached):
            if self._end is not None and news.offset != self._end:
                self._skip(news.offset)
            self._end, self.status, self.viewers = news.offset, news.status, news.viewers
        elif isinstance(news, StatusNews):
            self.status = news.status
        elif isinstance(news, ViewersNews):
            self.viewers = news.viewers
        return isinstance(news, Output)

    def _skip(self, place: int) -> None:
        """Go on at another place; nothing is found across it."""
        if self._end is not None:
            self.missing += max(0, place - self._end)
        self._kept.clear()
        self._end = place


def _compiled(pattern: Pattern) -> re.Pattern[bytes]:
    if isinstance(pattern, re.Pattern):
        source, flags = pattern.pattern, pattern.flags & ~re.UNICODE
        return re.compile(source.encode() if isinstance(source, str) else source, flags)
    return re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
