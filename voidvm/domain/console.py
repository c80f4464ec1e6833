"""Values of the serial console's calls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from voidvm.domain.vm import Value

ConsoleMode = Literal["read", "write"]


class TicketRequest(Value, frozen=True, kw_only=True):
    """What a console ticket shall be good for."""

    mode: ConsoleMode = "write"


class Ticket(Value, frozen=True, kw_only=True):
    """A credential for one connection: once, for 30 s, for one user and session.

    One for a console is also for one VM and mode.
    """

    ticket: str
    url: Annotated[str, Meta(description="Path of the WebSocket with the ticket in it.")]
    expires_at: datetime


class SendRequest(Value, frozen=True, kw_only=True):
    """Text to type on the console."""

    text: Annotated[str, Meta(min_length=1, max_length=65_536)]


class Sent(Value, frozen=True, kw_only=True):
    """What was typed, and the history's end at that moment."""

    sent_bytes: int
    offset: int
