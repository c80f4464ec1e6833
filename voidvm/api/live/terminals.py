"""One socket's terminals: serial consoles as text in messages."""

from __future__ import annotations

import asyncio
import base64
import codecs
from collections import deque
from contextlib import suppress
from typing import Final

from msgspec import UnsetType

from voidvm import errors
from voidvm.api.live.callers import Caller
from voidvm.api.live.messages import (
    MessageId,
    TerminalConnect,
    TerminalConnected,
    TerminalDisconnect,
    TerminalDisconnected,
    TerminalGap,
    TerminalInput,
    TerminalOutput,
    TerminalResize,
    TerminalResized,
    TerminalStatus,
)
from voidvm.api.live.talk import Talk
from voidvm.api.sockets import SocketClosed
from voidvm.domain.permission import Permission
from voidvm.domain.states import WITH_PROCESS
from voidvm.domain.vm import VmRecord
from voidvm.services.consoles import Consoles, OpenConsole
from voidvm.services.vms import Vms
from voidvm.supervisor.history import Gap, Output
from voidvm.supervisor.viewer import StatusNotice

TERMINALS_MAX: Final = 16
# What a guest that does not read leaves waiting here, beside what its console holds.
INPUT_WAITING_BYTES: Final = 131_072

ReplyTo = MessageId | UnsetType


class Text:
    """Bytes of a console as text, never splitting a character; what is none becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def waiting(self) -> int:
        """How many bytes of a character were given that is not whole yet."""
        return len(self._decoder.getstate()[0])

    def take(self, data: bytes) -> str:
        """The whole characters."""
        return self._decoder.decode(data)

    def end(self) -> str:
        """What was left, since nothing that fits will follow."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class _Keys:
    """What was typed and not taken by the console yet."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def put(self, data: bytes) -> bool:
        """Line up; False: there is no room."""
        if self._size and self._size + len(data) > INPUT_WAITING_BYTES:
            return False
        self._waiting.append(data)
        self._size += len(data)
        self._arrived.set()
        return True

    @property
    def is_empty(self) -> bool:
        """Whether all was typed."""
        return not self._size

    async def type_on(self, console: OpenConsole) -> None:
        """Type what comes, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                data = self._waiting.popleft()
                await console.type(data)
                self._size -= len(data)


class _Terminal:
    """One VM's console on this socket."""

    def __init__(self, record: VmRecord, wanted: TerminalConnect) -> None:
        self.vm_id = record.id
        self.name = record.name
        self.ref = wanted.vm_id
        self.mode = wanted.mode
        self.keys = _Keys()
        self.console: OpenConsole | None = None
        self.task: asyncio.Task[None] | None = None
        self._is_raw = wanted.encoding == "base64"
        self._text = Text()

    def type(self, data: bytes) -> bool:
        """Type, at once if nothing waits; False: there is no room."""
        console = self.console
        if console is not None and self.keys.is_empty and console.type_now(data):
            return True
        return self.keys.put(data)

    async def run(self, talk: Talk, console: OpenConsole, reply_to: ReplyTo) -> None:
        """Output one way, input the other. Raises `SocketClosed`."""
        viewer = console.viewer
        connected = TerminalConnected(
            vm_id=self.vm_id,
            offset=max(viewer.offset, console.first),
            first_offset=console.first,
            mode=viewer.mode,
            status=console.status,
        )
        await talk.say("terminal-connected", connected, reply_to=reply_to)
        self.console = console
        typing = asyncio.create_task(self.keys.type_on(console), name="terminal-input")
        try:
            while True:
                news = await viewer.next()
                if isinstance(news, Output):
                    await self._say_output(talk, news)
                elif isinstance(news, Gap):
                    await self._say_rest(talk, news.start)
                    gap = TerminalGap(vm_id=self.vm_id, start=news.start, end=news.end)
                    await talk.say("terminal-gap", gap)
                elif isinstance(news, StatusNotice):
                    status = TerminalStatus(vm_id=self.vm_id, status=news.status)
                    await talk.say("terminal-status", status)
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    async def _say_output(self, talk: Talk, news: Output) -> None:
        if self._is_raw:
            output = TerminalOutput(
                vm_id=self.vm_id,
                offset=news.offset,
                next_offset=news.end,
                output_base64=base64.b64encode(news.data).decode(),
            )
            await talk.say("terminal-output", output)
            return
        start = news.offset - self._text.waiting
        if text := self._text.take(news.data):
            await self._say_text(talk, text, start, news.end - self._text.waiting)

    async def _say_rest(self, talk: Talk, end: int) -> None:
        start = end - self._text.waiting
        if text := self._text.end():
            await self._say_text(talk, text, start, end)

    async def _say_text(self, talk: Talk, text: str, start: int, end: int) -> None:
        output = TerminalOutput(vm_id=self.vm_id, offset=start, next_offset=end, output=text)
        await talk.say("terminal-output", output)


