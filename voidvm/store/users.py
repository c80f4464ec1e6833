"""The table of users."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from voidvm.domain.account import UserRecord
from voidvm.errors import NameTaken
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import moment, stamp


class UserStore:
    """Users on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, user: UserRecord) -> None:
        """Add a user. Raises `NameTaken`."""

        async def work(transaction: Transaction) -> None:
            try:
                await transaction.execute(
                    "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        user.id,
                        user.username,
                        user.email,
                        user.role,
                        user.plan,
                        user.status,
                        user.password_hash,
                        stamp(user.last_login) if user.last_login else None,
                        stamp(user.created_at),
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=user.username) from error

        await self._database.write(work)

    async def get(self, user_id: str) -> UserRecord | None:
        """A user by id."""
        rows = await self._database.read("SELECT * FROM users WHERE id = ?", (user_id,))
        return _user(rows[0]) if rows else None

    async def by_username(self, username: str) -> UserRecord | None:
        """A user by name."""
        rows = await self._database.read("SELECT * FROM users WHERE username = ?", (username,))
        return _user(rows[0]) if rows else None

    async def count(self) -> int:
        """How many users there are."""
        return int((await self._database.read("SELECT count(*) FROM users"))[0][0])

    async def set_last_login(self, user_id: str, at: datetime) -> None:
        """Note a sign-in."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "UPDATE users SET last_login = ? WHERE id = ?", (stamp(at), user_id)
            )

        await self._database.write(work)


def _user(row: Row) -> UserRecord:
    return UserRecord(
        id=row["id"],
        username=row["username"],
        email=row["email"],
        role=row["role"],
        plan=row["plan"],
        status=row["status"],
        password_hash=row["password_hash"],
        last_login=moment(row["last_login"]) if row["last_login"] else None,
        created_at=moment(row["created_at"]),
    )
