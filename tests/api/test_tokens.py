"""API tokens: shown once, kept as a fingerprint, with their own permissions and end."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, person
from tests.support.service import eventually


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


def in_future(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat().replace("+00:00", "Z")


def test_a_token_is_shown_once(ada: Person) -> None:
    response = ada.api.call("POST", "/auth/tokens", json={"name": "ci"})
    made = response.json()["data"]
    assert response.status_code == 201
    assert made["token"].startswith("vvm_")
    assert len(made["token"]) > 40
    assert (made["permissions"], made["expiresAt"], made["lastUsedAt"]) == (["*"], None, None)
    listed = ada.api.call("GET", "/auth/tokens")
    assert listed.json()["data"]["tokens"] == [
        {key: value for key, value in made.items() if key != "token"}
    ]
    assert made["token"] not in listed.text


def test_only_a_fingerprint_is_kept(local: LocalService, ada: Person) -> None:
    token = ada.token()["token"]
    ada.api.as_user(token).ok("GET", "/vms")
    for file in local.settings.data_dir.glob("voidvm.db*"):
        assert token.encode() not in file.read_bytes()


def test_a_token_carries_its_own_permissions(ada: Person) -> None:
    made = ada.token("vm:read", "image:read")
    assert made["permissions"] == ["image:read", "vm:read"]
    api = ada.api.as_user(made["token"])
    api.ok("GET", "/vms")
    error = api.refused("POST", "/vms", "FORBIDDEN", {"name": "x"})
    assert "vm:create" in error["message"]


def test_a_token_never_carries_more_than_its_user(api: Api, ada: Person) -> None:
    token = ada.with_token()
    chosen = ada.with_token("vm:read", "vm:create")
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:read"]})
    for one in (token, chosen):
        one.ok("GET", "/vms")
        one.refused("POST", "/vms", "FORBIDDEN", {"name": "x"})
    error = ada.api.refused(
        "POST", "/auth/tokens", "VALIDATION_ERROR", {"name": "x", "permissions": ["vm:create"]}
    )
    assert error["errors"][0]["field"] == "permissions"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "x", "permissions": ["system:admin"]}, "permissions"),
        ({"name": "x", "permissions": ["x"]}, "permissions[0]"),
        ({"name": "x", "permissions": ["vm:read\n"]}, "permissions[0]"),
        ({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"name": "x", "expiresAt": "2099-01-01T00:00:00"}, "expiresAt"),
        ({"name": "x", "expiresAt": "tomorrow"}, "expiresAt"),
        ({"name": "x", "token": "vvm_x"}, "token"),
    ],
)
def test_a_bad_token_is_refused(ada: Person, fields: Json, wrong: str) -> None:
    error = ada.api.refused("POST", "/auth/tokens", "VALIDATION_ERROR", fields)
    assert error["errors"][0]["field"] == wrong
    assert ada.api.ok("GET", "/auth/tokens")["tokens"] == []


def test_a_token_may_have_no_permission_at_all(ada: Person) -> None:
    made = ada.api.ok("POST", "/auth/tokens", {"name": "none", "permissions": []})
    assert made["permissions"] == []
    api = ada.api.as_user(made["token"])
    api.ok("GET", "/auth/me")
    api.refused("GET", "/vms", "FORBIDDEN")


def test_names_are_the_users_own(local: LocalService, api: Api, ada: Person) -> None:
    ada.token(name="two words: 虚拟")
    ada.token(name="same")
    ada.api.refused("POST", "/auth/tokens", "NAME_TAKEN", {"name": "same"})
    person(local, api).token(name="same")


def test_a_token_ends_when_it_says(ada: Person) -> None:
    api = ada.with_token(expiresAt=in_future(seconds=0.8))
    api.ok("GET", "/vms")
    time.sleep(0.9)
    error = api.refused("GET", "/vms", "UNAUTHORIZED")
    assert "run out" in error["details"]


@pytest.mark.parametrize("expires_at", ["9999-12-31T23:59:59Z", "2999-01-01T00:00:00+05:30"])
def test_a_far_end_is_no_trouble(
    local: LocalService, ada: Person, name: str, expires_at: str
) -> None:
    vm = ada.api.create(name)["id"]
    token = ada.token(expiresAt=expires_at)
    assert datetime.fromisoformat(token["expiresAt"]) == datetime.fromisoformat(expires_at)
    with console(local.url, vm, token=token["token"]) as client:
        client.tell("ping", id=1)
        client.notice("pong")


def test_a_revoked_token_is_of_no_use(ada: Person) -> None:
    made = ada.token()
    ada.api.ok("DELETE", f"/auth/tokens/{made['id']}")
    ada.api.as_user(made["token"]).refused("GET", "/vms", "UNAUTHORIZED")
    ada.api.refused("DELETE", f"/auth/tokens/{made['id']}", "TOKEN_NOT_FOUND")


def test_a_token_may_revoke_itself_but_a_lesser_one_no_other(ada: Person) -> None:
    lesser, other = ada.token("vm:read"), ada.token()
    api = ada.api.as_user(lesser["token"])
    api.refused("DELETE", f"/auth/tokens/{other['id']}", "FORBIDDEN")
    api.refused("POST", "/auth/tokens", "FORBIDDEN", {"name": "more"})
    api.refused("PATCH", "/auth/me", "FORBIDDEN", {"email": "a@example.org"})
    api.ok("DELETE", f"/auth/tokens/{lesser['id']}")
    api.refused("GET", "/auth/me", "UNAUTHORIZED")


def test_a_token_made_by_a_token_lives_no_longer(ada: Person) -> None:
    first = ada.token(expiresAt=in_future(hours=1))
    api = ada.api.as_user(first["token"])
    for wanted in ({}, {"expiresAt": in_future(days=9)}):
        second = api.ok("POST", "/auth/tokens", {"name": f"n{len(wanted)}", **wanted})
        assert second["expiresAt"] == first["expiresAt"]


def test_a_token_has_no_session_to_end(ada: Person) -> None:
    error = ada.with_token().refused("POST", "/auth/logout", "FORBIDDEN")
    assert "DELETE" in error["hint"]


def test_use_is_noted(ada: Person) -> None:
    made = ada.token()
    ada.api.as_user(made["token"]).ok("GET", "/vms")
    used = ada.api.ok("GET", "/auth/tokens")["tokens"][0]["lastUsedAt"]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(used)).total_seconds()) < 30


# On consoles


@pytest.fixture
def vm(ada: Person, name: str) -> str:
    """A VM of the user's."""
    vm_id: str = ada.api.create(name)["id"]
    return vm_id


