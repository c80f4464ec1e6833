"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.audit`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record


class AuditEntry(Record):
    """One thing that was done, or tried."""

    id: int
    at: datetime
    level: Literal["info", "warning", "error"]
    user_id: str | None
    username: str | None
    address: str
    action: str
    target: str | None
    status: int
    code: str | None
    request_id: str
