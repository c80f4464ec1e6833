"""The serial console: a socket for people and programs, and calls for programs without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from sanic import Request

from voidvm import errors
from voidvm.api.dispatch import check_permission
from voidvm.api.routing import Answer, Call, Nothing, RawAnswer, endpoint
from voidvm.api.sockets import Socket, SocketClosed
from voidvm.bus import News, SessionEnded, VmDeleted
from voidvm.domain.account import Permission, Principal
from voidvm.domain.console import ConsoleMode, SendRequest, Sent, Ticket, TicketRequest
from voidvm.domain.vm import Value
from voidvm.errors import VoidVMError
from voidvm.services.consoles import OpenConsole, Since
from voidvm.supervisor.console import StatusNotice, ViewersNotice
from voidvm.supervisor.history import Gap, Output

SUBPROTOCOL = "voidvm.console.v1"
SESSION_ENDED, DELETED = 4408, 4410


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
    token: Annotated[str | None, Meta(description="A JWT, for clients without headers.")] = None
    ticket: Annotated[str | None, Meta(description="A ticket, good once.")] = None


class LogQuery(Value, frozen=True, kw_only=True):
    """Which piece of the history."""

    since: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1, le=16 * 1024**2)] = 65_536


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
    is_socket=True,
    errors=(errors.VmNotFound, errors.OriginRefused),
)
async def attach_console(call: Call[Nothing, ConsoleQuery]) -> Answer:
    """Attach to the serial console by WebSocket; everything is checked before the 101."""
    request, query = call.request, call.query
    _check_origin(request)
    grant = await _authorize(call)
    record = await call.services.vms.find(grant.principal, call.path["vm"])
    since: Since = int(query.since) if query.since and query.since.isdigit() else None
    if query.since == "end":
        since = "end"
    offers = _offered(request)
    async with call.services.consoles.opened(record, since=since, mode=grant.mode) as console:
        socket = request.ctx.upgrade(SUBPROTOCOL if SUBPROTOCOL in offers else None)
        unsubscribe = call.services.consoles.bus.subscribe(
            _closer(socket, vm_id=record.id, session_id=grant.principal.session_id)
        )
        try:
            await _converse(socket, console, vm_id=record.id)
        finally:
            unsubscribe()
    return Answer(data=None)


class _Grant(Struct, frozen=True):
    principal: Principal
    mode: ConsoleMode


async def _authorize(call: Call[Nothing, ConsoleQuery]) -> _Grant:
    """Who connects, and in which mode: by header, query token or ticket."""
    request, query, accounts = call.request, call.query, call.services.accounts
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    ticket = query.ticket or next(
        (
            offer.removeprefix("ticket.")
            for offer in _offered(request)
            if offer.startswith("ticket.")
        ),
        None,
    )
    token = bearer.strip() if scheme.lower() == "bearer" else query.token
    if token:
        principal = await accounts.authenticate(token)
        check_permission(principal, Permission.VM_CONSOLE)
        return _Grant(principal, query.mode)
    if ticket:
        found = await call.services.consoles.redeem(ticket, call.path["vm"])
        if found is None:
            raise errors.Unauthorized("the ticket is not valid here, used or too old")
        check_permission(found[0], Permission.VM_CONSOLE)
        # A ticket for reading never becomes one for writing.
        is_read = found[1] == "read" or query.mode == "read"
        return _Grant(found[0], "read" if is_read else "write")
    raise errors.Unauthorized


def _offered(request: Request) -> list[str]:
    header = request.headers.get("sec-websocket-protocol", "")
    return [offer.strip() for offer in header.split(",") if offer.strip()]


def _check_origin(request: Request) -> None:
    """Browsers name the page's origin; a page that is not ours may not use a visitor's network."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    own = {f"http://{request.host}", f"https://{request.host}"}
    if origin not in own and origin not in request.app.ctx.origins:
        raise errors.OriginRefused(origin=origin)


def _closer(socket: Socket, *, vm_id: str, session_id: str) -> Callable[[News], None]:
    def on_news(news: News) -> None:
        if isinstance(news, VmDeleted) and news.vm_id == vm_id:
            socket.close(DELETED, "the VM was deleted")
        elif isinstance(news, SessionEnded) and news.session_id == session_id:
            socket.close(SESSION_ENDED, "the session ended")

    return on_news


async def _converse(socket: Socket, console: OpenConsole, *, vm_id: str) -> None:
    """Output one way, input the other, until one of them ends."""
    viewer = console.viewer
    await _say(
        socket,
        "hello",
        vmId=vm_id,
        offset=max(viewer.offset, console.first),
        firstOffset=console.first,
        mode=viewer.mode,
        viewers=console.viewers,
        status=console.status,
    )
    tasks = [
        asyncio.create_task(_send_output(socket, console), name="console-output"),
        asyncio.create_task(_take_input(socket, console), name="console-input"),
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
            await _say(socket, "gap", **{"from": news.start, "to": news.end})
        elif isinstance(news, StatusNotice):
            await _say(socket, "status", status=news.status)
        elif isinstance(news, ViewersNotice):
            await _say(socket, "viewers", count=news.count)


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
            await _say(socket, "error", code="VALIDATION_ERROR", message=str(error))
            continue
        if isinstance(control, _Ping):
            await _say(socket, "pong", id=control.id)
        elif isinstance(control, _Resync):
            console.seek(control.since)
        elif console.viewer.mode == "write":
            await _send_break(socket, console)


async def _send_break(socket: Socket, console: OpenConsole) -> None:
    try:
        await console.send_break()
    except VoidVMError as error:
        await _say(socket, "error", code=error.code, message=error.message())


async def _say(socket: Socket, kind: str, **fields: object) -> None:
    if not socket.is_open:
        raise SocketClosed
    await socket.send(msgspec.json.encode({"type": kind, **fields}).decode())


@endpoint(
    "POST",
    "/vms/{vm}/console/tickets",
    access=Permission.VM_CONSOLE,
    body=TicketRequest,
    returns=Ticket,
    status=201,
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
