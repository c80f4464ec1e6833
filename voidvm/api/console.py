"""The serial console: a socket for people and programs, and calls for programs without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from voidvm import errors
from voidvm.api.routing import Answer, Call, Nothing, RawAnswer, endpoint
from voidvm.api.sockets import Socket, SocketClosed
from voidvm.api.upgrade import SocketCall
from voidvm.bus import News, VmDeleted
from voidvm.domain.account import Principal
from voidvm.domain.console import (
    CONSOLE_MESSAGES,
    ConsoleError,
    ConsoleGap,
    ConsoleHello,
    ConsoleMode,
    ConsolePong,
    ConsoleStatus,
    ConsoleViewers,
    SendRequest,
    Sent,
    Ticket,
    TicketRequest,
)
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value
from voidvm.domain.wording import explain
from voidvm.errors import VoidVMError
from voidvm.services.consoles import OpenConsole, Since
from voidvm.supervisor.history import Gap, Output
from voidvm.supervisor.viewer import StatusNotice, ViewersNotice

SUBPROTOCOL = "voidvm.console.v1"
DELETED = 4410


class ConsoleQuery(Value, frozen=True, kw_only=True):
    """How to attach."""

    mode: ConsoleMode = "write"
    since: (
        Annotated[
            str,
            Meta(
                pattern=r"^(end|[0-9]{1,18})(?!\n)$",
                description="Offset from which history is wanted, or 'end'; default: the last 64 "
                "KiB.",
            ),
        ]
        | None
    ) = None
    token: Annotated[
        str | None, Meta(description="A JWT or API token, for clients without headers.")
    ] = None
    ticket: Annotated[str | None, Meta(description="A ticket, good once.")] = None


class LogQuery(Value, frozen=True, kw_only=True):
    """Which piece of the history."""

    since: (
        Annotated[int, Meta(ge=0, description="Offset of the first byte; default: the newest.")]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=16 * 1024**2, description="Bytes at most.")] = 65_536


class _Ping(Struct, tag="ping", tag_field="type"):
    id: str | int | None = None


class _Resync(Struct, tag="resync", tag_field="type"):
    since: Annotated[int, Meta(ge=0)]


class _Break(Struct, tag="break", tag_field="type"):
    pass


_control = msgspec.json.Decoder(_Ping | _Resync | _Break)


@endpoint(
    "GET",
    "/vms/{vm}/console",
    access=Permission.VM_CONSOLE,
    query=ConsoleQuery,
    messages=CONSOLE_MESSAGES,
    is_socket=True,
    errors=(errors.VmNotFound,),
)
async def attach_console(call: SocketCall[ConsoleQuery]) -> Answer:
    """Attach to the serial console by WebSocket; everything is checked before the 101.

    The credential is the `Authorization` header, `?token=`, `?ticket=`, or
    `Sec-WebSocket-Protocol: voidvm.console.v1, ticket.<ticket>`. Pages of other origins need
    `[server] allowed_origins`.

    **Binary frames are the line's bytes**, both ways; a client needs nothing else. Text frames are
    JSON, `{"type": …}` with these fields beside it:

    | service says | when |
    | --- | --- |
    | `hello {vmId, offset, firstOffset, mode, viewers, status}` | first; `offset` is that of the \
