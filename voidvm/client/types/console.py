"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.console`; do not edit.
"""

from __future__ import annotations

from datetime import datetime

from voidvm.client.record import Record


class Sent(Record):
    """What was typed, and the history's end at that moment."""

    sent_bytes: int
    offset: int


class Ticket(Record):
    """A credential for one connection: once, for 30 s, for one user and session."""

    ticket: str
    url: str
    expires_at: datetime
