"""The table of operations, kept for a week after their end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from voidvm.domain.operation import OPEN, OperationRecord, OperationStatus
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import stamp

KEPT: Final = timedelta(days=7)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(OperationRecord).decode


class OperationStore:
    """Operations on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, record: OperationRecord) -> None:
        """Keep the newest state; one of a user that is no more is not kept."""

        async def work(transaction: Transaction) -> None:
            await _put(transaction, record)

        await self._database.write(work)

    async def get(self, operation_id: str) -> OperationRecord | None:
        """An operation of any age."""
        rows = await self._database.read(
            "SELECT body FROM operations WHERE id = ?", (operation_id,)
        )
        return _record(rows[0]) if rows else None

    async def page(
        self,
        *,
        owner_id: str | None,
        status: OperationStatus | None,
        vm_id: str | None,
        page: int,
        limit: int,
    ) -> tuple[list[OperationRecord], int]:
        """One page, newest first, and the number of all that fit."""
        where = (
            " WHERE (?1 IS NULL OR owner_id = ?1) AND (?2 IS NULL OR status = ?2)"
            " AND (?3 IS NULL OR vm_id = ?3)"
        )
        filters = (owner_id, status, vm_id)
        rows = await self._database.read(
            f"SELECT body FROM operations{where} ORDER BY created_at DESC, id LIMIT ?4 OFFSET ?5",
            (*filters, limit, (page - 1) * limit),
        )
        counted = await self._database.read(f"SELECT count(*) FROM operations{where}", filters)
        return [_record(row) for row in rows], int(counted[0][0])

    async def interrupt_open(self, *, but: Collection[str]) -> None:
        """Mark what is open as interrupted: all `but` the operations with these ids."""

        async def work(transaction: Transaction) -> None:
            marks = ", ".join("?" for _ in OPEN)
            rows = await transaction.query(
                f"SELECT body FROM operations WHERE status IN ({marks})", tuple(OPEN)
            )
            for record in map(_record, rows):
                if record.id in but:
                    continue
                ended = msgspec.structs.replace(
                    record,
                    status=OperationStatus.INTERRUPTED,
                    finished_at=datetime.now(UTC),
                )
                await _put(transaction, ended)

        await self._database.write(work)

    async def forget_old(self) -> None:
        """Drop what ended more than a week ago."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "DELETE FROM operations WHERE finished_at < ?", (stamp(datetime.now(UTC) - KEPT),)
            )

        await self._database.write(work)


async def _put(transaction: Transaction, record: OperationRecord) -> None:
    await transaction.execute(
        # No REPLACE, which deletes the row: triggers must see what it was.
        "INSERT INTO operations SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7"
        " WHERE EXISTS (SELECT 1 FROM users WHERE id = ?2)"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
        " finished_at = excluded.finished_at, body = excluded.body",
        (
            record.id,
            record.owner_id,
            record.vm_id,
            record.status,
            stamp(record.created_at),
            stamp(record.finished_at) if record.finished_at else None,
            _encode(record),
        ),
    )


def _record(row: Row) -> OperationRecord:
    return _decode(row["body"])
