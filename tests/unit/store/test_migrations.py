"""Databases of older versions open, keep what they hold, and work."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.local import LocalService
from voidvm.security.passwords import Passwords
from voidvm.store.database import Database, StoreError
from voidvm.store.migrations import MIGRATIONS

AT = "2026-01-02T03:04:05.000006Z"
# As the first version wrote it.
BODY = {
    "uuid": "11111111-2222-3333-4444-555555555555",
    "os": None,
    "image": None,
    "tags": ["old"],
    "autostart": {"enabled": False, "order": 0, "delay": 0},
    "restartPolicy": "never",
    "hardware": {"cpu": 2, "memory": 256, "networks": [], "bootOrder": ["disk"]},
    "disks": [{"id": "disk0", "size": 3, "format": "qcow2", "bus": "virtio", "image": None}],
}
ENCODED = {
    **{key: value for key, value in BODY.items() if key != "restartPolicy"},
    "restart_policy": "never",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="vv-"))
    yield found
    shutil.rmtree(found)


def first_version(path: Path, *users: tuple[str, str, str]) -> None:
    """A database as the first version left it: users (id, name, password hash), and a VM each."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute("PRAGMA user_version = 1")
        for number, (user_id, name, password_hash) in enumerate(users):
            connection.execute(
                "INSERT INTO users VALUES (?, ?, NULL, 'admin', 'free', 'active', ?, NULL, ?)",
                (user_id, name, password_hash, AT.replace("05.", f"{number:02}.")),
            )
            connection.execute(
                "INSERT INTO vms VALUES (?, ?, 'old', 'd', 'stopped', 'stopped', NULL, NULL,"
                " ?, ?, ?)",
                (f"vm-{number:012}", user_id, AT, AT, json.dumps(ENCODED).encode()),
            )
            connection.execute("INSERT INTO vm_tags VALUES (?, 'old')", (f"vm-{number:012}",))
        connection.commit()


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def test_the_first_version_opens_and_works(folder: Path) -> None:
    service = LocalService(FakeHost())
    try:
        data = service.settings.data_dir
        data.mkdir(mode=0o700)
        password_hash = await Passwords().hash("of the first version")
        first_version(data / "voidvm.db", ("usr-00000000000a", "admin", password_hash))
        service.start()
        assert version_of(data / "voidvm.db") == len(MIGRATIONS)
        api = service.api(password="of the first version")
        me = api.ok("GET", "/auth/me")
        assert (me["permissions"], me["plan"], me["mustChangePassword"]) == (["*"], "free", False)
        assert me["updatedAt"] == me["createdAt"] == AT.replace("05.", "00.")
        assert me["usage"] == {"vms": 1, "cpu": 2, "memory": 256, "disk": 3}
        vm = api.ok("GET", "/vms/old")
        assert (vm["id"], vm["tags"], vm["cpu"]) == ("vm-000000000000", ["old"], 2)
        changed = api.call("PATCH", "/vms/old", json={"cpu": 3})
        assert changed.status_code == 200
        token = api.ok("POST", "/auth/tokens", {"name": "new"})["token"]
        assert api.as_user(token).ok("GET", "/vms", params={"tag": "old"})["vms"] != []
        api.ok("POST", "/users", {"username": "ada", "password": "long enough"})
        headers = {"idempotency-key": "x"}
        for _ in range(2):
            answer = api.call("POST", "/vms", json={"name": "new", "disk": 1}, headers=headers)
            assert answer.status_code == 201
        assert api.ok("GET", "/logs")["pagination"]["total"] >= 5
        service.stop()
        service.start()
        assert service.anybody().as_user(api.token).ok("GET", "/vms")["pagination"]["total"] == 2
    finally:
        service.close()


async def test_names_that_differ_only_in_case_are_told_apart(folder: Path) -> None:
    path = folder / "voidvm.db"
    ids = ["usr-00000000000a", "usr-00000000000b", "usr-00000000000c"]
    first_version(path, (ids[0], "ada", "x"), (ids[1], "Ada", "x"), (ids[2], "bob", "x"))
    database = await Database.open(path)
    rows = await database.read("SELECT id, username FROM users ORDER BY id")
    assert [(row["id"], row["username"]) for row in rows] == [
        (ids[0], "ada"),
        (ids[1], "Ada-00000000000b"),
        (ids[2], "bob"),
    ]
    await database.close()


async def test_a_migration_is_whole_or_not_there(folder: Path) -> None:
    path = folder / "voidvm.db"
    first_version(path, ("usr-00000000000a", "ada", "x"))
    with closing(sqlite3.connect(path)) as connection:
        # In the way of the last statements of the second step.
        connection.execute("CREATE TABLE audit (x)")
        connection.commit()
    with pytest.raises(StoreError):
        await Database.open(path)
    assert version_of(path) == 1
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info (users)")]
        assert "permissions" not in columns
        connection.execute("DROP TABLE audit")
        connection.commit()
    await (await Database.open(path)).close()
    assert version_of(path) == len(MIGRATIONS)


async def test_old_and_new_databases_have_the_same_schema(folder: Path) -> None:
    schemas = []
    first_version(folder / "old.db")
    for name in ("old.db", "new.db"):
        await (await Database.open(folder / name)).close()
        with closing(sqlite3.connect(folder / name)) as connection:
            rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
            schemas.append(sorted(row[0] for row in rows))
    assert schemas[0] == schemas[1]


async def test_a_newer_database_is_left_alone(folder: Path) -> None:
    path = folder / "voidvm.db"
    await (await Database.open(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer"):
        await Database.open(path)
    assert path.read_bytes() == before
