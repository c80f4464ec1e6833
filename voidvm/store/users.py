"""The table of users."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from voidvm.domain.account import UserRecord, UserStatus
from voidvm.domain.permission import Role
from voidvm.domain.quota import Plans, Usage
from voidvm.errors import LastAdmin, NameTaken, UserNotFound, UserOwnsObjects
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.quota import check_transfer, usage
from voidvm.store.values import moment, permission_set, permission_text, stamp

_FIND = "SELECT * FROM users WHERE id = ?1 OR username = ?1 COLLATE NOCASE"


class UserStore:
    """Users on disk."""

    def __init__(self, database: Database, *, plans: Plans) -> None:
        self._database = database
        self._plans = plans

    async def plans(self) -> set[str]:
        """The plans that users have."""
        return {row["plan"] for row in await self._database.read("SELECT plan FROM users")}

    async def insert(self, user: UserRecord) -> None:
        """Add a user. Raises `NameTaken`."""

        async def work(transaction: Transaction) -> None:
            try:
                await transaction.execute(
                    "INSERT INTO users (username, email, role, plan, status, password_hash,"
                    " last_login, permissions, must_change_password, language, updated_at,"
                    " created_at, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*_columns(user), stamp(user.created_at), user.id),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=user.username) from error

        await self._database.write(work)

    async def get(self, user_id: str) -> UserRecord | None:
        """A user by id."""
        rows = await self._database.read("SELECT * FROM users WHERE id = ?", (user_id,))
        return user_record(rows[0]) if rows else None

    async def find(self, ref: str) -> UserRecord | None:
        """A user by id or name, in any case."""
        rows = await self._database.read(_FIND, (ref,))
        return user_record(rows[0]) if rows else None

    async def usage(self, user_id: str) -> Usage:
        """What a user has of the host."""
        return await usage(self._database, user_id)

    async def count(self) -> int:
        """How many users there are."""
        return int((await self._database.read("SELECT count(*) FROM users"))[0][0])

    async def page(
        self, *, role: Role | None, status: UserStatus | None, page: int, limit: int
    ) -> tuple[list[UserRecord], int]:
        """One page, oldest first, and the number of all that fit."""
        where = " WHERE (?1 IS NULL OR role = ?1) AND (?2 IS NULL OR status = ?2)"
        rows = await self._database.read(
            f"SELECT * FROM users{where} ORDER BY created_at, id LIMIT ?3 OFFSET ?4",
            (role, status, limit, (page - 1) * limit),
        )
        counted = await self._database.read(f"SELECT count(*) FROM users{where}", (role, status))
        return [user_record(row) for row in rows], int(counted[0][0])

    async def change(
        self,
        user_id: str,
        update: Callable[[UserRecord], UserRecord],
        *,
        ends_sessions_but: str | None = None,
        ends_sessions: bool = False,
    ) -> UserRecord:
        """Read, change and write a user in one transaction, and end its sessions if told to.

        Raises `UserNotFound`, `NameTaken`, and `LastAdmin` when no active admin would be left.
        """

        async def work(transaction: Transaction) -> UserRecord:
            rows = await transaction.query("SELECT * FROM users WHERE id = ?", (user_id,))
            if not rows:
                raise UserNotFound(user=user_id)
            user = msgspec.structs.replace(
                update(user_record(rows[0])), updated_at=datetime.now(UTC)
            )
            try:
                await transaction.execute(
                    "UPDATE users SET username = ?, email = ?, role = ?, plan = ?, status = ?,"
                    " password_hash = ?, last_login = ?, permissions = ?,"
                    " must_change_password = ?, language = ?, updated_at = ? WHERE id = ?",
                    (*_columns(user), user_id),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=user.username) from error
            await _require_admin(transaction, user.username)
            if ends_sessions:
                await transaction.execute(
                    "UPDATE sessions SET ended_at = ? WHERE user_id = ? AND ended_at IS NULL"
                    " AND id IS NOT ?",
                    (stamp(datetime.now(UTC)), user_id, ends_sessions_but),
                )
            return user

        return await self._database.write(work)

    async def set_last_login(self, user_id: str, at: datetime) -> None:
        """Note a sign-in."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "UPDATE users SET last_login = ? WHERE id = ?", (stamp(at), user_id)
            )

        await self._database.write(work)

    async def delete(
        self,
        user_id: str,
        *,
        check: Callable[[UserRecord], None],
        transfer_to: UserRecord | None,
    ) -> list[str]:
        """Delete a user; what it owned goes to `transfer_to`. The ids of the VMs that went.

        Raises `UserOwnsObjects` when it owns something and nobody takes it, `NameTaken` when the
        heir has a VM of the same name, `QuotaExceeded` by the heir's plan, `LastAdmin`.
        """

        async def work(transaction: Transaction) -> list[str]:
            rows = await transaction.query("SELECT * FROM users WHERE id = ?", (user_id,))
            if not rows:
                raise UserNotFound(user=user_id)
            user = user_record(rows[0])
            check(user)
            vms = await transaction.query("SELECT id FROM vms WHERE owner_id = ?", (user_id,))
            images = await transaction.query("SELECT id FROM images WHERE owner_id = ?", (user_id,))
            if (vms or images) and transfer_to is None:
                raise UserOwnsObjects(f"{len(vms)} VMs, {len(images)} images", user=user.username)
            if transfer_to is not None:
                if not await transaction.query(
                    "SELECT 1 FROM users WHERE id = ?", (transfer_to.id,)
                ):
                    raise UserNotFound(user=transfer_to.username)
                await check_transfer(
                    transaction, self._plans, user_id=user_id, heir_id=transfer_to.id
                )
                await _transfer(transaction, user_id, transfer_to.id)
            await transaction.execute("DELETE FROM users WHERE id = ?", (user_id,))
            await _require_admin(transaction, user.username)
            return [row["id"] for row in vms]

        return await self._database.write(work)