class Terminals:
    """Attaches and detaches; each terminal is a task of the socket's group."""

    def __init__(
        self,
        talk: Talk,
        caller: Caller,
        *,
        vms: Vms,
        consoles: Consoles,
        group: asyncio.TaskGroup,
    ) -> None:
        self._talk = talk
        self._caller = caller
        self._vms = vms
        self._consoles = consoles
        self._group = group
        self._open: dict[str, _Terminal] = {}

    async def connect(self, wanted: TerminalConnect, reply_to: ReplyTo) -> None:
        """Attach to a console, in place of a terminal of the same VM.

        Raises `NotSupported`, `Forbidden`, `VmNotFound`, `RateLimited`.
        """
        self._caller.check(Permission.VM_CONSOLE, is_change=wanted.mode == "write")
        if wanted.type != "serial":
            raise errors.NotSupported(what=f"terminals by {wanted.type}")
        record = await self._caller.find(self._vms, wanted.vm_id)
        await self._end(record.id)
        if len(self._open) >= TERMINALS_MAX:
            raise errors.RateLimited(
                f"{TERMINALS_MAX} terminals a connection", hint="Disconnect one first."
            )
        terminal = _Terminal(record, wanted)
        self._open[record.id] = terminal
        terminal.task = self._group.create_task(
            self._run(terminal, record, wanted, reply_to), name="live-terminal"
        )

    async def input(self, typed: TerminalInput, _reply_to: ReplyTo) -> None:
        """Type. Raises `NotFound`, `Forbidden`, `VmNotRunning`, `RateLimited`."""
        terminal = self._find(typed.vm_id)
        if terminal.mode == "read":
            raise errors.Forbidden(permission="a terminal in write mode")
        console = terminal.console
        if console is not None and console.status not in WITH_PROCESS:
            raise errors.VmNotRunning(vm=terminal.name, details=console.status)
        if not terminal.type(typed.input.encode()):
            raise errors.RateLimited(
                "the guest does not read what was typed before", hint="Send this again later."
            )

    async def resize(self, wanted: TerminalResize, reply_to: ReplyTo) -> None:
        """Acknowledge a size. Raises `NotFound`."""
        terminal = self._find(wanted.vm_id)
        news = TerminalResized(vm_id=terminal.vm_id, cols=wanted.cols, rows=wanted.rows)
        await self._talk.say("terminal-resized", news, reply_to=reply_to)

    async def disconnect(self, wanted: TerminalDisconnect, reply_to: ReplyTo) -> None:
        """Detach; no output comes after the answer. Raises `NotFound`."""
        terminal = self._find(wanted.vm_id)
        await self._end(terminal.vm_id)
        news = TerminalDisconnected(vm_id=terminal.vm_id)
        await self._talk.say("terminal-disconnected", news, reply_to=reply_to)

    def close(self) -> None:
        """Detach from all, without a word."""
        for terminal in self._open.values():
            if terminal.task is not None:
                terminal.task.cancel()

    async def forget_vm(self, vm_id: str) -> None:
        """The VM was deleted."""
        if await self._end(vm_id):
            news = TerminalDisconnected(vm_id=vm_id, reason="deleted")
            await self._talk.say("terminal-disconnected", news)

    def _find(self, ref: str) -> _Terminal:
        """The terminal of a VM, named by id or as it was when it was opened."""
        found = self._open.get(ref)
        if found is None:
            found = next((one for one in self._open.values() if ref in {one.ref, one.name}), None)
        if found is None:
            raise errors.NotFound("send terminal-connect first", what="such terminal")
        return found

    async def _end(self, vm_id: str) -> bool:
        terminal = self._open.pop(vm_id, None)
        if terminal is None or terminal.task is None:
            return False
        terminal.task.cancel()
        await asyncio.wait([terminal.task])
        return True

    async def _run(
        self, terminal: _Terminal, record: VmRecord, wanted: TerminalConnect, reply_to: ReplyTo
    ) -> None:
        with suppress(SocketClosed):
            try:
                async with self._consoles.opened(
                    record, since=wanted.since, mode=wanted.mode
                ) as console:
                    await terminal.run(self._talk, console, reply_to)
            except errors.VmNotFound as error:  # deleted a moment ago
                if self._open.get(record.id) is terminal:
                    del self._open[record.id]
                await self._talk.refuse(error, reply_to=reply_to, vm_id=record.id)
