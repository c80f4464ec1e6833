"""qemu-img, under limits: a hostile image can cost neither memory nor time without end."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from voidvm.errors import CommandFailed, NoSpace

TIMEOUT_S = 60.0
# 1 GiB of address space, 30 s of CPU, 64 files, no core: architecture, "foreign images".
_LIMITS = ("--as=1073741824", "--cpu=30", "--nofile=64", "--core=0")
# One sub-cluster per 4 KiB written: no write amplification on overlays (measured: 1.0 for 16).
_OVERLAY_OPTIONS = "extended_l2=on,cluster_size=128k"


class ImageInfo(Struct, frozen=True, kw_only=True):
    """What qemu-img says of an image."""

    format: str
    virtual_size_bytes: int
    has_backing: bool


class QemuImg:
    """The tool at `binary`."""

    def __init__(self, binary: str) -> None:
        self._binary = binary

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
        """What is said of an image of a known format; the file is never probed."""
        text = await self._run("info", "-f", image_format, "--output=json", str(path))
        answer = json.loads(text)
        return ImageInfo(
            format=answer["format"],
            virtual_size_bytes=answer["virtual-size"],
            has_backing="backing-filename" in answer,
        )

    async def _run(self, *arguments: str) -> bytes:
        """The tool's output. Raises `CommandFailed` with its words, `NoSpace` for a full disk."""
        process = await asyncio.create_subprocess_exec(
            *("prlimit", *_LIMITS, "--", self._binary, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, said = await process.communicate()
        except TimeoutError as error:
            raise CommandFailed(f"no end after {TIMEOUT_S:g} s", tool="qemu-img") from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            text = said.decode(errors="replace").strip()
            if "No space left" in text:
                raise NoSpace
            raise CommandFailed(_without_paths(text, arguments), tool="qemu-img")
        return output


def _without_paths(text: str, arguments: tuple[str, ...]) -> str:
    for argument in arguments:
        if argument.startswith("/"):
            text = text.replace(argument, Path(argument).name)
    return text.removeprefix("qemu-img: ")
