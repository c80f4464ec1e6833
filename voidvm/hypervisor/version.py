"""Which QEMU is installed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Final

from voidvm.hypervisor.child import spawn

# JSON for -netdev came with 7.2; extended L2 entries in qcow2 files with 5.2.
QEMU_MINIMUM: Final = (7, 2)
IMG_MINIMUM: Final = (5, 2)
TIMEOUT_S = 10.0
SAID_MAX_BYTES: Final = 16_384

_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")


class ToolUnusable(Exception):
    """A tool is not installed or does not run; the text says which and why."""


async def installed_version(binary: str) -> str:
    """The version that a tool of QEMU's says it has, like "7.2.22". Raises `ToolUnusable`."""
    path = shutil.which(binary)
    if path is None:
        raise ToolUnusable(f"{binary} is not installed")
    try:
        child = spawn([str(Path(path).absolute()), "--version"], environ=os.environ)
    except OSError as error:
        raise ToolUnusable(f"{path} cannot be run: {error.strerror}") from error
    try:
        async with child, asyncio.timeout(TIMEOUT_S):
            async with asyncio.TaskGroup() as readers:
                parts = [
                    readers.create_task(pipe.read(limit=SAID_MAX_BYTES), name="version")
                    for pipe in (child.stdout, child.stderr)
                ]
            said = b"".join(part.result() for part in parts).decode(errors="replace")
            status = await child.wait()
    except TimeoutError as error:
        raise ToolUnusable(f"{path} --version does not end") from error
    found = _VERSION.search(said)
    if status != 0 or found is None:
        raise ToolUnusable(f"{path} --version says: {said.strip()[:200] or 'nothing'}")
    return found[1]


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
