"""What is kept under an idempotency key: how long, across what, for whom, and what never is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.contract import Api
from tests.support.idempotent import key, keyed, send_only, wanted, was_replayed
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.store.values import stamp


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


def is_on_disk(local: LocalService, *secret_texts: str) -> bool:
    files = list(local.settings.data_dir.glob("voidvm.db*"))
    assert files
    content = b"".join(file.read_bytes() for file in files)
    return any(text.encode() in content for text in secret_texts)


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


def test_what_is_under_way_when_the_service_stops_is_kept(
    own_service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, body, with_key = own_service.api(), wanted(), key()
    create, begun = own_service.services.creation._img.create, threading.Event()

    async def slowly(path: Path, *, size_bytes: int, backing: Path | None = None) -> None:
        begun.set()
        await asyncio.sleep(0.5)
        await create(path, size_bytes=size_bytes, backing=backing)

    monkeypatch.setattr(own_service.services.creation._img, "create", slowly)
    connection = send_only(own_service, api.token, body, with_key)
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
        for change, name in (
            ("UPDATE idempotency SET created_at = ? WHERE key = ?", with_key),
            ("UPDATE vms SET created_at = ? WHERE name = ?", body["name"]),
        ):
            local.run(database.execute(change, (then, name)))

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


# A service that ends between the work and the keeping of its answer


def test_what_was_made_before_its_answer_was_kept_is_the_answer(
    local: LocalService, api: Api
) -> None:
    body, with_key = wanted() | {"start": True}, key()
    first = keyed(api, "/vms", with_key, body)
    assert first.status_code == 201
    database = local.services.idempotency._store._database
    local.run(database.execute("DELETE FROM idempotency WHERE key = ?", (with_key,)))
    again = keyed(api, "/vms", with_key, body)
    assert again.status_code == 201
    assert not was_replayed(again)
    assert again.json()["data"]["id"] == first.json()["data"]["id"]
    assert again.headers["location"] == first.headers["location"]
    # Under another key, or none, it is another request.
    assert keyed(api, "/vms", key(), body).json()["error"]["code"] == "NAME_TAKEN"
    api.remove(body["name"])
