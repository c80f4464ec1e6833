"""A database that takes nothing for a while: what was begun is finished when it does again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from unittest import mock

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually
from voidvm.errors import DatabaseUnusable, NoSpace
from voidvm.services import recovery, vms
from voidvm.services.creation import Creation
from voidvm.store.operations import OperationStore
from voidvm.store.uploads import UploadStore
from voidvm.store.vms import VmStore


@pytest.fixture
def forget_errors(local: LocalService, own: LocalService) -> Callable[[], None]:
    """What was logged is meant: what either of these services logs, both have."""

    def forget() -> None:
        for service in (local, own):
            service.errors.texts.clear()

    return forget


def folders(service: LocalService) -> list[str]:
    return sorted(path.name for path in (service.folder / "d" / "vms").iterdir())


def test_a_deletion_without_its_row_is_finished_later(
    local: LocalService, api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vms, "RETRY_S", 0.05)
    vm = api.create(name)["id"]
    store = local.services.vms._store
    failing = mock.AsyncMock(side_effect=[NoSpace(), DatabaseUnusable(), None])
    with mock.patch.object(store, "delete", failing):
        api.refused("DELETE", f"/vms/{vm}", "NO_SPACE")
        assert not (local.folder / "d" / "vms" / vm).exists()
        eventually(lambda: failing.await_count == 3)
    local.run(store.delete(vm))
    eventually(lambda: api.call("GET", f"/vms/{vm}").status_code == 404)


@pytest.mark.parametrize("room_comes", ["while it is away", "later"])
def test_a_deletion_of_which_nothing_was_recorded_is_finished_by_the_next_service(
    own: LocalService,
    forget_errors: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    room_comes: str,
) -> None:
    monkeypatch.setattr(vms, "RETRY_S", 0.05)
    own.start()
    api = own.api()
    gone, kept = api.create("gone")["id"], api.create("kept")["id"]
    full = mock.AsyncMock(side_effect=NoSpace())
    with mock.patch.object(VmStore, "delete", full):
        with mock.patch.object(VmStore, "set_status", full):
            api.refused("DELETE", f"/vms/{gone}", "NO_SPACE")
            own.stop()
        said = own.errors.texts[0]
        forget_errors()
        assert f"{gone}: cannot record the status" in said
        assert folders(own) == [f".{gone}.deleted", kept]
        if room_comes == "later":
            own.start()
            found = own.api().ok("GET", f"/vms/{gone}")
            assert found["status"] == "deleting"
            assert folders(own) == [f".{gone}.deleted", kept]
    if room_comes == "while it is away":
        own.start()
    api = own.api()
    eventually(lambda: api.call("GET", f"/vms/{gone}").status_code == 404)
    eventually(lambda: folders(own) == [kept])  # a moment after the row
    assert api.ok("GET", f"/vms/{kept}")["status"] == "stopped"


def test_a_start_that_cannot_be_recorded_leaves_nothing_that_runs(
    own: LocalService, forget_errors: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.supervisor.state.RETRY_S", 0.05)
    own.start()
    api = own.api()
    vm = api.create("one")["id"]
    with mock.patch.object(VmStore, "set_status", mock.AsyncMock(side_effect=NoSpace())):
        api.refused("POST", f"/vms/{vm}/start", "NO_SPACE")
        assert own.host is not None
        assert own.host.alive() == {}
    forget_errors()
    eventually(lambda: api.ok("GET", f"/vms/{vm}")["status"] == "stopped")
    own.stop()
    own.start()
    # It is wanted no more: what has become of it since is what stays.
    assert own.api().ok("GET", f"/vms/{vm}")["status"] == "stopped"
    assert own.host.alive() == {}


def test_a_vm_that_was_being_made_does_not_come_back(
    own: LocalService, forget_errors: Callable[[], None]
) -> None:
    async def endless(*_: object) -> None:
        await asyncio.sleep(60)

    own.start()
    api = own.api()
    full = mock.AsyncMock(side_effect=NoSpace())
    with mock.patch.object(Creation, "_make_files", endless):
        body = {"name": "half", "os": "tiny", "fullCopy": True}
        vm = api.ok("POST", "/vms", body)["id"]
        with (
            mock.patch.object(VmStore, "delete", full),
            mock.patch.object(VmStore, "set_status", full),
        ):
            api.refused("DELETE", f"/vms/{vm}", "NO_SPACE")
            own.stop()
    forget_errors()
    own.start()
    own.api().refused("GET", f"/vms/{vm}", "VM_NOT_FOUND")
    assert folders(own) == []


def test_a_mark_of_a_deletion_beside_a_vms_files_is_an_old_one(own: LocalService) -> None:
    own.start()
    vm = own.api().create("kept")["id"]
    own.stop()
    (own.folder / "d" / "vms" / f".{vm}.deleted").mkdir()
    own.start()
    assert own.api().ok("GET", f"/vms/{vm}")["status"] == "stopped"
    assert folders(own) == [vm]


def test_a_service_starts_without_room_for_what_it_tidies_up(
    own: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETRY_S", 0.05)
    own.start()
    api = own.api()
    body = {"name": "forgotten", "sizeBytes": 10}
    upload = api.ok("POST", "/images/uploads", body)["uploadId"]
    (own.folder / "d" / "uploads" / upload).unlink()
    copied = {"name": "copied", "os": "tiny", "fullCopy": True}
    vm = api.ok("POST", "/vms", copied)
    old = vm["operationId"]
    assert api.ok("GET", f"/operations/{old}", params={"wait": 30})["status"] == "succeeded"
    own.stop()
    with sqlite3.connect(own.folder / "d" / "voidvm.db") as database:
        database.execute("UPDATE operations SET status = 'running'")
        database.execute("UPDATE operations SET body = json_set(body, '$.status', 'running')")
    database.close()
    full = mock.AsyncMock(side_effect=NoSpace())
    with (
        mock.patch.object(OperationStore, "interrupt_open", full),
        mock.patch.object(UploadStore, "delete", full),
    ):
        own.start()
        api = own.api()
        begun = full.await_count
        assert begun >= 2
        eventually(lambda: full.await_count > begun + 2)
        assert api.ok("GET", f"/images/uploads/{upload}")["uploadId"] == upload
        assert api.ok("GET", f"/operations/{old}")["status"] == "running"
    eventually(lambda: api.call("GET", f"/images/uploads/{upload}").status_code == 404)
    eventually(lambda: api.ok("GET", f"/operations/{old}")["status"] == "interrupted")


def test_a_creation_whose_operation_cannot_be_kept_is_taken_back(
    local: LocalService, api: Api, name: str
) -> None:
    failing = mock.AsyncMock(side_effect=NoSpace())
    body = {"name": name, "os": "tiny", "fullCopy": True}
    with mock.patch.object(local.services.creation._operations, "submit", failing):
        api.refused("POST", "/vms", "NO_SPACE", body)
    api.refused("GET", f"/vms/{name}", "VM_NOT_FOUND")
    # The name is free again.
    api.remove(api.create(name)["id"])


def test_an_upload_that_cannot_be_kept_leaves_no_file(local: LocalService, api: Api) -> None:
    failing = mock.AsyncMock(side_effect=NoSpace())
    body = {"name": "an-upload", "sizeBytes": 10}
    folder = local.folder / "d" / "uploads"
    before = set(folder.glob("*"))
    with mock.patch.object(local.services.uploads._store, "insert", failing):
        api.refused("POST", "/images/uploads", "NO_SPACE", body)
    assert failing.await_count == 1
    assert set(folder.glob("*")) == before