first byte that follows, `firstOffset` of the oldest that is kept |
    | `gap {from, to}` | these bytes of the history are kept no more; it goes on at `to` |
    | `status {status}` | the VM's status changed; the socket stays open while it is off |
    | `viewers {count}` | somebody came or left |
    | `pong {id}` | to `ping` |
    | `error {code, message}` | what the client asked for cannot be done |

    | client says | effect |
    | --- | --- |
    | `ping {id}` | `pong` |
    | `resync {since}` | output goes on from that offset |
    | `break` | a break on the line |

    Who counts the bytes from `offset` on knows its place at each moment, and attaches again with
    it as `since`: nothing is missing and nothing comes twice. Input of a `mode=read` socket is
    ignored.

    Close codes: 4408 the session was ended, 4410 the VM was deleted, 4429 too many connections or
    too slow, 1009 a message above 1 MiB, 1001 the service stops.
    """
    query, upgrade, consoles = call.query, call.upgrade, call.services.consoles
    principal, mode = await _authorize(call)
    record = await call.services.vms.find(principal, call.path["vm"])
    since: Since = int(query.since) if query.since and query.since.isdigit() else None
    if query.since == "end":
        since = "end"
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in upgrade.offers else None
    async with consoles.opened(record, since=since, mode=mode) as console:
        socket = upgrade.open(subprotocol=subprotocol)
        unsubscribe = consoles.bus.subscribe(_closer(socket, vm_id=record.id))
        try:
            await _converse(socket, console, vm_id=record.id)
        finally:
            unsubscribe()
    return Answer(data=None)


async def _authorize(call: SocketCall[ConsoleQuery]) -> tuple[Principal, ConsoleMode]:
    """Who connects, and in which mode: by header, query token or ticket."""
    query, upgrade = call.query, call.upgrade
    tickets = [one.removeprefix("ticket.") for one in upgrade.offers if one.startswith("ticket.")]
    ticket = query.ticket or next(iter(tickets), None)
    token = upgrade.bearer or query.token
    if token:
        principal = await call.services.accounts.authenticate(token)
        await upgrade.admit(principal)
        return principal, query.mode
    if ticket:
        found = await call.services.consoles.redeem(ticket, call.path["vm"])
        if found is None:
            raise errors.Unauthorized("the ticket is not valid here, used or too old")
        await upgrade.admit(found[0])
        # A ticket for reading never becomes one for writing.
        is_read = found[1] == "read" or query.mode == "read"
        return found[0], "read" if is_read else "write"
    raise errors.Unauthorized


def _closer(socket: Socket, *, vm_id: str) -> Callable[[News], None]:
    def on_news(news: News) -> None:
        if isinstance(news, VmDeleted) and news.vm_id == vm_id:
            socket.close(DELETED, "the VM was deleted")

    return on_news


async def _converse(socket: Socket, console: OpenConsole, *, vm_id: str) -> None:
    """Output one way, input the other, until one of them ends."""
    viewer = console.viewer
    hello = ConsoleHello(
        vm_id=vm_id,
        offset=max(viewer.offset, console.first),
        first_offset=console.first,
        mode=viewer.mode,
        viewers=console.viewers,
        status=console.status,
    )
    await _say(socket, hello)
    # The short way, for as long as the tasks below are not busy: a key and its echo wait for none.
    viewer.sink = socket.send_now
    if viewer.mode == "write":
        socket.on_bytes = console.type_now
    tasks = [
        asyncio.create_task(_send_output(socket, console), name="console-output"),
        asyncio.create_task(_take_input(socket, console), name="console-input"),
        # Either of the others may wait for a guest that never speaks or listens again.
        asyncio.create_task(socket.ended(), name="console-end"),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_output(socket: Socket, console: OpenConsole) -> None:
    while True:
        news = await console.viewer.next()
        if isinstance(news, Output):
            await socket.send(news.data)
        elif isinstance(news, Gap):
            await _say(socket, ConsoleGap(start=news.start, end=news.end))
        elif isinstance(news, StatusNotice):
            await _say(socket, ConsoleStatus(status=news.status))
        elif isinstance(news, ViewersNotice):
            await _say(socket, ConsoleViewers(count=news.count))


async def _take_input(socket: Socket, console: OpenConsole) -> None:
    while True:
        message = await socket.receive()
        if isinstance(message, bytes):
            # Somebody who may only read is not heard, and not told each time.
            if console.viewer.mode == "write":
                await console.type(message)
            continue
        try:
            control = _control.decode(message)
        except msgspec.MsgspecError as error:
            await _say(socket, ConsoleError(code="VALIDATION_ERROR", message=_wrong_with(error)))
            continue
        if isinstance(control, _Ping):
            await _say(socket, ConsolePong(id=control.id))
        elif isinstance(control, _Resync):
            console.seek(control.since)
        elif console.viewer.mode == "write":
            await _send_break(socket, console)


def _wrong_with(error: msgspec.MsgspecError) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    place, said = explain(error, Literal["ping", "resync", "break"])
    return f"{place.removeprefix('.') or 'the message'} {said}"


async def _send_break(socket: Socket, console: OpenConsole) -> None:
    try:
        await console.send_break()
    except VoidVMError as error:
        await _say(socket, ConsoleError(code=error.code, message=error.message()))


async def _say(socket: Socket, message: Value) -> None:
    if not socket.is_open:
        raise SocketClosed
    await socket.send(msgspec.json.encode(message).decode())


@endpoint(
    "POST",
    "/vms/{vm}/console/tickets",
    access=Permission.VM_CONSOLE,
    body=TicketRequest,
    returns=Ticket,
    status=201,
    is_secret=True,
    done=("Ticket issued.", "票据已签发。"),
    errors=(errors.VmNotFound,),
)
async def create_console_ticket(call: Call[TicketRequest, Nothing]) -> Answer:
    """Get a credential for one console connection, for clients that can send no header."""
    ticket = await call.services.consoles.ticket(call.principal, call.path["vm"], call.body.mode)
    return Answer(data=ticket)


@endpoint(
    "GET",
    "/vms/{vm}/console/log",
    access=Permission.VM_CONSOLE,
    query=LogQuery,
    media_type="text/plain",
    errors=(errors.VmNotFound,),
)
async def read_console_log(call: Call[Nothing, LogQuery]) -> RawAnswer:
    """Read the console's history as it came; `X-Console-Offset` is the first byte's place."""
    found = await call.services.consoles.log(
        call.principal, call.path["vm"], since=call.query.since, limit=call.query.limit
    )
    return RawAnswer(
        body=found.data,
        content_type="text/plain; charset=utf-8",
        headers={"x-console-offset": str(found.offset)},
    )


@endpoint(
    "POST",
    "/vms/{vm}/console/send",
    access=Permission.VM_CONSOLE,
    body=SendRequest,
    returns=Sent,
    done=("Sent.", "已发送。"),
    errors=(errors.VmNotFound, errors.VmNotRunning),
)
async def send_to_console(call: Call[SendRequest, Nothing]) -> Answer:
    """Type text on the console."""
    sent = await call.services.consoles.send(call.principal, call.path["vm"], call.body.text)
    return Answer(data=sent)
