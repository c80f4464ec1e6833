"""The settings that may change at run time: read, changed, kept across restarts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

import msgspec

from voidvm.domain.audit import Level
from voidvm.domain.etag import Precondition, etag
from voidvm.domain.event import EventKind
from voidvm.domain.validation import decode
from voidvm.errors import FieldProblem, PlanInUse, SettingFixed, ValidationFailed
from voidvm.live_settings import (
    ConfigPatch,
    LiveSettings,
    Stored,
    check,
    merged,
    shown,
    touched,
    variable_of,
)
from voidvm.store.settings import SettingsStore, StoredSettings
from voidvm.store.users import UserStore

log = logging.getLogger(__name__)

Tell = Callable[[EventKind, Mapping[str, object], Level], Awaitable[None]]

_NEVER = datetime.fromtimestamp(0, UTC)


class Configuration:
    """Changes are made one after the other: one that was told of a version finds it, or fails."""

    def __init__(
        self, store: SettingsStore, *, users: UserStore, live: LiveSettings, tell: Tell
    ) -> None:
        self._store = store
        self._users = users
        self._live = live
        self._tell = tell
        self._updated_at: datetime | None = None
        self._lock = asyncio.Lock()
        self._under_way: set[asyncio.Task[list[str]]] = set()

    async def restore(self) -> None:
        """Have what was stored; what this version does not know any more is left out."""
        stored = await self._store.read()
        if stored is not None:
            self._live.use(_usable(stored.values))
            self._updated_at = stored.updated_at

    def show(self) -> msgspec.Struct:
        """The values as they are now, with their sources."""
        return self._live.show(updated_at=self._updated_at)

    @property
    def etag(self) -> str:
        """The version of what `show` gives; a start with another file makes another one."""
        return etag(*self._version())

    async def change(self, values: Stored, precondition: Precondition) -> list[str]:
        """Change settings, all of them or none; the keys that were given.

        `values` have been through `live.check`. It is done, and kept, when this returns, and also
        when its caller goes away. Raises `SettingFixed`, `PreconditionFailed`, `PlanInUse`.
        """
        task = asyncio.create_task(self._have(values, precondition), name="settings")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _have(self, values: Stored, precondition: Precondition) -> list[str]:
        async with self._lock:
            precondition.check(*self._version())
            _refuse_fixed(self._live.fixed(values))
            stored = merged(self._live.stored, values)
            keys = list(touched(values))
            if stored == self._live.stored:
                return keys
            if lost := self._live.lost_plans(stored) & await self._users.plans():
                raise PlanInUse(plan=", ".join(sorted(lost)))
            now = datetime.now(UTC)
            await self._store.write(StoredSettings(values=stored, updated_at=now))
            self._live.use(stored)
            self._updated_at = now
        log.info("settings changed: %s", ", ".join(keys))
        await self._tell(EventKind.SYSTEM_CONFIG, {"keys": keys}, "info")
        return keys

    def _version(self) -> tuple[str, datetime]:
        digest = hashlib.sha256(msgspec.json.encode(self.show())).hexdigest()
        return f"config {digest}", self._updated_at or _NEVER


def _refuse_fixed(keys: list[tuple[str, ...]]) -> None:
    if keys:
        problems = [
            FieldProblem(shown(key), f"is set by {variable_of(key)} in the environment")
            for key in keys
        ]
        names = ", ".join(problem.field for problem in problems)
        details = "; ".join(f"{problem.field} {problem.message}" for problem in problems)
        raise SettingFixed(details, errors=problems, keys=names)


def _usable(values: Stored) -> Stored:
    """Stored values without those that do not fit, each with a warning."""
    while True:
        try:
            return check(decode(ConfigPatch, values))
        except ValidationFailed as error:
            for problem in error.errors:
                log.warning("a stored setting is left out: %s %s", problem.field, problem.message)
                values = _without(values, problem.field)


def _without(values: Stored, field: str) -> Stored:
    """The values without one field, which a message names by its path."""
    name, _, rest = field.partition(".")
    inner = values.get(name)
    # The name of a plan may have dots itself: then all of them go.
    if not rest or not isinstance(inner, dict):
        return {key: value for key, value in values.items() if key != name}
    fewer = _without(inner, rest)
    kept = {key: value for key, value in values.items() if key != name}
    return kept | ({name: fewer} if fewer != inner else {})