async def _transfer(transaction: Transaction, user_id: str, heir_id: str) -> None:
    clashes = await transaction.query(
        "SELECT name FROM vms WHERE owner_id = ?1 AND name IN"
        " (SELECT name FROM vms WHERE owner_id = ?2)"
        " UNION ALL SELECT name FROM images WHERE owner_id = ?1 AND name IN"
        " (SELECT name FROM images WHERE owner_id = ?2)",
        (user_id, heir_id),
    )
    if clashes:
        raise NameTaken(name=clashes[0]["name"])
    # Another owner is another version of the VM: its ETag says so.
    await transaction.execute(
        "UPDATE vms SET owner_id = ?, updated_at = ? WHERE owner_id = ?",
        (heir_id, stamp(datetime.now(UTC)), user_id),
    )
    await transaction.execute(
        "UPDATE images SET owner_id = ?1,"
        " body = CAST(json_set(CAST(body AS TEXT), '$.owner', ?1) AS BLOB) WHERE owner_id = ?2",
        (heir_id, user_id),
    )


async def _require_admin(transaction: Transaction, username: str) -> None:
    rows = await transaction.query(
        "SELECT 1 FROM users WHERE role = 'admin' AND status = 'active' AND permissions IS NULL"
    )
    if not rows:
        raise LastAdmin(user=username)


def _columns(user: UserRecord) -> tuple[object, ...]:
    return (
        user.username,
        user.email,
        user.role,
        user.plan,
        user.status,
        user.password_hash,
        stamp(user.last_login) if user.last_login else None,
        permission_text(user.permissions),
        user.must_change_password,
        user.language,
        stamp(user.updated_at),
    )


def user_record(row: Row) -> UserRecord:
    """The user of a row of the table."""
    return UserRecord(
        id=row["id"],
        username=row["username"],
        email=row["email"],
        role=row["role"],
        permissions=permission_set(row["permissions"]),
        plan=row["plan"],
        status=row["status"],
        password_hash=row["password_hash"],
        must_change_password=bool(row["must_change_password"]),
        language=row["language"],
        last_login=moment(row["last_login"]) if row["last_login"] else None,
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )
