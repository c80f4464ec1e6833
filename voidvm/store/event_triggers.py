"""The step of the schema that brings events: a table, and the triggers that write it.

A trigger is part of the statement that changes a row, so an event is on disk exactly when what it
tells of is, and no code has to think of it. `data` holds what `domain.event` puts into words, and
nothing secret: of passwords and cloud-init only that they were changed.
"""

from __future__ import annotations

from typing import Final

_BODY_NEW, _BODY_OLD = "CAST(NEW.body AS TEXT)", "CAST(OLD.body AS TEXT)"
_COLUMNS = "kind, level, owner_id, vm_id, data"
# A status that somebody should look at.
_VM_LEVEL = """CASE
        WHEN NEW.status IN ('crashed', 'error') THEN 'error'
        WHEN NEW.status = 'unresponsive' THEN 'warning'
        WHEN NEW.status = 'paused'
            AND NEW.status_reason NOT IN ('host-request', 'guest-suspended') THEN 'warning'
        ELSE 'info' END"""
_OPERATION_LEVEL = """CASE NEW.status
        WHEN 'failed' THEN 'error' WHEN 'interrupted' THEN 'warning' ELSE 'info' END"""
# Hardware stands in a value of its own; disks have events of their own; the rest is our own affair.
_INNER_KEYS = "('hardware', 'disks', 'uuid', 'source', 'is_full_copy')"
# Of a public image hears everybody; the empty owner is nobody: only who sees all.
_HEARD_OF = "CASE WHEN {row}.public THEN NULL ELSE ifnull({row}.owner_id, '') END"


def _disk(row: str) -> str:
    """What an event says of the disk in `row`, of `json_each`."""
    return (
        "json_object('name', NEW.name,"
        f" 'disk', json_extract({row}.value, '$.id'), 'size', json_extract({row}.value, '$.size'),"
        f" 'bus', json_extract({row}.value, '$.bus'),"
        f" 'image', json_extract({row}.value, '$.image'))"
    )


def _disks(body: str, row: str) -> str:
    return f"json_each({body}, '$.disks') {row}"


_SAME_DISK = "json_extract(o.value, '$.id') = json_extract(n.value, '$.id')"

_TABLES = """
    CREATE TABLE identity (epoch TEXT NOT NULL);
    INSERT INTO identity VALUES (lower(hex(randomblob(4))));
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
        kind TEXT NOT NULL,
        level TEXT NOT NULL DEFAULT 'info',
        owner_id TEXT,
        vm_id TEXT,
        data TEXT NOT NULL
    );
    CREATE INDEX events_by_owner ON events (owner_id, seq);
    CREATE INDEX events_by_vm ON events (vm_id, seq) WHERE vm_id IS NOT NULL;
"""

_VMS = f"""
    CREATE TRIGGER vm_created AFTER INSERT ON vms BEGIN
        INSERT INTO events ({_COLUMNS})
        SELECT 'vm.created', {_VM_LEVEL}, NEW.owner_id, NEW.id, json_object(
            'name', NEW.name, 'status', NEW.status, 'statusReason', NEW.status_reason,
            'cpu', json_extract({_BODY_NEW}, '$.hardware.cpu'),
            'memory', json_extract({_BODY_NEW}, '$.hardware.memory'),
            'os', json_extract({_BODY_NEW}, '$.os'));
    END;
    CREATE TRIGGER vm_deleted AFTER DELETE ON vms BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('vm.deleted', 'info', OLD.owner_id, OLD.id, json_object('name', OLD.name));
    END;
    CREATE TRIGGER vm_status AFTER UPDATE OF status, status_reason ON vms
    WHEN OLD.status IS NOT NEW.status OR OLD.status_reason IS NOT NEW.status_reason BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('vm.status', {_VM_LEVEL}, NEW.owner_id, NEW.id, json_object(
            'name', NEW.name, 'status', NEW.status, 'statusReason', NEW.status_reason,
            'previousStatus', OLD.status, 'previousStatusReason', OLD.status_reason));
    END;
    CREATE TRIGGER vm_changed AFTER UPDATE OF name, description, owner_id, body ON vms
    WHEN OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description
        OR OLD.owner_id IS NOT NEW.owner_id OR OLD.body IS NOT NEW.body BEGIN
        INSERT INTO events ({_COLUMNS})
        SELECT 'disk.detached', 'info', NEW.owner_id, NEW.id, {_disk("o")}
        FROM {_disks(_BODY_OLD, "o")}
        WHERE NOT EXISTS (SELECT 1 FROM {_disks(_BODY_NEW, "n")} WHERE {_SAME_DISK});
        INSERT INTO events ({_COLUMNS})
        SELECT 'disk.updated', 'info', NEW.owner_id, NEW.id, {_disk("n")}
        FROM {_disks(_BODY_NEW, "n")}
        WHERE EXISTS (
            SELECT 1 FROM {_disks(_BODY_OLD, "o")}, json_each(o.value) was, json_each(n.value) now
            WHERE {_SAME_DISK} AND was.key = now.key AND was.value IS NOT now.value);
        INSERT INTO events ({_COLUMNS})
        SELECT 'disk.attached', 'info', NEW.owner_id, NEW.id, {_disk("n")}
        FROM {_disks(_BODY_NEW, "n")}
        WHERE NOT EXISTS (SELECT 1 FROM {_disks(_BODY_OLD, "o")} WHERE {_SAME_DISK});
        INSERT INTO events ({_COLUMNS})
        SELECT 'vm.updated', 'info', NEW.owner_id, NEW.id,
            json_object('name', NEW.name, 'fields', json(fields))
        FROM (SELECT json_group_array(field) AS fields FROM (
            SELECT 'name' AS field WHERE OLD.name IS NOT NEW.name
            UNION ALL SELECT 'description' WHERE OLD.description IS NOT NEW.description
            UNION ALL SELECT 'owner' WHERE OLD.owner_id IS NOT NEW.owner_id
            UNION ALL SELECT CASE n.key WHEN 'restart_policy' THEN 'restartPolicy'
                WHEN 'cloud_init' THEN 'cloudInit' ELSE n.key END
            FROM json_each({_BODY_NEW}) n LEFT JOIN json_each({_BODY_OLD}) o ON o.key = n.key
            WHERE n.value IS NOT o.value AND n.key NOT IN {_INNER_KEYS}
            UNION ALL SELECT n.key FROM json_each({_BODY_NEW}, '$.hardware') n
            LEFT JOIN json_each({_BODY_OLD}, '$.hardware') o ON o.key = n.key
            WHERE n.value IS NOT o.value))
        WHERE fields <> '[]';
    END;
"""

