"""The table of VMs: owners, filters, and changes that are whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from voidvm.domain.account import Principal, UserRecord
from voidvm.domain.permission import Permission
from voidvm.domain.quota import Plans, Quota
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Disk, Hardware, Run, VmRecord
from voidvm.errors import NameTaken, VmNotFound
from voidvm.store.database import Database
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
HARDWARE = Hardware(cpu=1, memory=64)


def record(name: str, *, owner: str = "admin", number: int = 0, **fields: object) -> VmRecord:
    made = VmRecord(
        id=f"vm-{owner}-{name}",
        owner_id=f"usr-{owner}",
        owner=owner,
        name=name,
        uuid="u",
        hardware=HARDWARE,
        disks=[Disk(id="disk0", size=1)],
        created_at=NOW + timedelta(seconds=number),
        updated_at=NOW,
    )
    return replace(made, **fields)


def principal(owner: str, role: str = "user") -> Principal:
    return Principal(
        user_id=f"usr-{owner}",
        username=owner,
        role="admin" if role == "admin" else "user",
        session_id="s",
        permissions=frozenset(Permission),
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[VmStore]:
    database = await Database.open(tmp_path / "db")
    users = UserStore(database, plans=Plans(lambda: {"free": Quota()}))
    for name in ("admin", "bob"):
        await users.insert(
            UserRecord(
                id=f"usr-{name}",
                username=name,
                email=None,
                role="user",
                plan="free",
                status="active",
                password_hash="",
                last_login=None,
                created_at=NOW,
                updated_at=NOW,
            )
        )
    yield VmStore(database, plans=Plans(lambda: {"free": Quota()}))
    await database.close()


async def test_what_is_put_in_comes_out(store: VmStore) -> None:
    full = record(
        "one",
        description="d",
        tags=["a", "b"],
        os="tiny",
        run=Run(boot_id="b", accel="tcg", hardware=HARDWARE, pid=1, pid_start=2),
        wanted="running",
        status=VmStatus.RUNNING,
        status_reason="because",
    )
    await store.insert(full)
    assert await store.get(full.id) == full
    assert await store.all() == [full]
    assert await store.get("vm-none") is None


async def test_a_name_is_taken_once_per_owner(store: VmStore) -> None:
    await store.insert(record("one"))
    with pytest.raises(NameTaken):
        await store.insert(replace(record("one"), id="vm-other"))
    await store.insert(record("one", owner="bob"))
    assert await store.is_name_taken("usr-bob", "one")
    assert not await store.is_name_taken("usr-bob", "two")


async def test_the_own_one_comes_first(store: VmStore) -> None:
    await store.insert(record("one", owner="bob"))
    await store.insert(record("one", number=9))
    found = await store.find("one", principal=principal("admin", "admin"))
    assert found is not None
    assert found.owner == "admin"
    found = await store.find("one", principal=principal("bob"))
    assert found is not None
    assert found.owner == "bob"
    assert await store.find("vm-admin-one", principal=principal("bob")) is None
    assert await store.find("vm-bob-one", principal=principal("admin", "admin")) is not None


async def test_pages_are_in_order_of_age(store: VmStore) -> None:
    for number in (3, 1, 2):
        await store.insert(record(f"n{number}", number=number, tags=["t", "t"]))
    await store.insert(record("other", owner="bob", number=0))
    found, total = await store.page(owner_id="usr-admin", limit=2)
    assert ([vm.name for vm in found], total) == (["n1", "n2"], 3)
    found, total = await store.page(owner_id=None, tag="t", page=2, limit=2)
    assert ([vm.name for vm in found], total) == (["n3"], 3)


async def test_a_change_is_whole_and_dated(store: VmStore) -> None:
    await store.insert(record("one", tags=["old"]))
    await store.insert(record("two"))
    changed = await store.change("vm-admin-one", lambda vm: replace(vm, name="new", tags=["t"]))
    assert (changed.name, changed.tags) == ("new", ["t"])
    assert changed.updated_at > NOW
    assert (await store.page(owner_id=None, tag="old"))[1] == 0
    with pytest.raises(NameTaken):
        await store.change("vm-admin-one", lambda vm: replace(vm, name="two", tags=["lost"]))
    assert await store.get("vm-admin-one") == changed
    with pytest.raises(VmNotFound):
        await store.change("vm-none", lambda vm: vm)


async def test_a_change_that_raises_changes_nothing(store: VmStore) -> None:
    await store.insert(record("one"))

    def update(_: VmRecord) -> VmRecord:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.change("vm-admin-one", update)
    assert await store.get("vm-admin-one") == record("one")


async def test_changes_and_observations_do_not_undo_each_other(store: VmStore) -> None:
    await store.insert(record("one"))
    await asyncio.gather(
        *(
            store.change("vm-admin-one", lambda vm: replace(vm, tags=[*vm.tags, "x"]))
            for _ in range(10)
        ),
        store.set_status("vm-admin-one", VmStatus.RUNNING, "r", run=None),
        store.set_wanted("vm-admin-one", "running"),
    )
    found = await store.get("vm-admin-one")
    assert found is not None
    assert len(found.tags) == 10
    assert (found.status, found.status_reason, found.wanted) == ("running", "r", "running")


async def test_deletion_takes_the_tags_along(store: VmStore) -> None:
    await store.insert(record("one", tags=["t"]))
    await store.delete("vm-admin-one")
    assert await store.all() == []
    await store.insert(record("one"))
    assert (await store.page(owner_id=None, tag="t"))[1] == 0
