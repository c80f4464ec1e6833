"""A consistent copy of a database that is in use, and what a copy needs before it is one's own."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from voidvm.domain.states import WITH_PROCESS
from voidvm.store.database import BUSY_TIMEOUT_S, Database, StoreError, Transaction
from voidvm.store.inspection import Inspection, inspect
from voidvm.store.values import stamp

RESTORED = "restored"


class Known(Struct, frozen=True, kw_only=True):
    """The ids of what a database speaks of."""

    vms: frozenset[str]
    images: frozenset[str]


def copy(source: Path, target: Path) -> Inspection:
    """Copy a database as of one moment, also while a service writes to it; blocks.

    Nobody waits for it: in WAL mode a reader holds up no writer. Raises `StoreError`.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    address = f"file:{quote(str(source))}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as original,
            closing(sqlite3.connect(target)) as made,
        ):
            original.execute("PRAGMA query_only = ON")
            original.backup(made)
            # One file, that nobody needs a log for.
            made.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied: {error}") from error
    return inspect(target)


async def adopt(path: Path, *, running: Collection[str], boot_id: str) -> Known:
    """Make a copy the database of a service that starts with it.

    Its schema is brought up to date. It gets another epoch, or clients would take events that
    come for those that they have seen; sessions end, since some of them may have ended after the
    copy was made; and VMs that are not among the `running` do not run, nor shall they: no start
    that was planned then is made up for, and the host's present boot counts as seen. Raises
    `StoreError`.
    """
    database = await Database.open(path)
    try:
        await database.write(lambda transaction: _adopt(transaction, running, boot_id))
        vms = await database.read("SELECT id FROM vms")
        images = await database.read("SELECT id FROM images")
    finally:
        await database.close()
    return Known(
        vms=frozenset(row["id"] for row in vms), images=frozenset(row["id"] for row in images)
    )


async def _adopt(transaction: Transaction, running: Collection[str], boot_id: str) -> None:
    now = stamp(datetime.now(UTC))
    await transaction.execute("UPDATE identity SET epoch = ?", (secrets.token_hex(4),))
    await transaction.execute("UPDATE sessions SET ended_at = ? WHERE ended_at IS NULL", (now,))
    await transaction.execute("UPDATE host SET boot_id = ?", (boot_id,))
    await transaction.execute("DELETE FROM autostarts")
    await transaction.execute("UPDATE vms SET restart = NULL WHERE restart IS NOT NULL")
    for row in await transaction.query("SELECT id, status FROM vms"):
        if row["id"] in running:
            continue
        await transaction.execute("UPDATE vms SET wanted = 'stopped' WHERE id = ?", (row["id"],))
        if row["status"] in WITH_PROCESS:
            await transaction.execute(
                "UPDATE vms SET status = 'stopped', status_reason = ?, run = NULL, updated_at = ?"
                " WHERE id = ?",
                (RESTORED, now, row["id"]),
            )
