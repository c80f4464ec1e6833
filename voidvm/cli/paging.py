"""Lists that come in pages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from voidvm.cli.remote import Remote

T = TypeVar("T")

_PAGE_MAX = 200


def collect(
    remote: Remote,
    iterate: Callable[..., Iterator[T]],
    *,
    most: int = sys.maxsize,
    **query: Any,  # noqa: ANN401 - handed on
) -> list[T]:
    """What one of the client's lists has, of it no more than so many."""
    with remote.told():
        return list(islice(iterate(limit=min(most, _PAGE_MAX), **query), most))
