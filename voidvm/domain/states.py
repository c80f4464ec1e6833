"""The statuses of a VM and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class VmStatus(StrEnum):
    """What is known of a VM; set from observations only (QMP events, process exits)."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUSPENDED = "suspended"
    CRASHED = "crashed"
    ERROR = "error"
    UNRESPONSIVE = "unresponsive"
    DELETING = "deleting"


S = VmStatus

# A VM in one of these has a QEMU process, in the others it has none.
WITH_PROCESS: Final = frozenset({S.STARTING, S.RUNNING, S.PAUSED, S.STOPPING, S.UNRESPONSIVE})
STARTABLE: Final = frozenset({S.STOPPED, S.CRASHED, S.ERROR})

_ENDS: Final = frozenset({S.STOPPED, S.CRASHED, S.ERROR})

MOVES: Final[dict[VmStatus, frozenset[VmStatus]]] = {
    S.CREATING: frozenset({S.STOPPED, S.ERROR, S.DELETING}),
    S.STOPPED: frozenset({S.STARTING, S.DELETING, S.ERROR}),
    S.CRASHED: frozenset({S.STARTING, S.DELETING, S.ERROR, S.STOPPED}),
    S.ERROR: frozenset({S.STARTING, S.DELETING, S.STOPPED}),
    S.STARTING: frozenset({S.RUNNING, S.PAUSED, S.STOPPING, S.UNRESPONSIVE}) | _ENDS,
    S.RUNNING: frozenset({S.PAUSED, S.STOPPING, S.UNRESPONSIVE}) | _ENDS,
    S.PAUSED: frozenset({S.RUNNING, S.STOPPING, S.UNRESPONSIVE}) | _ENDS,
    S.STOPPING: frozenset({S.RUNNING, S.PAUSED, S.UNRESPONSIVE}) | _ENDS,
    S.UNRESPONSIVE: frozenset({S.RUNNING, S.PAUSED, S.STOPPING}) | _ENDS,
    S.SUSPENDED: frozenset({S.STARTING, S.STOPPED, S.DELETING}),
    S.DELETING: frozenset({S.STOPPED, S.ERROR}),
}


class MoveRefused(ValueError):
    """A move that the table does not have: a bug in VoidVM, not the client's fault."""

    def __init__(self, before: VmStatus, after: VmStatus) -> None:
        self.before = before
        self.after = after
        super().__init__(f"no move from {before} to {after}")


def check_move(before: VmStatus, after: VmStatus) -> None:
    """Raise `MoveRefused` unless a VM may go from `before` to `after`."""
    if after not in MOVES[before]:
        raise MoveRefused(before, after)
