"""Bytes that stand in a console's file once more than its guest has said them.

QEMU logs a byte that a full PTY refuses, and logs it again when the PTY has taken it
(`qemu_chr_write_buffer` in its chardev/char.c, from 5.2 on; seen with 7.2). A byte in the midst of
a file that QEMU appends to cannot be taken out, so what is superfluous is noted, in a file beside
it, and stepped over.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left, bisect_right
from pathlib import Path

log = logging.getLogger(__name__)

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Each note is as long, so that one that was cut short is known.
_DIGITS = 19


class Doubles:
    """Converts between offsets of the history and places of the file, which has more bytes."""

    def __init__(self, path: Path, *, size: int) -> None:
        """`size`: the file's; notes about places behind it are of another file."""
        self._path = path
        # How many there are.
        self.count = 0
        self._places: list[int] = []
        # The offsets of the bytes behind them.
        self._offsets: list[int] = []
        noted = _read(path)
        for place in noted:
            if place < size and place > (self._places[-1] if self._places else -1):
                self._take(place)
        if len(noted) > self.count:
            self._write(self._places, os.O_TRUNC)

    def add(self, place: int) -> None:
        """Note a place, which lies behind all others, for this process and for the next."""
        self._take(place)
        self._write([place], os.O_APPEND)

    def _write(self, places: list[int], how: int) -> None:
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_WRONLY | how, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(b"".join(b"%0*d\n" % (_DIGITS, place) for place in places))
        except OSError as error:
            log.warning("a byte that a console's file has twice will be shown twice: %s", error)

    def to_place(self, offset: int) -> int:
        """Where the byte at an offset stands."""
        return offset + bisect_right(self._offsets, offset) if self._offsets else offset

    def to_offset(self, place: int) -> int:
        """The offset of what stands at a place, or of what follows a superfluous byte."""
        return place - bisect_left(self._places, place)

    def next(self, place: int) -> int | None:
        """The nearest superfluous byte from a place on."""
        number = bisect_left(self._places, place)
        return self._places[number] if number < len(self._places) else None

    def _take(self, place: int) -> None:
        self._offsets.append(place - len(self._places))
        self._places.append(place)
        self.count += 1


def _read(path: Path) -> list[int]:
    try:
        fd = os.open(path, _FLAGS | os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            lines = file.read().removesuffix(b"\n").split(b"\n")
    except OSError:
        return []
    return [int(line) if len(line) == _DIGITS and line.isdigit() else -1 for line in lines]
