"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Mapping

from voidvm.cli.remote import Json, Remote

PAGE = 200


def collect(
    remote: Remote,
    path: str,
    key: str,
    *,
    query: Mapping[str, Json] | None = None,
    most: int | None = None,
) -> list[Json]:
    """The objects of a list, of all its pages; with `most` no more than so many."""
    found: list[Json] = []
    pages, page = 1, 0
    limit = min(PAGE, most or PAGE)
    while page < pages and (most is None or len(found) < most):
        page += 1
        data = remote.call("GET", path, query={**(query or {}), "page": page, "limit": limit})
        found += data[key]
        pages = data["pagination"]["pages"]
    return found[:most]
