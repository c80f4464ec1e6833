"""What the service says on a socket: messages with a type, an id, data and a timestamp."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, UnsetType

from voidvm.api.live.messages import ErrorNews, FieldNews, MessageId
from voidvm.api.sockets import Socket
from voidvm.errors import VoidVMError

_encoder = msgspec.json.Encoder()


def encode(
    kind: str,
    data: object,
    *,
    reply_to: MessageId | UnsetType = UNSET,
    topic: bool | str = False,
    at: datetime | None = None,
) -> bytes:
    """A message; `topic` names the subscription that it belongs to, True: as the type does."""
    content: dict[str, object] = {"type": kind}
    if reply_to is not UNSET:
        content["id"] = reply_to
    if topic:
        content["topic"] = kind if topic is True else topic
    content["data"] = data
    content["timestamp"] = at or datetime.now(UTC)
    return _encoder.encode(content)


class Talk:
    """One socket's way out, for any number of tasks: one message waits at a time."""

    def __init__(self, socket: Socket, *, language: str) -> None:
        self.language = language
        self._socket = socket
        self._turn = asyncio.Lock()

    async def send(self, message: bytes) -> None:
        """Send what `encode` made. Raises `SocketClosed`, also for a client that is too slow."""
        async with self._turn:
            await self._socket.send_text(message)

    async def say(
        self,
        kind: str,
        data: object,
        *,
        reply_to: MessageId | UnsetType = UNSET,
        topic: bool | str = False,
    ) -> None:
        """Send a message. Raises `SocketClosed`."""
        await self.send(encode(kind, data, reply_to=reply_to, topic=topic))

    async def refuse(
        self,
        error: VoidVMError,
        *,
        reply_to: MessageId | UnsetType = UNSET,
        vm_id: str | None = None,
    ) -> None:
        """Send an error. Raises `SocketClosed`."""
        await self.say("error", _shown(error, self.language, vm_id), reply_to=reply_to)


def _shown(error: VoidVMError, language: str, vm_id: str | None) -> ErrorNews:
    wait_s = error.fields.get("retry_after")
    return ErrorNews(
        code=error.code,
        message=error.message(language),
        details=error.details,
        vm_id=vm_id,
        retryable=error.retryable,
        retry_after=wait_s if isinstance(wait_s, int) else UNSET,
        hint=error.hint or UNSET,
        errors=[FieldNews(field=one.field, message=one.message) for one in error.errors] or UNSET,
    )
