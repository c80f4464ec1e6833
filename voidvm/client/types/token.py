"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.token`; do not edit.
"""

from __future__ import annotations

from datetime import datetime

from voidvm.client.record import Record


class ApiToken(Record):
    """An API token as clients see it, without its secret."""

    id: str
    name: str
    permissions: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewApiToken(Record):
    """An API token that was just made: the only time that it is shown."""

    id: str
    name: str
    permissions: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    token: str
