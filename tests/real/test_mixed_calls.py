"""Many calls at once on one VM: whatever their order, what is told is what is there."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.guests import is_alive
from tests.support.service import Service

WITH_PROCESS = {"starting", "running", "paused", "stopping", "unresponsive"}
ACTIONS = ("start", "stop", "reset", "pause", "resume", "restart")


def act(api: Api, vm_id: str, action: str) -> int:
    bodies: dict[str, Json] = {
        "stop": {"force": True},
        "restart": {"mode": "force"},
    }
    if action == "delete":
        return api.call("DELETE", f"/vms/{vm_id}").status_code
    options = {"json": bodies[action]} if action in bodies else {}
    return api.call("POST", f"/vms/{vm_id}/{action}", **options).status_code


def is_consistent(service: Service, vm: Json) -> bool:
    if vm["status"] in WITH_PROCESS:
        return service.qemus() == [vm["pid"]] and is_alive(vm["pid"])
    return service.qemus() == [] and vm["pid"] is None


def test_fifty_mixed_calls_at_once_end_consistent(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm_id = new_vm()["id"]
    calls = [*ACTIONS * 8, "start", "stop"]
    random.shuffle(calls)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda action: act(api, vm_id, action), calls))
    assert len(statuses) == 50
    assert {status for status in statuses if status >= 500} <= {503, 507}
    assert set(statuses) <= {200, 409, 503}
    vm = api.ok("GET", f"/vms/{vm_id}")
    assert vm["status"] in {"running", "stopped", "paused"}
    assert is_consistent(service, vm)
    # Nothing was unexpected, so nothing is told as such.
    assert api.ok("GET", f"/vms/{vm_id}/incidents")["incidents"] == []


def test_mixed_calls_with_deletes_among_them_leave_no_process_and_no_folder(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm_id = new_vm()["id"]
    calls = [*ACTIONS * 7, *["delete"] * 8]
    random.shuffle(calls)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda action: act(api, vm_id, action), calls))
    assert len(statuses) == 50
    assert set(statuses) <= {200, 404, 409, 503}
    answer = api.call("GET", f"/vms/{vm_id}")
    if answer.status_code == 200:
        assert is_consistent(service, answer.json()["data"])
        api.remove(vm_id)
    assert service.qemus() == []
    assert not (service.data / "vms" / vm_id).exists()
    assert not (service.run / vm_id).exists()
    api.refused("GET", f"/vms/{vm_id}", "VM_NOT_FOUND")
