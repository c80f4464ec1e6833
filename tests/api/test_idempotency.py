"""Idempotency-Key: the same request is done once and answered alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.qemu import Behaviour, FakeHost
from tests.support.contract import Api, Json
from tests.support.idempotent import key, keyed, send_only, wanted, was_replayed
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person
from tests.support.service import eventually
from voidvm.api.routing import ENDPOINTS, Endpoint

POSTS = [endpoint for endpoint in ENDPOINTS if endpoint.method == "POST"]


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


# The same again


def test_the_same_request_is_done_once(ada: Person) -> None:
    body, with_key = wanted(), key()
    first = keyed(ada.api, "/vms", with_key, body)
    again = keyed(ada.api, "/vms", with_key, body)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    for name in ("location", "etag", "content-type"):
        assert first.headers[name] == again.headers[name]
    assert (was_replayed(first), was_replayed(again)) == (False, True)
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert ada.api.ok("GET", "/vms")["pagination"]["total"] == 1


def test_the_answer_is_the_first_one_whatever_happened_since(ada: Person) -> None:
    body, with_key = wanted(), key()
    first = keyed(ada.api, "/vms", with_key, body).json()
    ada.api.remove(first["data"]["id"])
    assert keyed(ada.api, "/vms", with_key, body).json() == first
    assert ada.api.ok("GET", "/vms")["pagination"]["total"] == 0


def test_a_start_that_was_done_is_not_refused(ada: Person, name: str) -> None:
    vm, with_key = ada.api.create(name)["id"], key()
    for _ in range(2):
        assert keyed(ada.api, f"/vms/{vm}/start", with_key).json()["data"]["status"] == "running"
    ada.api.refused("POST", f"/vms/{vm}/start", "VM_ALREADY_RUNNING")
    ada.api.stop(vm)


BODIES: dict[str, Json] = {
    "POST /vms": {"name": "x" * 64},
    "POST /users": {"username": "admin", "password": "long enough"},
    "POST /vms/{vm}/console/send": {"text": "x"},
    "POST /vms/{vm}/disks": {"size": 1},
    "POST /vms/{vm}/disks/{disk}/expand": {"size": 2},
}


@pytest.mark.parametrize("endpoint", POSTS, ids=shown)
def test_every_post_honours_it(local: LocalService, api: Api, endpoint: Endpoint) -> None:
    ada = person(local, api, role="admin")
    caller, body = ada.api, BODIES.get(shown(endpoint))
    if endpoint.path == "/vms":
        body = wanted()
    elif endpoint.path == "/auth/tokens":
        body = {"name": "one"}
    elif endpoint.path == "/images":
        body = {"name": wanted()["name"], "url": "http://127.0.0.1:1/image"}
    elif endpoint.path == "/images/uploads":
        body = {"name": wanted()["name"], "sizeBytes": 10}
    elif endpoint.path == "/auth/login":
        caller, body = api.as_user(None), {"username": ada.username, "password": PASSWORD}
    elif endpoint.path == "/auth/refresh":
        caller, body = api.as_user(None), {"refreshToken": ada.login["refreshToken"]}
    path, with_key = endpoint.path.format(vm="vm-000000000000", disk="disk0"), key()
    first = keyed(caller, path, with_key, body)
    assert not was_replayed(first)
    if endpoint.path == "/auth/logout":
        assert keyed(caller, path, with_key, body).status_code == 401
        return
    again = keyed(caller, path, with_key, body)
    assert was_replayed(again), again.text
    assert again.content == first.content
    different = keyed(caller, path, with_key, {**(body or {}), "other": 1})
    assert different.status_code in {400, 409}
    assert keyed(caller, path, key(), body).content != first.content


def test_other_methods_do_not_know_it(ada: Person, name: str) -> None:
    vm, headers = ada.api.create(name)["id"], {"idempotency-key": key()}
    for cpu in (1, 2):
        response = ada.api.call("PATCH", f"/vms/{vm}", json={"cpu": cpu}, headers=headers)
        assert response.json()["data"]["cpu"] == cpu


# Something else under the same key


def test_another_request_is_a_conflict(ada: Person) -> None:
    body, with_key = wanted(), key()
    keyed(ada.api, "/vms", with_key, body)
    for path, other, query in (
        ("/vms", {**body, "cpu": 2}, {}),
        ("/vms", body, {"dryRun": "true"}),
        ("/auth/tokens", {"name": "x"}, {}),
    ):
        response = keyed(ada.api, path, with_key, other, params=query)
        assert response.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert was_replayed(keyed(ada.api, "/vms", with_key, body))


def test_keys_are_each_users_own(local: LocalService, api: Api, ada: Person) -> None:
    bob, with_key = person(local, api), key()
    body = wanted()
    first = keyed(ada.api, "/vms", with_key, body).json()["data"]
    second = keyed(bob.api, "/vms", with_key, body)
    assert not was_replayed(second)
    assert second.json()["data"]["id"] != first["id"]
    assert second.json()["data"]["owner"] == bob.username


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\tb", "caf\xe9\x80"])
def test_a_bad_key_is_refused(ada: Person, bad: str) -> None:
    headers = [
        (b"idempotency-key", bad.encode("latin-1")),
        (b"authorization", f"Bearer {ada.api.token}".encode()),
    ]
    response = ada.api.client.post("/api/v1/vms", json=wanted(), headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["errors"][0]["field"] == "Idempotency-Key"
    assert ada.api.ok("GET", "/vms")["vms"] == []


def test_a_key_may_be_as_long_as_it_may(ada: Person) -> None:
    assert keyed(ada.api, "/vms", "x" * 255, wanted()).status_code == 201


# At once


def test_duplicates_at_once_are_done_once(ada: Person) -> None:
    body, with_key = wanted(), key()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: keyed(ada.api, "/vms", with_key, body), range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sorted(was_replayed(answer) for answer in answers) == [False] + [True] * 11
    assert ada.api.ok("GET", "/vms")["pagination"]["total"] == 1


def test_of_two_bodies_at_once_one_is_done(ada: Person) -> None:
    with_key = key()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: keyed(ada.api, "/vms", with_key, wanted()), range(8)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] + [409] * 7


class Gate:
    """Where a disk's creation waits until it may end; the service's loop goes on meanwhile."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()


