"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.api.events`; do not edit.
"""

from __future__ import annotations

from voidvm.client.record import Record
from voidvm.client.types.event import Event


class EventList(Record):
    """Some events, oldest first."""

    events: list[Event]
    last_id: str
    has_more: bool
