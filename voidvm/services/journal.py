"""Writes what the supervisor sees into the store."""

from __future__ import annotations

from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Run
from voidvm.store.vms import VmStore


class StoredJournal:
    """The supervisor's `Journal` on the table of VMs."""

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def record(
        self, vm_id: str, status: VmStatus, reason: str | None, run: Run | None, *, is_wanted: bool
    ) -> None:
        """Keep the newest state of a VM, and that it shall run if it `is_wanted`."""
        await self._vms.set_status(vm_id, status, reason, run=run, is_wanted=is_wanted)
