"""The table of the audit log, bounded in age and length."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from voidvm.domain.audit import AuditEntry, Level
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import moment, stamp

KEPT: Final = timedelta(days=90)
KEPT_MAX: Final = 200_000
_COLUMNS = "at, level, user_id, username, address, action, target, status, code, request_id"


class AuditStore:
    """Entries on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries, in order, in one transaction."""

        async def work(transaction: Transaction) -> None:
            for entry in entries:
                await transaction.execute(
                    f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        stamp(entry.at),
                        entry.level,
                        entry.user_id,
                        entry.username,
                        entry.address,
                        entry.action,
                        entry.target,
                        entry.status,
                        entry.code,
                        entry.request_id,
                    ),
                )

        await self._database.write(work)

    async def forget_old(self) -> None:
        """Drop what is older than `KEPT`, and the oldest above `KEPT_MAX`."""

        async def work(transaction: Transaction) -> None:
            oldest = stamp(datetime.now(UTC) - KEPT)
            await transaction.execute("DELETE FROM audit WHERE at < ?", (oldest,))
            await transaction.execute(
                "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (KEPT_MAX,)
            )

        await self._database.write(work)

    async def page(
        self,
        *,
        user_id: str | None,
        level: Level | None,
        since: datetime | None,
        until: datetime | None,
        page: int,
        limit: int,
    ) -> tuple[list[AuditEntry], int]:
        """One page, newest first, and the number of all that fit; `user_id`: only that user's."""
        where = (
            " WHERE (?1 IS NULL OR user_id = ?1) AND (?2 IS NULL OR level = ?2)"
            " AND (?3 IS NULL OR at >= ?3) AND (?4 IS NULL OR at <= ?4)"
        )
        filters = (
            user_id,
            level,
            stamp(since) if since else None,
            stamp(until) if until else None,
        )
        rows = await self._database.read(
            f"SELECT * FROM audit{where} ORDER BY id DESC LIMIT ?5 OFFSET ?6",
            (*filters, limit, (page - 1) * limit),
        )
        counted = await self._database.read(f"SELECT count(*) FROM audit{where}", filters)
        return [_entry(row) for row in rows], int(counted[0][0])


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=moment(row["at"]),
        level=row["level"],
        user_id=row["user_id"],
        username=row["username"],
        address=row["address"],
        action=row["action"],
        target=row["target"],
        status=row["status"],
        code=row["code"],
        request_id=row["request_id"],
    )
