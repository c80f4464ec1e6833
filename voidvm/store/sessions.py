"""The table of sessions: one row from a login to its end, through any number of refreshes."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from voidvm.domain.account import UserRecord
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.users import user_record
from voidvm.store.values import moment, stamp


class Session(Struct, frozen=True, kw_only=True):
    """A session; `refresh_hash` is of the one refresh token that still works."""

    id: str
    user_id: str
    refresh_hash: str
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    @property
    def is_live(self) -> bool:
        """Whether it neither ended nor ran out."""
        return self.ended_at is None and self.expires_at > datetime.now(UTC)


class SessionStore:
    """Sessions on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, session: Session, *, password_hash: str) -> bool:
        """Add a session, and forget those that ran out.

        False: meanwhile the user is gone, disabled or has another password.
        """

        async def work(transaction: Transaction) -> bool:
            await transaction.execute(
                "DELETE FROM sessions WHERE expires_at < ?", (stamp(datetime.now(UTC)),)
            )
            inserted = await transaction.execute(
                "INSERT INTO sessions SELECT ?, id, ?, ?, ?, NULL FROM users"
                " WHERE id = ? AND password_hash = ? AND status = 'active'",
                (
                    session.id,
                    session.refresh_hash,
                    stamp(session.created_at),
                    stamp(session.expires_at),
                    session.user_id,
                    password_hash,
                ),
            )
            return inserted == 1

        return await self._database.write(work)

    async def get(self, session_id: str) -> tuple[Session, UserRecord] | None:
        """A session by id, and its user: one read, since it stands before every answer."""
        rows = await self._database.read(
            "SELECT u.*, s.id AS session_id, s.refresh_hash, s.expires_at, s.ended_at,"
            " s.created_at AS began_at FROM sessions s JOIN users u ON u.id = s.user_id"
            " WHERE s.id = ?",
            (session_id,),
        )
        return (_session(rows[0]), user_record(rows[0])) if rows else None

    async def rotate(
        self, session_id: str, *, old_hash: str, new_hash: str, expires_at: datetime
    ) -> bool:
        """Put a new refresh token in the place of the old; False when it was not the valid one."""

        async def work(transaction: Transaction) -> bool:
            changed = await transaction.execute(
                "UPDATE sessions SET refresh_hash = ?, expires_at = ?"
                " WHERE id = ? AND refresh_hash = ? AND ended_at IS NULL",
                (new_hash, stamp(expires_at), session_id, old_hash),
            )
            return changed == 1

        return await self._database.write(work)

    async def end(self, session_id: str) -> None:
        """End a session."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "UPDATE sessions SET ended_at = ? WHERE id = ? AND ended_at IS NULL",
                (stamp(datetime.now(UTC)), session_id),
            )

        await self._database.write(work)


def _session(row: Row) -> Session:
    return Session(
        id=row["session_id"],
        user_id=row["id"],
        refresh_hash=row["refresh_hash"],
        created_at=moment(row["began_at"]),
        expires_at=moment(row["expires_at"]),
        ended_at=moment(row["ended_at"]) if row["ended_at"] else None,
    )
