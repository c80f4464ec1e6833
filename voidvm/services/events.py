"""Events for those who listen: each one told once, in order, and again to whoever was away.

One task reads what the last commits brought and publishes it. The newest stay in memory; a
listener is only a place in their order, so that a slow one costs nothing, and one that has fallen
far behind, or was away, is served from the disk.
"""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec import Struct

from voidvm.bus import Bus, EventHappened
from voidvm.domain.account import Principal
from voidvm.domain.audit import Level
from voidvm.domain.event import EventKind, EventRecord, kinds_for
from voidvm.errors import (
    FieldProblem,
    ResyncRequired,
    ServiceStopping,
    ValidationFailed,
)
from voidvm.store.events import Bounds, EventFilter, EventStore

log = logging.getLogger(__name__)

# Events in memory, of some hundred bytes each.
RECENT: Final = 2_000
# Rows that are read at once; what a listener holds at most.
CHUNK: Final = 200
# Another process, such as `voidvm image add`, does not tell us of its commits.
LOOK_EVERY_S: Final = 1.0
PRUNE_EVERY_S: Final = 3600.0

Wants = Callable[[EventRecord], bool]
_ID = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class EventPage(Struct, frozen=True, kw_only=True):
    """Events, oldest first; `last_id` is the place from which to go on."""

    events: list[EventRecord]
    last_id: str
    has_more: bool


