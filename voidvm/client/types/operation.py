"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.operation`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record

OperationStatus = Literal["pending", "running", "succeeded", "failed", "cancelled", "interrupted"]
"""Where an operation stands; `interrupted`: the service ended while it ran."""


class Operation(Record):
    """An operation as clients see it."""

    id: str
    type: str
    status: OperationStatus
    progress: Progress
    resources: list[str]
    error: OperationError | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    may_cancel: bool


class OperationError(Record):
    """Why it failed: the error that a direct call would have answered."""

    code: str
    message: str
    details: str


class Progress(Record):
    """How far it is; null where that is not known."""

    percent: float | None
    stage: str
    bytes_done: int | None
    bytes_total: int | None
