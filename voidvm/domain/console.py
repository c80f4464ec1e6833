"""Values of the serial console's calls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, field

from voidvm.domain.states import VmStatus
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


# What the service says on a console's socket beside the line's bytes.


class ConsoleHello(Value, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """The first message."""

    vm_id: str
    offset: Annotated[int, Meta(description="Of the first byte that follows.")]
    first_offset: Annotated[int, Meta(description="Of the oldest byte that is kept.")]
    mode: ConsoleMode
    viewers: int
    status: VmStatus


class ConsoleGap(Value, frozen=True, kw_only=True, tag="gap", tag_field="type"):
    """Bytes of the history that are kept no more: output goes on at `to`."""

    start: int = field(name="from")
    end: int = field(name="to")


class ConsoleStatus(Value, frozen=True, kw_only=True, tag="status", tag_field="type"):
    """The VM's status changed; the socket stays open while it is off."""

    status: VmStatus


class ConsoleViewers(Value, frozen=True, kw_only=True, tag="viewers", tag_field="type"):
    """Somebody came or left."""

    count: int


class ConsolePong(Value, frozen=True, kw_only=True, tag="pong", tag_field="type"):
    """The answer to `ping`."""

    id: str | int | None


class ConsoleError(Value, frozen=True, kw_only=True, tag="error", tag_field="type"):
    """What the client asked for cannot be done."""

    code: str
    message: str


CONSOLE_MESSAGES = (
    ConsoleHello,
    ConsoleGap,
    ConsoleStatus,
    ConsoleViewers,
    ConsolePong,
    ConsoleError,
)
