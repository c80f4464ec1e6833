"""The table of API tokens; of the tokens themselves only fingerprints are kept."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from voidvm.domain.token import ApiTokenRecord
from voidvm.errors import NameTaken, NoSpace
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import moment, permission_set, permission_text, stamp

# A token that is used all the time need not be written all the time.
_NOTE_USE_EVERY = timedelta(minutes=1)


class TokenStore:
    """API tokens on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, token: ApiTokenRecord) -> None:
        """Add a token. Raises `NameTaken`."""

        async def work(transaction: Transaction) -> None:
            try:
                await transaction.execute(
                    "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                    (
                        token.id,
                        token.user_id,
                        token.name,
                        token.token_hash,
                        permission_text(token.permissions),
                        stamp(token.created_at),
                        stamp(token.expires_at) if token.expires_at else None,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=token.name) from error

        await self._database.write(work)

    async def by_hash(self, token_hash: str) -> ApiTokenRecord | None:
        """The token with this fingerprint."""
        rows = await self._database.read(
            "SELECT * FROM api_tokens WHERE token_hash = ?", (token_hash,)
        )
        return _token(rows[0]) if rows else None

    async def get(self, token_id: str) -> ApiTokenRecord | None:
        """A token by id."""
        rows = await self._database.read("SELECT * FROM api_tokens WHERE id = ?", (token_id,))
        return _token(rows[0]) if rows else None

    async def of_user(self, user_id: str) -> list[ApiTokenRecord]:
        """A user's tokens, oldest first."""
        rows = await self._database.read(
            "SELECT * FROM api_tokens WHERE user_id = ? ORDER BY created_at, id", (user_id,)
        )
        return [_token(row) for row in rows]

    async def note_use(self, token: ApiTokenRecord) -> None:
        """Note that it was used just now, unless that was noted a moment ago.

        On a full disk it is not noted; that is no reason to refuse who carries it.
        """
        now = datetime.now(UTC)
        if token.last_used_at is not None and now - token.last_used_at < _NOTE_USE_EVERY:
            return

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "UPDATE api_tokens SET last_used_at = ? WHERE id = ?", (stamp(now), token.id)
            )

        with suppress(NoSpace):
            await self._database.write(work)

    async def delete(self, token_id: str, *, user_id: str) -> bool:
        """Forget a user's token; False when there is none."""

        async def work(transaction: Transaction) -> bool:
            deleted = await transaction.execute(
                "DELETE FROM api_tokens WHERE id = ? AND user_id = ?", (token_id, user_id)
            )
            return deleted == 1

        return await self._database.write(work)


def _token(row: Row) -> ApiTokenRecord:
    return ApiTokenRecord(
        id=row["id"],
        user_id=row["user_id"],
        name=row["name"],
        token_hash=row["token_hash"],
        permissions=permission_set(row["permissions"]),
        created_at=moment(row["created_at"]),
        expires_at=moment(row["expires_at"]) if row["expires_at"] else None,
        last_used_at=moment(row["last_used_at"]) if row["last_used_at"] else None,
    )
