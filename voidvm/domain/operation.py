"""Operations: long work that a client can watch, wait for and cancel."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from voidvm.domain.vm import Value


class OperationStatus(StrEnum):
    """Where an operation stands; `interrupted`: the service ended while it ran."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


OPEN: Final = frozenset({OperationStatus.PENDING, OperationStatus.RUNNING})


class Progress(Value, frozen=True, kw_only=True):
    """How far it is; null where that is not known."""

    percent: Annotated[float | None, Meta(description="Of the present stage.")] = None
    stage: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None


class OperationError(Value, frozen=True, kw_only=True):
    """Why it failed: the error that a direct call would have answered."""

    code: str
    message: str
    details: str = ""


class Operation(Value, frozen=True, kw_only=True):
    """An operation as clients see it."""

    id: str
    type: str
    status: OperationStatus
    progress: Progress
    resources: Annotated[list[str], Meta(description="Paths of the objects that it works on.")]
    error: OperationError | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    may_cancel: bool


class OperationRecord(Struct, frozen=True, kw_only=True):
    """An operation as it is stored."""

    id: str
    owner_id: str
    type: str
    status: OperationStatus = OperationStatus.PENDING
    progress: Progress = Progress()
    resources: list[str]
    vm_id: str | None = None
    error: OperationError | None = None
    created_by: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    may_cancel: bool = True

    @property
    def is_open(self) -> bool:
        """Whether it still runs or will."""
        return self.status in OPEN

    def show(self) -> Operation:
        """The operation for clients."""
        return Operation(
            id=self.id,
            type=self.type,
            status=self.status,
            progress=self.progress,
            resources=self.resources,
            error=self.error,
            created_by=self.created_by,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            may_cancel=self.may_cancel and self.is_open,
        )
