"""The table of uploads that are under way."""

from __future__ import annotations

import msgspec

from voidvm.domain.image import UploadRecord
from voidvm.store.database import Database, Transaction
from voidvm.store.values import stamp

_decode = msgspec.json.Decoder(UploadRecord).decode


class UploadStore:
    """Uploads on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, upload: UploadRecord) -> None:
        """Add an upload."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?)",
                (
                    upload.id,
                    upload.owner_id,
                    stamp(upload.created_at),
                    msgspec.json.encode(upload),
                ),
            )

        await self._database.write(work)

    async def get(self, upload_id: str) -> UploadRecord | None:
        """An upload by id."""
        rows = await self._database.read("SELECT body FROM uploads WHERE id = ?", (upload_id,))
        return _decode(rows[0]["body"]) if rows else None

    async def all(self) -> list[UploadRecord]:
        """Every upload."""
        rows = await self._database.read("SELECT body FROM uploads ORDER BY created_at")
        return [_decode(row["body"]) for row in rows]

    async def delete(self, upload_id: str) -> None:
        """Forget an upload."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))

        await self._database.write(work)