@pytest.fixture
def gate(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """In the way of every new disk."""
    create, found = local.services.creation._img.create, Gate()

    async def slowly(path: Path, *, size_bytes: int, backing: Path | None = None) -> None:
        found.begun.set()
        await asyncio.to_thread(found.may_end.wait, 10)
        await create(path, size_bytes=size_bytes, backing=backing)

    monkeypatch.setattr(local.services.creation._img, "create", slowly)
    yield found
    found.may_end.set()


def test_who_hangs_up_in_the_middle_finds_the_answer(
    local: LocalService, ada: Person, gate: Gate
) -> None:
    body, with_key = wanted(), key()
    connection = send_only(local, ada.api.token, body, with_key)
    assert gate.begun.wait(10)
    connection.close()

    def noted() -> list[Json]:
        logs = ada.api.ok("GET", "/logs", params={"limit": 200})["logs"]
        return [entry for entry in logs if entry["requestId"] == with_key]

    assert eventually(noted)[0]["status"] == 499, "the log knows that something was begun"
    retry = ThreadPoolExecutor(1).submit(keyed, ada.api, "/vms", with_key, body)
    gate.may_end.set()
    response = retry.result()
    assert response.status_code == 201
    assert was_replayed(response)
    assert ada.api.ok("GET", f"/vms/{body['name']}")["id"] == response.json()["data"]["id"]
    assert ada.api.ok("GET", "/vms")["pagination"]["total"] == 1


# Errors


def test_an_error_that_would_come_again_is_kept(ada: Person) -> None:
    body, with_key = wanted(), key()
    vm = ada.api.ok("POST", "/vms", body)
    first = keyed(ada.api, "/vms", with_key, body)
    assert first.json()["error"]["code"] == "NAME_TAKEN"
    ada.api.remove(vm["id"])
    again = keyed(ada.api, "/vms", with_key, body)
    assert was_replayed(again)
    assert again.json() == first.json()
    assert keyed(ada.api, "/vms", key(), body).status_code == 201
    logs = ada.api.ok("GET", "/logs", params={"level": "warning"})["logs"]
    assert [entry["code"] for entry in logs[:2]] == ["NAME_TAKEN", "NAME_TAKEN"]


def test_an_error_that_may_pass_is_not_kept(host: FakeHost, ada: Person, name: str) -> None:
    vm, with_key = ada.api.create(name)["id"], key()
    host.plan(vm, Behaviour(refusal="qemu: no luck"))
    first = keyed(ada.api, f"/vms/{vm}/start", with_key)
    assert first.json()["error"]["code"] == "VM_START_FAILED"
    host.plan(vm, Behaviour())
    again = keyed(ada.api, f"/vms/{vm}/start", with_key)
    assert again.status_code == 200
    assert not was_replayed(again)
    ada.api.stop(vm)


def test_what_never_began_is_not_kept(api: Api, ada: Person) -> None:
    with_key = key()
    assert keyed(ada.api, "/vms", with_key, {"cpu": 0}).status_code == 400
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:read"]})
    assert keyed(ada.api, "/vms", with_key, wanted()).status_code == 403
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": None})
    assert keyed(ada.api.as_user(None), "/vms", with_key, wanted()).status_code == 401
    assert keyed(ada.api, "/vms", with_key, wanted()).status_code == 201


def test_who_may_no_more_gets_no_old_answer(api: Api, ada: Person) -> None:
    body, with_key = wanted(), key()
    keyed(ada.api, "/vms", with_key, body)
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:read"]})
    assert keyed(ada.api, "/vms", with_key, body).status_code == 403