_IMAGES = f"""
    CREATE TRIGGER image_created AFTER INSERT ON images BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('image.created', 'info', {_HEARD_OF.format(row="NEW")}, NULL, json_object(
            'image', NEW.id, 'name', NEW.name, 'kind', NEW.kind, 'os', NEW.os));
    END;
    CREATE TRIGGER image_deleted AFTER DELETE ON images BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('image.deleted', 'info', {_HEARD_OF.format(row="OLD")}, NULL, json_object(
            'image', OLD.id, 'name', OLD.name, 'kind', OLD.kind, 'os', OLD.os));
    END;
    CREATE TRIGGER image_updated AFTER UPDATE OF name, public, owner_id ON images
    WHEN OLD.name IS NOT NEW.name OR OLD.public IS NOT NEW.public
        OR OLD.owner_id IS NOT NEW.owner_id BEGIN
        INSERT INTO events ({_COLUMNS})
        SELECT 'image.updated', 'info',
            -- Who could see it hears that it is not public any more, but no new name.
            CASE WHEN OLD.public THEN NULL ELSE {_HEARD_OF.format(row="NEW")} END, NULL,
            json_object('image', NEW.id,
                'name', CASE WHEN OLD.public AND NOT NEW.public THEN OLD.name ELSE NEW.name END,
                'kind', NEW.kind, 'os', NEW.os,
                'public', json(CASE WHEN NEW.public THEN 'true' ELSE 'false' END),
                'fields', json((SELECT json_group_array(field) FROM (
                    SELECT 'name' AS field WHERE OLD.name IS NOT NEW.name
                    UNION ALL SELECT 'public' WHERE OLD.public IS NOT NEW.public
                    UNION ALL SELECT 'owner' WHERE OLD.owner_id IS NOT NEW.owner_id))));
    END;
"""

_PEOPLE = f"""
    CREATE TRIGGER user_created AFTER INSERT ON users BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('user.created', 'info', NEW.id, NULL, json_object('user', NEW.id,
            'name', NEW.username, 'role', NEW.role, 'plan', NEW.plan, 'status', NEW.status));
    END;
    CREATE TRIGGER user_deleted AFTER DELETE ON users BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('user.deleted', 'info', OLD.id, NULL,
            json_object('user', OLD.id, 'name', OLD.username));
    END;
    CREATE TRIGGER user_updated AFTER UPDATE ON users BEGIN
        INSERT INTO events ({_COLUMNS})
        SELECT 'user.updated', 'info', NEW.id, NULL, json_object('user', NEW.id,
            'name', NEW.username, 'role', NEW.role, 'plan', NEW.plan, 'status', NEW.status,
            'fields', json(fields))
        FROM (SELECT json_group_array(field) AS fields FROM (
            SELECT 'username' AS field WHERE OLD.username IS NOT NEW.username
            UNION ALL SELECT 'email' WHERE OLD.email IS NOT NEW.email
            UNION ALL SELECT 'role' WHERE OLD.role IS NOT NEW.role
            UNION ALL SELECT 'permissions' WHERE OLD.permissions IS NOT NEW.permissions
            UNION ALL SELECT 'plan' WHERE OLD.plan IS NOT NEW.plan
            UNION ALL SELECT 'status' WHERE OLD.status IS NOT NEW.status
            UNION ALL SELECT 'password' WHERE OLD.password_hash IS NOT NEW.password_hash
            UNION ALL SELECT 'mustChangePassword'
                WHERE OLD.must_change_password IS NOT NEW.must_change_password
            UNION ALL SELECT 'language' WHERE OLD.language IS NOT NEW.language))
        WHERE fields <> '[]';
    END;
    CREATE TRIGGER user_signed_in AFTER UPDATE OF last_login ON users
    WHEN OLD.last_login IS NOT NEW.last_login BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('user.signed-in', 'info', NEW.id, NULL,
            json_object('user', NEW.id, 'name', NEW.username));
    END;
    CREATE TRIGGER token_created AFTER INSERT ON api_tokens BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('token.created', 'info', NEW.user_id, NULL,
            json_object('token', NEW.id, 'name', NEW.name, 'expiresAt', NEW.expires_at));
    END;
    CREATE TRIGGER token_deleted AFTER DELETE ON api_tokens BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('token.deleted', 'info', OLD.user_id, NULL,
            json_object('token', OLD.id, 'name', OLD.name));
    END;
"""

