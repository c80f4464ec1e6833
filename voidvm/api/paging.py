"""Pages of lists."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm.domain.vm import Value

PAGE_MAX = 200


class PageQuery(Value, frozen=True, kw_only=True):
    """Which page, and how long."""

    page: Annotated[int, Meta(ge=1, le=1_000_000, description="The first is 1.")] = 1
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="So many a page.")] = 50


class Page(Value, frozen=True, kw_only=True):
    """Where a page stands."""

    page: int
    limit: int
    total: int
    pages: int


def page_of(query: PageQuery, total: int) -> Page:
    """The place of the page that was asked for among all."""
    pages = -(-total // query.limit)
    return Page(page=query.page, limit=query.limit, total=total, pages=pages)
