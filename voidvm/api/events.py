"""Events: what changed, page by page."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm import errors
from voidvm.api.paging import PAGE_MAX
from voidvm.api.responses import language
from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.event import Event, EventKind
from voidvm.domain.vm import Value

After = Annotated[
    str, Meta(max_length=64, description="An event's id: what came after it. Default: the newest.")
]
VmRef = Annotated[str, Meta(min_length=1, description="Of this VM only, by id or name.")]


class EventsQuery(Value, frozen=True, kw_only=True):
    """Which events."""

    after: After | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    vm: VmRef | None = None
    kind: EventKind | None = None


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
    more than 100,000; where some after `after` are gone, the answer is `RESYNC_REQUIRED`.
    """
    query, services = call.query, call.services
    vm = await services.vms.find(call.principal, query.vm) if query.vm is not None else None
    page = await services.events.page(
        call.principal,
        after=query.after,
        limit=query.limit,
        vm_id=vm.id if vm is not None else None,
        kinds=None if query.kind is None else [query.kind],
    )
    words = language(call.request)
    shown = [event.show(services.events.epoch, language=words) for event in page.events]
    return Answer(data=EventList(events=shown, last_id=page.last_id, has_more=page.has_more))
