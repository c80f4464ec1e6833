"""Idempotency-Key: the same request is done once and answered alike for a day, restarts or not."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes.qemu import Behaviour, FakeHost
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person
from tests.support.service import eventually
from voidvm.api.routing import ENDPOINTS, Endpoint
from voidvm.store.values import stamp

POSTS = [endpoint for endpoint in ENDPOINTS if endpoint.method == "POST"]


def key() -> str:
    return "key-" + secrets.token_hex(8)


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def keyed(api: Api, path: str, with_key: str, body: Json = None, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
    headers = {"idempotency-key": with_key, **options.pop("headers", {})}
    return api.call("POST", path, json=body, headers=headers, **options)


def was_replayed(response: httpx.Response) -> bool:
    return bool(response.headers.get("idempotency-replayed") == "true")


def wanted() -> Json:
    return {"name": "i" + secrets.token_hex(4), "disk": 1, "memory": 64}


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


def is_on_disk(local: LocalService, *secret_texts: str) -> bool:
    files = list(local.settings.data_dir.glob("voidvm.db*"))
    assert files
    content = b"".join(file.read_bytes() for file in files)
    return any(text.encode() in content for text in secret_texts)


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
}


@pytest.mark.parametrize("endpoint", POSTS, ids=shown)
def test_every_post_honours_it(local: LocalService, api: Api, endpoint: Endpoint) -> None:
    ada = person(local, api, role="admin")
    caller, body = ada.api, BODIES.get(shown(endpoint))
    if endpoint.path == "/vms":
        body = wanted()
    elif endpoint.path == "/auth/tokens":
        body = {"name": "one"}
    elif endpoint.path == "/auth/login":
        caller, body = api.as_user(None), {"username": ada.username, "password": PASSWORD}
    elif endpoint.path == "/auth/refresh":
        caller, body = api.as_user(None), {"refreshToken": ada.login["refreshToken"]}
    path, with_key = endpoint.path.format(vm="vm-000000000000"), key()
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


@pytest.fixture
def slow(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set: a disk's creation may end. The service's loop goes on meanwhile."""
    create, may_end = local.services.vms._img.create, threading.Event()
    begun = threading.Event()

    async def slowly(target: Path, **options: Any) -> None:  # noqa: ANN401 - passed on
        begun.set()
        import asyncio  # noqa: PLC0415 - in the service's loop

        await asyncio.to_thread(may_end.wait, 10)
        await create(target, **options)

    monkeypatch.setattr(local.services.vms._img, "create", slowly)
    may_end.begun = begun  # type: ignore[attr-defined]
    yield may_end
    may_end.set()


def send_and_hang_up(local: LocalService, ada: Person, body: Json, with_key: str) -> socket.socket:
    address = urlsplit(local.url)
    content = json.dumps(body, separators=(",", ":")).encode()  # as httpx writes it
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(
        f"POST /api/v1/vms HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {ada.api.token}\r\nIdempotency-Key: {with_key}\r\n"
        f"X-Request-Id: {with_key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def test_who_hangs_up_in_the_middle_finds_the_answer(
    local: LocalService, ada: Person, slow: threading.Event
) -> None:
    body, with_key = wanted(), key()
    connection = send_and_hang_up(local, ada, body, with_key)
    assert slow.begun.wait(10)  # type: ignore[attr-defined]
    connection.close()

    def noted() -> list[Json]:
        logs = ada.api.ok("GET", "/logs", params={"limit": 200})["logs"]
        return [entry for entry in logs if entry["requestId"] == with_key]

    assert eventually(noted)[0]["status"] == 499, "the log knows that something was begun"
    retry = ThreadPoolExecutor(1).submit(keyed, ada.api, "/vms", with_key, body)
    slow.set()
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


# Time


def test_answers_outlive_the_service(own_service: LocalService) -> None:
    api, body, with_key = own_service.api(), wanted(), key()
    first = keyed(api, "/vms", with_key, body)
    bad_key, bad = key(), {**wanted(), "os": "no-such-os"}
    wrong = keyed(api, "/vms", bad_key, bad)
    own_service.stop()
    own_service.start()
    api = own_service.anybody().as_user(api.token)
    again = keyed(api, "/vms", with_key, body)
    assert was_replayed(again)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert keyed(api, "/vms", bad_key, bad).json() == wrong.json()
    conflict = keyed(api, "/vms", with_key, wanted())
    assert conflict.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


def test_what_is_under_way_when_the_service_stops_is_kept(own_service: LocalService) -> None:
    api, body, with_key = own_service.api(), wanted(), key()
    create, begun = own_service.services.vms._img.create, threading.Event()

    async def slowly(target: Path, **options: Any) -> None:  # noqa: ANN401 - passed on
        import asyncio  # noqa: PLC0415 - in the service's loop

        begun.set()
        await asyncio.sleep(0.5)
        await create(target, **options)

    own_service.services.vms._img.create = slowly  # type: ignore[method-assign,assignment]
    admin = Person(local=own_service, id="", username="admin", password="", login={}, api=api)
    connection = send_and_hang_up(own_service, admin, body, with_key)
    assert begun.wait(10)
    connection.close()
    own_service.stop()
    own_service.start()
    api = own_service.anybody().as_user(api.token)
    again = keyed(api, "/vms", with_key, body)
    assert again.status_code == 201
    assert was_replayed(again)