def test_a_token_is_good_on_consoles(local: LocalService, ada: Person, vm: str) -> None:
    token = ada.token("vm:console")["token"]
    ways = [({"token": token}, ""), ({}, f"?token={token}")]
    for options, query in ways:
        with console(local.url, vm, query=query, **options) as client:
            assert client.hello["vmId"] == vm
    ticket = ada.api.as_user(token).ok("POST", f"/vms/{vm}/console/tickets", {"mode": "read"})
    with console(local.url, vm, query=f"?ticket={ticket['ticket']}") as client:
        assert client.hello["mode"] == "read"


def test_revoking_closes_the_sockets(local: LocalService, ada: Person, vm: str) -> None:
    made, other = ada.token(), ada.token()
    with (
        console(local.url, vm, token=made["token"]) as gone,
        console(local.url, vm, token=other["token"]) as stays,
    ):
        ada.api.ok("DELETE", f"/auth/tokens/{made['id']}")
        assert gone.closed()[0] == 4408
        stays.tell("ping", id=1)
        stays.notice("pong")


def test_a_ticket_dies_with_its_token(local: LocalService, ada: Person, vm: str) -> None:
    made = ada.token()
    api = ada.api.as_user(made["token"])
    ticket = api.ok("POST", f"/vms/{vm}/console/tickets")["ticket"]
    ada.api.ok("DELETE", f"/auth/tokens/{made['id']}")
    response = api.as_user(None).call("GET", f"/vms/{vm}/console", params={"ticket": ticket})
    assert response.status_code == 401


def test_a_socket_closes_when_its_token_ends(local: LocalService, ada: Person, vm: str) -> None:
    token = ada.token(expiresAt=in_future(seconds=1))["token"]
    with console(local.url, vm, token=token) as client:
        begun = time.monotonic()
        assert client.closed()[0] == 4408
        assert time.monotonic() - begun < 3
    eventually(lambda: local.do(lambda: ada.id not in local.gate.sockets._taken))


def test_credentials_that_are_no_text_are_refused(anybody: Api) -> None:
    for raw in (b"Bearer vvm_\xff\xfe", b"Bearer \xff", b"Bearer vvm_"):
        response = anybody.call("GET", "/vms", headers={"authorization": raw})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    body = json.dumps({"refreshToken": "\ud800"})
    headers = {"content-type": "application/json"}
    response = anybody.call("POST", "/auth/refresh", content=body, headers=headers)
    assert response.status_code in {400, 401}
    body = json.dumps({"username": "\ud800", "password": "\ud800"})
    response = anybody.call("POST", "/auth/login", content=body, headers=headers)
    assert response.status_code in {400, 401}
