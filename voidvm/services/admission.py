"""The way of a foreign file into the house: found out, unpacked, checked, made our own."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from voidvm.domain.checksums import Digest, parse_digest
from voidvm.domain.image import ImageKind
from voidvm.errors import ChecksumMismatch, ImageInvalid
from voidvm.hypervisor import formats
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.img import Progress, QemuImg
from voidvm.hypervisor.unpack import unpack
from voidvm.operations.progress import ProgressSink

READ_BYTES: Final = 1 << 20
# The largest disk that an image may promise: qcow2's own limit is beyond every host.
VIRTUAL_MAX_BYTES: Final = 64 * 1024**4


class Admitted(Struct, frozen=True, kw_only=True):
    """A file that is ours now."""

    file: Path
    kind: ImageKind
    format: Literal["qcow2", "raw", "iso"]
    virtual_size_bytes: int


class Admission:
    """Nothing that a sender says is believed: the content decides."""

    def __init__(
        self, img: QemuImg, *, identity: Identity | None, cap_bytes: Callable[[], int]
    ) -> None:
        self._img = img
        self._identity = identity
        self.cap_bytes = cap_bytes

    async def digest(
        self, file: Path, wanted: str | None, *, on_progress: Progress | None = None
    ) -> Digest:
        """The checksum of a file. Raises `ChecksumMismatch` when another one is wanted."""
        expected = parse_digest(wanted) if wanted else None
        algorithm = expected.algorithm if expected else "sha256"
        found = Digest(algorithm=algorithm, hex=await _hash(file, algorithm, on_progress))
        if expected is not None and found != expected:
            raise ChecksumMismatch(f"Expected {expected}, got {found}.")
        return found

    async def admit(
        self, source: Path, draft: Path, *, declared: str | None, progress: ProgressSink
    ) -> Admitted:
        """Make a file of our own from a foreign one; `draft` is a folder for the pieces.

        Raises `ImageInvalid`, `ImageTooLarge`, `NoSpace`, `CommandFailed`. The source stays.
        """
        progress.stage("inspect")
        found = await asyncio.to_thread(formats.find, source)
        if found.packing is not None:
            progress.stage("unpack")
            unpacked = draft / "unpacked"
            await unpack(
                source,
                packing=found.packing,
                target=unpacked,
                cap_bytes=self.cap_bytes(),
                identity=self._identity,
                on_progress=progress.bytes,
            )
            source, found = unpacked, await asyncio.to_thread(formats.find, unpacked)
        if found.format is None:
            raise ImageInvalid("The file is packed twice; unpack it first.")
        formats.check_declared(found.format, declared)
        if found.format in {"iso", "kernel", "initrd"}:
            return await self._copy(source, draft, found.format)
        disk: formats.DiskFormat = found.format  # type: ignore[assignment]  # the rest are disks
        info = await self._img.inspect(source, found=disk, max_virtual_bytes=VIRTUAL_MAX_BYTES)
        progress.stage("convert")
        made = draft / "disk.qcow2"
        await self._img.convert(source, source_format=disk, target=made, on_progress=progress.bytes)
        return Admitted(
            file=made, kind="disk", format="qcow2", virtual_size_bytes=info.virtual_size_bytes
        )

    @staticmethod
    async def _copy(source: Path, draft: Path, found: formats.ImageFormat) -> Admitted:
        made = draft / "plain"
        await asyncio.to_thread(shutil.copyfile, source, made)
        # QEMU opens a kernel anew, as an unprivileged user, through /proc/self/fd.
        made.chmod(0o600 if found == "iso" else 0o644)
        return Admitted(
            file=made,
            kind="iso" if found == "iso" else "kernel",
            format="iso" if found == "iso" else "raw",
            virtual_size_bytes=made.stat().st_size,
        )


async def _hash(file: Path, algorithm: str, on_progress: Progress | None) -> str:
    total = file.stat().st_size
    digest = hashlib.new(algorithm)
    done = 0
    with file.open("rb") as opened:
        while piece := await asyncio.to_thread(opened.read, READ_BYTES):
            await asyncio.to_thread(digest.update, piece)
            done += len(piece)
            if on_progress is not None:
                on_progress(done, total)
    return digest.hexdigest()
