"""The connection under `voidvm top`: statuses and samples from `/ws`, made again when it breaks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from voidvm.cli.failures import CliError
from voidvm.cli.remote import Remote, ServiceError, Unreachable
from voidvm.cli.top.board import Board
from voidvm.client import Live
from voidvm.client.errors import Forbidden
from voidvm.client.flavours import Awaiting
from voidvm.client.retries import Patience

PAUSE_S: Final = 1.0
GIVE_UP_AFTER_S: Final = 60.0
# The messages of a round come together: after this silence there are no more.
SETTLE_S: Final = 0.2
# How much longer than two rounds take the service may be silent.
SPARE_S: Final = 10.0
_PASSING: Final = frozenset({429, 502, 503, 504})
_SAMPLES: Final = frozenset({"vm-metrics", "system-monitor"})


class Feed:
    """Fills a board from a service, for as long as somebody iterates."""

    def __init__(self, remote: Remote, board: Board, *, interval_s: float | None) -> None:
        self._remote = remote
        self._board = board
        self._interval_s = interval_s

    async def rounds(self) -> AsyncGenerator[bool]:
        """True when a round of measuring is on the board, False when only a status changed.

        Raises `CliError` when there is no service, or none any more.
        """
        patience = Patience(first_s=PAUSE_S, last_s=PAUSE_S, give_up_s=GIVE_UP_AFTER_S)
        is_known = False
        async with self._remote.awaiting() as client:
            while True:
                try:
                    async with client.live() as live, aclosing(self._read(live)) as news:
                        async for is_round in news:
                            is_known = True
                            patience.held()
                            self._board.trouble = ""
                            yield is_round
                except CliError as error:
                    if not is_known or not _passes(error):
                        raise
                    pause_s = patience.pause(error)
                    self._board.trouble = "The connection broke. Connecting again…"
                    yield False
                    await client.core.io.sleep(pause_s)

    async def _read(self, live: Live[Awaiting]) -> AsyncGenerator[bool]:
        """Put messages on the board; one yield for those that come together."""
        with self._remote.told():
            is_host_hidden = not await self._subscribe(live)
        if is_host_hidden and not self._board.running:
            yield True  # there is nothing to wait for
        heard_at = time.monotonic()
        while True:
            kinds = set()
            with self._remote.told():
                async for message in live.messages(timeout=SETTLE_S):
                    self._board.take(message.type, message.data, message["timestamp"])
                    kinds.add(message.type)
            if kinds or time.monotonic() - heard_at > 2 * self._every_s + SPARE_S:
                if not kinds and self._board.running:
                    raise self._remote.unreachable("it says nothing")
                heard_at = time.monotonic()
                # With nothing that runs there is nothing to measure but the host.
                yield not kinds or bool(kinds & _SAMPLES)

    async def _subscribe(self, live: Live[Awaiting]) -> bool:
        """Have all told that is to be shown; whether the host is, which is not everybody's."""
        self._board.begin((await live.subscribe("vm-status-all"))["vms"])
        samples = await live.subscribe("vm-metrics", interval=self._interval_s)
        self._every_s = float(samples["interval"])
        try:
            await live.subscribe("system-monitor", interval=self._interval_s)
        except Forbidden:
            return False
        return True


def _passes(error: CliError) -> bool:
    """Whether another attempt may help."""
    return isinstance(error, Unreachable) or (
        isinstance(error, ServiceError) and error.status in _PASSING
    )
