"""The settings that were changed at run time: one row, so that a change is whole."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from voidvm.store.database import Database
from voidvm.store.values import moment, stamp


class StoredSettings(Struct, frozen=True, kw_only=True):
    """What was changed, and when for the last time."""

    values: dict[str, Any]
    updated_at: datetime


class SettingsStore:
    """The row on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> StoredSettings | None:
        """What was changed; None: nothing ever was."""
        rows = await self._database.read("SELECT body, updated_at FROM settings")
        if not rows:
            return None
        return StoredSettings(
            values=msgspec.json.decode(rows[0]["body"], type=dict[str, Any]),
            updated_at=moment(rows[0]["updated_at"]),
        )

    async def write(self, stored: StoredSettings) -> None:
        """Keep it in place of what was there."""
        await self._database.execute(
            "INSERT INTO settings (id, body, updated_at) VALUES (1, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET body = excluded.body,"
            " updated_at = excluded.updated_at",
            (msgspec.json.encode(stored.values), stamp(stored.updated_at)),
        )
