"""Every change of a row has its event, with what it was about and nothing secret; no other has."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.events import NOW, World, user, vm, world
from tests.unit.store.test_migrations import first_version
from voidvm.domain.account import UserRecord
from voidvm.domain.cloudinit import CloudInit
from voidvm.domain.event import KINDS, EventKind, EventRecord
from voidvm.domain.image import Image
from voidvm.domain.operation import OperationError, OperationRecord, OperationStatus
from voidvm.domain.permission import Permission
from voidvm.domain.states import VmStatus
from voidvm.domain.token import ApiTokenRecord
from voidvm.domain.vm import Disk, Hardware, Kernel
from voidvm.store.database import Database, Transaction
from voidvm.store.migrations import MIGRATIONS

SECRET = "s3cret word"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def only(here: World) -> EventRecord:
    """The one event since the last look, in words that can be made."""
    events = await here.fresh()
    assert len(events) == 1, events
    assert events[0].message() != events[0].message("zh")
    return events[0]


# VMs


async def test_a_vm_is_made_changed_and_deleted(here: World) -> None:
    await here.vms.insert(vm("one"))
    made = await only(here)
    assert (made.kind, made.owner_id, made.vm_id) == (EventKind.VM_CREATED, "usr-ada", "vm-one")
    assert made.data == {
        "name": "one",
        "status": "stopped",
        "statusReason": None,
        "cpu": 2,
        "memory": 64,
        "os": None,
    }
    assert abs(datetime.now(UTC) - made.at) < timedelta(minutes=1)
    await here.vms.change("vm-one", lambda now: replace(now, name="two", description="d"))
    changed = await only(here)
    assert (changed.kind, changed.data) == (
        EventKind.VM_UPDATED,
        {"name": "two", "fields": ["name", "description"]},
    )
    await here.vms.delete("vm-one")
    gone = await only(here)
    assert (gone.kind, gone.owner_id, gone.vm_id) == (EventKind.VM_DELETED, "usr-ada", "vm-one")
    assert gone.message() == "VM 'two' was deleted."


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"tags": ["a"]}, ["tags"]),
        ({"restart_policy": "always"}, ["restartPolicy"]),
        ({"hardware": Hardware(cpu=4, memory=64)}, ["cpu"]),
        ({"hardware": Hardware(cpu=2, memory=65, iso="i", boot_order=["disk"])}, None),
        ({"hardware": Hardware(cpu=2, memory=64, kernel=Kernel(image="k"))}, ["kernel"]),
        ({"source": "img-1", "is_full_copy": True}, []),
        ({}, []),
    ],
)
async def test_an_update_names_the_fields_as_clients_know_them(
    here: World, changes: dict[str, object], fields: list[str] | None
) -> None:
    await here.vms.insert(vm("one"))
    await here.fresh()
    await here.vms.change("vm-one", lambda now: replace(now, **changes))
    events = await here.fresh()
    wanted = ["memory", "iso", "bootOrder"] if fields is None else fields
    assert [sorted(event.data["fields"]) for event in events] == (
        [sorted(wanted)] if wanted else []
    )


async def test_cloud_init_is_no_part_of_an_event(here: World) -> None:
    cloud = CloudInit(user="u", password=SECRET)
    await here.vms.insert(vm("one", cloud_init=cloud))
    await here.vms.change(
        "vm-one", lambda now: replace(now, cloud_init=replace(cloud, password=SECRET + "!"))
    )
    events = await here.fresh()
    assert events[-1].data["fields"] == ["cloudInit"]
    assert SECRET not in str(events)


async def test_a_status_is_told_with_the_one_before(here: World) -> None:
    await here.vms.insert(vm("one"))
    await here.fresh()
    steps = [
        (VmStatus.STARTING, None, "info"),
        (VmStatus.RUNNING, None, "info"),
        (VmStatus.PAUSED, "io-error: no space", "warning"),
        (VmStatus.PAUSED, "host-request", "info"),
        (VmStatus.PAUSED, "guest-panicked", "warning"),
        (VmStatus.UNRESPONSIVE, None, "warning"),
        (VmStatus.CRASHED, "killed by signal 9", "error"),
    ]
    before: tuple[str, str | None] = ("stopped", None)
    for status, reason, level in steps:
        for _ in range(2):
            # The same again is no news, nor is what is known of the run.
            await here.vms.set_status("vm-one", status, reason, run=None)
        told = await only(here)
        assert (told.kind, told.level, told.vm_id) == (EventKind.VM_STATUS, level, "vm-one")
        assert told.data == {
            "name": "one",
            "status": status,
            "statusReason": reason,
            "previousStatus": before[0],
            "previousStatusReason": before[1],
        }
        before = (str(status), reason)
    await here.vms.set_wanted("vm-one", "running")
    await here.vms.set_operation("vm-one", "op-1")
    assert await here.kinds() == []


async def test_disks_have_events_of_their_own(here: World) -> None:
    await here.vms.insert(vm("one"))
    await here.images.insert(image("1"))
    await here.fresh()
    first, second = Disk(id="disk0", size=1), Disk(id="disk1", size=2, bus="scsi", image="img-1")
    await here.vms.change("vm-one", lambda now: replace(now, disks=[first, second]))
    told = await only(here)
    assert (told.kind, told.data) == (
        EventKind.DISK_ATTACHED,
        {"name": "one", "disk": "disk1", "size": 2, "bus": "scsi", "image": "img-1"},
    )
    grown = replace(second, size=5)
    await here.vms.change("vm-one", lambda now: replace(now, disks=[grown, first]))
    told = await only(here)
    assert (told.kind, told.data["disk"], told.data["size"]) == (
        EventKind.DISK_UPDATED,
        "disk1",
        5,
    )
    await here.vms.change("vm-one", lambda now: replace(now, disks=[first], tags=["t"]))
    detached, updated = await here.fresh()
    assert (detached.kind, detached.data["disk"]) == (EventKind.DISK_DETACHED, "disk1")
    assert (updated.kind, updated.data["fields"]) == (EventKind.VM_UPDATED, ["tags"])


# Images


def image(name: str, **fields: object) -> Image:
    made = Image(
        id=f"img-{name}",
        name=name,
        kind="disk",
        format="qcow2",
        size_bytes=1,
        virtual_size_bytes=1,
        checksum="",
        os=None,
        owner="usr-ada",
        public=False,
        created_at=NOW,
    )
    return replace(made, **fields)


async def test_a_private_image_is_its_owners_news_and_a_public_one_everybodys(
    here: World,
) -> None:
    await here.images.insert(image("own"))
    await here.images.insert(image("all", owner=None, public=True))
    own, everybodys = await here.fresh()
    assert (own.kind, own.owner_id) == (EventKind.IMAGE_CREATED, "usr-ada")
    assert own.data == {"image": "img-own", "name": "own", "kind": "disk", "os": None}
    assert everybodys.owner_id is None
    await here.images.change("img-own", lambda now: replace(now, updated_at=NOW))
    assert await here.kinds() == []
    await here.images.change("img-own", lambda now: replace(now, public=True))
    told = await only(here)
    assert (told.kind, told.owner_id) == (EventKind.IMAGE_UPDATED, None)
    assert (told.data["public"], told.data["fields"]) == (True, ["public"])


async def test_who_saw_an_image_hears_that_it_went_private_but_no_new_name(here: World) -> None:
    await here.images.insert(image("open", public=True))
    await here.fresh()
    await here.images.change("img-open", lambda now: replace(now, public=False, name="not for you"))
    told = await only(here)
    assert (told.owner_id, told.data["name"], told.data["public"]) == (None, "open", False)
    await here.images.delete("img-open")
    assert (await only(here)).owner_id == "usr-ada"


async def test_an_image_that_takes_anothers_place(here: World) -> None:
    await here.images.insert(image("one"))
    await here.images.insert(replace(image("one"), id="img-new"), replace=True)
    assert await here.kinds() == ["image.created", "image.deleted", "image.created"]


# People


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"username": "eve"}, ["username"]),
        ({"email": "a@example.org"}, ["email"]),
        ({"role": "admin"}, ["role"]),
        ({"permissions": frozenset({Permission.VM_READ})}, ["permissions"]),
        ({"status": "disabled"}, ["status"]),
        ({"password_hash": SECRET}, ["password"]),
        ({"language": "zh", "must_change_password": True}, ["language", "mustChangePassword"]),
        ({}, None),
    ],
)
async def test_a_user_is_changed(
    here: World, changes: dict[str, object], fields: list[str] | None
) -> None:
    await here.users.change("usr-ada", lambda now: replace(now, **changes))
    events = await here.fresh()
    assert "secret" not in str(events)
    assert SECRET not in str(events)
    if fields is None:
        assert events == []
        return
    assert [(event.kind, event.owner_id) for event in events] == [
        (EventKind.USER_UPDATED, "usr-ada")
    ]
    assert sorted(events[0].data["fields"]) == fields


async def test_users_come_sign_in_and_go(here: World) -> None:
    await here.users.insert(user("eve", password_hash=SECRET))
    made = await only(here)
    assert (made.kind, made.owner_id) == (EventKind.USER_CREATED, "usr-eve")
    assert SECRET not in str(made)
    await here.users.set_last_login("usr-eve", NOW)
    assert (await only(here)).kind is EventKind.USER_SIGNED_IN
    await here.users.delete("usr-eve", check=_nothing, transfer_to=None)
    assert (await only(here)).kind is EventKind.USER_DELETED


def _nothing(_user: UserRecord) -> None:
    """No reason against it."""


async def test_tokens_come_and_go_also_with_their_user(here: World) -> None:
    for number in range(2):
        await here.tokens.insert(
            ApiTokenRecord(
                id=f"tok-{number}",
                user_id="usr-ada",
                name=f"t{number}",
                token_hash=f"{SECRET}{number}",
                permissions=None,
                created_at=NOW,
                expires_at=None,
                last_used_at=None,
            )
        )
    token = await here.tokens.get("tok-0")
    assert token is not None
    await here.tokens.note_use(token)
    await here.tokens.delete("tok-0", user_id="usr-ada")
    events = await here.fresh()
    assert [event.kind for event in events] == ["token.created", "token.created", "token.deleted"]
    assert SECRET not in str(events)
    assert events[2].data == {"token": "tok-0", "name": "t0"}
    await here.users.delete("usr-ada", check=_nothing, transfer_to=None)
    assert sorted(await here.kinds()) == ["token.deleted", "user.deleted"]


async def test_the_heir_hears_of_what_it_was_given(here: World) -> None:
    await here.vms.insert(vm("one"))
    await here.images.insert(image("own"))
    await here.fresh()
    await here.users.delete("usr-ada", check=_nothing, transfer_to=user("bob"))
    by_kind = {event.kind: event for event in await here.fresh()}
    assert set(by_kind) == {
        EventKind.VM_UPDATED,
        EventKind.IMAGE_UPDATED,
        EventKind.USER_DELETED,
    }
    assert by_kind[EventKind.VM_UPDATED].owner_id == "usr-bob"
    assert by_kind[EventKind.VM_UPDATED].data["fields"] == ["owner"]
    assert by_kind[EventKind.IMAGE_UPDATED].owner_id == "usr-bob"


# Operations


async def test_an_operation_is_told_by_its_states_not_by_its_progress(here: World) -> None:
    record = OperationRecord(
        id="op-1",
        owner_id="usr-ada",
        type="import",
        resources=["/api/v1/images/img-1"],
        vm_id="vm-one",
        created_by="ada",
        created_at=NOW,
    )
    await here.operations.save(record)
    made = await only(here)
    assert (made.kind, made.owner_id, made.vm_id) == (
        EventKind.OPERATION_CREATED,
        "usr-ada",
        "vm-one",
    )
    assert made.data == {
        "operation": "op-1",
        "type": "import",
        "status": "pending",
        "resources": ["/api/v1/images/img-1"],
    }
    running = replace(record, status=OperationStatus.RUNNING)
    await here.operations.save(running)
    await here.operations.save(replace(running, may_cancel=False))
    assert (await only(here)).data["previousStatus"] == "pending"
    error = OperationError(code="NO_SPACE", message="There is no space left.", details=SECRET)
    await here.operations.save(replace(running, status=OperationStatus.FAILED, error=error))
    failed = await only(here)
    assert (failed.level, failed.data["errorCode"]) == ("error", "NO_SPACE")
    assert failed.data["errorMessage"] == "There is no space left."
    assert SECRET not in str(failed)
    assert (await here.operations.get("op-1")) is not None


async def test_what_a_service_left_open_is_told_by_the_next(here: World) -> None:
    record = OperationRecord(
        id="op-1", owner_id="usr-ada", type="t", resources=[], created_by="ada", created_at=NOW
    )
    await here.operations.save(record)
    await here.operations.interrupt_open(but=())
    told = (await here.fresh())[-1]
    assert (told.kind, told.level) == (EventKind.OPERATION_STATUS, "warning")


# Transactions, and databases of before


async def test_an_event_is_there_exactly_when_its_change_is(here: World) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.execute("DELETE FROM users WHERE id = 'usr-ada'")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        await here.database.write(work)
    await here.users.set_last_login("usr-ada", NOW)
    before, after = here.seen, (await only(here)).seq
    assert after == before + 1, "a number was lost with what was rolled back"


async def test_every_kind_of_a_row_was_seen_here(here: World) -> None:
    rows = await here.database.read("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
    text = "".join(row["sql"] for row in rows)
    ours = {kind for kind in EventKind if not kind.startswith("system.")}
    assert {kind for kind in KINDS if f"'{kind}'" in text} == ours


async def test_the_third_version_opens_and_tells_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "voidvm.db"
    first_version(path, ("usr-root", "root", "x"))
    with closing(sqlite3.connect(path)) as connection:
        for script in MIGRATIONS[1:3]:
            connection.executescript(script)
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    database = await Database.open(path)
    try:
        here = World(database)
        assert await here.fresh() == [], "what was before is no news"
        assert len(await here.events.epoch()) == 8
        # A body as the first version wrote it.
        await here.vms.change("vm-000000000000", lambda now: replace(now, description="new"))
        events = await here.fresh()
        assert [event.kind for event in events] == [EventKind.VM_UPDATED]
        assert "description" in events[0].data["fields"]
    finally:
        await database.close()
