"""The audit log: who did what to which object, from where, with which result; and no secrets."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.fakes.qemu import FakeHost
from tests.support.audit import KEYS, Lines, entries_of, new_id
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.eventstream import stream
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.api.routing import ENDPOINTS, Access, Endpoint
from voidvm.api.server import BASE

BODIES: dict[str, Json] = {
    "login": {"username": "admin", "password": "wrong"},
    "refresh": {"refreshToken": "x"},
    "create_token": {"name": "audited", "permissions": []},
    "create_user": {"username": "x", "password": "short"},
    "create_vm": {"name": "x" * 64},
    "send_to_console": {"text": "x"},
}


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


# What is kept


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=shown)
def test_whatever_is_done_or_tried_leaves_one_entry(
    local: LocalService, api: Api, endpoint: Endpoint
) -> None:
    root, request_id = person(local, api, role="admin"), new_id()
    ghost = "vm-000000000000"
    path = endpoint.path.format(**dict.fromkeys(endpoint.parameters, ghost))
    headers = {"x-request-id": request_id}
    if endpoint.is_socket:
        headers["authorization"] = f"Bearer {root.api.token}"
        address = local.url.replace("http", "ws", 1) + BASE + path
        status, error = 101, {}
        try:
            with connect(address, additional_headers=headers, proxy=None):
                pass
        except InvalidStatus as refused:
            status = refused.response.status_code
            error = json.loads(refused.response.body or b"{}")
    elif endpoint.holds_connection:
        with stream(root.api, headers=headers):
            status, error = 200, {}
    else:
        body = BODIES.get(endpoint.name)
        options = {} if body is None else {"json": body}
        query = {"for": "stopped"} if endpoint.name == "wait_for_vm" else {}
        response = root.api.call(
            endpoint.method,
            f"/{path}" if endpoint.is_outside else path,
            headers=headers,
            params=query,
            **options,
        )
        status = response.status_code
        error = response.json() if response.is_error else {}
    found = entries_of(api, request_id)
    if endpoint.method == "GET" and not endpoint.is_socket:
        assert found == [], "mere looking is not kept"
        return
    (entry,) = found
    assert entry.keys() == KEYS
    assert (entry["action"], entry["status"]) == (endpoint.name, status)
    assert entry["code"] == (error["error"]["code"] if error else None)
    assert entry["address"] == "127.0.0.1"
    assert entry["level"] == ("info" if status < 400 else "warning")
    if endpoint.access is Access.PUBLIC:
        assert entry["userId"] is None
    else:
        assert (entry["userId"], entry["username"]) == (root.id, root.username)
    if endpoint.parameters:
        assert entry["target"] == ghost
    age = datetime.now(UTC) - datetime.fromisoformat(entry["at"])
    assert age < timedelta(seconds=30)


def test_an_attachment_to_a_console_is_kept(local: LocalService, ada: Person, name: str) -> None:
    vm, request_id = ada.api.create(name)["id"], new_id()
    headers = {"x-request-id": request_id}
    with console(local.url, name, token=ada.api.token, headers=headers):
        (entry,) = entries_of(ada.api, request_id)
    assert (entry["action"], entry["status"], entry["target"]) == ("attach_console", 101, name)
    assert (entry["userId"], entry["level"], entry["code"]) == (ada.id, "info", None)
    for query, headers in (("?token=nonsense", {}), ("", {"origin": "https://evil.example"})):
        request_id = new_id()
        with (
            pytest.raises(InvalidStatus),
            console(local.url, vm, query=query, headers={"x-request-id": request_id, **headers}),
        ):
            pass
        (entry,) = entries_of(person(local, local.api(), role="admin").api, request_id)
        assert entry["status"] in {401, 403}
        assert entry["userId"] is None


def test_what_was_made_is_named(ada: Person, api: Api, name: str) -> None:
    made = ada.token()
    user = api.ok("POST", "/users", {"username": "u" + name, "password": "long enough"})
    vm = ada.api.ok("POST", "/vms", {"name": name, "disk": 1})
    logs = api.ok("GET", "/logs", params={"limit": 50})["logs"]
    targets = {entry["action"]: entry["target"] for entry in reversed(logs)}
    assert targets["create_token"] == made["id"]
    assert targets["create_user"] == user["id"]
    assert targets["create_vm"] == vm["id"]


def test_what_strangers_try_is_kept(anybody: Api, api: Api) -> None:
    request_id = new_id()
    anybody.call("DELETE", "/users/admin", headers={"x-request-id": request_id})
    (entry,) = entries_of(api, request_id)
    assert (entry["userId"], entry["username"], entry["status"]) == (None, None, 401)
    assert (entry["target"], entry["code"], entry["level"]) == ("admin", "UNAUTHORIZED", "warning")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/vms/one/two/three", 404, "NOT_FOUND"),
        ("DELETE", "/vms", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/vms", 413, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_what_reaches_no_endpoint_is_kept_unless_it_is_a_look(
    ada: Person, api: Api, anybody: Api, method: str, path: str, status: int, code: str
) -> None:
    for caller, whose in ((ada.api, ada.username), (anybody, None)):
        request_id = new_id()
        content = b" " * 2_000_000 if status == 413 else None
        response = caller.call(method, path, content=content, headers={"x-request-id": request_id})
        assert response.status_code == status
        (entry,) = entries_of(api, request_id)
        assert (entry["action"], entry["target"]) == ("unmatched", None)
        assert (entry["username"], entry["status"], entry["code"]) == (whose, status, code)
        assert entry["address"] == "127.0.0.1"
    request_id = new_id()
    assert anybody.call("GET", "/nowhere", headers={"x-request-id": request_id}).is_error
    assert entries_of(api, request_id) == []


def test_a_fault_of_ours_is_an_error(
    local: LocalService, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(local.services.tokens, "create", fail)
    response = ada.api.call("POST", "/auth/tokens", json={"name": "x"})
    assert response.status_code == 500
    assert "ours" not in response.text
    (entry,) = entries_of(ada.api, response.headers["x-request-id"])
    assert (entry["level"], entry["code"]) == ("error", "INTERNAL_ERROR")
    local.errors.texts.clear()


def test_sign_ins_are_the_users_own_entries(local: LocalService, anybody: Api, ada: Person) -> None:
    anybody.ok("POST", "/auth/refresh", {"refreshToken": ada.login["refreshToken"]})
    logs = ada.api.ok("GET", "/logs")["logs"]
    assert [entry["action"] for entry in logs] == ["refresh", "login"]
    assert {entry["username"] for entry in logs} == {ada.username}


def test_who_was_meant_is_kept_but_not_what_may_be_a_secret(
    anybody: Api, api: Api, ada: Person, lines: Lines
) -> None:
    known, unknown = new_id(), new_id()
    typed = "my-password-in-the-wrong-field"
    for request_id, username in ((known, ada.username.upper()), (unknown, typed)):
        body = {"username": username, "password": "wrong"}
        headers = {"x-request-id": request_id}
        response = anybody.call("POST", "/auth/login", json=body, headers=headers)
        assert response.status_code == 401
        assert typed not in response.text
    (entry,) = entries_of(api, known)
    assert (entry["username"], entry["userId"]) == (ada.username, None)
    (entry,) = entries_of(api, unknown)
    assert (entry["username"], entry["target"]) == (None, None)
    assert not any(typed in text for text in lines.texts)


def test_a_flood_cannot_wash_the_log_away() -> None:
    own = LocalService(FakeHost(), VOIDVM_LIMITS__REQUESTS_PER_MINUTE="15")
    try:
        own.start()
        api = own.api()
        for _ in range(60):
            api.call("POST", "/vms/x/start")
        own.run(own.gate.requests._limiter.storage.reset())
        logs = api.ok("GET", "/logs", params={"limit": 200})["logs"]
        started = [entry for entry in logs if entry["action"] == "start_vm"]
        assert [entry["status"] for entry in started] == [429] + [404] * 15
    finally:
        own.close()


# Reading it


def test_admins_read_all_and_others_their_own(local: LocalService, api: Api, ada: Person) -> None:
    bob = person(local, api)
    for who in (ada, bob):
        who.api.call("POST", "/vms/none/start")
    for who in (ada, bob):
        logs = who.api.ok("GET", "/logs")["logs"]
        assert {entry["userId"] for entry in logs} == {who.id}
    users = {entry["userId"] for entry in api.ok("GET", "/logs", params={"limit": 200})["logs"]}
    assert {ada.id, bob.id} <= users


def test_it_is_filtered_by_level_and_time(ada: Person) -> None:
    ada.api.ok("PATCH", "/auth/me", {"language": "en"})
    time.sleep(0.002)
    middle = datetime.now(UTC)
    time.sleep(0.002)
    ada.api.call("POST", "/vms/none/start")

    def actions(**query: str) -> list[str]:
        return [entry["action"] for entry in ada.api.ok("GET", "/logs", params=query)["logs"]]

    assert actions() == ["start_vm", "change_me", "login"]
    assert actions(level="warning") == ["start_vm"]
    assert actions(level="info") == ["change_me", "login"]
    assert actions(level="error") == []
    at = middle.isoformat().replace("+00:00", "Z")
    elsewhere = middle.astimezone(timezone_of(5.5)).isoformat()
    for moment in (at, elsewhere):
        assert actions(**{"from": moment}) == ["start_vm"]
        assert actions(to=moment) == ["change_me", "login"]
    assert actions(**{"from": at, "to": at}) == []
    exactly = ada.api.ok("GET", "/logs")["logs"][0]["at"]
    assert actions(**{"from": exactly, "to": exactly}) == ["start_vm"], "both ends included"


def timezone_of(hours: float) -> Json:
    from datetime import timezone  # noqa: PLC0415 - the name that the rest must not use

    return timezone(timedelta(hours=hours))


def test_it_comes_in_pages_newest_first(ada: Person) -> None:
    for _ in range(5):
        ada.api.call("POST", "/vms/none/start")
    first = ada.api.ok("GET", "/logs", params={"page": 1, "limit": 4})
    second = ada.api.ok("GET", "/logs", params={"page": 2, "limit": 4})
    assert first["pagination"] == {"page": 1, "limit": 4, "total": 6, "pages": 2}
    ids = [entry["id"] for entry in first["logs"] + second["logs"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 6


@pytest.mark.parametrize(
    "query",
    [
        {"level": "debug"},
        {"from": "yesterday"},
        {"from": "2024-01-01T00:00:00"},
        {"to": "2024-13-01T00:00:00Z"},
        {"limit": "0"},
        {"limit": "201"},
        {"user": "admin"},
    ],
)
def test_a_bad_filter_is_refused(ada: Person, query: dict[str, str]) -> None:
    ada.api.refused("GET", "/logs", "VALIDATION_ERROR", params=query)


def test_it_outlives_the_service_and_the_user(own_service: LocalService) -> None:
    admin = own_service.api()
    ada = person(own_service, admin)
    ada.api.call("POST", "/vms/none/start")
    admin.ok("DELETE", f"/users/{ada.id}")
    own_service.stop()
    own_service.start()
    logs = own_service.anybody().as_user(admin.token).ok("GET", "/logs")["logs"]
    found = [entry for entry in logs if entry["userId"] == ada.id]
    assert [entry["action"] for entry in found] == ["start_vm", "login"]
    assert {entry["username"] for entry in found} == {ada.username}
