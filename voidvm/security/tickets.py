"""Tickets: credentials for one connection that work once, within seconds."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from voidvm.domain.console import ConsoleMode
from voidvm.security.tokens import fingerprint

TTL: Final = timedelta(seconds=30)
KEPT_MAX: Final = 10_000


class Grant(Struct, frozen=True, kw_only=True):
    """What a ticket is good for: one VM's console, or without `vm_id` whatever its user may."""

    user_id: str
    session_id: str
    vm_id: str | None
    mode: ConsoleMode
    expires_at: datetime


class TicketBox:
    """Tickets in memory: none outlives the service, which is all they are made for."""

    def __init__(self) -> None:
        self._grants: OrderedDict[str, Grant] = OrderedDict()

    def issue(
        self, *, user_id: str, session_id: str, vm_id: str | None, mode: ConsoleMode
    ) -> tuple[str, datetime]:
        """A ticket and when it ends."""
        now = datetime.now(UTC)
        while self._grants:
            oldest = next(iter(self._grants.values()))
            if oldest.expires_at > now and len(self._grants) < KEPT_MAX:
                break
            self._grants.popitem(last=False)
        ticket = secrets.token_urlsafe(24)
        grant = Grant(
            user_id=user_id,
            session_id=session_id,
            vm_id=vm_id,
            mode=mode,
            expires_at=now + TTL,
        )
        self._grants[fingerprint(ticket)] = grant
        return ticket, grant.expires_at

    def redeem(self, ticket: str) -> Grant | None:
        """What the ticket is good for, once; None when it is unknown, used or too old."""
        grant = self._grants.pop(fingerprint(ticket), None)
        return grant if grant is not None and grant.expires_at > datetime.now(UTC) else None
