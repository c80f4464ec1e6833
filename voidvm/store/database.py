"""One SQLite file: a reader, one writer at a time, and transactions that are whole or not there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from voidvm.errors import DatabaseUnusable, NoSpace, VoidVMError
from voidvm.store.migrations import MIGRATIONS

T = TypeVar("T")
Row = aiosqlite.Row
Parameters = Sequence[object]

BUSY_TIMEOUT_S = 5.0
SQLITE_VERSION = sqlite3.sqlite_version

Trouble = Literal["full", "unusable"]
# How many seconds a transaction took, and what the disk or the file did to it.
WriteHandler = Callable[[float, Trouble | None], None]

_FAILURES: dict[Trouble, type[VoidVMError]] = {"full": NoSpace, "unusable": DatabaseUnusable}
_FULL = sqlite3.SQLITE_FULL
# Of the file or its disk, not of what was asked for.
_UNUSABLE = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        # Somebody else holds the file for longer than `BUSY_TIMEOUT_S`.
        sqlite3.SQLITE_BUSY,
    }
)


class StoreError(Exception):
    """The database cannot be used; the text says what to do."""


class Transaction:
    """What a write may do; it sees its own changes."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement; the number of rows it touched."""
        async with self._connection.execute(sql, parameters) as cursor:
            return cursor.rowcount

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a statement once a row."""
        await self._connection.executemany(sql, rows)

    async def query(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """The rows of a query."""
        return list(await self._connection.execute_fetchall(sql, parameters))


class Database:
    """An open database. Other processes may have it open, too."""

    def __init__(self, reader: aiosqlite.Connection, writer: aiosqlite.Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._on_write: WriteHandler | None = None
        self._trouble: Trouble | None = None
        self._written = time.monotonic()
        # When the transaction began that has the writer now.
        self._began: float | None = None
        # Called after each commit; must be quick.
        self.on_commit: Callable[[], None] = _nothing

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Open or make the database and bring its schema up to date.

        Raises `StoreError` for one that a newer version made, that is damaged, or is none.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"{path} cannot be used: {error.strerror}") from error
        try:
            async with AsyncExitStack() as stack:
                writer = await _connect(path)
                stack.push_async_callback(writer.close)
                await _refuse_damaged(writer)
                await _migrate(writer)
                reader = await _connect(path)
                stack.push_async_callback(reader.close)
                await reader.execute("PRAGMA query_only = ON")
                stack.pop_all()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} cannot be used: {error}") from error
        return cls(reader, writer)

    @property
    def trouble(self) -> Trouble | None:
        """What the disk or the file did to the latest transaction or query, if they failed it."""
        return self._trouble

    @property
    def idle_s(self) -> float:
        """For how long nothing was written."""
        return time.monotonic() - self._written

    @property
    def stuck_s(self) -> float:
        """For how long the transaction under way has had the writer to itself; 0: there is none."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def watch(self, on_write: WriteHandler) -> None:
        """Tell of every transaction from now on."""
        self._on_write = on_write

    async def try_out(self) -> None:
        """Write the file's head as it is, to see whether that works; `trouble` says what came."""
        with suppress(NoSpace, DatabaseUnusable):
            await self.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._note_success()

    async def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """The rows of a query, as of the last transaction. Raises `DatabaseUnusable`."""
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            if (trouble := _trouble_of(error)) is None:
                raise
            self._trouble = trouble
            raise _FAILURES[trouble] from error

    async def execute(self, sql: str, parameters: Parameters = ()) -> None:
        """Run one statement as a transaction of its own, as `write` would.

        SQLite begins and commits around a lone statement by itself: one trip to the
        connection's thread instead of four.
        """

        async def work() -> None:
            await self._writer.execute_fetchall(sql, parameters)

        await self._own(self._alone(work))

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do `work` as one transaction, on disk when this returns.

        Raises `NoSpace`, `DatabaseUnusable` and what `work` raises.

        It is a task of the database's own: a caller who is cancelled neither stops it half-way
        nor gives the connection to the next one too early.
        """
        return await self._own(self._alone(lambda: self._transact(work)))

    async def close(self) -> None:
        """Wait for the transactions under way, then close."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._reader.close()
        await self._writer.close()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even where the caller has gone away

    async def _own(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work, name="transaction")
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` with the writer to itself."""
        began = time.monotonic()
        async with self._lock:
            self._began = time.monotonic()
            changes = self._writer.total_changes
            try:
                result = await work()
            except sqlite3.Error as error:
                if (trouble := _trouble_of(error)) is None:
                    raise
                self._trouble = trouble
                self._tell_write(began, trouble)
                raise _FAILURES[trouble] from error
            finally:
                self._began = None
            # One that changed no row has not touched the disk, and proves nothing.
            is_proof = self._writer.total_changes != changes
        if is_proof:
            self._note_success()
        self._tell_write(began, None)
        self.on_commit()
        return result

    def _note_success(self) -> None:
        self._trouble, self._written = None, time.monotonic()

    def _tell_write(self, began: float, trouble: Trouble | None) -> None:
        if self._on_write is not None:
            self._on_write(time.monotonic() - began, trouble)

    async def _transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        await self._writer.execute("BEGIN IMMEDIATE")
        try:
            result = await work(Transaction(self._writer))
            await self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                await self._writer.execute("ROLLBACK")
            raise
        return result


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _trouble_of(error: sqlite3.Error) -> Trouble | None:
    if _code(error) == _FULL:
        return "full"
    return "unusable" if _code(error) in _UNUSABLE else None


def _nothing() -> None:
    """Whom nobody listens to."""


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        connection.row_factory = Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "temp_store = MEMORY",
        ):
            await connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _refuse_damaged(connection: aiosqlite.Connection) -> None:
    """Raise `sqlite3.DatabaseError` for a file whose pages do not fit together.

    To go on with it would make more of it unreadable.
    """
    rows = list(await connection.execute_fetchall("PRAGMA quick_check(1)"))
    if (found := str(rows[0][0])) != "ok":
        raise sqlite3.DatabaseError(f"it is damaged, restore a copy of it: {found}")


async def _migrate(connection: aiosqlite.Connection) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        version = await _version(connection)
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                await connection.execute(statement)
        await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        await connection.execute("COMMIT")
    except BaseException:
        await connection.execute("ROLLBACK")
        raise


async def _version(connection: aiosqlite.Connection) -> int:
    """The version of the schema. Raises `StoreError` for a newer one than is known here."""
    rows = list(await connection.execute_fetchall("PRAGMA user_version"))
    version = int(rows[0][0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database is of version {version}, this VoidVM knows {len(MIGRATIONS)}: "
            "use the version of VoidVM that made it, or a newer one"
        )
    return version


def _statements(script: str) -> Iterable[str]:
    # `executescript` would commit first. Triggers have semicolons inside.
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip("; \n"):
                yield statement
            statement = ""
    if statement.strip("; \n"):
        yield statement
