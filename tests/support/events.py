"""A database with some people, and what changes in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from voidvm.bus import Bus, EventHappened, News
from voidvm.domain.account import Principal, UserRecord
from voidvm.domain.event import EventRecord
from voidvm.domain.permission import ROLE_PERMISSIONS, Permission
from voidvm.domain.quota import UNLIMITED, Plans, Quota
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Disk, Hardware, VmRecord
from voidvm.services.events import Events, Feed
from voidvm.store.database import Database
from voidvm.store.events import EventStore
from voidvm.store.images import ImageStore
from voidvm.store.operations import OperationStore
from voidvm.store.tokens import TokenStore
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
PLANS = Plans(lambda: {"free": Quota()})


class World:
    """Every store of one database that events tell of, and the users `ada` and `bob`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.events = EventStore(database)
        self.vms = VmStore(database, plans=PLANS)
        self.users = UserStore(database, plans=PLANS)
        self.images = ImageStore(database)
        self.tokens = TokenStore(database)
        self.operations = OperationStore(database)
        self.seen = 0

    async def fresh(self) -> list[EventRecord]:
        """The events since the last call."""
        found = await self.events.since(self.seen, limit=10_000)
        self.seen = found[-1].seq if found else self.seen
        return found

    async def kinds(self) -> list[str]:
        """The kinds of the events since the last call."""
        return [str(event.kind) for event in await self.fresh()]


def user(name: str, **fields: object) -> UserRecord:
    """A user as the store takes it."""
    made = UserRecord(
        id=f"usr-{name}",
        username=name,
        email=None,
        role="user",
        plan=UNLIMITED,
        status="active",
        password_hash=f"secret hash of {name}",
        last_login=None,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **fields)


def vm(name: str, *, owner: str = "ada", **fields: object) -> VmRecord:
    """A VM as the store takes it."""
    made = VmRecord(
        id=f"vm-{name}",
        owner_id=f"usr-{owner}",
        owner=owner,
        name=name,
        uuid="u",
        hardware=Hardware(cpu=2, memory=64),
        disks=[Disk(id="disk0", size=1)],
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **fields)


def principal(
    name: str, *, role: str = "user", but: frozenset[Permission] = frozenset()
) -> Principal:
    """A caller, with all that its role may, `but` these."""
    return Principal(
        user_id=f"usr-{name}",
        username=name,
        role="admin" if role == "admin" else "user",
        session_id="s",
        permissions=ROLE_PERMISSIONS["admin" if role == "admin" else "user"] - but,
    )


ADMIN = principal("root", role="admin")
ADA, BOB = principal("ada"), principal("bob")


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A new database; its own beginning is no news."""
    database = await Database.open(folder / "voidvm.db")
    made = World(database)
    await made.users.insert(user("root", role="admin"))
    await made.users.insert(user("ada"))
    await made.users.insert(user("bob"))
    await made.fresh()
    try:
        yield made
    finally:
        await database.close()


async def change(here: World, number: int, *, vm_id: str = "vm-one") -> None:
    """One event, told apart by `number`."""
    status = VmStatus.STARTING if number % 2 else VmStatus.RUNNING
    await here.vms.set_status(vm_id, status, f"step {number}", run=None)


async def take(feed: Feed, count: int) -> list[EventRecord]:
    """The next events of a feed."""
    async with asyncio.timeout(30):
        return [await feed.next() for _ in range(count)]


def reasons(events: list[EventRecord]) -> list[str]:
    """What tells the events of `change` apart."""
    return [event.data["statusReason"] for event in events]


def steps(*numbers: int) -> list[str]:
    """The same, of these numbers."""
    return [f"step {number}" for number in numbers]


class Told:
    """The events that a bus has carried."""

    def __init__(self, bus: Bus) -> None:
        self.events: list[EventRecord] = []
        bus.subscribe(self._hear)

    def _hear(self, news: News) -> None:
        if isinstance(news, EventHappened):
            self.events.append(news.event)


@asynccontextmanager
async def telling(world: World) -> AsyncIterator[tuple[Events, Told]]:
    """The service of events on a database, and what it puts on the bus."""
    bus = Bus()
    told = Told(bus)
    events = Events(EventStore(world.database), bus=bus)
    await events.start()
    try:
        yield events, told
    finally:
        await events.close()
