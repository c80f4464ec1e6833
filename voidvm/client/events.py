"""Events: what changes, as it happens, over as many connections as it takes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from voidvm.client.core import Core, lines_of
from voidvm.client.errors import ApiError, Unreachable, VoidVMError
from voidvm.client.flavours import Bound, F, call, stream
from voidvm.client.requests import Json, One, Ref, Request, ref, request, whole
from voidvm.client.retries import Patience
from voidvm.client.types import Event, EventKind, EventList

if TYPE_CHECKING:
    import httpx

# The service says something every 15 s, if only that it is there.
SILENCE_S: Final = 40.0
GIVE_UP_AFTER_S: Final = 600.0
# A service that stops or starts, and one whose user has too many connections for now.
_PASSING: Final = frozenset({429, 502, 503, 504})
_RESYNC: Final = "resync-required"

OnBreak = Callable[[VoidVMError], None]


class Events(Bound[F]):
    """What changed of one's own objects, for admins of all; numbered, and kept for 30 days."""

    @stream
    async def __call__(
        self, *, vm: Ref | None = None, after: str | None = None, on_break: OnBreak | None = None
    ) -> AsyncGenerator[Event, None]:
        """Events as they happen, without end: those after the id `after`, or what is new.

        A broken connection is made again and goes on after the last event, which `on_break` is
        told; ten minutes without a service are an end. Raises `ResyncRequired` where events are
        kept no more: read the lists anew, then go on after its `last_id`. Of a deleted VM, named by
        its id, there are those after `after`; `VmNotFound` where its end is not among them.
        """
        place, is_known = after, False
        patience = Patience(first_s=0.2, last_s=5, give_up_s=GIVE_UP_AFTER_S)
        while True:
            try:
                asked = _stream_request(vm, place)
                async with aclosing(_blocks(self.core, asked)) as blocks:
                    async for block in blocks:
                        is_known, place = True, block.place
                        patience.held()
                        if block.kind == _RESYNC:
                            _raise_resync(block.place)
                        if block.data is not None:
                            yield Event(block.data)
                cause: VoidVMError = self.core.unreachable("the stream has ended")
            except VoidVMError as error:
                if not is_known or not _passes(error):
                    raise
                cause = error
            if on_break is not None and patience.is_unbroken:
                on_break(cause)
            await self.core.io.sleep(patience.pause(cause))

    @call
    def list(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        vm: Ref | None = None,
        kind: EventKind | None = None,
    ) -> Request[EventList]:
        """Some events, oldest first: what came after `after`, else the newest.

        `last_id` of the answer is the `after` with which to go on. A deleted VM is named by its id.
        Raises `ResyncRequired`.
        """
        query = {
            "after": after,
            "limit": limit,
            "vm": ref(vm) if vm is not None else None,
            "kind": kind,
        }
        return request("GET", "/events", One(EventList), query=query)


def _passes(error: VoidVMError) -> bool:
    return isinstance(error, Unreachable) or error.status in _PASSING


class _Block(NamedTuple):
    """One server-sent event; without data it only says how far the stream is."""

    place: str
    kind: str
    data: Json | None


def _stream_request(vm: Ref | None, place: str | None) -> Request[httpx.Response]:
    query = {"vm": ref(vm) if vm is not None else None, "after": place}
    headers = {"accept": "text/event-stream"}
    return request(
        "GET", "/events/stream", whole, query=query, headers=headers, timeout_s=SILENCE_S
    )


async def _blocks(core: Core, asked: Request[httpx.Response]) -> AsyncGenerator[_Block, None]:
    """What one stream sends until it ends. Raises `VoidVMError`."""
    place, kind, data = "", "", ""
    async with aclosing(lines_of(core, asked)) as lines:
        async for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                place = value
            elif name == "event":
                kind = value
            elif name == "data":
                data += value
            elif not line:
                yield _Block(place, kind, _decoded(data))
                kind, data = "", ""


def _decoded(data: str) -> Json | None:
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        raise ApiError("it does not speak as a VoidVM stream does") from error


def _raise_resync(last_id: str) -> NoReturn:
    raise ApiError.of(
        410,
        {
            "code": "RESYNC_REQUIRED",
            "message": "The events after this place are not here any more.",
            "details": last_id,
        },
    )
