"""A file on its way: what has arrived, how it goes on after a break, and its checksum."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx
from msgspec import Struct

from voidvm.domain.catalog import ChecksumAlgorithm
from voidvm.domain.checksums import Digest
from voidvm.errors import ImageTooLarge, NoSpace
from voidvm.hypervisor.img import Progress, check_space
from voidvm.services.places import Place

_FLUSH_BYTES = 1_048_576
_FLUSH_S = 1.0
_WRITE_S = 120.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Patience(Struct, frozen=True, kw_only=True):
    """How long a server is waited for, and how often it is asked again."""

    connect_s: float = 10.0
    silence_s: float = 30.0
    tries: int = 6
    """So many failures one after the other, with fewer than `step_bytes` gained between them."""
    step_bytes: int = 1_048_576
    first_pause_s: float = 1.0
    max_pause_s: float = 30.0
    slow_s: float = 60.0
    slow_bytes: int = 262_144
    """Less than this in `slow_s` counts as a broken connection."""

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures: each twice the one before."""
        return min(self.first_pause_s * 2.0 ** (failures - 1), self.max_pause_s)


class Broken(Exception):
    """A try that came to no end; another may. `place` is where it stopped."""

    def __init__(
        self,
        reason: str,
        *,
        place: Place | None = None,
        wait_s: float = 0.0,
        is_elsewhere_better: bool = False,
    ) -> None:
        self.place = place
        self.wait_s = wait_s
        self.is_elsewhere_better = is_elsewhere_better
        super().__init__(reason)


class Transfer:
    """Collects a body, over as many connections as it takes, in an empty file."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        cap_bytes: int,
        algorithm: ChecksumAlgorithm,
        patience: Patience,
        on_progress: Progress | None = None,
        folder: Path | None = None,
    ) -> None:
        self._file = file
        self._cap_bytes = cap_bytes
        self._algorithm = algorithm
        self._patience = patience
        self._on_progress = on_progress
        self._folder = folder
        self._hash = hashlib.new(algorithm)
        self._validator: str | None = None
        self._total: int | None = None
        self._buffer = bytearray()
        self._flushed_at = self._slow_since = time.monotonic()
        self._slow_bytes = 0
        self.done = 0
        """Bytes that are in the file and in the checksum."""

    def headers(self) -> dict[str, str]:
        """What asks for the rest of the file, if it is still the same one."""
        if not self.done or self._validator is None:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": self._validator}

    async def begin(self, response: httpx.Response) -> None:
        """Take note of an answer's head (200 or 206).

        Raises `ImageTooLarge`, `NoSpace`; `Broken` for a part that does not join on.
        """
        length = _length(response)
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            is_next = match is not None and int(match[1]) == self.done
            if match is None or not is_next or match[3] not in ("*", str(self._total)):
                await self.restart()
                raise Broken("the server sent another part than it was asked for")
        else:
            if self.done:
                await self.restart()
            self._total = length
            self._validator = _validator(response)
        if self._total is not None:
            self._check_cap(self._total)
            if self._folder is not None:
                check_space(self._folder, self._total - self.done)
        self._slow_since, self._slow_bytes = time.monotonic(), 0

    async def take(self, chunk: bytes) -> None:
        """Add bytes. Raises `ImageTooLarge`, `NoSpace`; `Broken` when too few of them come."""
        self._buffer += chunk
        self._slow_bytes += len(chunk)
        self._check_cap(self.done + len(self._buffer))
        now = time.monotonic()
        if len(self._buffer) >= _FLUSH_BYTES or now - self._flushed_at >= _FLUSH_S:
            await self.flush()
        if now - self._slow_since >= self._patience.slow_s:
            if self._slow_bytes < self._patience.slow_bytes:
                raise Broken(
                    f"the server sent {self._slow_bytes} bytes in {now - self._slow_since:.0f} s"
                )
            self._slow_since, self._slow_bytes = now, 0

    async def end(self) -> None:
        """The body is complete, says the connection; raises `Broken` when it is not."""
        await self.flush()
        if self._total is not None and self.done != self._total:
            raise Broken(f"{self.done} of {self._total} bytes arrived")

    async def flush(self) -> None:
        """Put what has arrived into the file and the checksum."""
        chunk = bytes(self._buffer)
        self._buffer.clear()
        self._flushed_at = time.monotonic()
        if chunk:
            await finished(lambda: self._append(chunk))
            self.done += len(chunk)
        if self._on_progress is not None:
            self._on_progress(self.done, self._total)

    async def restart(self) -> None:
        """Forget what has arrived: it belongs to another file, or cannot be joined on to."""
        self._buffer.clear()
        await finished(self._clear)
        self._hash = hashlib.new(self._algorithm)
        self._validator = None
        self._total = None
        self.done = 0

    def digest(self) -> Digest:
        """The checksum of what has arrived."""
        return Digest(algorithm=self._algorithm, hex=self._hash.hexdigest())

    def _append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise NoSpace(str(error.strerror)) from error
        self._hash.update(chunk)

    def _clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def _check_cap(self, size: int) -> None:
        if size > self._cap_bytes:
            raise ImageTooLarge("The download is larger than allowed.", limit=self._cap_bytes)


async def finished(call: Callable[[], object]) -> None:
    """Call in a thread; when this is cancelled, the call still ends before its file is closed."""
    calling = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait({calling}, timeout=_WRITE_S)
        raise


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def _validator(response: httpx.Response) -> str | None:
    """What tells this version of the file from another (RFC 9110, 13.1.5): no weak ETag does."""
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("last-modified") or None
