"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeVar

from voidvm.client.flavours import Bound
from voidvm.client.record import Page, Record
from voidvm.client.requests import Request

R = TypeVar("R", bound=Record)

Ask = Callable[..., Request[Page[R]]]
"""What makes the request for a page, of its owner and the query."""

PAGE_MAX = 200


async def iterated(
    owner: Bound[Any], page: Ask[R], query: Mapping[str, Any]
) -> AsyncGenerator[R, None]:
    """Everything from a page on; what moves to the next page meanwhile comes only once."""
    query = {"page": 1, "limit": PAGE_MAX, **query}
    seen: set[object] = set()
    while True:
        found = await owner.core.send(page(owner, **query))
        for item in found:
            if item["id"] not in seen:
                seen.add(item["id"])
                yield item
        if not found or found.page >= found.pages:
            return
        query["page"] += 1


async def listed(owner: Bound[Any], page: Ask[R], query: Mapping[str, Any]) -> Page[R]:
    """All of a list, or the page that is asked for."""
    if {"page", "limit"} & query.keys():
        return await owner.core.send(page(owner, **query))
    items = [item async for item in iterated(owner, page, query)]
    return Page(items, page=1, limit=max(len(items), 1), total=len(items), pages=1)
