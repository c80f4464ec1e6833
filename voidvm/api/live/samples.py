"""The newest round of measuring, put into JSON once for all who listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from voidvm.api.live.talk import encode
from voidvm.bus import Bus, News, Sampled


class Round:
    """One round; its messages are the same for everybody, so each is made once."""

    def __init__(self, number: int, news: Sampled) -> None:
        self.number = number
        self._news = news
        self._at = datetime.now(UTC)
        self._host: bytes | None = None
        self._vms: dict[str, bytes] = {}

    @property
    def vm_ids(self) -> list[str]:
        """The VMs that were measured."""
        return list(self._news.vms)

    def host(self) -> bytes:
        """The message about the host."""
        if self._host is None:
            self._host = encode("system-monitor", self._news.host, topic=True, at=self._at)
        return self._host

    def vm(self, vm_id: str) -> bytes | None:
        """The message about a VM; None when it was not measured."""
        if (sample := self._news.vms.get(vm_id)) is None:
            return None
        if (message := self._vms.get(vm_id)) is None:
            message = encode("vm-metrics", sample, topic=True, at=self._at)
            self._vms[vm_id] = message
        return message


class Samples:
    """Listens to the sampler; only the newest round is kept, so who is slow misses the older."""

    def __init__(self, bus: Bus, *, interval: Callable[[], float]) -> None:
        self.latest: Round | None = None
        self._interval = interval
        self._waiting: set[asyncio.Future[None]] = set()
        bus.subscribe(self._hear)

    @property
    def interval_s(self) -> float:
        """How often there is a round."""
        return self._interval()

    async def reach(self, number: int) -> Round:
        """The newest round, once that is `number` or a later one."""
        while self.latest is None or self.latest.number < number:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return self.latest

    def _hear(self, news: News) -> None:
        if not isinstance(news, Sampled):
            return
        self.latest = Round(self.latest.number + 1 if self.latest else 1, news)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
