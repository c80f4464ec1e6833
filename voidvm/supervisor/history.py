"""A console's history: one file, written by QEMU, where a byte's place is its absolute offset.

The oldest bytes are given back to the file system by punching a hole at the front, so offsets
never shift, nothing is copied and no byte that QEMU appends meanwhile can be lost. Bytes that QEMU
has written once too often have no offset (supervisor/doubles.py).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from msgspec import Struct

from voidvm.supervisor.doubles import Doubles

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # linux/falloc.h
_BLOCK = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class Gap(Struct, frozen=True):
    """Bytes that are no more: from `start` up to `end`."""

    start: int
    end: int


class Output(Struct, frozen=True):
    """Bytes of the console, the first of them at `offset`."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + len(self.data)


class History:
    """The file of one VM's console, made when it is not there; `cap_bytes` gives its cap."""

    def __init__(self, path: Path, *, cap_bytes: Callable[[], int]) -> None:
        self._path = path
        self._cap = cap_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Not `with_suffix`: what is noted belongs to just this file.
        self._doubles = Doubles(path.with_name(f"{path.name}.doubles"), size=self._size)
        self._first = self._find_first()

    @property
    def first(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self._first

    @property
    def end(self) -> int:
        """The offset behind the newest byte."""
        return self._size - self._doubles.count

    @property
    def doubles(self) -> int:
        """How many bytes of the file were stepped over."""
        return self._doubles.count

    def read(self, offset: int, *, limit: int) -> Output | Gap | None:
        """What stands at `offset`: bytes, or a gap, or None at the end, and once it is closed."""
        if self._fd < 0:
            return None
        # Asked for first: what QEMU appends from here on is no gap because there was none before.
        end = self.end
        if offset >= end:
            return None
        doubles = self._doubles
        try:
            # A hole in the middle is what a full disk has swallowed.
            place = doubles.to_place(max(offset, self._first))
            start = doubles.to_offset(os.lseek(self._fd, place, os.SEEK_DATA))
        except OSError:
            return Gap(offset, end)
        if start > offset:
            return Gap(offset, start)
        stop = min(place + limit, os.lseek(self._fd, place, os.SEEK_HOLE))
        if (superfluous := doubles.next(place)) is not None:
            stop = min(stop, superfluous)
        data = os.pread(self._fd, stop - place, place)
        return Output(offset, data) if data else None

    def appended(self, offset: int, *, limit: int) -> bytes:
        """What has come since the file ended at `offset`: one call of the system, no gaps."""
        # All doubles lie before that.
        return os.pread(self._fd, limit, offset + self._doubles.count)

    def step_over(self, offset: int) -> None:
        """Take the byte at `offset` out: the file has it twice. No double lies behind it."""
        self._doubles.add(self._doubles.to_place(offset))

    def tail(self, size: int, *, end: int | None = None) -> bytes:
        """The last bytes (before the offset `end`), at most `size`."""
        end = self.end if end is None else end
        place, parts = max(self._first, end - size), list[bytes]()
        while place < end and (found := self.read(place, limit=end - place)) is not None:
            if isinstance(found, Gap):
                parts.clear()
            else:
                parts.append(found.data)
            place = found.end
        return b"".join(parts)

    def bridge(self, end: int) -> None:
        """Keep offsets true after QEMU could not write: the lost bytes become a hole."""
        if self.end < end:
            os.ftruncate(self._fd, self._doubles.to_place(end))

    def is_over_cap(self, end: int) -> bool:
        """Whether enough has gathered over the cap, up to `end`, to be worth a `trim`."""
        cap = self._cap()
        return end - self._first > cap + max(cap // 8, _BLOCK)

    def trim(self) -> None:
        """Give back what lies before the cap; may block, so call it in a thread."""
        front = (self._size - self._cap()) // _BLOCK * _BLOCK
        if front <= self._doubles.to_place(self._first):
            return
        result = _libc.fallocate(
            self._fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(front)
        )
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self._path))
        self._first = self._doubles.to_offset(front)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _find_first(self) -> int:
        end = self.end  # first, as above
        try:
            return self._doubles.to_offset(os.lseek(self._fd, 0, os.SEEK_DATA))
        except OSError:
            return end


def last_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """The end of a history that nobody has open; nothing of one that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return file.read(limit_bytes)
    except OSError:
        return b""
