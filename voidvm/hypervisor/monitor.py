"""One VM's QMP monitor: commands with deadlines, events as calls, the loss of the line as news."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qemu.qmp import (
    EventListener,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
)
from qemu.qmp.error import ProtocolError
from qemu.qmp.qmp_client import NegotiationError

from voidvm.hypervisor.argv import AGENT_ID, BALLOON_ID
from voidvm.hypervisor.usage import (
    DiskCounters,
    GuestMemory,
    disk_counters,
    guest_memory,
    plausible,
)

COMMAND_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
QUERY_PTYS = "query-chardev"

# A guest may have broken out into its QEMU, so that what QEMU says may be anything at all.
LINE_MAX_BYTES = 1024**2
WORDS_MAX = 1000
# How many messages are taken in one go, and how many a second in the long run.
BURST, BURSTS_PER_S = 50, 20
_PTY = re.compile(r"pty:(/dev/pts/[0-9]+)")

log = logging.getLogger(__name__)

# Its warnings are about peers that vanish, which is daily life here.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

EventHandler = Callable[[str, Mapping[str, object]], None]
# The command, how many seconds it took, and what went wrong: "timeout", "refused" or "lost".
CommandHandler = Callable[[str, float, str | None], None]


class MonitorError(Exception):
    """Base of what can go wrong on the monitor."""


class MonitorLost(MonitorError):
    """There is no line to QEMU, or it broke."""


class MonitorTimeout(MonitorError):
    """QEMU did not answer in time; the line stays open."""


class CommandRefused(MonitorError):
    """QEMU answered with an error; the text is QEMU's."""


class _Callback(EventListener):
    """Hands each event over as it comes: no queue that grows, no order to lose."""

    def __init__(self, handler: EventHandler) -> None:
        super().__init__()
        self._handler = handler

    async def put(self, event: Message) -> None:
        data = event.get("data")
        name = str(event["event"])[:WORDS_MAX].encode(errors="replace").decode()
        self._handler(name, data if isinstance(data, dict) else {})


class _Client(QMPClient):
    """The client, which also sends descriptors on uvloop, whose sockets have no `sendmsg`.

    The commands in `opening` are sent with the negotiation, before QEMU has said a word: it has
    them done in its first turn, not in its third.
    """

    def __init__(self, name: str, *, opening: Sequence[str]) -> None:
        super().__init__(name, LINE_MAX_BYTES)
        self.heard = 0
        self._opening = opening
        self._burst_began = 0.0
        self._opened: dict[str, asyncio.Future[Message | None]] = {}

    async def answers(self) -> list[object]:
        """What QEMU answered to `opening`. Raises `CommandRefused`, `MonitorLost`."""
        replies = await asyncio.gather(*self._opened.values())
        for name, reply in zip(self._opening, replies, strict=True):
            if reply is None:
                raise MonitorLost(f"{name}: the line broke")
            if "return" not in reply:
                raise CommandRefused(_description(reply))
        return [reply["return"] for reply in replies if reply is not None]

    def _cb_outbound(self, msg: Message) -> Message:
        # The package would print each message prettily, at 50 µs, for a log that nobody keeps.
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    async def _establish_session(self) -> None:
        if self._opening:
            self._do_send(self.make_execute_msg("qmp_capabilities"))
        for name in self._opening:
            message = self.make_execute_msg(name)
            message["id"] = f"opening-{len(self._opened)}"
            self._opened[str(message["id"])] = asyncio.get_running_loop().create_future()
            self._do_send(message)
        await super()._establish_session()

    async def _do_recv(self) -> Message:
        """The next message; a flood is read slowly, so that it waits in QEMU and not here."""
        if self.heard % BURST == 0:
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._burst_began + 1 / BURSTS_PER_S - now))
            self._burst_began = time.monotonic()
        message = await super()._do_recv()
        self.heard += 1
        return message

    async def _negotiate(self) -> None:
        if not self._opening:
            await super()._negotiate()
        elif "return" not in (reply := await self._recv()):
            raise NegotiationError("negotiation failed", ProtocolError(str(reply)))

    async def _on_message(self, msg: Message) -> None:
        if (opened := self._opened.get(str(msg.get("id")))) is None:
            await super()._on_message(msg)
        elif not opened.done():
            opened.set_result(msg)

    async def _bh_disconnect(self) -> None:
        try:
            await super()._bh_disconnect()
        finally:
            for opened in self._opened.values():
                if not opened.done():
                    opened.set_result(None)

    def send_fd(self, fd: int) -> None:
        """Send a descriptor ahead of the command that takes it (`add-fd`)."""
        if self._writer is None:
            raise MonitorLost("no line to QEMU")
        number = self._writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(number)) as line:
            socket.send_fds(line, [b" "], [fd])


