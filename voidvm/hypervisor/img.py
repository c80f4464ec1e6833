"""qemu-img, under limits: a hostile image can cost neither memory nor time without end.

What comes from outside is looked at by ourselves first (`formats`, `qcow2`); only then qemu-img
may open it, caged (`tool`), in the format that was found and no other. A disk is then converted,
so that a VM never has the foreign file open, but a fresh one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from voidvm.errors import ImageInvalid, ImageTooLarge, NoSpace
from voidvm.hypervisor import qcow2, tool
from voidvm.hypervisor.formats import DiskFormat
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.tool import Cage, Limits

# One sub-cluster per 4 KiB written: no write amplification on overlays (measured: 1.0 for 16).
_OVERLAY_OPTIONS = "extended_l2=on,cluster_size=128k"
# A copy of many gigabytes from a packed image to a slow disk must still come to its end.
_CONVERT_CPU_BYTES_PER_S = 16 * 1024**2
_CONVERT_WALL_BASE_S = 120.0
_CONVERT_WALL_BYTES_PER_S = 4 * 1024**2
_CONVERT_SLACK_BYTES = 16 * 1024**2
_PROGRESS = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_OWN = Limits()

Progress = Callable[[int, int | None], None]
"""Told the bytes that are done, and how many there are in all if that is known."""


class ImageInfo(Struct, frozen=True, kw_only=True):
    """What qemu-img says of an image."""

    format: str
    virtual_size_bytes: int
    has_backing: bool


class Measure(Struct, frozen=True, kw_only=True):
    """The size of the qcow2 file that an image would become: now, and when it is full."""

    required_bytes: int
    full_bytes: int


class QemuImg:
    """The tool at `binary`; as root foreign files are read as `identity`."""

    def __init__(self, binary: str, *, identity: Identity | None = None) -> None:
        self._binary = binary
        self._identity = identity

    async def create(self, path: Path, *, size_bytes: int, backing: Path | None = None) -> None:
        """A qcow2 file, empty or over `backing` (a qcow2 file of ours)."""
        over = ["-b", str(backing), "-F", "qcow2"] if backing else []
        await self._run(
            *("create", "-q", "-f", "qcow2", "-o", _OVERLAY_OPTIONS, *over),
            *(str(path), str(size_bytes)),
        )

    async def resize(self, path: Path, *, size_bytes: int) -> None:
        """Grow a qcow2 file that no QEMU has open."""
        await self._run("resize", "-q", "-f", "qcow2", str(path), str(size_bytes))

    async def info(self, path: Path, *, image_format: str) -> ImageInfo:
        """What is said of an image of ours; the file is never probed."""
        return _info(await self._run("info", "-f", image_format, "--output=json", str(path)))

    async def inspect(self, path: Path, *, found: DiskFormat, max_virtual_bytes: int) -> ImageInfo:
        """What a foreign disk is, of which `formats.find` said the format.

        Raises `ImageInvalid` with the reason when it refers to another file, when qemu-img
        cannot read it, or says other things than we found; `ImageTooLarge` for its disk.
        """
        with _foreign(path, self._identity) as fd:
            own = None
            if found == "qcow2":
                own = await asyncio.to_thread(_header, fd, max_virtual_bytes)
            source = _path(fd)
            ended = await self._try(
                *("info", "-f", found, "--output=json", source),
                cage=Cage(identity=self._identity, readable=(fd,)),
            )
        if ended.status != 0:
            said = tool.words(ended, program="qemu-img", names={source: "the image"})
            raise ImageInvalid(f"qemu-img: {said}")
        text = ended.output
        foreign = _other_files(json.loads(text), source)
        if foreign:
            raise ImageInvalid(f"The image needs another file ({', '.join(foreign)}).")
        info = _info(text)
        if info.format != found:
            raise ImageInvalid(f"The image is {found}; qemu-img takes it for {info.format}.")
        if own is not None and own.virtual_size_bytes != info.virtual_size_bytes:
            raise ImageInvalid("qemu-img finds another size in the header than VoidVM.")
        if info.virtual_size_bytes > max_virtual_bytes:
            raise ImageTooLarge(
                f"The disk has {info.virtual_size_bytes} bytes.", limit=max_virtual_bytes
            )
        if info.virtual_size_bytes == 0:
            raise ImageInvalid("The disk has no bytes.")
        return info

    async def measure(self, path: Path, *, source_format: DiskFormat) -> Measure:
        """How large a foreign disk becomes, one that `inspect` accepted. Raises `CommandFailed`."""
        with _foreign(path, self._identity) as fd:
            return await self._measure(fd, source_format, self._identity)

    async def _measure(
        self, fd: int, source_format: DiskFormat, identity: Identity | None
    ) -> Measure:
        text = await self._run(
            *("measure", "-f", source_format, "-O", "qcow2", "--output=json", _path(fd)),
            cage=Cage(identity=identity, readable=(fd,)),
            names={_path(fd): "the image"},
        )
        answer = json.loads(text)
        return Measure(required_bytes=answer["required"], full_bytes=answer["fully-allocated"])

    async def convert(
        self,
        source: Path,
        *,
        source_format: DiskFormat,
        target: Path,
        on_progress: Progress | None = None,
        is_own: bool = False,
    ) -> int:
        """Copy a foreign disk, one that `inspect` accepted, into a fresh qcow2 file; its size.

        An image of ours (`is_own`) keeps its owner meanwhile: others read it too.

        `target` appears whole and durable, or not at all: a copy that was cut off passes for an
        image, so it has the name `partial(target)` until it is complete. Cancelling ends
        qemu-img and removes the file. Raises `NoSpace` before it begins when the disk cannot
        fit, `CommandFailed` when qemu-img gives up.
        """
        part = partial(target)
        identity = None if is_own else self._identity
        try:
            with _foreign(source, identity) as fd:
                measure = await self._measure(fd, source_format, identity)
                check_space(target.parent, measure.required_bytes)
                with _fresh(part, identity) as out:
                    await self._convert(fd, out, source_format, measure, identity, on_progress)
                    size = await asyncio.to_thread(_accept, out, measure)
            part.rename(target)
            await asyncio.to_thread(sync_folder, target.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return size

    async def _convert(
        self,
        source: int,
        out: int,
        source_format: DiskFormat,
        measure: Measure,
        identity: Identity | None,
        on_progress: Progress | None,
    ) -> None:
        total = measure.required_bytes
        limits = Limits(
            cpu_s=60 + total // _CONVERT_CPU_BYTES_PER_S,
            wall_s=_CONVERT_WALL_BASE_S + total / _CONVERT_WALL_BYTES_PER_S,
            written_bytes=measure.full_bytes + _CONVERT_SLACK_BYTES,
        )
        shown = _Percent(total, on_progress)
        await self._run(
            *("convert", "-p", "-f", source_format, "-O", "qcow2", "-o", "compat=1.1"),
            *(_path(source), _path(out)),
            limits=limits,
            cage=Cage(identity=identity, readable=(source,), writable=(out,)),
            names={_path(source): "the image", _path(out): "the copy"},
            on_output=shown.take,
        )

    async def _run(
        self,
        *arguments: str,
        limits: Limits = _OWN,
        cage: Cage | None = None,
        names: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """The tool's output. Raises `CommandFailed` with its words, `NoSpace` for a full disk."""
        if names is None:
            names = {each: Path(each).name for each in arguments if each.startswith("/")}
        ended = await self._try(*arguments, limits=limits, cage=cage, on_output=on_output)
        tool.check(ended, program="qemu-img", names=names)
        return ended.output

    async def _try(
        self,
        *arguments: str,
        limits: Limits = _OWN,
        cage: Cage | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> tool.Ended:
        command = [self._binary, *arguments]
        return await tool.run(command, limits=limits, cage=cage, on_output=on_output)


def partial(target: Path) -> Path:
    """The name under which `target` is being made; what is left there is rubbish."""
    return target.with_name(f".{target.name}.part")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise `NoSpace` unless the file system of a folder has so many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise NoSpace(f"{needed_bytes} bytes are needed, {free} are free.")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Percent:
    """Reads qemu-img's `(12.34/100%)` and tells it on in bytes."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total = total
        self._on_progress = on_progress
        self._tail = b""

    def take(self, chunk: bytes) -> None:
        found = _PROGRESS.findall(self._tail + chunk)
        self._tail = (self._tail + chunk)[-16:]
        if found and self._on_progress is not None:
            percent = min(100.0, float(found[-1]))
            self._on_progress(int(self._total * percent / 100), self._total)


def _path(fd: int) -> str:
    """A path by which a child opens the file of an inherited descriptor, and no other file."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def _foreign(path: Path, identity: Identity | None) -> Iterator[int]:
    """A descriptor of a foreign file, lent to `identity` to read meanwhile.

    A path in /proc/self/fd asks for the file's own permission again, not for that of the folders
    above it, which stay closed to everybody else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise ImageInvalid(f"cannot open the file: {error.strerror}") from error
    before = os.fstat(fd)
    try:
        if identity is not None:
            os.fchown(fd, identity.uid, identity.gid)
        yield fd
    finally:
        if identity is not None:
            os.fchown(fd, before.st_uid, before.st_gid)
        os.close(fd)


@contextmanager
def _fresh(path: Path, identity: Identity | None) -> Iterator[int]:
    """A descriptor of a new file, lent to `identity` to write meanwhile."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if identity is not None:
            os.fchown(fd, identity.uid, identity.gid)
        yield fd
    finally:
        if identity is not None:
            os.fchown(fd, os.geteuid(), os.getegid())
        os.close(fd)


def _header(fd: int, max_virtual_bytes: int) -> qcow2.Qcow2Header:
    head = os.pread(fd, qcow2.HEAD_BYTES, 0)
    return qcow2.parse(
        head, file_size_bytes=os.fstat(fd).st_size, max_virtual_bytes=max_virtual_bytes
    )


def _accept(fd: int, measure: Measure) -> int:
    """Make the copy durable and answer its size.

    What wrote it has read a hostile file: it may have been taken over, so its work is checked
    like a file from outside.
    """
    os.fsync(fd)
    _header(fd, measure.full_bytes)
    return os.fstat(fd).st_size


def _info(text: bytes) -> ImageInfo:
    answer = json.loads(text)
    return ImageInfo(
        format=answer["format"],
        virtual_size_bytes=answer["virtual-size"],
        has_backing="backing-filename" in answer,
    )


def _other_files(answer: object, own: str) -> list[str]:
    """Every file that the output of `info` names, wherever, other than the image itself."""
    found: list[str] = []
    if isinstance(answer, dict):
        for key, value in answer.items():
            if isinstance(value, str):
                if "filename" in key or key == "data-file":
                    found += [value] if value != own else []
            else:
                found += _other_files(value, own)
    elif isinstance(answer, list):
        for value in answer:
            found += _other_files(value, own)
    return found
