"""Copies of a database that is written to, and what makes a copy one's own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from voidvm.store import backup
from voidvm.store.database import Database, StoreError, Transaction

Statement = tuple[str, tuple[str, ...]]


async def made(path: Path, *statements: Statement) -> None:
    """A database of today's version."""
    database = await Database.open(path)

    async def work(transaction: Transaction) -> None:
        for statement in statements:
            await transaction.execute(*statement)

    await database.write(work)
    await database.close()


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


EVENT = "INSERT INTO events (kind, data) VALUES ('test', '{}')"


def writer(path: Path, over: threading.Event) -> Callable[[], None]:
    """Writes pairs of rows, each in one transaction, until it is told to end."""

    def run() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            while not over.is_set():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(EVENT)
                connection.execute(EVENT)
                connection.execute("COMMIT")

    return run


async def test_a_copy_has_whole_transactions_while_another_writes(tmp_path: Path) -> None:
    source, over = tmp_path / "source", threading.Event()
    await made(source)
    thread = threading.Thread(target=writer(source, over))
    thread.start()
    try:
        counts = []
        for number in range(5):
            copy = tmp_path / f"copy{number}"
            backup.copy(source, copy)
            assert query(copy, "PRAGMA integrity_check") == [("ok",)]
            [(count,)] = query(copy, "SELECT count(*) FROM events")
            counts.append(count)
    finally:
        over.set()
        thread.join()
    assert all(isinstance(count, int) and count % 2 == 0 for count in counts)


async def test_a_copy_is_one_file_of_its_owners(tmp_path: Path) -> None:
    await made(tmp_path / "source")
    backup.copy(tmp_path / "source", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


async def test_what_is_no_database_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError):
        backup.copy(tmp_path / "source", tmp_path / "copy")


USERS = "INSERT INTO users (id, username, role, plan, status, password_hash, created_at) VALUES"
USER = (f"{USERS} ('u', 'ada', 'admin', 'unlimited', 'active', '-', '2026-01-01')", ())
SESSION = ("INSERT INTO sessions VALUES ('s', 'u', '-', '2026-01-01', '2036-01-01', NULL)", ())


VM = (
    "INSERT INTO vms (id, owner_id, name, description, wanted, status, created_at, updated_at,"
    " body) VALUES (?, 'u', ?, '', 'running', ?, '', '', '{}')"
)


def vm(name: str, status: str) -> Statement:
    return VM, (f"vm-{name}", name, status)


async def test_a_copy_that_is_restored_is_another_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await made(path, USER, SESSION, vm("here", "running"), vm("gone", "paused"), vm("off", "error"))
    before = query(path, "SELECT epoch FROM identity")
    known = await backup.adopt(path, running=["vm-here"], boot_id="now")
    assert known.vms == {"vm-here", "vm-gone", "vm-off"}
    assert query(path, "SELECT epoch FROM identity") != before
    assert query(path, "SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(0,)]
    assert query(path, "SELECT id, status, status_reason, wanted FROM vms ORDER BY id") == [
        ("vm-gone", "stopped", "restored", "stopped"),
        ("vm-here", "running", None, "running"),
        ("vm-off", "error", None, "stopped"),
    ]


async def test_what_was_to_be_started_then_is_not_now(tmp_path: Path) -> None:
    path = tmp_path / "db"
    plan = ("UPDATE vms SET restart = '{\"attempts\": 1}'", ())
    boot = ("INSERT INTO host VALUES (1, 'then')", ())
    due = ("INSERT INTO autostarts (vm_id) VALUES ('vm-off')", ())
    await made(path, USER, vm("off", "crashed"), plan, boot, due)
    await backup.adopt(path, running=[], boot_id="now")
    assert query(path, "SELECT status, wanted, restart FROM vms") == [("crashed", "stopped", None)]
    assert query(path, "SELECT boot_id FROM host") == [("now",)]
    assert query(path, "SELECT * FROM autostarts") == []
