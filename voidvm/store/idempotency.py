"""The table of idempotency keys and the answers that were given under them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from voidvm.domain.idempotency import Remembered, StoredAnswer
from voidvm.store.database import Database, Transaction
from voidvm.store.values import stamp

KEPT: Final = timedelta(hours=24)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredAnswer).decode


class IdempotencyStore:
    """Answers on disk, for a day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str, key: str) -> Remembered | None:
        """What is known of a user's key."""
        rows = await self._database.read(
            "SELECT request_hash, answer FROM idempotency"
            " WHERE user_id = ? AND key = ? AND created_at > ?",
            (user_id, key, stamp(datetime.now(UTC) - KEPT)),
        )
        if not rows:
            return None
        answer = rows[0]["answer"]
        return Remembered(
            request_hash=rows[0]["request_hash"],
            answer=None if answer is None else _decode(answer),
        )

    async def save(
        self, user_id: str, key: str, *, request_hash: str, answer: StoredAnswer | None
    ) -> None:
        """Keep an answer, and forget those that are too old."""
        now = datetime.now(UTC)

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "DELETE FROM idempotency WHERE created_at <= ?", (stamp(now - KEPT),)
            )
            # A user who was deleted by its own request has no row to refer to any more.
            await transaction.execute(
                "INSERT OR REPLACE INTO idempotency SELECT ?1, ?2, ?3, ?4, ?5"
                " WHERE EXISTS (SELECT 1 FROM users WHERE id = ?1)",
                (
                    user_id,
                    key,
                    request_hash,
                    None if answer is None else _encode(answer),
                    stamp(now),
                ),
            )

        await self._database.write(work)
