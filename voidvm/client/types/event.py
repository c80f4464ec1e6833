"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.event`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from voidvm.client.record import Record

EventKind = Literal[
    "vm.created",
    "vm.updated",
    "vm.status",
    "vm.crashed",
    "vm.restarting",
    "vm.restart-gave-up",
    "vm.autostart-failed",
    "vm.deleted",
    "disk.attached",
    "disk.updated",
    "disk.detached",
    "image.created",
    "image.updated",
    "image.deleted",
    "operation.created",
    "operation.status",
    "user.created",
    "user.updated",
    "user.deleted",
    "user.signed-in",
    "token.created",
    "token.deleted",
    "system.started",
    "system.stopping",
    "system.config",
    "system.health",
]
"""Everything that is told; what comes before the point is the kind of object."""


class Event(Record):
    """One thing that changed, as clients see it."""

    id: str
    event: EventKind
    level: Literal["info", "warning", "error"]
    vm_id: str | None
    user_id: str | None
    message: str
    data: dict[str, Any]
    created_at: datetime
