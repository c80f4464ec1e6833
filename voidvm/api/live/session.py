"""One socket's conversation: each message to whom it concerns, and errors back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from voidvm import errors
from voidvm.api.allowance import Allowance
from voidvm.api.gate import Gate
from voidvm.api.live.callers import Caller
from voidvm.api.live.control import Control
from voidvm.api.live.messages import (
    Envelope,
    MessageId,
    Ping,
    Subscribe,
    TerminalConnect,
    TerminalDisconnect,
    TerminalInput,
    TerminalResize,
    Unsubscribe,
    VmControl,
)
from voidvm.api.live.talk import Talk
from voidvm.api.live.terminals import Terminals
from voidvm.api.live.topics import Subscriptions
from voidvm.api.sockets import Socket, SocketClosed
from voidvm.api.upgrade import Upgrade
from voidvm.bus import News, VmDeleted
from voidvm.domain.validation import decode, refuse
from voidvm.domain.vm import Value
from voidvm.errors import FieldProblem, VoidVMError

# What one connection may ask for; whoever sends more is read more slowly. A message of some
# kilobytes counts as several.
MESSAGES_PER_S: Final = 100
MESSAGES_BURST: Final = 200
BYTES_A_MESSAGE: Final = 4096

_NOT_THERE_YET: Final = {"vnc-connect", "vnc-data", "vnc-input"}

Handle = Callable[[Any, MessageId | UnsetType], Awaitable[None]]


class Incoming(msgspec.Struct, frozen=True):
    """A message as far as it could be read; `problem`: why it goes no further."""

    kind: str = ""
    data: Mapping[str, object] = {}
    reply_to: MessageId | UnsetType = UNSET
    problem: VoidVMError | None = None

    @property
    def vm_id(self) -> str | None:
        """The VM that it names, for errors."""
        ref = self.data.get("vmId")
        return ref if isinstance(ref, str) else None


def read(raw: str | bytes) -> Incoming:
    """What a client sent; never raises."""
    reply_to: MessageId | UnsetType = UNSET
    data: object = None
    try:
        if isinstance(raw, bytes):
            refuse([FieldProblem("", "must be a text message")])
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            refuse([FieldProblem("", f"is not valid JSON: {error}")])
        if isinstance(value, dict):
            found = value.get("id")
            if isinstance(found, MessageId) and not isinstance(found, bool):
                reply_to = found
            data = value.get("data")
        envelope = decode(Envelope, value)
    except VoidVMError as error:
        known = data if isinstance(data, dict) else {}
        return Incoming(data=known, reply_to=reply_to, problem=error)
    return Incoming(kind=envelope.type, data=envelope.data or {}, reply_to=reply_to)


class Session:
    """Takes messages in order; what takes long goes on beside them."""

    def __init__(
        self, socket: Socket, talk: Talk, caller: Caller, *, gate: Gate, upgrade: Upgrade
    ) -> None:
        self._socket = socket
        self._talk = talk
        self._caller = caller
        self._gate = gate
        self._upgrade = upgrade
        self._deleted: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._allowance = Allowance(
            per_second=MESSAGES_PER_S, burst=MESSAGES_BURST, now=loop.time()
        )

    async def run(self) -> None:
        """Converse until the socket ends; nothing of it is left then but actions under way."""
        unsubscribe = self._gate.bus.subscribe(self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                talk, caller, services = self._talk, self._caller, self._gate.services
                topics = Subscriptions(
                    talk,
                    caller,
                    services=services,
                    bus=self._gate.bus,
                    samples=self._gate.samples,
                    group=group,
                )
                terminals = Terminals(
                    talk, caller, vms=services.vms, consoles=services.consoles, group=group
                )
                control = Control(talk, caller, services=services, upgrade=self._upgrade)
                forgetting = group.create_task(self._forget(topics, terminals))
                with suppress(SocketClosed):
                    await self._converse(self._handlers(topics, terminals, control))
                forgetting.cancel()
                topics.close()
                terminals.close()
        finally:
            unsubscribe()

    def _handlers(
        self, topics: Subscriptions, terminals: Terminals, control: Control
    ) -> dict[str, tuple[type[Value], Handle]]:
        return {
            "ping": (Ping, self._pong),
            "subscribe": (Subscribe, topics.subscribe),
            "unsubscribe": (Unsubscribe, topics.unsubscribe),
            "vm-control": (VmControl, control.begin),
            "terminal-connect": (TerminalConnect, terminals.connect),
            "terminal-input": (TerminalInput, terminals.input),
            "terminal-resize": (TerminalResize, terminals.resize),
            "terminal-disconnect": (TerminalDisconnect, terminals.disconnect),
        }

    async def _converse(self, handlers: Mapping[str, tuple[type[Value], Handle]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            raw = await self._socket.receive()
            message = read(raw)
            try:
                await self._answer(message, handlers)
            except VoidVMError as error:
                await self._talk.refuse(error, reply_to=message.reply_to, vm_id=message.vm_id)
            cost = 1 + len(raw) / BYTES_A_MESSAGE
            # Nothing above need wait for anything: others get their turn here.
            await asyncio.sleep(self._allowance.take(cost, now=loop.time()))

    async def _answer(
        self, message: Incoming, handlers: Mapping[str, tuple[type[Value], Handle]]
    ) -> None:
        if message.problem is not None:
            raise message.problem
        if message.kind in _NOT_THERE_YET:
            raise errors.NotSupported(what=message.kind)
        if message.kind == "auth":
            refuse([FieldProblem("type", "this connection is signed in already")])
        if message.kind not in handlers:
            refuse([FieldProblem("type", f"must be one of: {', '.join(handlers)}")])
        kind, handle = handlers[message.kind]
        await handle(decode(kind, message.data), message.reply_to)

    async def _pong(self, _message: Ping, reply_to: MessageId | UnsetType) -> None:
        await self._talk.say("pong", {}, reply_to=reply_to)

    def _hear(self, news: News) -> None:
        if isinstance(news, VmDeleted):
            self._deleted.put_nowait(news.vm_id)

    async def _forget(self, topics: Subscriptions, terminals: Terminals) -> None:
        with suppress(SocketClosed):
            while True:
                vm_id = await self._deleted.get()
                await terminals.forget_vm(vm_id)
                await topics.forget_vm(vm_id)
