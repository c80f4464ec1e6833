"""The table of events, bounded in age and length; triggers write most of it (`event_triggers`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.audit import Level
from voidvm.domain.event import EventKind, EventRecord
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import moment, stamp

KEPT: Final = timedelta(days=30)
KEPT_MAX: Final = 100_000
# How many are deleted in one transaction: others wait for it.
_AT_ONCE: Final = 2_000
# How many are looked through in one read: a filter that nothing fits holds nobody else up.
_SPAN: Final = 5_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Bounds(NamedTuple):
    """What is kept: all numbers from `oldest` to `newest`; nothing: `oldest` is the greater."""

    oldest: int
    newest: int


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: of these kinds, of one VM, and of those that the caller may see by owner."""

    principal: Principal
    kinds: Collection[EventKind]
    vm_id: str | None = None


class EventStore:
    """Events on disk."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def epoch(self) -> str:
        """The identity of the database, made with it."""
        rows = await self.database.read("SELECT epoch FROM identity")
        return str(rows[0]["epoch"])

    async def append(
        self,
        kind: EventKind,
        data: Mapping[str, object],
        *,
        level: Level = "info",
        owner_id: str | None = None,
        vm_id: str | None = None,
    ) -> None:
        """Write an event that is about no row."""
        await self.database.execute(
            "INSERT INTO events (kind, level, owner_id, vm_id, data) VALUES (?, ?, ?, ?, ?)",
            (kind, level, owner_id, vm_id, _encode(data).decode()),
        )

    async def bounds(self) -> Bounds:
        """What is kept now; numbers go on when all was pruned."""
        rows = await self.database.read(
            "SELECT (SELECT min(seq) FROM events) AS oldest,"
            " (SELECT seq FROM sqlite_sequence WHERE name = 'events') AS newest"
        )
        newest = rows[0]["newest"] or 0
        oldest = rows[0]["oldest"]
        return Bounds(newest + 1 if oldest is None else oldest, newest)

    async def since(self, seq: int, *, limit: int) -> list[EventRecord]:
        """The first events after `seq`, whosesoever."""
        rows = await self.database.read(
            "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        return [_event(row) for row in rows]

    async def find(
        self, wanted: EventFilter, *, after: int, until: int, limit: int
    ) -> list[EventRecord]:
        """The first events after `after`, up to `until`, that fit."""
        found: list[EventRecord] = []
        while after < until and len(found) < limit:
            end = min(until, after + _SPAN)
            found += await self._find(wanted, after, end, limit - len(found), order="ASC")
            after = end
        return found

    async def find_last(
        self, wanted: EventFilter, *, after: int, until: int, limit: int
    ) -> list[EventRecord]:
        """The newest events after `after`, up to `until`, that fit, oldest first."""
        found: list[EventRecord] = []
        while after < until and len(found) < limit:
            start = max(after, until - _SPAN)
            found += await self._find(wanted, start, until, limit - len(found), order="DESC")
            until = start
        return found[::-1]

    async def _find(
        self, wanted: EventFilter, after: int, until: int, limit: int, *, order: str
    ) -> list[EventRecord]:
        narrow = f"kind IN ({', '.join('?' for _ in wanted.kinds)})"
        values: list[object] = [*wanted.kinds]
        if wanted.vm_id is not None:
            narrow += " AND vm_id = ?"
            values.append(wanted.vm_id)
        one = f"SELECT * FROM events WHERE seq > ? AND seq <= ? AND {narrow}"
        end = f"ORDER BY seq {order} LIMIT ?"
        place = [after, until, *values]
        if wanted.principal.sees_all:
            rows = await self.database.read(f"{one} {end}", (*place, limit))
        elif wanted.vm_id is not None:
            owned = "(owner_id = ? OR owner_id IS NULL)"
            parameters = (*place, wanted.principal.user_id, limit)
            rows = await self.database.read(f"{one} AND {owned} {end}", parameters)
        else:
            # Each half by its index and no further than needed.
            rows = await self.database.read(
                f"SELECT * FROM (SELECT * FROM ({one} AND owner_id = ? {end})"
                f" UNION ALL SELECT * FROM ({one} AND owner_id IS NULL {end})) {end}",
                (*place, wanted.principal.user_id, limit, *place, limit, limit),
            )
        return [_event(row) for row in rows]

    async def deletion(self, vm_id: str) -> EventRecord | None:
        """The event that tells of a VM's end, while it is kept."""
        rows = await self.database.read(
            "SELECT * FROM events WHERE vm_id = ? AND kind = ? ORDER BY seq DESC LIMIT 1",
            (vm_id, EventKind.VM_DELETED),
        )
        return _event(rows[0]) if rows else None

    async def prune(self) -> bool:
        """Drop of what is older than `KEPT`, and of the oldest above `KEPT_MAX`, the first piece.

        Never from between. Whether there may be more to drop.
        """
        newest = (await self.bounds()).newest
        rows = await self.database.read(
            "SELECT seq FROM events WHERE at >= ? ORDER BY seq LIMIT 1",
            (stamp(datetime.now(UTC) - KEPT),),
        )
        young = rows[0]["seq"] if rows else newest + 1
        first = max(young, newest + 1 - KEPT_MAX)

        async def work(transaction: Transaction) -> int:
            return await transaction.execute(
                "DELETE FROM events WHERE seq IN"
                " (SELECT seq FROM events WHERE seq < ? ORDER BY seq LIMIT ?)",
                (first, _AT_ONCE),
            )

        return first > 1 and await self.database.write(work) == _AT_ONCE


def _event(row: Row) -> EventRecord:
    return EventRecord(
        seq=row["seq"],
        kind=EventKind(row["kind"]),
        level=row["level"],
        owner_id=row["owner_id"],
        vm_id=row["vm_id"],
        data=_decode(row["data"]),
        at=moment(row["at"]),
    )
