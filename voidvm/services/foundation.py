"""What a service needs before its first start: configuration, data directory, key, admin."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from voidvm.config import Settings
from voidvm.domain.quota import Plans
from voidvm.errors import LocalFailure
from voidvm.security.passwords import Passwords
from voidvm.security.tokens import KeyUnusable, load_or_create_key
from voidvm.services.accounts import make_admin
from voidvm.services.checkup_state import lock_holder, user_name
from voidvm.store.database import Database, StoreError
from voidvm.store.users import UserStore
from voidvm.supervisor.paths import Layout

_CONFIG = """\
# VoidVM's settings. What is not here has its default; all keys, each with its reason, stand in
# config.example.toml and in docs/deploy. After a change: voidvm doctor, then restart the service.

[server]
host = {host}
port = {port}

[storage]
data_dir = {data_dir}
run_dir = {run_dir}
"""


class Step(Struct, frozen=True, kw_only=True):
    """One thing that must be there, and whether it was made just now."""

    what: str
    where: str
    is_new: bool


def write_config(path: Path, settings: Settings, *, reader: pwd.struct_passwd | None) -> Step:
    """The configuration file, with what decides where the state lies; one that is there stays.

    `reader`, the user of the service, may read what root has written. Raises `OSError`.
    """
    if path.exists():
        return Step(what="configuration", where=str(path), is_new=False)
    folder = path.parent
    if not folder.is_dir():
        folder.mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)
    text = _CONFIG.format(
        host=_quoted(settings.server.host),
        port=settings.server.port,
        data_dir=_quoted(settings.storage.data_dir),
        run_dir=_quoted(settings.storage.run_dir),
    )
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if reader is not None and os.geteuid() == 0:
            os.fchown(fd, 0, reader.pw_gid)
        os.fchmod(fd, 0o640)  # whatever the umask says
        os.fsync(fd)
    draft.rename(path)
    return Step(what="configuration", where=str(path), is_new=True)


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are a part of its own."""
    return msgspec.json.encode(text).decode()


def make_data_dir(data: Path, *, owner: pwd.struct_passwd | None) -> Step:
    """The data directory, its owner's alone. Raises `LocalFailure` for one that is another's."""
    wanted = owner.pw_uid if owner is not None else os.geteuid()
    is_new = not data.exists()
    if is_new:
        data.parent.mkdir(parents=True, exist_ok=True)
        data.mkdir(mode=0o700)
        if owner is not None and os.geteuid() == 0:
            os.chown(data, owner.pw_uid, owner.pw_gid)
    found = data.stat().st_uid
    # Root may look after anybody's, once it has become that user.
    if found != wanted and (owner is not None or os.geteuid() != 0):
        raise LocalFailure(
            f"{data} belongs to {user_name(found)}",
            hint=f"name another directory, or give it away: chown -R {user_name(wanted)} {data}",
        )
    return Step(what="data directory", where=str(data), is_new=is_new)


async def make_state(settings: Settings, password: Callable[[], str]) -> list[Step]:
    """Key, database and admin; `password` is asked for only if there is no user yet.

    Raises `LocalFailure` for state that cannot be used.
    """
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    has_key, has_database = layout.key.exists(), layout.database.exists()
    is_new_admin = False
    # The database of a service that runs is that one's, which may be of an older version.
    if lock_holder(layout.lock) is None:
        is_new_admin = await _make_files(layout, password)
    return [
        Step(what="signing key", where=str(layout.key), is_new=not has_key),
        Step(what="database", where=str(layout.database), is_new=not has_database),
        Step(what="admin", where="the user 'admin'", is_new=is_new_admin),
    ]


async def _make_files(layout: Layout, password: Callable[[], str]) -> bool:
    """Key, database and admin; whether admin is new."""
    try:
        load_or_create_key(layout.key)
        database = await Database.open(layout.database)
    except (KeyUnusable, StoreError) as error:
        raise LocalFailure(str(error)) from error
    try:
        users = UserStore(database, plans=Plans(dict))
        return await make_admin(users, Passwords(), password)
    finally:
        await database.close()