class Monitor:
    """A connection to a QEMU's monitor socket; serves one client, so there is one per VM.

    `on_event(name, data)` is called in order for each event; `on_lost()` once, when an
    established line ends for whatever reason but `close`; `on_command` after each command.
    `opening`: commands that need not wait until the line stands, since they are asked for with
    it; `opened` has their answers.
    """

    def __init__(
        self,
        *,
        on_event: EventHandler,
        on_lost: Callable[[], None],
        on_command: CommandHandler | None = None,
        opening: Sequence[str] = (),
    ) -> None:
        self._qmp = _Client("voidvm", opening=opening)
        # The default listener cannot be taken off; unread, its queue would grow for ever.
        self._qmp.events.event_filter = lambda _: False
        self._qmp.register_listener(_Callback(on_event))
        self._on_lost = on_lost
        self._on_command = on_command
        self._is_closed = False
        self._watch: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def connect(self, path: Path, *, timeout_s: float) -> None:
        """Connect and negotiate. Raises `MonitorLost`, or `MonitorTimeout` without a greeting.

        A socket whose client has just gone needs a moment before it greets the next one, so
        refused connections are tried again until the time is over.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._qmp.connect(str(path))
        except TimeoutError as error:
            raise MonitorTimeout(f"no greeting within {timeout_s:g} s") from error
        except QMPError as error:
            raise MonitorLost(_words(error)) from error
        except AssertionError as error:
            # The client's own: the line broke in the moment in which it stood.
            await self._disconnect()
            raise MonitorLost("the line broke at once") from error
        self._watch = asyncio.create_task(self._watch_line(), name="monitor-watch")

    async def opened(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> list[object]:
        """QEMU's answers to `opening`. Raises as `execute` does."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._qmp.answers()
        except TimeoutError as error:
            raise MonitorTimeout(f"no answer within {timeout_s:g} s") from error

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent."""
        return self._qmp.runstate is Runstate.RUNNING

    @property
    def heard(self) -> int:
        """How many answers and events have come: it grows with every sign of life."""
        return self._qmp.heard

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> object:
        """QEMU's answer. Raises `CommandRefused`, `MonitorTimeout` or `MonitorLost`."""
        began, failure = time.perf_counter(), None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._qmp.execute(command, dict(arguments) if arguments else None)
        except TimeoutError as error:
            failure = "timeout"
            raise MonitorTimeout(f"{command}: no answer within {timeout_s:g} s") from error
        except ExecuteError as error:
            failure = "refused"
            raise CommandRefused(_words(error)) from error
        except (QMPError, OSError, EOFError) as error:
            failure = "lost"
            raise MonitorLost(f"{command}: {_words(error)}") from error
        finally:
            if self._on_command is not None:
                self._on_command(command, time.perf_counter() - began, failure)

    async def add_fd(self, fd: int) -> str:
        """Give QEMU a copy of a descriptor; the path that stands for it there."""
        try:
            self._qmp.send_fd(fd)
        except OSError as error:
            raise MonitorLost(f"add-fd: {error}") from error
        number = _field(await self.execute("add-fd"), "fdset-id")
        return f"/dev/fdset/{number}"

    async def status(self) -> str:
        """QEMU's run state, as `query-status` names it: `running`, `paused`, `shutdown`, etc."""
        return str(_field(await self.execute("query-status"), "status"))

    async def lacks_space(self) -> bool:
        """Whether a disk waits for room on the host: its last write failed for that reason."""
        answer = await self.execute("query-block")
        devices = answer if isinstance(answer, list) else []
        return any(
            _field(device, "io-status") == "nospace"
            for device in devices
            if isinstance(device, dict) and "io-status" in device
        )

    async def disk_counters(self, *, timeout_s: float) -> DiskCounters:
        """What the VM's disks have moved so far."""
        return disk_counters(await self.execute("query-blockstats", timeout_s=timeout_s))

    async def balloon_bytes(self, *, timeout_s: float) -> int | None:
        """What the balloon leaves the guest; None without a balloon."""
        try:
            answer = await self.execute("query-balloon", timeout_s=timeout_s)
        except CommandRefused:
            return None
        return plausible(int(str(_field(answer, "actual"))))

    async def has_agent(self, *, timeout_s: float) -> bool:
        """Whether a program in the guest holds the agent's channel open."""
        answer = await self.execute("query-chardev", timeout_s=timeout_s)
        return any(
            _field(entry, "label") == AGENT_ID and _field(entry, "frontend-open") is True
            for entry in (answer if isinstance(answer, list) else [])
        )

    async def guest_memory(self, *, since: float, timeout_s: float) -> GuestMemory | None:
        """The guest's own view, told since then (Unix seconds); None without a balloon driver."""
        place = {"path": f"/machine/peripheral/{BALLOON_ID}", "property": "guest-stats"}
        try:
            answer = await self.execute("qom-get", place, timeout_s=timeout_s)
        except CommandRefused:
            return None
        return guest_memory(answer, since=since)

    async def uuid(self) -> str:
        """The UUID of the guest behind this monitor."""
        return str(_field(await self.execute("query-uuid"), "UUID"))

    async def pty(self, chardev: str) -> str:
        """The path of the PTY behind a character device. Raises as `execute` does."""
        return pty_of(await self.execute(QUERY_PTYS), chardev)

    async def close(self) -> None:
        """Hang up; QEMU goes on. Never raises."""
        self._is_closed = True
        await self._disconnect()
        if self._watch is not None:
            await asyncio.wait([self._watch])

    async def _watch_line(self) -> None:
        while self._qmp.runstate is Runstate.RUNNING:
            await self._qmp.runstate_changed()
        await self._disconnect()
        if not self._is_closed:
            self._on_lost()

    async def _disconnect(self) -> None:
        # Once, and never cut short: half a disconnect leaves errors that nobody collects.
        if self._ending is None:
            self._ending = asyncio.create_task(self._end_session(), name="monitor-end")
        await asyncio.shield(self._ending)

    async def _end_session(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._qmp.disconnect()
        except (QMPError, OSError, EOFError, TimeoutError):
            pass  # after `quit` the end of the line arrives as EOFError
        except Exception as error:  # noqa: BLE001 - see below
            # Whatever a line of rubbish has made of the client's reader comes out here; its
            # traceback would be full of the rubbish.
            log.warning("a monitor's line ended with %s: %s", type(error).__name__, _words(error))


def pty_of(answer: object, chardev: str) -> str:
    """The path of the PTY behind a character device, from the answer to `QUERY_PTYS`.

    Raises `CommandRefused` when there is none.
    """
    for entry in answer if isinstance(answer, list) else []:
        # Nothing else is opened: who runs as root must not be made to open what QEMU cannot.
        found = _PTY.fullmatch(str(_field(entry, "filename")))
        if _field(entry, "label") == chardev and found is not None:
            return found[1]
    raise CommandRefused(f"no PTY behind {chardev}")


def _description(reply: Message) -> str:
    error = reply.get("error")
    return _words(error.get("desc", error) if isinstance(error, dict) else reply)


def _words(said: object) -> str:
    """What QEMU said, as much as people read of it."""
    return str(said)[:WORDS_MAX]


def _field(answer: object, name: str) -> object:
    if not isinstance(answer, dict) or name not in answer:
        raise CommandRefused(f"answer without {name!r}")
    return answer[name]
