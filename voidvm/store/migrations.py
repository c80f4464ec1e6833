"""The schema, as numbered steps: a database is brought up to date by those it has not had."""

from __future__ import annotations

from typing import Final

# Never change a step that was released: add one.
MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE users (
        id TEXT PRIMARY KEY,
        username TEXT NOT NULL UNIQUE,
        email TEXT,
        role TEXT NOT NULL,
        plan TEXT NOT NULL,
        status TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        last_login TEXT,
        created_at TEXT NOT NULL
    );
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        refresh_hash TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        ended_at TEXT
    );
    CREATE INDEX sessions_by_expiry ON sessions (expires_at);
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        owner_id TEXT REFERENCES users (id),
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        os TEXT,
        public INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX images_by_name ON images (ifnull(owner_id, ''), name);
    CREATE INDEX images_by_os ON images (os);
    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        owner_id TEXT NOT NULL REFERENCES users (id),
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        wanted TEXT NOT NULL,
        status TEXT NOT NULL,
        status_reason TEXT,
        run BLOB,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX vms_by_name ON vms (owner_id, name);
    CREATE INDEX vms_by_age ON vms (created_at, id);
    CREATE TABLE vm_tags (
        vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (vm_id, tag)
    ) WITHOUT ROWID;
    CREATE INDEX vm_tags_by_tag ON vm_tags (tag);
    """,
)
