"""The address of the live socket: who connects, by header, query, ticket or first message."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, NoReturn

from msgspec import Meta

from voidvm import errors
from voidvm.api.live.callers import Caller
from voidvm.api.live.messages import DESCRIBED, AuthMessage, Welcome
from voidvm.api.live.session import Incoming, Session, read
from voidvm.api.live.talk import Talk
from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.api.sockets import Socket, SocketClosed
from voidvm.api.upgrade import SocketCall, Upgrade
from voidvm.domain.console import Ticket
from voidvm.domain.validation import decode
from voidvm.domain.vm import Value
from voidvm.errors import VoidVMError

SUBPROTOCOL: Final = "voidvm.v1"
AUTH_TIMEOUT_S: Final = 10.0
MESSAGE_MAX_BYTES: Final = 131_072
# A token and what is around it.
FIRST_MESSAGE_MAX_BYTES: Final = 8_192


class WsQuery(Value, frozen=True, kw_only=True):
    """A credential, for clients that can send no header."""

    token: Annotated[str | None, Meta(description="A JWT or API token.")] = None
    ticket: Annotated[str | None, Meta(description="A ticket, good once.")] = None


@endpoint(
    "GET",
    "/ws",
    access=Access.SIGNED_IN,
    query=WsQuery,
    messages=DESCRIBED,
    is_socket=True,
)
async def connect_ws(call: SocketCall[WsQuery]) -> Answer:
    """Events, metrics, control and terminals on one WebSocket; also at `/ws`.

    The credential is the `Authorization` header, `?token=`, `?ticket=`, or
    `Sec-WebSocket-Protocol: voidvm.v1, ticket.<ticket>`, and is checked before the 101. A
    connection without any has 10 s for `{"type": "auth", "data": {"token": …}}` as its first
    message. A console's ticket is good for that VM only.

    Messages are text: `{"type": …, "id": …, "data": {…}}`. An answer repeats the `id`, any string
    or number; every message has a `timestamp`. What cannot be done is answered `error`, and the
    connection goes on. Answers to different messages may come in any order.

    | client sends | service answers | and then |
    | --- | --- | --- |
    | (nothing) | `hello` | |
    | `auth {token}` | `auth` | only as the first message |
    | `ping` | `pong` | |
    | `subscribe {topic, vmId?, interval?, after?}` | `subscribed` with the present state | pushes |
    | `unsubscribe {topic, vmId?}` | `unsubscribed` | no more pushes |
    | `vm-control {vmId, action, force?, timeout?}` | `vm-control-response` when done | |
    | `terminal-connect {vmId, type, mode?, since?, encoding?}` | `terminal-connected` | \
