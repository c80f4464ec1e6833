"""The audit log: who did what to which object, from where, with which result."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from voidvm.domain.vm import Value

Level = Literal["info", "warning", "error"]


class AuditEntry(Value, frozen=True, kw_only=True):
    """One thing that was done, or tried."""

    id: int = 0
    at: datetime
    level: Level
    user_id: str | None
    username: Annotated[
        str | None,
        Meta(
            description="As it was then; of a sign-in that failed, who was meant, if there is one."
        ),
    ]
    address: str
    action: Annotated[
        str,
        Meta(
            description="The operation's id in the OpenAPI document; 'unmatched': no such address "
            "or method, or a body that was too large to be read."
        ),
    ]
    target: Annotated[str | None, Meta(description="The object, as the path or answer names it.")]
    status: Annotated[
        int,
        Meta(
            description="The HTTP status of the answer; 101: a socket was opened; 499: the caller "
            "hung up before the answer, and what was begun may well have been done."
        ),
    ]
    code: Annotated[str | None, Meta(description="The error's code, null for a success.")]
    request_id: str


def level_of(status: int) -> Level:
    """How much an answer deserves a look."""
    if status >= 500:
        return "error"
    return "warning" if status >= 400 else "info"
