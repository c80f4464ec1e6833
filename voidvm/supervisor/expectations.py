"""Events of QEMU that somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any


class Expectations:
    """What is waited for, each until it comes or its waiter gives up."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, dict[str, Any], asyncio.Future[None]]] = []

    def add(self, event: str, fields: dict[str, object]) -> asyncio.Future[None]:
        """Resolves when an event of this name comes, with these fields among others."""
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, fields, seen))
        return seen

    def fulfil(self, name: str, data: Mapping[str, object]) -> None:
        """An event has come."""
        waiting = [one for one in self._waiting if not one[2].done()]
        for event, fields, seen in waiting:
            if event == name and fields.items() <= data.items():
                seen.set_result(None)
        self._waiting = [one for one in waiting if not one[2].done()]


async def came(
    seen: asyncio.Future[None], *, before: asyncio.Future[Any], timeout_s: float
) -> bool:
    """Whether what is waited for has come, once it has, or something else, or time is over."""
    either: set[asyncio.Future[Any]] = {seen, before}
    await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return seen.done()
