"""Transactions are whole or not there, whoever is cancelled; schemas are brought up to date."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from voidvm.errors import DatabaseUnusable
from voidvm.store import database as module
from voidvm.store.database import Database, StoreError, Transaction
from voidvm.store.migrations import MIGRATIONS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voidvm.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path)
    await database.write(lambda t: t.execute("CREATE TABLE notes (text TEXT UNIQUE)"))
    yield database
    await database.close()


async def notes(database: Database) -> list[str]:
    return [row[0] for row in await database.read("SELECT text FROM notes ORDER BY rowid")]


async def note(transaction: Transaction, text: str) -> int:
    return await transaction.execute("INSERT INTO notes VALUES (?)", (text,))


async def test_a_write_is_seen_by_itself_and_then_by_all(database: Database) -> None:
    async def work(transaction: Transaction) -> int:
        assert await note(transaction, "a") == 1
        assert await notes(database) == []
        return len(await transaction.query("SELECT * FROM notes"))

    assert await database.write(work) == 1
    assert await notes(database) == ["a"]


async def test_a_failing_write_leaves_nothing(database: Database) -> None:
    async def work(transaction: Transaction) -> None:
        await note(transaction, "a")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        await database.write(work)
    assert await notes(database) == []
    await database.write(lambda t: note(t, "b"))
    assert await notes(database) == ["b"]


async def test_a_statement_that_fails_leaves_nothing(database: Database) -> None:
    await database.write(lambda t: note(t, "a"))

    async def work(transaction: Transaction) -> None:
        await note(transaction, "b")
        await note(transaction, "a")

    with pytest.raises(sqlite3.IntegrityError):
        await database.write(work)
    assert await notes(database) == ["a"]


async def test_a_cancelled_caller_leaves_no_half_transaction(database: Database) -> None:
    in_the_middle, go_on = asyncio.Event(), asyncio.Event()

    async def work(transaction: Transaction) -> None:
        await note(transaction, "a")
        in_the_middle.set()
        await go_on.wait()
        await note(transaction, "b")

    caller = asyncio.create_task(database.write(work))
    await in_the_middle.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    second = asyncio.create_task(database.write(lambda t: note(t, "c")))
    await asyncio.sleep(0.01)
    assert not second.done(), "the connection still belongs to the first"
    go_on.set()
    await second
    assert await notes(database) == ["a", "b", "c"]


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancel_at_any_moment_gives_all_or_nothing(database: Database, turns: int) -> None:
    async def work(transaction: Transaction) -> None:
        await note(transaction, "a")
        await note(transaction, "b")

    caller = asyncio.create_task(database.write(work))
    for _ in range(turns):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await database.write(lambda t: note(t, "z"))
    assert await notes(database) in (["z"], ["a", "b", "z"])


async def test_writes_wait_for_each_other(database: Database) -> None:
    async def work(transaction: Transaction, number: int) -> None:
        before = len(await transaction.query("SELECT * FROM notes"))
        await asyncio.sleep(0)
        await note(transaction, f"{before}-{number}")

    def numbered(number: int) -> Callable[[Transaction], Awaitable[None]]:
        return lambda transaction: work(transaction, number)

    await asyncio.gather(*(database.write(numbered(number)) for number in range(20)))
    assert [int(text.partition("-")[0]) for text in await notes(database)] == list(range(20))


async def test_a_lone_statement_is_a_transaction_too(database: Database, path: Path) -> None:
    await database.execute("INSERT INTO notes VALUES (?)", ("a",))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT text FROM notes").fetchall() == [("a",)]
    other.close()


async def test_the_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnusable):
        await database.read("INSERT INTO notes VALUES ('x')")


async def test_a_file_that_somebody_holds_is_told_as_such(database: Database, path: Path) -> None:
    await database._writer.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnusable):
            await database.write(lambda t: note(t, "a"))
        assert database.trouble == "unusable"
        other.execute("ROLLBACK")
    await database.write(lambda t: note(t, "b"))
    assert await notes(database) == ["b"]


async def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path) -> None:
    database = await Database.open(path)
    await database.close()
    content = bytearray(path.read_bytes())
    content[8192:12_288] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged, restore a copy"):
        await Database.open(path)
    assert path.read_bytes() == content


async def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory"):
        await Database.open(tmp_path)


async def test_closing_waits_for_what_is_under_way(path: Path) -> None:
    database = await Database.open(path)
    begun = asyncio.Event()

    async def work(transaction: Transaction) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await transaction.execute("CREATE TABLE late (x)")

    writing = asyncio.create_task(database.write(work))
    await begun.wait()
    await database.close()
    await writing
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE name = 'late'").fetchall()
    other.close()


async def test_another_process_may_write_meanwhile(database: Database, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO notes VALUES ('theirs')")
    other.close()
    await database.write(lambda t: note(t, "ours"))
    assert await notes(database) == ["theirs", "ours"]


async def test_the_file_is_nobody_elses_and_durable(database: Database, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = await database.read("PRAGMA journal_mode")
    assert rows[0][0] == "wal"
    rows = await database.read("PRAGMA synchronous")
    assert rows[0][0] == 2
    rows = await database.read("PRAGMA foreign_keys")
    assert rows[0][0] == 1


async def test_only_a_transaction_that_wrote_shows_that_writing_works(database: Database) -> None:
    for cure in (
        lambda: database.execute("INSERT INTO notes VALUES ('a')"),
        lambda: database.write(lambda t: note(t, "b")),
        database.try_out,
    ):
        database._trouble = "unusable"
        await database.execute("DELETE FROM notes WHERE text = 'nowhere'")
        await database.write(notes_of)
        assert database.trouble == "unusable"
        await cure()
        assert database.trouble is None


async def notes_of(transaction: Transaction) -> int:
    """A transaction that only looks."""
    return len(await transaction.query("SELECT * FROM notes"))


# Migrations


async def test_a_new_database_has_the_newest_schema(path: Path) -> None:
    database = await Database.open(path)
    rows = await database.read("PRAGMA user_version")
    assert rows[0][0] == len(MIGRATIONS)
    await database.close()


async def test_missing_steps_are_taken_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await Database.open(path)
    await first.execute(
        "INSERT INTO users (id, username, role, plan, status, password_hash, created_at)"
        " VALUES ('u', 'n', 'user', 'p', 'active', 'h', 'now')"
    )
    await first.close()
    step = "CREATE TABLE extra (x); INSERT INTO extra SELECT id FROM users;"
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):
        database = await Database.open(path)
        rows = await database.read("SELECT x FROM extra")
        assert [row[0] for row in rows] == ["u"]
        await database.close()


async def test_a_failing_step_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await Database.open(path)).close()
    steps = (*MIGRATIONS, "CREATE TABLE good (x)", "CREATE TABLE bad (x); nonsense")
    monkeypatch.setattr(module, "MIGRATIONS", steps)
    with pytest.raises(StoreError, match="cannot be used"):
        await Database.open(path)
    monkeypatch.undo()
    database = await Database.open(path)
    assert await database.read("SELECT name FROM sqlite_master WHERE name IN ('good', 'bad')") == []
    await database.close()


async def test_a_newer_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(StoreError, match="or a newer one"):
        await Database.open(path)


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 200]
)
async def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be used"):
        await Database.open(path)