_OPERATIONS = f"""
    CREATE TRIGGER operation_created AFTER INSERT ON operations BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('operation.created', {_OPERATION_LEVEL}, NEW.owner_id, NEW.vm_id, json_object(
            'operation', NEW.id, 'type', json_extract({_BODY_NEW}, '$.type'),
            'status', NEW.status,
            'resources', json_extract({_BODY_NEW}, '$.resources')));
    END;
    CREATE TRIGGER operation_status AFTER UPDATE OF status ON operations
    WHEN OLD.status IS NOT NEW.status BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('operation.status', {_OPERATION_LEVEL}, NEW.owner_id, NEW.vm_id, json_object(
            'operation', NEW.id, 'type', json_extract({_BODY_NEW}, '$.type'),
            'status', NEW.status, 'previousStatus', OLD.status,
            'resources', json_extract({_BODY_NEW}, '$.resources'),
            'errorCode', json_extract({_BODY_NEW}, '$.error.code'),
            'errorMessage', json_extract({_BODY_NEW}, '$.error.message')));
    END;
"""

EVENTS: Final = _TABLES + _VMS + _IMAGES + _PEOPLE + _OPERATIONS

_RUN_NEW, _RUN_OLD = "CAST(NEW.run AS TEXT)", "CAST(OLD.run AS TEXT)"
_RESTART_NEW, _RESTART_OLD = "CAST(NEW.restart AS TEXT)", "CAST(OLD.restart AS TEXT)"

# A later step: what keeps VMs up. A row of `autostarts` is a VM that is to be started in this boot
# of the host, or one that could not be.
UPKEEP: Final = f"""
    ALTER TABLE vms ADD COLUMN restart BLOB;
    CREATE TABLE host (id INTEGER PRIMARY KEY CHECK (id = 1), boot_id TEXT NOT NULL);
    CREATE TABLE autostarts (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        failure TEXT
    ) WITHOUT ROWID;
    CREATE TRIGGER vm_crashed AFTER UPDATE OF run ON vms
    WHEN json_extract({_RUN_NEW}, '$.incident') IS NOT json_extract({_RUN_OLD}, '$.incident')
        AND json_extract({_RUN_NEW}, '$.incident') IS NOT NULL BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('vm.crashed', 'error', NEW.owner_id, NEW.id, json_object(
            'name', NEW.name, 'status', NEW.status, 'statusReason', NEW.status_reason,
            'incident', json_extract({_RUN_NEW}, '$.incident')));
    END;
    CREATE TRIGGER vm_restarting AFTER UPDATE OF restart ON vms
    WHEN json_extract({_RESTART_NEW}, '$.nextAttemptAt') IS NOT NULL
        AND json_extract({_RESTART_NEW}, '$.nextAttemptAt')
            IS NOT json_extract({_RESTART_OLD}, '$.nextAttemptAt') BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('vm.restarting', 'warning', NEW.owner_id, NEW.id, json_object(
            'name', NEW.name, 'reason', json_extract({_RESTART_NEW}, '$.reason'),
            'attempt', json_extract({_RESTART_NEW}, '$.attempts'),
            'nextAttemptAt', json_extract({_RESTART_NEW}, '$.nextAttemptAt')));
    END;
    CREATE TRIGGER vm_restart_gave_up AFTER UPDATE OF restart ON vms
    WHEN json_extract({_RESTART_NEW}, '$.gaveUp')
        AND NOT ifnull(json_extract({_RESTART_OLD}, '$.gaveUp'), 0) BEGIN
        INSERT INTO events ({_COLUMNS})
        VALUES ('vm.restart-gave-up', 'error', NEW.owner_id, NEW.id, json_object(
            'name', NEW.name, 'reason', json_extract({_RESTART_NEW}, '$.reason'),
            'attempts', json_extract({_RESTART_NEW}, '$.attempts')));
    END;
    CREATE TRIGGER vm_autostart_failed AFTER UPDATE OF failure ON autostarts
    WHEN NEW.failure IS NOT NULL BEGIN
        INSERT INTO events ({_COLUMNS})
        SELECT 'vm.autostart-failed', 'error', owner_id, id,
            json_object('name', name, 'reason', NEW.failure)
        FROM vms WHERE id = NEW.vm_id;
    END;
"""
