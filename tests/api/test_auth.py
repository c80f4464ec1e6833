"""Signing in and out, and every credential that is none."""

from __future__ import annotations

import base64
import json
import secrets
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime

import jwt
import pytest

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from voidvm.api.routing import ENDPOINTS, Access, Endpoint

CLOSED = [endpoint for endpoint in ENDPOINTS if endpoint.access is not Access.PUBLIC]
ADMIN = {"username": "admin", "password": "admin123"}


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def call_endpoint(api: Api, endpoint: Endpoint, **options: Json) -> Json:
    path = endpoint.path.replace("{vm}", "ghost").replace("{image}", "ghost")
    path = f"/{path}" if endpoint.is_outside else path
    response = api.call(endpoint.method, path, **options)
    return response.status_code, response.json()["error"]["code"], response.headers


@pytest.fixture(scope="module")
def key(local: LocalService) -> bytes:
    """The service's signing key."""
    return (local.folder / "d" / "secret.key").read_bytes()


@pytest.fixture
def claims(admin_token: str, key: bytes) -> Json:
    """What a good token says."""
    return jwt.decode(admin_token, key, algorithms=["HS256"], audience="voidvm")


@pytest.fixture
def own(anybody: Api) -> Json:
    """A session of the test's own."""
    return anybody.ok("POST", "/auth/login", ADMIN)


@pytest.fixture(scope="module")
def bob(local: LocalService, admin_token: str) -> Api:
    """A user who is no admin."""
    admin = local.anybody().as_user(admin_token)
    admin.ok("POST", "/users", {"username": "bob", "password": "bob's own"})
    return local.api(username="bob", password="bob's own")


# Signing in


def test_a_login_answers_with_tokens_and_user(anybody: Api) -> None:
    body = anybody.call("POST", "/auth/login", json=ADMIN).json()
    data = body["data"]
    assert body["token"] == data["token"], "existing clients read it beside success"
    assert data.keys() == {"token", "refreshToken", "expiresAt", "user", "warnings"}
    left = datetime.fromisoformat(data["expiresAt"]) - datetime.now(UTC)
    assert 3590 < left.total_seconds() <= 3600
    user = data["user"]
    assert (user["username"], user["role"], user["permissions"]) == ("admin", "admin", ["*"])
    assert "hash" not in json.dumps(user).lower()
    me = anybody.as_user(data["token"]).ok("GET", "/auth/me")
    assert {key: me[key] for key in user} == user | {"lastLogin": me["lastLogin"]}
    assert me["lastLogin"] is not None


