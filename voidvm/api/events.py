"""Events: what changed, page by page or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from voidvm import errors
from voidvm.api.paging import PAGE_MAX
from voidvm.api.responses import language
from voidvm.api.routing import EVENT_STREAM, Access, Answer, Call, Nothing, endpoint
from voidvm.api.streams import EventStream
from voidvm.api.upgrade import SocketCall
from voidvm.domain.account import Principal
from voidvm.domain.event import Event, EventKind, EventRecord
from voidvm.domain.vm import Value
from voidvm.services.events import Events, Feed, Wants
from voidvm.services.services import Services

HEARTBEAT_S: Final = 15.0
# When a client whose stream has ended is to come back.
RETRY_S: Final = 3.0
# The name of the event that stands for those which are kept no more.
RESYNC: Final = "resync-required"

After = Annotated[str, Meta(max_length=64, description="An event's id: what came after it.")]
VmRef = Annotated[
    str,
    Meta(min_length=1, description="Of this VM only, by id or name; of a deleted one by its id."),
]


class EventsQuery(Value, frozen=True, kw_only=True):
    """Which events."""

    after: After | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="So many at most.")] = 50
    vm: VmRef | None = None
    kind: EventKind | None = None


class StreamQuery(Value, frozen=True, kw_only=True):
    """From where on, and of what."""

    after: After | None = None
    vm: VmRef | None = None
    token: Annotated[
        str | None, Meta(description="A JWT or API token, for pages: EventSource sends no headers.")
    ] = None


class EventList(Value, frozen=True, kw_only=True):
    """Some events, oldest first."""

    events: list[Event]
    last_id: Annotated[str, Meta(description="The `after` with which to go on.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after these by now.")]


@endpoint(
    "GET",
    "/events",
    access=Access.SIGNED_IN,
    query=EventsQuery,
    returns=EventList,
    errors=(errors.VmNotFound, errors.ResyncRequired),
)
async def list_events(call: Call[Nothing, EventsQuery]) -> Answer:
    """What changed, in order: of one's own objects, for admins of all, as permissions allow.

    With `after` what came after that event, else the newest. Events are kept for 30 days, and no
    more than 100,000; where some after `after` are gone, the answer is `RESYNC_REQUIRED`. Those of
    a VM outlive it: by its id, whoever owned it last and admins read them.
    """
    query, services = call.query, call.services
    vm_id = await _vm_id(services, call.principal, query.vm)
    # A start is answered a moment before it is written down.
    await services.vms.recorded()
    page = await services.events.page(
        call.principal,
        after=query.after,
        limit=query.limit,
        vm_id=vm_id,
        kinds=None if query.kind is None else [query.kind],
    )
    words = language(call.request)
    shown = [event.show(services.events.epoch, language=words) for event in page.events]
    return Answer(data=EventList(events=shown, last_id=page.last_id, has_more=page.has_more))


@endpoint(
    "GET",
    "/events/stream",
    access=Access.SIGNED_IN,
    query=StreamQuery,
    media_type=EVENT_STREAM,
    done=("Events, until either side hangs up.", "事件流，直到任一方断开。"),
    errors=(errors.VmNotFound,),
)
async def stream_events(call: SocketCall[StreamQuery]) -> Answer:
    """Follow what changes, as server-sent events: those of `GET /events`, as they happen.

    Each has its number as `id`, its kind as `event` and all of it as `data`. The header
    `Last-Event-ID`, or else `after`, says after which to begin, by default with the next. Where
    some of these are kept no more, one event `resync-required` stands for them: read the lists
    anew. Of a VM that was deleted, named by its id, it tells what came after `after`; where its end
    is not among that, nothing will come, and the answer is `VM_NOT_FOUND`. The stream counts as one
    of the user's sockets and ends with the session. A client that reads too slowly is cut off, and
    loses nothing when it comes back with its last id.
    """
    query, services = call.query, call.services
    token = call.upgrade.bearer or query.token
    if not token:
        raise errors.Unauthorized
    principal = await services.accounts.authenticate(token)
    await call.upgrade.admit(principal)
    after = call.request.headers.get("last-event-id") or query.after
    if after is None:
        # What was answered before is no news, though it may be written down and told only now.
        await services.told()
    if query.vm is not None:
        # From before it is looked for: a VM that is deleted meanwhile has an end to be told of.
        after = after or services.events.last_id
    vm_id = await _vm_id(services, principal, query.vm, after=after)

    def wants(event: EventRecord) -> bool:
        return vm_id is None or event.vm_id == vm_id

    events, words = services.events, language(call.request)
    async with _followed(events, principal, after=after, wants=wants) as (feed, is_whole):
        stream = call.upgrade.open_stream()
        await stream.greet(place=feed.last_id, retry_s=RETRY_S)
        if not is_whole:
            await _tell_resync(stream, feed)
        while True:
            try:
                event = await _next(stream, feed)
            except errors.ResyncRequired:
                feed.skip()
                await _tell_resync(stream, feed)
                continue
            shown = event.show(events.epoch, language=words)
            data = msgspec.json.encode(shown).decode()
            await stream.send(event=event.kind, data=data, place=shown.id)


async def _vm_id(
    services: Services, principal: Principal, ref: str | None, *, after: str | None = None
) -> str | None:
    """The VM that is meant, also if it is deleted, and `after` comes before that.

    Raises `VmNotFound`.
    """
    if ref is None:
        return None
    try:
        return (await services.vms.find(principal, ref)).id
    except errors.VmNotFound:
        if await services.events.deletion_of(principal, ref, after=after) is None:
            raise
        return ref


@asynccontextmanager
async def _followed(
    events: Events, principal: Principal, *, after: str | None, wants: Wants
) -> AsyncIterator[tuple[Feed, bool]]:
    """A feed for as long as the block lasts, and whether it begins where it was to begin."""
    is_whole = True
    try:
        feed = await events.feed(principal, after=after, wants=wants)
    except errors.ResyncRequired:
        feed, is_whole = await events.feed(principal, after=None, wants=wants), False
    try:
        yield feed, is_whole
    finally:
        feed.close()


async def _tell_resync(stream: EventStream, feed: Feed) -> None:
    data = msgspec.json.encode({"event": RESYNC, "lastId": feed.last_id}).decode()
    await stream.send(event=RESYNC, data=data, place=feed.last_id)


async def _next(stream: EventStream, feed: Feed) -> EventRecord:
    """The next event; while there is none, the client is told how far it is."""
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                return await feed.next()
        except TimeoutError:
            await stream.beat(place=feed.last_id)
