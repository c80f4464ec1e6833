"""Which QEMU is installed."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import suppress
from typing import Final

from voidvm.hypervisor.spawning import check_descriptors

# JSON for -netdev came with 7.2; extended L2 entries in qcow2 files with 5.2.
QEMU_MINIMUM: Final = (7, 2)
IMG_MINIMUM: Final = (5, 2)
TIMEOUT_S = 10.0

_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")


class ToolUnusable(Exception):
    """A tool is not installed or does not run; the text says which and why."""


async def installed_version(binary: str) -> str:
    """The version that a tool of QEMU's says it has, like "7.2.22". Raises `ToolUnusable`."""
    path = shutil.which(binary)
    if path is None:
        raise ToolUnusable(f"{binary} is not installed")
    try:
        check_descriptors()
        process = await asyncio.create_subprocess_exec(
            *(path, "--version"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise ToolUnusable(f"{path} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said = (await process.communicate())[0].decode(errors="replace")
    except TimeoutError as error:
        raise ToolUnusable(f"{path} --version does not end") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        # The pipe is let go of only when it has been read to its end.
        await process.communicate()
    found = _VERSION.search(said)
    if process.returncode != 0 or found is None:
        raise ToolUnusable(f"{path} --version says: {said.strip()[:200] or 'nothing'}")
    return found[1]


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
