"""Long work as a resource: accepted, watched, waited for, cancelled, kept, and cut short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.disks import Held, qcow2
from tests.support.operations import (
    ended,
    failed,
    import_url,
    leftovers,
    operation_of,
    succeeded,
)
from tests.support.service import Service, eventually
from tests.support.webserver import WebServer, web_server


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service that may fetch from this host."""
    service = Service(VOIDVM_IMAGES__ALLOW_PRIVATE_URLS="true")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow2(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def held(web: WebServer, disk: bytes) -> Iterator[Held]:
    """A download that stops half-way until it is told to go on."""
    answer = Held(disk)
    web.on("/held", answer)
    try:
        yield answer
    finally:
        answer.go.set()


def under_way(api: Api, operation: str) -> Json:
    """The operation, once half of its bytes have arrived."""

    def look() -> Json | None:
        found = api.ok("GET", f"/operations/{operation}")
        return found if found["progress"]["bytesDone"] else None

    return eventually(look)


def names(api: Api) -> list[str]:
    return [image["name"] for image in api.ok("GET", "/images")["images"]]


def begin(api: Api, web: WebServer, name: str) -> str:
    operation = import_url(api, web.url("/held"), name)
    under_way(api, operation)
    return operation


def test_an_import_says_its_stage_its_bytes_and_its_end(
    api: Api, web: WebServer, held: Held, disk: bytes
) -> None:
    operation = import_url(api, web.url("/held"), "watched")
    found = under_way(api, operation)
    assert (found["type"], found["status"], found["createdBy"]) == (
        "image-import", "running", "admin",
    )  # fmt: skip
    progress = found["progress"]
    assert (progress["stage"], progress["bytesTotal"]) == ("download", len(disk))
    # It is told as it is written, a MiB at a time.
    assert 0 < progress["bytesDone"] <= held.after
    assert progress["percent"] == pytest.approx(100 * progress["bytesDone"] / len(disk), abs=0.1)
    assert found["mayCancel"] is True
    assert found["resources"] == ["/api/v1/images/watched"]
    assert (found["finishedAt"], found["error"]) == (None, None)
    assert "watched" not in names(api)
    held.go.set()
    found = succeeded(api, operation)
    assert found["progress"]["percent"] == 100
    assert found["mayCancel"] is False
    assert found["createdAt"] <= found["startedAt"] <= found["finishedAt"]
    assert api.ok("GET", "/images/watched")["status"] == "ready"


def test_wait_answers_at_the_end_or_when_its_time_is_over(
    api: Api, web: WebServer, held: Held
) -> None:
    operation = begin(api, web, "awaited")
    begun = time.monotonic()
    found = api.ok("GET", f"/operations/{operation}", params={"wait": 0.5})
    assert 0.4 < time.monotonic() - begun < 3
    assert found["status"] == "running"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(api.ok, "GET", f"/operations/{operation}", params={"wait": 30})
        time.sleep(0.2)
        assert not waiting.done()
        held.go.set()
        assert waiting.result(timeout=20)["status"] == "succeeded"
    assert time.monotonic() - begun < 15


def test_cancelling_leaves_no_file_no_image_and_a_free_name(
    service: Service, api: Api, web: WebServer, held: Held
) -> None:
    operation = begin(api, web, "given-up")
    assert leftovers(service, api) != []
    found = api.ok("DELETE", f"/operations/{operation}")
    assert (found["status"], found["mayCancel"]) == ("cancelled", False)
    assert leftovers(service, api) == []
    assert "given-up" not in names(api)
    error = api.refused("DELETE", f"/operations/{operation}", "OPERATION_NOT_CANCELLABLE")
    assert error["details"] == "cancelled"
    held.go.set()
    succeeded(api, import_url(api, web.url("/held"), "given-up"))


def test_two_cancels_at_once_both_find_it_cleaned_up(
    service: Service, api: Api, web: WebServer, held: Held
) -> None:
    operation = begin(api, web, "twice")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: api.call("DELETE", f"/operations/{operation}"), range(4)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert leftovers(service, api) == []
    assert api.ok("GET", f"/operations/{operation}")["status"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(api: Api, web: WebServer, held: Held) -> None:
    held.go.set()
    operation = import_url(api, web.url("/held"), "finished")
    succeeded(api, operation)
    error = api.refused("DELETE", f"/operations/{operation}", "OPERATION_NOT_CANCELLABLE")
    assert error["details"] == "succeeded"
    assert "finished" in names(api)


def test_an_operation_of_somebody_else_is_not_there(
    service: Service, api: Api, web: WebServer, held: Held
) -> None:
    password = "a long password 1"
    api.ok("POST", "/users", {"username": "other", "password": password})
    other = service.api(username="other", password=password)
    mine = begin(api, web, "mine")
    for method in ("GET", "DELETE"):
        other.refused(method, f"/operations/{mine}", "OPERATION_NOT_FOUND")
    assert other.ok("GET", "/operations")["operations"] == []
    theirs = import_url(other, web.url("/held"), "theirs")
    assert api.ok("GET", f"/operations/{theirs}")["createdBy"] == "other"
    assert [one["id"] for one in other.ok("GET", "/operations")["operations"]] == [theirs]
    # An API token that may only look must not cancel.
    token = other.ok("POST", "/auth/tokens", {"name": "look", "permissions": ["image:read"]})
    looking = api.as_user(token["token"])
    assert looking.ok("GET", f"/operations/{theirs}")["status"] in {"pending", "running"}
    looking.refused("DELETE", f"/operations/{theirs}", "FORBIDDEN")
    other.ok("DELETE", f"/operations/{theirs}")
    api.ok("DELETE", f"/operations/{mine}")


def test_a_user_cannot_tell_no_operation_from_another_ones(api: Api) -> None:
    error = api.refused("GET", "/operations/op-000000000000", "OPERATION_NOT_FOUND")
    assert "op-000000000000" in error["message"]


def test_the_list_filters_by_status_and_vm_newest_first(
    api: Api, web: WebServer, held: Held, new_vm: NewVm
) -> None:
    running = begin(api, web, "listed")
    vm = new_vm()
    actions = [
        operation_of(api.call("POST", f"/vms/{vm['id']}/{action}", headers=ASYNC))
        for action in ("start", "pause")
    ]
    for action in actions:
        ended(api, action)

    def listed(**query: str) -> list[str]:
        return [one["id"] for one in api.ok("GET", "/operations", params=query)["operations"]]

    assert listed(vm=vm["id"]) == listed(vm=vm["name"]) == actions[::-1]
    assert listed(status="running") == [running]
    assert running in listed()
    assert listed(status="running", vm=vm["id"]) == []
    api.refused("GET", "/operations", "VALIDATION_ERROR", params={"status": "late"})
    api.refused("GET", "/operations", "VM_NOT_FOUND", params={"vm": "nobody"})
    api.ok("DELETE", f"/operations/{running}")
    assert listed(status="running") == []


ASYNC = {"prefer": "respond-async"}
# Each lifecycle action, its body, and the status that it leads to.
ACTIONS = (
    ("start", None, "running"),
    ("pause", None, "paused"),
    ("resume", None, "running"),
    ("reset", None, "running"),
    ("restart", {"mode": "force"}, "running"),
    ("stop", {"force": True}, "stopped"),
)


def test_every_lifecycle_action_can_go_on_as_an_operation(api: Api, new_vm: NewVm) -> None:
    vm = new_vm()
    path = f"/vms/{vm['id']}"
    for action, body, status in ACTIONS:
        answer = api.call("POST", f"{path}/{action}", json=body, headers=ASYNC)
        operation = operation_of(answer)
        assert answer.json()["data"]["resources"] == [f"/api/v1{path}"]
        assert succeeded(api, operation)["type"] == f"{action}-vm"
        assert api.ok("GET", path)["status"] == status, action
    # What would have been refused is the operation's error.
    operation = operation_of(api.call("POST", f"{path}/pause", headers=ASYNC))
    assert failed(api, operation, "VM_NOT_RUNNING")["details"] == "stopped"
    api.refused("POST", "/vms/nobody/start", "VM_NOT_FOUND", headers=ASYNC)
    api.refused("POST", f"{path}/stop", "VALIDATION_ERROR", {"force": 3}, headers=ASYNC)


def test_a_repeated_key_gets_the_same_operation(api: Api, new_vm: NewVm) -> None:
    vm = new_vm()
    headers = ASYNC | {"idempotency-key": "start-once"}
    first = api.call("POST", f"/vms/{vm['id']}/start", headers=headers)
    again = api.call("POST", f"/vms/{vm['id']}/start", headers=headers)
    assert operation_of(first) == operation_of(again)
    succeeded(api, operation_of(again))
    assert api.ok("GET", "/operations", params={"vm": vm["id"]})["pagination"]["total"] == 1


def test_a_repeated_key_fetches_once(api: Api, web: WebServer, held: Held) -> None:
    headers = {"idempotency-key": "fetch-once"}
    body = {"name": "once", "url": web.url("/held")}
    answers = [api.call("POST", "/images", json=body, headers=headers) for _ in range(2)]
    assert operation_of(answers[0]) == operation_of(answers[1])
    held.go.set()
    succeeded(api, operation_of(answers[0]))
    assert held.calls == 1
    other = body | {"name": "other-body"}
    api.refused("POST", "/images", "IDEMPOTENCY_CONFLICT", other, headers=headers)


def test_what_a_restart_or_a_crash_cuts_short_is_interrupted_and_can_be_repeated(
    service: Service, api: Api, web: WebServer, held: Held
) -> None:
    finished = api.ok("GET", "/operations", params={"status": "succeeded"})["operations"]
    for number, end in enumerate((service.stop, service.kill)):
        name = f"cut-short-{number}"
        operation = begin(api, web, name)
        end()
        assert any((service.data / "images").glob(".*")) is (end == service.kill)
        service.start()
        found = api.ok("GET", f"/operations/{operation}")
        assert (found["status"], found["mayCancel"]) == ("interrupted", False)
        assert found["finishedAt"] is not None
        assert leftovers(service, api) == []
        assert name not in names(api)
        api.refused("DELETE", f"/operations/{operation}", "OPERATION_NOT_CANCELLABLE")
    # What had ended before is still there, as it was.
    for before in finished:
        assert api.ok("GET", f"/operations/{before['id']}") == before
    held.go.set()
    succeeded(api, import_url(api, web.url("/held"), "cut-short-0"))


def test_a_service_stops_at_once_whatever_is_under_way(
    service: Service, api: Api, web: WebServer, held: Held
) -> None:
    for number in range(6):
        import_url(api, web.url("/held"), f"many-{number}")
    begun = time.monotonic()
    service.stop()
    assert time.monotonic() - begun < 8
    service.start()
    states = api.ok("GET", "/operations", params={"status": "running"})
    assert states["operations"] == []
    waiting = api.ok("GET", "/operations", params={"status": "pending"})
    assert waiting["operations"] == []


def test_old_operations_are_forgotten_after_a_week(
    service: Service, api: Api, web: WebServer
) -> None:
    import sqlite3  # noqa: PLC0415 - the one test that looks under the service

    for number in range(3):
        failed(api, import_url(api, web.url("/nothing"), f"old-{number}"), "DOWNLOAD_REFUSED")
    kept = api.ok("GET", "/operations", params={"limit": 200})["pagination"]["total"]
    assert kept > 2
    service.stop()
    with sqlite3.connect(service.data / "voidvm.db") as database:
        rows = database.execute("SELECT id FROM operations ORDER BY id LIMIT 2").fetchall()
        old = [row[0] for row in rows]
        for days, operation in zip((6.9, 7.1), old, strict=True):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - days * 86400))
            database.execute(
                "UPDATE operations SET finished_at = ? WHERE id = ?",
                (f"{moment}.000000Z", operation),
            )
    database.close()
    service.start()
    api.ok("GET", f"/operations/{old[0]}")
    api.refused("GET", f"/operations/{old[1]}", "OPERATION_NOT_FOUND")
