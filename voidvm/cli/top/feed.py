"""The connection under `voidvm top`: statuses and samples from `/ws`, made again when it breaks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import Json, Remote, ServiceError, Unreachable, is_loopback
from voidvm.cli.top.board import Board

OPEN_TIMEOUT_S: Final = 10.0
PAUSE_S: Final = 1.0
GIVE_UP_AFTER_S: Final = 60.0
# The messages of a round come together: after this silence there are no more.
SETTLE_S: Final = 0.2
# A message is one VM; statuses of all VMs come in one.
MESSAGE_MAX_BYTES: Final = 16 * 1024**2
_PASSING = {429, 502, 503, 504}
_TOPICS: Final = ("vm-status-all", "vm-metrics", "system-monitor")


class Feed:
    """Fills a board from a service, for as long as somebody iterates."""

    def __init__(self, remote: Remote, board: Board, *, interval_s: float | None) -> None:
        self._remote = remote
        self._board = board
        self._interval_s = interval_s
        self._measures_every_s = 5.0
        self._is_host_hidden = False

    async def rounds(self) -> AsyncGenerator[bool]:
        """True when a round of measuring is on the board, False when only a status changed.

        Raises `CliError` when there is no service, or none any more.
        """
        lost_at, was_there = 0.0, False
        while True:
            try:
                async with await self._open() as socket:
                    await self._subscribe(socket)
                    async with aclosing(self._read(socket)) as news:
                        async for is_round in news:
                            lost_at, was_there = 0.0, True
                            self._board.trouble = ""
                            yield is_round
            except (ConnectionClosed, CliError) as error:
                now = time.monotonic()
                is_too_long = lost_at > 0 and now - lost_at > GIVE_UP_AFTER_S
                if not was_there or is_too_long or not _passes(error):
                    raise self._end(error) from error
                lost_at = lost_at or now
                self._board.trouble = "The connection broke. Connecting again…"
                yield False
            await asyncio.sleep(PAUSE_S)

    # Connecting

    async def _open(self) -> ClientConnection:
        """A connection, with a new access token where the saved one is refused."""
        token = await asyncio.to_thread(self._remote.access_token)
        try:
            return await self._dial(token)
        except InvalidStatus as refused:
            error = refused
        if error.response.status_code == 401 and await asyncio.to_thread(self._remote.renew, token):
            try:
                return await self._dial(await asyncio.to_thread(self._remote.access_token))
            except InvalidStatus as refused:
                error = refused
        response = error.response
        raise self._remote.refusal(response.status_code, bytes(response.body or b"")) from error

    async def _dial(self, token: str | None) -> ClientConnection:
        # Without a credential the service would wait for one as the first message.
        headers = {"authorization": f"Bearer {token or 'none'}"}
        try:
            return await connect(
                f"ws{self._remote.url.removeprefix('http')}/ws",
                additional_headers=headers,
                proxy=None if is_loopback(self._remote.url) else True,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=1,
                max_size=MESSAGE_MAX_BYTES,
            )
        except InvalidStatus:
            raise
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise self._remote.unreachable(str(error) or "no answer in time") from error

    async def _subscribe(self, socket: ClientConnection) -> None:
        for topic in _TOPICS:
            data: dict[str, Json] = {"topic": topic}
            if topic != "vm-status-all" and self._interval_s is not None:
                data["interval"] = self._interval_s
            await socket.send(json.dumps({"type": "subscribe", "id": topic, "data": data}))

    # Listening

    async def _read(self, socket: ClientConnection) -> AsyncGenerator[bool]:
        """Put messages on the board; one yield for those that come together."""
        unanswered, is_round = set(_TOPICS), False
        while True:
            try:
                async with asyncio.timeout(SETTLE_S if is_round else self._patience_s()):
                    message = await socket.recv()
            except TimeoutError:
                if not is_round and self._board.running:
                    raise self._remote.unreachable("it says nothing") from None
                # With nothing that runs there is nothing to measure but the host.
                is_round = False
                yield True
                continue
            kind, topic = self._take(message)
            if topic in unanswered:
                unanswered.discard(topic)
                # Who may not see the host has nothing to wait for while nothing runs.
                may_come = unanswered or self._board.running or not self._is_host_hidden
                is_round = is_round or not may_come
            elif kind in {"vm-metrics", "system-monitor"}:
                is_round = True
            elif kind == "vm-status" and not is_round:
                yield False

    def _take(self, message: str | bytes) -> tuple[str, Json]:
        """Put a message on the board; its type, and the subscription that it answers, or None."""
        try:
            content = json.loads(message)
            kind, data = content["type"], content["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise CliError(
                "it does not speak as VoidVM does", exit_status=Exit.UNREACHABLE
            ) from error
        if kind == "hello":
            self._measures_every_s = float(data["interval"])
        # The host is not everybody's to see.
        if kind == "error":
            if content.get("id") != "system-monitor":
                raise ServiceError(403 if data["code"] == "FORBIDDEN" else 400, data)
            self._is_host_hidden = True
        self._board.take(kind, data, content["timestamp"])
        return kind, content.get("id")

    def _patience_s(self) -> float:
        """How long the service may be silent before something must be wrong."""
        every = max(self._interval_s or 0, self._measures_every_s)
        return 2 * every + OPEN_TIMEOUT_S

    def _end(self, error: ConnectionClosed | CliError) -> CliError:
        if isinstance(error, CliError):
            return error
        code = error.rcvd.code if error.rcvd else 1006
        if code in {4401, 4403, 4408}:
            return CliError(
                "the session was ended", exit_status=Exit.CREDENTIALS, hint="voidvm login"
            )
        return self._remote.unreachable("it was cut off")


def _passes(error: ConnectionClosed | CliError) -> bool:
    """Whether another attempt may help."""
    if isinstance(error, ConnectionClosed):
        return (error.rcvd.code if error.rcvd else 1006) not in {4401, 4403, 4408}
    return isinstance(error, Unreachable) or (
        isinstance(error, ServiceError) and error.status in _PASSING
    )
