"""What the service does by itself so that VMs run: a user's word ends it at any moment."""

from __future__ import annotations

from voidvm.services.autostarts import Autostarts
from voidvm.services.restarts import Restarts


class Upkeep:
    """Both kinds of automatic starts."""

    def __init__(self, restarts: Restarts, autostarts: Autostarts) -> None:
        self._restarts = restarts
        self._autostarts = autostarts

    async def restore(self) -> None:
        """Begin; every VM that still runs was found again before."""
        await self._restarts.restore()
        await self._autostarts.restore()

    async def close(self) -> None:
        """End; what is planned is gone on with by the next service."""
        await self._autostarts.close()
        await self._restarts.close()

    def is_due(self, vm_id: str) -> bool:
        """Whether a VM is to be started, or just being so."""
        return self._restarts.is_due(vm_id) or self._autostarts.is_due(vm_id)

    async def call_off(self, vm_id: str) -> bool:
        """Start it no more; whether it was to be. Its earlier attempts do not count any more."""
        was_due = await self._restarts.call_off(vm_id)
        return await self._autostarts.call_off(vm_id) or was_due
