"""Events, samples, actions and terminals on one WebSocket."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Final, Literal

from voidvm.client.core import Core
from voidvm.client.errors import ApiError, NoAnswer, VoidVMError
from voidvm.client.flavours import Closing, F, flow, stream
from voidvm.client.io import Socket, SocketClosed
from voidvm.client.record import Record
from voidvm.client.requests import Json, Ref, plain, ref
from voidvm.client.types import VmStatus

SUBPROTOCOL: Final = "voidvm.v1"
ANSWER_TIMEOUT_S: Final = 60.0

Topic = Literal[
    "vm-status", "vm-status-all", "vm-metrics", "system-monitor", "operations", "events"
]
Action = Literal["start", "stop", "restart", "pause", "resume", "reset"]


class Message(Record):
    """What the service says: of which `type`, and its `data`."""

    type: str
    id: str | int | None
    data: Record


class Live(Closing[F]):
    """One connection to `/ws`; `client.events()` is for who only wants events, and resumes.

    Answers find who has asked, in whatever order they come; all else is for `messages`. Several
    threads or tasks may ask. A connection that breaks is not made again: `Unreachable` is raised.
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._socket: Socket | None = None
        self._dialling, self._reading = core.io.lock(), core.io.lock()
        self._answers: dict[str, Message | None] = {}
        self._others: deque[Message] = deque()

    @flow
    async def ask(
        self,
        type: str,  # noqa: A002 - the protocol's word
        data: Mapping[str, Json] | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT_S,  # noqa: ASYNC109 - as its docstring says
    ) -> Record:
        """The `data` of the answer to a message. Raises its error, `NoAnswer` after `timeout` s."""
        socket = await self._connected()
        number = uuid.uuid4().hex
        asked = {"type": type, "id": number, "data": data or {}}
        self._answers[number] = None
        ends_at = time.monotonic() + timeout
        try:
            await _said(self.core, socket, asked)
            while (answer := self._answers[number]) is None:
                if not await self._take(socket, ends_at):
                    raise NoAnswer(f"'{type}' was not answered within {timeout:g} s")
        finally:
            del self._answers[number]
        if answer["type"] == "error":
            raise ApiError.of(0, answer["data"])
        return answer.data

    @flow
    async def send(self, type: str, data: Mapping[str, Json]) -> None:  # noqa: A002 - the protocol's word
        """Send a message that has no answer, such as `terminal-input`."""
        await _said(self.core, await self._connected(), {"type": type, "data": data})

    @flow
    async def subscribe(
        self,
        topic: Topic,
        *,
        vm: Ref | None = None,
        interval: float | None = None,
        after: str | None = None,
    ) -> Record:
        """Have what happens told from now on, or after an event; the present state."""
        about = {"vmId": ref(vm) if vm is not None else None, "interval": interval, "after": after}
        given = {key: value for key, value in about.items() if value is not None}
        return await Live.ask.of(self, "subscribe", {"topic": topic, **given})

    @flow
    async def unsubscribe(self, topic: Topic, *, vm: Ref | None = None) -> None:
        """Hear no more of it."""
        about = {"vmId": ref(vm)} if vm is not None else {}
        await Live.ask.of(self, "unsubscribe", {"topic": topic, **about})

    @flow
    async def control(
        self,
        vm: Ref,
        action: Action,
        *,
        force: bool = False,
        timeout: float = 60,  # noqa: ASYNC109 - as its docstring says
    ) -> VmStatus:
        """Do something with a VM; its status when that is done.

        `timeout`: seconds that the guest has to power off, where it shall; with `force` none.
        """
        asked: dict[str, Json] = {"vmId": ref(vm), "action": action}
        if action in {"stop", "restart"}:
            asked |= {"force": force, "timeout": timeout}
        patience_s = ANSWER_TIMEOUT_S + timeout
        answer = await Live.ask.of(self, "vm-control", asked, timeout=patience_s)
        status: VmStatus = answer["status"]
        return status

    @stream
    async def messages(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as its docstring says
    ) -> AsyncGenerator[Message, None]:
        """What is no answer, as it comes; it ends when there was nothing for `timeout` seconds."""
        socket = await self._connected()
        while True:
            ends_at = None if timeout is None else time.monotonic() + timeout
            while not self._others:
                if not await self._take(socket, ends_at):
                    return
            yield self._others.popleft()

    async def _connected(self) -> Socket:
        async with self._dialling:
            if self._socket is None:
                try:
                    self._socket = await self.core.dial("/ws", query={}, subprotocol=SUBPROTOCOL)
                except SocketClosed as end:
                    raise self.core.unreachable(str(end)) from end
            return self._socket

    async def _take(self, socket: Socket, ends_at: float | None) -> bool:
        """Have one message come in for somebody; False when there was none in time."""
        before = len(self._others), dict(self._answers)
        async with self._reading:
            if (len(self._others), self._answers) != before:
                return True  # another thread or task has taken something meanwhile
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            try:
                message = Message(json.loads(await socket.receive(left_s)))
            except TimeoutError:
                return False
            except (SocketClosed, ValueError) as end:
                raise _ended(self.core, end) from end
            if message.get("id") in self._answers:
                self._answers[str(message["id"])] = message
            elif message["type"] != "hello":
                self._others.append(message)
        return True

    async def _close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


async def _said(core: Core, socket: Socket, message: Mapping[str, Json]) -> None:
    try:
        await socket.send(json.dumps(message, default=plain))
    except SocketClosed as end:
        raise _ended(core, end) from end


def _ended(core: Core, end: Exception) -> VoidVMError:
    return core.unreachable(str(end))
