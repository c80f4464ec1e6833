"""The status of a VM that nobody writes down."""

from __future__ import annotations

from voidvm.bus import Bus
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Run
from voidvm.supervisor.state import VmState


class NoJournal:
    """Keeps nothing."""

    async def record(
        self, vm_id: str, status: VmStatus, reason: str | None, run: Run | None, *, is_wanted: bool
    ) -> None:
        """Nothing is done."""


def state(status: VmStatus, *, run: Run | None = None) -> VmState:
    """A VM that has this status."""
    return VmState(
        "vm-1", label="one", journal=NoJournal(), bus=Bus(), status=status, reason=None, run=run
    )
