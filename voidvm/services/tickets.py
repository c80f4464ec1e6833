"""Tickets for sockets that are about more than one console."""

from __future__ import annotations

from voidvm.domain.account import Principal
from voidvm.domain.console import Ticket
from voidvm.security.tickets import Grant, TicketBox
from voidvm.services.accounts import Accounts


class Tickets:
    """The use cases around tickets; consoles issue theirs from the same box."""

    def __init__(self, box: TicketBox, *, accounts: Accounts) -> None:
        self._box = box
        self._accounts = accounts

    def issue(self, principal: Principal) -> Ticket:
        """A credential for one connection to `/ws`, with all that the caller may."""
        ticket, expires_at = self._box.issue(
            user_id=principal.user_id,
            session_id=principal.session_id,
            vm_id=None,
            mode="write",
        )
        return Ticket(ticket=ticket, url=f"/api/v1/ws?ticket={ticket}", expires_at=expires_at)

    async def redeem(self, ticket: str) -> tuple[Principal, Grant] | None:
        """Whose ticket it is and what for, once; None when it is unknown, used or too old.

        Raises `Unauthorized` or `SessionEnded` when its user has lost its access meanwhile.
        """
        grant = self._box.redeem(ticket)
        if grant is None:
            return None
        return await self._accounts.principal(grant.session_id), grant