class Events:
    """Tells events, and keeps the newest at hand."""

    def __init__(self, store: EventStore, *, bus: Bus) -> None:
        self.epoch = ""
        self._store = store
        self._bus = bus
        # The number of the newest event that was told.
        self.told = 0
        self._recent: deque[EventRecord] = deque(maxlen=RECENT)
        self._news = asyncio.Event()
        self._is_stopping = False
        self._teller: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    # Life

    async def start(self) -> None:
        """Begin to tell what happens from now on."""
        self.epoch = await self._store.epoch()
        self.told = (await self._store.bounds()).newest
        self._store.database.on_commit = self._news.set
        self._look()
        self._teller = asyncio.create_task(self._tell(), name="events")

    async def close(self) -> None:
        """Tell the last ones, then nothing more; who still listens is told that."""
        self._is_stopping = True
        self._news.set()
        if self._looking is not None:
            self._looking.cancel()
        if self._teller is not None:
            await self._teller
        self._wake()

    async def settled(self) -> None:
        """Wait until all that is on disk was told. Raises `ServiceStopping` as `told_after`."""
        await self.told_after((await self._store.bounds()).newest - 1)

    # Use cases

    @property
    def last_id(self) -> str:
        """The newest event that was told."""
        return self.id_of(self.told)

    def id_of(self, seq: int) -> str:
        """A place in the order, as clients name it."""
        return f"{self.epoch}-{seq}"

    async def tell(
        self, kind: EventKind, data: Mapping[str, object], level: Level = "info"
    ) -> None:
        """Tell what no row speaks of; on disk when this returns, unless that takes nothing."""
        try:
            await self._store.append(kind, data, level=level)
        except Exception:
            # What it tells of has happened all the same.
            log.exception("cannot write down '%s'", kind)

    async def page(
        self,
        principal: Principal,
        *,
        after: str | None,
        limit: int,
        vm_id: str | None = None,
        kinds: Collection[EventKind] | None = None,
    ) -> EventPage:
        """The caller's first events after `after`; without it, the newest.

        Raises `ValidationFailed` for what is no id, and `ResyncRequired`.
        """
        allowed = kinds_for(principal)
        wanted = EventFilter(
            principal=principal,
            kinds=allowed if kinds is None else [kind for kind in allowed if kind in kinds],
            vm_id=vm_id,
        )
        bounds = await self._store.bounds()
        newest = bounds.newest
        if after is None:
            found = await self._store.find_last(
                wanted, after=bounds.oldest - 1, until=newest, limit=limit
            )
            return EventPage(events=found, last_id=self.id_of(newest), has_more=False)
        seq = self._place(after, bounds)
        found = await self._store.find(wanted, after=seq, until=newest, limit=limit + 1)
        # Again: what was pruned meanwhile is missing above.
        self._check_kept(seq, await self._store.bounds())
        has_more = len(found) > limit
        found = found[:limit]
        last = found[-1].seq if has_more else newest
        return EventPage(events=found, last_id=self.id_of(last), has_more=has_more)

    async def deletion_of(
        self, principal: Principal, vm_id: str, *, after: str | None = None
    ) -> EventRecord | None:
        """The end of the caller's VM, if it has one that comes after `after`, and while it is kept.

        Who hears of that hears of what was before: the admins, and who owned it last.
        """
        event = await self._store.deletion(vm_id)
        if event is None or not event.is_for(principal):
            return None
        if after is None:
            return event
        # After a place of another database comes nothing but what is new.
        found = _ID.fullmatch(after)
        is_ahead = found is not None and found[1] == self.epoch and int(found[2]) < event.seq
        return event if is_ahead else None

    async def feed(
        self, principal: Principal, *, after: str | None, wants: Wants | None = None
    ) -> Feed:
        """The caller's events after `after`, or from now on; `wants` narrows it.

        Raises as `page`.
        """
        if after is None:
            return Feed(self, principal, place=self.told, wants=wants)
        place = self._place(after, await self._store.bounds())
        return Feed(self, principal, place=place, wants=wants)

    def _place(self, text: str, bounds: Bounds) -> int:
        """The number in an id. Raises `ValidationFailed`, `ResyncRequired`."""
        newest = self.id_of(bounds.newest)
        found = _ID.fullmatch(text)
        if found is None:
            problem = FieldProblem("after", f"must be an event's id, such as {newest}")
            raise ValidationFailed(f"{problem.field}: {problem.message}", errors=[problem])
        place = int(found[2])
        if found[1] != self.epoch or place > bounds.newest:
            raise ResyncRequired(newest)
        self._check_kept(place, bounds)
        return place

    def _check_kept(self, place: int, bounds: Bounds) -> None:
        if place < bounds.oldest - 1:
            raise ResyncRequired(self.id_of(bounds.newest))

    # What feeds call

    def recent_after(self, place: int) -> EventRecord | None:
        """The event after `place`, if it is in memory."""
        if not self._recent or not self._recent[0].seq - 1 <= place < self.told:
            return None
        return self._recent[bisect_right(self._recent, place, key=lambda event: event.seq)]

    async def stored_after(self, principal: Principal, place: int) -> tuple[list[EventRecord], int]:
        """The caller's next events from disk, and the place up to which these are all.

        Raises `ResyncRequired`.
        """
        until = self.told
        wanted = EventFilter(principal=principal, kinds=kinds_for(principal))
        self._check_kept(place, await self._store.bounds())
        found = await self._store.find(wanted, after=place, until=until, limit=CHUNK)
        self._check_kept(place, await self._store.bounds())
        return found, found[-1].seq if len(found) == CHUNK else until

    async def told_after(self, place: int) -> None:
        """Wait for an event after `place`. Raises `ServiceStopping` when none will come."""
        while self.told <= place:
            if self._teller is None or self._teller.done():
                raise ServiceStopping
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    # Telling

    async def _tell(self) -> None:
        pruned = -PRUNE_EVERY_S
        loop = asyncio.get_running_loop()
        while True:
            is_last = self._is_stopping
            self._news.clear()
            try:
                await self._tell_new()
                if not is_last and loop.time() - pruned > PRUNE_EVERY_S:
                    has_more = await self._store.prune()
                    pruned = pruned if has_more else loop.time()
            except Exception:
                # A disk that fails may work again; what is not told yet is told then.
                log.exception("cannot read events")
            if is_last:
                return
            await self._news.wait()

    def _look(self) -> None:
        self._news.set()
        self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    async def _tell_new(self) -> None:
        while found := await self._store.since(self.told, limit=CHUNK):
            for event in found:
                self._recent.append(event)
                self.told = event.seq
                self._bus.publish(EventHappened(event=event))
            self._wake()
            if len(found) < CHUNK:
                return

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Feed:
    """One listener's way through the events; it holds at most one chunk of them."""

    def __init__(
        self, events: Events, principal: Principal, *, place: int, wants: Wants | None
    ) -> None:
        self._events = events
        self._principal = principal
        self._place = place
        self._wants = wants
        self._chunk: deque[EventRecord] = deque()
        # Up to where the chunk is all that there is.
        self._chunk_end = place
        self._is_closed = False

    @property
    def last_id(self) -> str:
        """The place up to which all that concerns the listener was handed out."""
        return self._events.id_of(self._place)

    async def next(self) -> EventRecord:
        """The next event; waits for it. A cancelled call loses none.

        Raises `ResyncRequired` when the listener was so slow that it is not kept any more, and
        `ServiceStopping`.
        """
        while not self._is_closed:
            event = await self._step()
            if event is not None and self._is_wanted(event):
                return event
        raise ServiceStopping

    def skip(self) -> None:
        """Go on with what happens from now on, as after a `ResyncRequired`."""
        self._chunk.clear()
        self._place = self._chunk_end = self._events.told

    def close(self) -> None:
        """Hand out no more."""
        self._is_closed = True
        self._chunk.clear()

    def _is_wanted(self, event: EventRecord) -> bool:
        return event.is_for(self._principal) and (self._wants is None or self._wants(event))

    async def _step(self) -> EventRecord | None:
        """One event further, or as far as is known that none concerns the listener."""
        if self._chunk:
            event = self._chunk.popleft()
            self._place = event.seq
            return event
        self._place = max(self._place, self._chunk_end)
        await self._events.told_after(self._place)
        recent = self._events.recent_after(self._place)
        if recent is not None:
            self._place = self._chunk_end = recent.seq
            return recent
        found, end = await self._events.stored_after(self._principal, self._place)
        self._chunk.extend(found)
        self._chunk_end = end
        return None
