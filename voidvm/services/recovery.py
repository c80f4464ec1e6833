"""What a start of the service goes on with, and what of it a full disk may hold up: not the start.

Guests must be found and consoles served on a disk that they have filled themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from voidvm.errors import DatabaseUnusable, NoSpace, TooManyFiles, VoidVMError, of_host
from voidvm.operations.runner import Operations
from voidvm.services.services import Services
from voidvm.services.upkeep import Upkeep

log = logging.getLogger(__name__)

# How soon a step that found no room is tried again.
RETRY_S: Final = 2.0


class Recovery:
    """Runs once, when the service starts; each step may be tried again while the service works."""

    def __init__(self, services: Services, *, operations: Operations, upkeep: Upkeep) -> None:
        self._services = services
        self._operations = operations
        self._upkeep = upkeep
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self, *, starts_vms: bool) -> None:
        """Find every running VM again first, then tidy up and go on with what was cut short.

        VMs that are to be started come last, when all is as it should be.
        """
        services = self._services
        await services.vms.restore()
        await self._attempt("marking what was interrupted", self._operations.restore)
        await self._attempt("comparing disks with their files", services.disks.restore)
        await services.imports.sweep()
        await self._attempt("going on with uploads", services.uploads.restore)
        await services.creation.resume()
        if starts_vms:
            await self._attempt("beginning to start VMs", self._upkeep.restore)

    async def close(self) -> None:
        """End; what still waits for room is the next service's."""
        for task in tuple(self._waiting):
            task.cancel()
            await asyncio.wait([task])

    async def _attempt(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except NoSpace as error:
            log.warning("%s waits for room: %s", what, error)
            task = asyncio.create_task(_try_again(what, step), name="recovery")
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)


async def _try_again(what: str, step: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(RETRY_S)
        try:
            await step()
        except (VoidVMError, OSError) as error:
            lack = of_host(error) if isinstance(error, OSError) else error
            if isinstance(lack, NoSpace | TooManyFiles | DatabaseUnusable):
                continue
            log.exception("%s failed", what)
        return
