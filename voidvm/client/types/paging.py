"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.api.paging`; do not edit.
"""

from __future__ import annotations

from voidvm.client.record import Record


class Page(Record):
    """Where a page stands."""

    page: int
    limit: int
    total: int
    pages: int