def test_an_answer_is_forgotten_after_a_day(local: LocalService, ada: Person) -> None:
    body, with_key = wanted(), key()
    keyed(ada.api, "/vms", with_key, body)

    def age(**delta: float) -> None:
        then = stamp(datetime.now(UTC) - timedelta(**delta))
        database = local.services.idempotency._store._database
        local.run(
            database.execute(
                "UPDATE idempotency SET created_at = ? WHERE key = ?", (then, with_key)
            )
        )

    age(hours=23, minutes=59)
    assert was_replayed(keyed(ada.api, "/vms", with_key, body))
    age(hours=24, seconds=1)
    response = keyed(ada.api, "/vms", with_key, body)
    assert response.json()["error"]["code"] == "NAME_TAKEN", "it was tried again"


# Secrets


def test_secret_answers_are_kept_in_memory_only(own_service: LocalService) -> None:
    admin = own_service.api()
    ada = person(own_service, admin, password="hunter2-hunter2")
    vm = ada.api.create("seen", os=None)["id"]
    token_key, ticket_key, login_key = key(), key(), key()
    made = keyed(ada.api, "/auth/tokens", token_key, {"name": "one"})
    assert keyed(ada.api, "/auth/tokens", token_key, {"name": "one"}).content == made.content
    ticket = keyed(ada.api, f"/vms/{vm}/console/tickets", ticket_key, {"mode": "read"})
    body = {"username": ada.username, "password": "hunter2-hunter2"}
    login = keyed(own_service.anybody(), "/auth/login", login_key, body)
    data = login.json()["data"]
    user_key = key()
    new_user = {"username": "carl", "password": "correct-horse-staple"}
    keyed(admin, "/users", user_key, new_user)
    secret_texts = [
        made.json()["data"]["token"],
        ticket.json()["data"]["ticket"],
        data["token"],
        data["refreshToken"],
        "hunter2-hunter2",
        "correct-horse-staple",
    ]
    assert not is_on_disk(own_service, *secret_texts)
    # Nor a bare hash of a request with a password in it, by which it could be guessed.
    digest = hashlib.sha256(b"POST\0/api/v1/users\0\0" + json.dumps(new_user).encode())
    compact = json.dumps(new_user, separators=(",", ":")).encode()
    other = hashlib.sha256(b"POST\0/api/v1/users\0\0" + compact)
    assert not is_on_disk(own_service, digest.hexdigest(), other.hexdigest())
    assert was_replayed(keyed(admin, "/users", user_key, new_user))
    own_service.stop()
    assert not is_on_disk(own_service, *secret_texts)
    own_service.start()
    api = own_service.anybody().as_user(ada.api.token)
    error = keyed(api, "/auth/tokens", token_key, {"name": "one"}).json()["error"]
    assert error["code"] == "IDEMPOTENCY_CONFLICT"
    assert "secret" in error["details"]
    assert len(api.ok("GET", "/auth/tokens")["tokens"]) == 1


def test_a_secret_answer_is_for_its_credential_only(ada: Person, name: str) -> None:
    vm, with_key, body = ada.api.create(name)["id"], key(), {"name": "all"}
    keyed(ada.api, "/auth/tokens", with_key, body)
    lesser = ada.with_token("vm:console")
    response = keyed(lesser, "/auth/tokens", with_key, body)
    assert response.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    ticket_key = key()
    keyed(ada.api, f"/vms/{vm}/console/tickets", ticket_key)
    response = keyed(lesser, f"/vms/{vm}/console/tickets", ticket_key)
    assert response.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


def test_signing_out_under_the_same_key_ends_each_session(ada: Person) -> None:
    with_key, other = key(), ada.again()
    assert keyed(ada.api, "/auth/logout", with_key).status_code == 200
    # Another request, for it is about another session: it must not be told that it is done.
    assert keyed(other, "/auth/logout", with_key).status_code == 409
    other.ok("POST", "/auth/logout")
    other.refused("GET", "/auth/me", "SESSION_ENDED")


def test_a_refresh_may_be_tried_again(ada: Person) -> None:
    anybody, with_key = ada.api.as_user(None), key()
    body = {"refreshToken": ada.login["refreshToken"]}
    first = keyed(anybody, "/auth/refresh", with_key, body)
    again = keyed(anybody, "/auth/refresh", with_key, body)
    assert again.content == first.content
    ada.api.as_user(again.json()["token"]).ok("GET", "/auth/me")


def test_a_failed_sign_in_is_not_kept(api: Api, ada: Person) -> None:
    anybody, with_key = ada.api.as_user(None), key()
    body = {"username": ada.username, "password": "a later password"}
    assert keyed(anybody, "/auth/login", with_key, body).status_code == 401
    api.ok("PATCH", f"/users/{ada.id}", {"password": body["password"]})
    assert keyed(anybody, "/auth/login", with_key, body).status_code == 200
