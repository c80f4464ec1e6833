"""A database that takes nothing for a while: what was begun is finished when it does again."""

from __future__ import annotations

from unittest import mock

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually
from voidvm.errors import DatabaseUnusable, NoSpace
from voidvm.services import vms


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
