"""Unpacks gzip, xz and zstd files, in a caged child that has nothing but its two descriptors.

The tools of the distribution do it, rather than libraries in our own process: a decoder that is
taken over by its input then has no rights, no files and no network; one way serves all three
(Python has no zstd before 3.14); several members, padding and checksums are theirs to know; and
the bytes never pass through the event loop.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from voidvm.errors import ImageInvalid, ImageTooLarge, NoSpace
from voidvm.hypervisor import tool
from voidvm.hypervisor.formats import Packing
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.img import Progress, check_space, partial, sync_folder
from voidvm.hypervisor.tool import Cage, Ended, Limits

# 128 MiB is the window of `zstd --long=27`, and twice what `xz -9` needs.
_COMMANDS: dict[Packing, list[str]] = {
    "gzip": ["gzip", "--decompress", "--stdout"],
    "xz": ["xz", "--decompress", "--stdout", "--memlimit-decompress=256MiB"],
    "zstd": ["zstd", "--decompress", "--stdout", "--memory=128MB", "--quiet"],
}
_MEMORY_BYTES = 512 * 1024**2
_CPU_BYTES_PER_S = 16 * 1024**2
_WALL_BYTES_PER_S = 4 * 1024**2

# An empty disk of 1 TiB is a zstd file of 100 kB. Up to here that is no attack.
RATIO_FREE_BYTES = 1024**3
RATIO_MAX = 1000


async def unpack(
    source: Path,
    *,
    packing: Packing,
    target: Path,
    cap_bytes: int,
    identity: Identity | None,
    on_progress: Progress | None = None,
) -> int:
    """Unpack a file that `formats.find` said to be packed so; the size of what comes out.

    Progress counts the packed bytes. `target` appears whole and durable, or not at all; until
    then it is called `partial(target)`. Cancelling ends the child and removes the file.
    Raises `ImageInvalid` for a file that is damaged or cut off, `ImageTooLarge` beyond
    `cap_bytes` or for a suspicious ratio, `NoSpace`.
    """
    part = partial(target)
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        packed = os.fstat(fd).st_size
        # It will hardly become smaller; how much larger nobody knows before.
        check_space(target.parent, packed)
        part.unlink(missing_ok=True)
        out = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            watch = _Watch(fd, out, packed_bytes=packed, on_progress=on_progress)
            ended = await tool.run(
                _COMMANDS[packing],
                limits=_limits(packed, cap_bytes),
                cage=Cage(identity=identity),
                stdin=fd,
                stdout=out,
                watch=watch.look,
            )
            size = os.fstat(out).st_size
            _check(ended, packing, size=size, cap_bytes=cap_bytes)
            watch.look()
            await asyncio.to_thread(os.fsync, out)
        finally:
            os.close(out)
        part.rename(target)
        await asyncio.to_thread(sync_folder, target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return size


class _Watch:
    """Looks how far the child is: its descriptors share their offsets with ours."""

    def __init__(
        self, source: int, out: int, *, packed_bytes: int, on_progress: Progress | None
    ) -> None:
        self._source = source
        self._out = out
        self._packed_bytes = packed_bytes
        self._on_progress = on_progress

    def look(self) -> None:
        """Tell the progress; raise `ImageTooLarge` for a bomb."""
        done = os.lseek(self._source, 0, os.SEEK_CUR)
        size = os.fstat(self._out).st_size
        allowed = max(RATIO_FREE_BYTES, done * RATIO_MAX)
        if size > allowed:
            raise ImageTooLarge(
                f"{done} packed bytes became more than {RATIO_MAX} times as many.", limit=allowed
            )
        if self._on_progress is not None:
            self._on_progress(done, self._packed_bytes)


def _limits(packed_bytes: int, cap_bytes: int) -> Limits:
    # What is unpacked is read and written; neither can be more than this.
    most = packed_bytes + min(cap_bytes, max(RATIO_FREE_BYTES, packed_bytes * RATIO_MAX))
    return Limits(
        memory_bytes=_MEMORY_BYTES,
        cpu_s=60 + most // _CPU_BYTES_PER_S,
        wall_s=120 + most / _WALL_BYTES_PER_S,
        # One byte more tells a file that just fits from one that does not.
        written_bytes=cap_bytes + 1,
    )


def _check(ended: Ended, packing: Packing, *, size: int, cap_bytes: int) -> None:
    if size > cap_bytes:
        raise ImageTooLarge("Unpacked it is larger than allowed.", limit=cap_bytes)
    if ended.status == 0:
        return
    if "No space left" in ended.said:
        raise NoSpace
    said = tool.words(ended, program=packing, names={})
    raise ImageInvalid(f"The file could not be unpacked: {said}")