@pytest.mark.parametrize(
    "body",
    [
        {"username": "admin", "password": "wrong"},
        {"username": "admin ", "password": "admin123"},
        {"username": "nobody", "password": "admin123"},
        {"username": "admin' --", "password": "x"},
        {"username": "admin", "password": "admin123\x00"},
        {"username": "\U0001f680", "password": "\U0001f680"},
    ],
)
def test_a_wrong_login_does_not_say_what_is_wrong(anybody: Api, body: Json) -> None:
    response = anybody.call("POST", "/auth/login", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (401, "INVALID_CREDENTIALS")
    assert error["message"] == "The user name or the password is wrong."
    assert error["details"] == ""
    assert "token" not in response.json()


def test_the_key_is_nobody_elses_to_read(local: LocalService, key: bytes) -> None:
    assert len(key) == 32
    mode = stat.S_IMODE((local.folder / "d" / "secret.key").stat().st_mode)
    assert mode == 0o600


# What is no credential


@pytest.mark.parametrize("endpoint", CLOSED, ids=shown)
def test_every_endpoint_is_closed_without_a_credential(anybody: Api, endpoint: Endpoint) -> None:
    status, code, headers = call_endpoint(anybody, endpoint)
    assert (status, code) == (401, "UNAUTHORIZED")
    assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("endpoint", CLOSED, ids=shown)
def test_a_stranger_learns_nothing_from_bad_input(anybody: Api, endpoint: Endpoint) -> None:
    # The credential is asked for before the body is looked at.
    options: Json = {"content": b"{{{", "headers": {"content-type": "application/json"}}
    if endpoint.method in {"GET", "DELETE"}:
        options = {}
    assert call_endpoint(anybody, endpoint, **options)[:2] == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer " + "x" * 5000,
        "Bearer \xe9",
        "Basic YWRtaW46YWRtaW4xMjM=",
        "Token x",
        "Bearer null",
        "Bearer vvm_0123456789",
    ],
)
def test_what_is_no_token_is_refused(anybody: Api, header: str) -> None:
    headers = {"authorization": header.encode("latin-1")}
    response = anybody.call("GET", "/vms", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHORIZED")


def unsigned(claims: Json) -> str:
    def part(value: Json) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def without(name: str) -> Callable[[Json, bytes], str]:
    def forge(claims: Json, key: bytes) -> str:
        return jwt.encode({other: claims[other] for other in claims if other != name}, key)

    return forge


FORGERIES: dict[str, Callable[[Json, bytes], str]] = {
    "expired": lambda claims, key: jwt.encode(claims | {"exp": time.time() - 1}, key),
    "not yet": lambda claims, key: jwt.encode(claims | {"nbf": time.time() + 600}, key),
    "from the future": lambda claims, key: jwt.encode(claims | {"iat": time.time() + 600}, key),
    "another key": lambda claims, _: jwt.encode(claims, secrets.token_bytes(32)),
    "an empty key": lambda claims, _: jwt.encode(claims, b"\0" * 32),
    "no signature": lambda claims, _: unsigned(claims),
    "another algorithm": lambda claims, key: jwt.encode(claims, key * 2, algorithm="HS512"),
    "wrong aud": lambda claims, key: jwt.encode(claims | {"aud": "other"}, key),
    "wrong typ": lambda claims, key: jwt.encode(claims | {"typ": "refresh"}, key),
    "unknown session": lambda claims, key: jwt.encode(claims | {"sid": "0" * 24}, key),
    "session of a wrong type": lambda claims, key: jwt.encode(claims | {"sid": ["x"]}, key),
    "session null": lambda claims, key: jwt.encode(claims | {"sid": None}, key),
    "exp of a wrong type": lambda claims, key: jwt.encode(claims | {"exp": "never"}, key),
    **{f"no {name}": without(name) for name in ("exp", "iat", "jti", "aud", "typ", "sub", "sid")},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_refused(anybody: Api, claims: Json, key: bytes, forgery: str) -> None:
    token = FORGERIES[forgery](claims, key)
    response = anybody.as_user(token).call("GET", "/vms")
    assert response.status_code == 401, response.text
    assert response.json()["error"]["code"] in {"UNAUTHORIZED", "SESSION_ENDED"}


def test_a_garbled_token_is_refused(anybody: Api, admin_token: str) -> None:
    head, body, signature = admin_token.split(".")
    other = "A" if signature[5] != "A" else "B"
    garbled = f"{head}.{body}.{signature[:5]}{other}{signature[6:]}"
    anybody.as_user(garbled).refused("GET", "/vms", "UNAUTHORIZED")


def test_a_refresh_token_is_no_access_token(anybody: Api, own: Json) -> None:
    anybody.as_user(own["refreshToken"]).refused("GET", "/vms", "UNAUTHORIZED")
    anybody.refused("POST", "/auth/refresh", "SESSION_ENDED", {"refreshToken": own["token"][:255]})


def test_a_token_in_the_query_is_for_consoles_only(anybody: Api, admin_token: str) -> None:
    response = anybody.call("GET", "/vms", params={"token": admin_token})
    assert response.status_code == 401


# Refreshing and signing out


def test_a_refresh_token_works_once(anybody: Api, own: Json) -> None:
    body = {"refreshToken": own["refreshToken"]}
    response = anybody.call("POST", "/auth/refresh", json=body).json()
    second = response["data"]
    assert response["token"] == second["token"]
    assert second["refreshToken"] != own["refreshToken"]
    for token in (own["token"], second["token"]):
        anybody.as_user(token).ok("GET", "/auth/me")
    third = anybody.ok("POST", "/auth/refresh", {"refreshToken": second["refreshToken"]})
    assert third["user"]["username"] == "admin"


def test_a_reused_refresh_token_ends_the_family(
    anybody: Api, local: LocalService, own: Json
) -> None:
    body = {"refreshToken": own["refreshToken"]}
    second = anybody.ok("POST", "/auth/refresh", body)
    error = anybody.refused("POST", "/auth/refresh", "SESSION_ENDED", body)
    assert error["details"] == "the refresh token was used before"
    for token in (own["token"], second["token"]):
        anybody.as_user(token).refused("GET", "/auth/me", "SESSION_ENDED")
    body = {"refreshToken": second["refreshToken"]}
    anybody.refused("POST", "/auth/refresh", "SESSION_ENDED", body)
    assert local.ended_sessions()[-1] == own["refreshToken"].partition(".")[0]


@pytest.mark.parametrize("token", ["x", "x.y", ".", "0" * 24 + ".abc", "\U0001f680"])
def test_what_is_no_refresh_token_is_refused(anybody: Api, token: str) -> None:
    anybody.refused("POST", "/auth/refresh", "SESSION_ENDED", {"refreshToken": token})


def test_signing_out_ends_the_session_at_once(anybody: Api, own: Json) -> None:
    user = anybody.as_user(own["token"])
    assert user.ok("POST", "/auth/logout") is None
    user.refused("GET", "/auth/me", "SESSION_ENDED")
    user.refused("POST", "/auth/logout", "SESSION_ENDED")
    body = {"refreshToken": own["refreshToken"]}
    anybody.refused("POST", "/auth/refresh", "SESSION_ENDED", body)


def test_signing_out_ends_no_other_session(anybody: Api, api: Api, own: Json) -> None:
    anybody.as_user(own["token"]).ok("POST", "/auth/logout")
    api.ok("GET", "/auth/me")


# Other people's


def test_a_user_sees_and_touches_only_its_own(api: Api, bob: Api, name: str, vm: str) -> None:
    mine = bob.create(name)
    assert mine["owner"] == "bob"
    assert [found["id"] for found in bob.ok("GET", "/vms")["vms"]] == [mine["id"]]
    assert bob.ok("GET", "/vms", params={"owner": "admin"})["vms"] == []
    # The name is the same as that of the admin's VM; each gets its own.
    assert bob.ok("GET", f"/vms/{name}")["id"] == mine["id"]
    assert api.ok("GET", f"/vms/{name}")["id"] == vm
    assert api.ok("GET", f"/vms/{mine['id']}")["owner"] == "bob"
    both = api.ok("GET", "/vms", params={"q": name})["vms"]
    assert {found["id"] for found in both} == {vm, mine["id"]}
    bob.remove(mine["id"])


@pytest.mark.parametrize("endpoint", [one for one in CLOSED if "{vm}" in one.path], ids=shown)
def test_somebody_elses_vm_is_like_none(bob: Api, shared: str, endpoint: Endpoint) -> None:
    bodies: Json = {
        "send_to_console": {"text": "x"},
        "attach_disk": {"size": 1},
        "expand_disk": {"size": 2},
        "change_iso": {"image": "x"},
    }
    query = {"for": "running"} if endpoint.name == "wait_for_vm" else {}
    answers = []
    for ref in (shared, "vm-000000000000"):
        body = bodies.get(endpoint.name)
        path = endpoint.path.replace("{vm}", ref)
        error = bob.refused(endpoint.method, path, "VM_NOT_FOUND", body, params=query)
        answers.append({**error, "requestId": "", "message": error["message"].replace(ref, "")})
    assert answers[0] == answers[1]


def test_who_may_not_is_told_what_is_missing(bob: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "voidvm.domain.account.ROLE_PERMISSIONS", {"admin": frozenset(), "user": frozenset()}
    )
    for endpoint in CLOSED:
        if endpoint.access is Access.SIGNED_IN:
            continue
        status, code, _ = call_endpoint(bob, endpoint)
        assert (status, code) == (403, "FORBIDDEN"), shown(endpoint)
