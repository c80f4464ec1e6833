"""The schema, as numbered steps: a database is brought up to date by those it has not had."""

from __future__ import annotations

from typing import Final

from voidvm.store.event_triggers import EVENTS, UPKEEP

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
    """
    ALTER TABLE users ADD COLUMN permissions TEXT;
    ALTER TABLE users ADD COLUMN must_change_password INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE users ADD COLUMN language TEXT;
    ALTER TABLE users ADD COLUMN updated_at TEXT NOT NULL DEFAULT '';
    UPDATE users SET updated_at = created_at;
    UPDATE users SET username = username || '-' || substr(id, -12) WHERE EXISTS (
        SELECT 1 FROM users other WHERE other.username = users.username COLLATE NOCASE
        AND (other.created_at, other.id) < (users.created_at, users.id)
    );
    CREATE UNIQUE INDEX users_by_name ON users (username COLLATE NOCASE);
    CREATE INDEX sessions_by_user ON sessions (user_id);
    CREATE TABLE api_tokens (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        token_hash TEXT NOT NULL UNIQUE,
        permissions TEXT,
        created_at TEXT NOT NULL,
        expires_at TEXT,
        last_used_at TEXT
    );
    CREATE UNIQUE INDEX api_tokens_by_name ON api_tokens (user_id, name);
    CREATE TABLE idempotency (
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        request_hash TEXT NOT NULL,
        answer BLOB,
        created_at TEXT NOT NULL,
        PRIMARY KEY (user_id, key)
    ) WITHOUT ROWID;
    CREATE INDEX idempotency_by_age ON idempotency (created_at);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        level TEXT NOT NULL,
        user_id TEXT,
        username TEXT,
        address TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT,
        status INTEGER NOT NULL,
        code TEXT,
        request_id TEXT NOT NULL
    );
    CREATE INDEX audit_by_time ON audit (at);
    CREATE INDEX audit_by_user ON audit (user_id, at);
    """,
    """
    CREATE TABLE operations (
        id TEXT PRIMARY KEY,
        owner_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        vm_id TEXT,
        status TEXT NOT NULL,
        created_at TEXT NOT NULL,
        finished_at TEXT,
        body BLOB NOT NULL
    );
    CREATE INDEX operations_by_owner ON operations (owner_id, created_at);
    CREATE INDEX operations_by_status ON operations (status);
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY,
        owner_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        created_at TEXT NOT NULL,
        body BLOB NOT NULL
    );
    ALTER TABLE vms ADD COLUMN operation_id TEXT;
    """,
    EVENTS,
    """
    CREATE TABLE metric_subjects (
        id INTEGER PRIMARY KEY,
        vm_id TEXT UNIQUE REFERENCES vms (id) ON DELETE CASCADE
    );
    INSERT INTO metric_subjects VALUES (0, NULL);
    CREATE TABLE metric_layouts (
        id INTEGER PRIMARY KEY,
        names TEXT NOT NULL UNIQUE
    );
    CREATE TABLE metrics (
        subject INTEGER NOT NULL REFERENCES metric_subjects (id) ON DELETE CASCADE,
        step INTEGER NOT NULL,
        at INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        layout INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (subject, step, at)
    ) WITHOUT ROWID;
    CREATE INDEX metrics_by_age ON metrics (step, at);
    """,
    """
    CREATE TABLE settings (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        body BLOB NOT NULL,
        updated_at TEXT NOT NULL
    );
    """,
    UPKEEP,
)
