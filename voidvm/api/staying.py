"""Callers that stay for a while: what ends their access ends what they are waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from voidvm.api.clients import check_access
from voidvm.api.routing import Endpoint
from voidvm.bus import AccessChanged, Bus, News, SessionEnded
from voidvm.domain.account import Principal
from voidvm.services.accounts import Accounts

T = TypeVar("T")


def concerns(news: News, principal: Principal) -> bool:
    """Whether this says that the caller may do less from now on, or something else."""
    if isinstance(news, SessionEnded):
        return news.session_id == principal.session_id
    return (
        isinstance(news, AccessChanged)
        and news.user_id == principal.user_id
        and news.but != principal.session_id
    )


async def while_allowed(
    work: Awaitable[T],
    *,
    endpoint: Endpoint,
    principal: Principal,
    accounts: Accounts,
    bus: Bus,
) -> T:
    """What `work` answers, if the caller may still hear it; else `work` is cancelled at once.

    Raises as `work` does, and as a new request of the caller would be refused: `SessionEnded`,
    `Unauthorized`, `Forbidden`, `PasswordChangeRequired`.
    """
    changed = asyncio.Event()

    def hear(news: News) -> None:
        if concerns(news, principal):
            changed.set()

    leave = bus.subscribe(hear)
    working, noticing = asyncio.ensure_future(work), asyncio.ensure_future(changed.wait())
    try:
        while not working.done():
            await asyncio.wait((working, noticing), return_when=asyncio.FIRST_COMPLETED)
            if noticing.done():
                changed.clear()
                noticing = asyncio.ensure_future(changed.wait())
            # Also when the work has ended: a session may run out without any news.
            check_access(await accounts.principal(principal.session_id), endpoint)
        return working.result()
    finally:
        leave()
        working.cancel()
        noticing.cancel()
        await asyncio.gather(working, noticing, return_exceptions=True)
