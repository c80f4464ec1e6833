"""Calls against a service with fake QEMUs."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.local import LocalService
from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client import errors
from voidvm.client.types import Progress, Vm


def test_an_answer_is_a_dict_and_has_its_keys_as_attributes(client: VoidVMClient, vm: Vm) -> None:
    assert vm["status"] == vm.status == "running"
    assert vm.created_at.tzinfo is not None
    assert datetime.fromisoformat(vm["createdAt"]) == vm.created_at
    assert vm.disks[0].size == vm["disks"][0]["size"] == 1
    assert json.loads(json.dumps(vm)) == vm
    for same in (copy.deepcopy(vm), pickle.loads(pickle.dumps(vm))):  # noqa: S301 - our own
        assert isinstance(same, Vm)
        assert same.disks[0].id == "disk0"
    assert client.vms.get(vm.name).etag == client.vms.get(vm).etag is not None


def test_what_a_newer_service_adds_is_there_and_what_an_older_one_lacks_is_said() -> None:
    vm = Vm({"id": "vm-1", "newField": {"deep": 1}, "disks": [{"id": "disk0", "speed": 9}]})
    assert (vm.disks[0].id, vm["disks"][0]["speed"]) == ("disk0", 9)
    assert getattr(vm, "new_field") == {"deep": 1}  # noqa: B009 - no type knows it
    with pytest.raises(AttributeError, match="the service sent no 'createdAt' in this Vm"):
        vm.created_at  # noqa: B018 - reading it is the test


def test_bodies_are_dicts_or_keywords(client: VoidVMClient) -> None:
    wanted = client.vms.create(
        {"name": "body", "cpu": 2, "bootOrder": ["disk"]},
        memory=256,
        restart_policy="on-failure",
        dry_run=True,
    )
    assert (wanted.cpu, wanted.memory, wanted.restart_policy) == (2, 256, "on-failure")
    assert wanted.boot_order == ["disk"]
    ends = datetime.now(UTC) + timedelta(hours=1)
    made = client.tokens.create(name="soon-over", expires_at=ends)
    assert made.expires_at == ends
    assert made.token.startswith("vvm_")
    client.tokens.delete(made)


def test_errors_have_a_class_each(client: VoidVMClient) -> None:
    with pytest.raises(errors.VmNotFound, match="There is no VM 'nobody'") as caught:
        client.vms.get("nobody")
    error = caught.value
    assert (error.code, error.status, error.retryable) == ("VM_NOT_FOUND", 404, False)
    assert error.request_id
    with pytest.raises(errors.ValidationFailed) as refused:
        client.vms.create({"name": "x", "cpus": 1, "memory": "much"})
    assert [problem.field for problem in refused.value.errors] == ["cpus", "memory"]
    assert isinstance(refused.value, errors.VoidVMError)
    with pytest.raises(ValueError, match="names no object"):
        client.vms.get("..")


def test_a_change_of_what_has_changed_is_refused(client: VoidVMClient, vm: Vm) -> None:
    seen = client.vms.get(vm)
    client.vms.update(vm, description="first", if_match=seen)
    with pytest.raises(errors.PreconditionFailed):
        client.vms.update(vm, {"description": "second"}, if_match=seen)


def test_lists_go_over_all_pages(client: VoidVMClient) -> None:
    for number in range(5):
        client.vms.create(name=f"paged{number}", memory=128, disk=1)
    found = client.vms.list(q="paged")
    assert [vm.name for vm in found] == [f"paged{number}" for number in range(5)]
    assert (found.total, found.pages) == (5, 1)
    page = client.vms.list(q="paged", limit=2, page=2)
    assert ([vm.name for vm in page], page.total, page.pages) == (["paged2", "paged3"], 5, 3)
    names = [vm.name for vm in client.vms.iterate(q="paged", limit=2)]
    assert names == [f"paged{number}" for number in range(5)]
    first = client.vms.iterate(q="paged", limit=2)
    assert next(first).name == "paged0"
    client.vms.delete("paged0")
    assert client.users.list(role="admin")[0].username == "admin"
    for vm in client.vms.list(q="paged"):
        client.vms.delete(vm)


async def test_both_clients_have_the_same_calls(
    awaiting: AsyncVoidVMClient, client: VoidVMClient, vm: Vm
) -> None:
    assert asyncio.iscoroutinefunction(awaiting.vms.get)
    assert not asyncio.iscoroutinefunction(client.vms.get)
    assert (await awaiting.vms.get(vm)).id == client.vms.get(vm).id
    assert [one.name async for one in awaiting.vms.iterate(q=vm.name)] == [vm.name]
    assert len(await awaiting.vms.list(q=vm.name)) == len(client.vms.list(q=vm.name)) == 1
    assert awaiting.vms.start.__doc__ == client.vms.start.__doc__
    with pytest.raises(errors.VmAlreadyRunning):
        await awaiting.vms.start(vm)
    found = await asyncio.gather(*(awaiting.vms.get(vm) for _ in range(20)))
    assert {one.id for one in found} == {vm.id}
    with pytest.raises(TypeError, match="wants: async with"), awaiting:
        pass


def test_an_operation_is_awaited_with_progress(client: VoidVMClient, vm: Vm) -> None:
    told: list[Progress] = []
    operation = client.vms.submit(vm, "stop", {"force": True})
    assert operation.wait(progress=told.append, timeout=30) is operation
    assert (operation.status, operation.is_open) == ("succeeded", False)
    assert told
    assert client.vms.get(vm).status == "stopped"
    again = client.vms.submit(vm, "stop", {"force": True})
    with pytest.raises(errors.OperationFailed) as failed:
        client.operations.wait(again)
    assert failed.value.code == "VM_NOT_RUNNING"
    assert again.wait(check=False).status == "failed"
    assert client.operations.list(vm=vm.id)[0].id == again.id
    with pytest.raises(errors.OperationNotCancellable):
        again.cancel()


async def test_an_operation_is_awaited_on_asyncio(awaiting: AsyncVoidVMClient, vm: Vm) -> None:
    told: list[str] = []

    async def hear(progress: Progress) -> None:
        told.append(progress.stage)

    operation = await awaiting.vms.submit(vm, "pause")
    assert (await operation.wait(progress=hear)).status == "succeeded"
    assert told


def test_an_image_is_sent_in_pieces(
    client: VoidVMClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.client.images.PIECE_BYTES", 400_000)
    file = tmp_path / "disk.raw"
    file.write_bytes(b"\x00" * 1024**2)
    stages: list[tuple[str, int | None]] = []
    operation = client.images.upload(
        file, progress=lambda progress: stages.append((progress.stage, progress.bytes_done))
    )
    assert operation.wait(check=False, timeout=30).is_open is False
    assert [done for stage, done in stages if stage == "upload"] == [0, 400_000, 800_000, 1024**2]
    assert stages[0] == ("checksum", 400_000)


def test_the_rest_of_the_service_is_in_reach(client: VoidVMClient, vm: Vm) -> None:
    assert client.system.health().status in {"ok", "degraded"}
    assert client.system.info().host.cpus >= 1
    assert "voidvm_" in client.system.metrics()
    assert client.system.openapi()["openapi"].startswith("3.1")
    assert client.system.config().config.limits.requests_per_minute == 0
    assert client.system.stats(period="1h").period == "1h"
    assert client.vms.metrics(vm, since=datetime.now(UTC) - timedelta(minutes=5)).vm_id == vm.id
    assert client.vms.incidents(vm) == []
    assert client.disks.list(vm)[0].id == "disk0"
    assert {one.name for one in client.auth.permissions()} >= {"vm:read"}
    assert client.auth.me().usage.vms >= 1
    assert client.logs.list(limit=1)[0].action
    assert client.vms.wait(vm, "running").id == vm.id
    with pytest.raises(errors.WaitTimeout):
        client.vms.wait(vm, "stopped", timeout=0)
    assert client.request("GET", f"/vms/{vm.id}")["name"] == vm.name


def test_the_address_is_completed_and_comes_from_the_environment(
    local: LocalService, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_URL", f"{local.url}/")
    monkeypatch.setenv("VOIDVM_TOKEN", token)
    with VoidVMClient() as client:
        assert client.base_url == f"{local.url}/api/v1"
        assert client.auth.me().username == "admin"
    with pytest.raises(ValueError, match="is not the address of a service"):
        VoidVMClient("localhost:3000")


def test_a_client_that_nobody_closes_complains_of_nothing(local: LocalService, token: str) -> None:
    client = VoidVMClient(local.url, token)
    client.vms.list()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
        gc.collect()


def test_nobody_there_is_said_so(client: VoidVMClient) -> None:
    with (
        VoidVMClient("http://127.0.0.1:1", "token", retries=0) as lost,
        pytest.raises(errors.Unreachable, match="cannot reach VoidVM at"),
    ):
        lost.vms.list()
