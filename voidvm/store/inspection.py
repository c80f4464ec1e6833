"""Looks into a database without changing a byte of it, also while a service uses it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from voidvm.store.database import BUSY_TIMEOUT_S, StoreError
from voidvm.store.migrations import MIGRATIONS


class Inspection(Struct, frozen=True, kw_only=True):
    """What was found; `images` are the ids of the disks, by the `os` that they stand for."""

    version: int
    vms: int
    admin_hash: str | None
    images: dict[str, str]


def sqlite_version() -> str:
    """The version of the SQLite library in use."""
    return sqlite3.sqlite_version


def inspect(path: Path) -> Inspection:
    """Look into the database at `path`; blocks. Raises `StoreError`, saying what to do."""
    # Without a log beside it nobody has it open: SQLite then needs no files of its own, either.
    has_log = path.with_name(path.name + "-wal").exists()
    how = "mode=ro" if has_log else "immutable=1"
    address = f"file:{quote(str(path))}?{how}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            return _look(path, connection)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be used: {error}") from error


def _look(path: Path, connection: sqlite3.Connection) -> Inspection:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} is of version {version}, this VoidVM knows {len(MIGRATIONS)}: use the "
            "version of VoidVM that made it, or a newer one"
        )
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}")
    if version == 0:
        return Inspection(version=0, vms=0, admin_hash=None, images={})
    admin = connection.execute(
        "SELECT password_hash FROM users ORDER BY created_at, id LIMIT 1"
    ).fetchone()
    disks = connection.execute(
        "SELECT os, id FROM images WHERE os IS NOT NULL AND kind = 'disk' AND public"
        " ORDER BY created_at"
    )
    return Inspection(
        version=version,
        vms=int(connection.execute("SELECT count(*) FROM vms").fetchone()[0]),
        admin_hash=str(admin[0]) if admin else None,
        images={str(os): str(image_id) for os, image_id in disks},
    )