`terminal-output`, `terminal-gap`, `terminal-status` |
    | `terminal-input {vmId, input}` | (nothing, or `error`) | |
    | `terminal-resize {vmId, cols, rows}` | `terminal-resized` | a serial line has no size |
    | `terminal-disconnect {vmId}` | `terminal-disconnected` | |
    | `vnc-connect`, `vnc-data`, `vnc-input` | `error` `NOT_SUPPORTED` | |

    | topic | push | of what |
    | --- | --- | --- |
    | `vm-status`, `vm-status-all` | `vm-status` | one VM (`vmId`), all own ones; then `deleted` |
    | `vm-metrics` | `vm-metrics` | one VM or all own ones, every `interval` seconds |
    | `system-monitor` | `system-monitor` | the host; needs `system:read` |
    | `operations` | `operations` | own operations; progress has no `eventId` |
    | `events` | `system-event` | everything of one's own that changed |

    Each push names its `topic`. What is an event has the event's id as `id`; with it as `after`, a
    client that comes back hears all that it has missed, once. If that is no longer kept, it is
    told `resync-required` and goes on from now. Whoever reads too slowly is closed with 4429;
    nothing is left out but older samples and progress.

    Close codes: 4401 no valid credential, 4403 may not, 4408 the session was ended, 4429 too many
    connections or too slow, 1009 a message above 128 KiB, 1001 the service stops.
    """
    upgrade = call.upgrade
    caller = await _caller(call)
    subprotocol = _subprotocol(upgrade)
    if caller is None:
        socket = await upgrade.open_for_stranger(
            subprotocol=subprotocol, message_max_bytes=FIRST_MESSAGE_MAX_BYTES
        )
        caller = await _first_message(call, socket)
        socket.limit_messages(MESSAGE_MAX_BYTES)
        talk = Talk(socket, language=upgrade.language)
    else:
        socket = upgrade.open(subprotocol=subprotocol, message_max_bytes=MESSAGE_MAX_BYTES)
        talk = Talk(socket, language=upgrade.language)
        await talk.say("hello", _welcome(call, caller))
    await Session(socket, talk, caller, gate=upgrade.gate, upgrade=upgrade).run()
    return Answer(data=None)


async def _caller(call: SocketCall[WsQuery]) -> Caller | None:
    """Who connects, None without any credential. Raises `Unauthorized` and what `admit` does."""
    query, upgrade = call.query, call.upgrade
    tickets = [one.removeprefix("ticket.") for one in upgrade.offers if one.startswith("ticket.")]
    ticket = query.ticket if query.ticket is not None else next(iter(tickets), None)
    token = upgrade.bearer or query.token
    if token:
        principal = await call.services.accounts.authenticate(token)
        await upgrade.admit(principal)
        return Caller(principal=principal)
    if ticket is not None:
        found = await call.services.tickets.redeem(ticket)
        if found is None:
            raise errors.Unauthorized("the ticket is not valid, used or too old")
        principal, grant = found
        await upgrade.admit(principal)
        return Caller(principal=principal, vm_id=grant.vm_id, mode=grant.mode)
    if upgrade.has_authorization or query.token is not None or not upgrade.is_handshake:
        raise errors.Unauthorized
    return None


def _subprotocol(upgrade: Upgrade) -> str | None:
    """Ours if it is offered; else a ticket, since pages hang up when none of theirs is taken."""
    if SUBPROTOCOL in upgrade.offers:
        return SUBPROTOCOL
    return next((one for one in upgrade.offers if one.startswith("ticket.")), None)


async def _first_message(call: SocketCall[WsQuery], socket: Socket) -> Caller:
    """Who a stranger says it is. Raises `SocketClosed` for who does not say it, or lies."""
    upgrade = call.upgrade
    message = Incoming()
    try:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                message = read(await socket.receive())
        except TimeoutError:
            raise errors.Unauthorized(f"no auth within {AUTH_TIMEOUT_S:g} s") from None
        if message.kind != "auth":
            raise message.problem or errors.Unauthorized("the first message must be auth")
        token = decode(AuthMessage, message.data).token
        principal = await call.services.accounts.authenticate(token)
        await upgrade.adopt(principal)
    except errors.ValidationFailed as error:
        unauthorized = errors.Unauthorized(error.details, errors=error.errors)
        await _dismiss(upgrade, socket, message, unauthorized)
    except VoidVMError as error:
        await _dismiss(upgrade, socket, message, error)
    caller = Caller(principal=principal)
    talk = Talk(socket, language=upgrade.language)
    await talk.say("auth", _welcome(call, caller), reply_to=message.reply_to)
    return caller


async def _dismiss(
    upgrade: Upgrade, socket: Socket, message: Incoming, error: VoidVMError
) -> NoReturn:
    await Talk(socket, language=upgrade.language).refuse(error, reply_to=message.reply_to)
    upgrade.dismiss(error)
    raise SocketClosed


def _welcome(call: SocketCall[WsQuery], caller: Caller) -> Welcome:
    events = call.services.events
    return caller.welcome(
        epoch=events.epoch,
        last_event_id=events.last_id,
        interval_s=call.upgrade.gate.samples.interval_s,
    )


@endpoint(
    "POST",
    "/ws/tickets",
    access=Access.SIGNED_IN,
    returns=Ticket,
    status=201,
    is_secret=True,
    done=("Ticket issued.", "票据已签发。"),
)
async def create_ws_ticket(call: Call[Nothing, Nothing]) -> Answer:
    """Get a credential for one connection to `/ws`, for clients that can send no header."""
    return Answer(data=call.services.tickets.issue(call.principal))
