"""Pages in browsers: only ours and configured ones may use what their visitor can reach."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.qemu import FakeHost
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from voidvm import app

UI = "https://ui.example.org"
OTHER_UI = "http://localhost:8080"
# What an attacker may have, or make to look like ours.
FOREIGN = [
    "https://evil.example",
    "http://ui.example.org",
    "https://ui.example.org:444",
    "https://ui.example.org.evil.example",
    "https://evil.example?https://ui.example.org",
    "https://xui.example.org",
    "null",
    "",
    "file://",
    "http://127.0.0.1",
    "caf\xe9",
]


def described_headers(service: LocalService) -> set[str]:
    """The headers that the description tells clients to send."""
    paths = service.anybody().contract.document["paths"]
    return {
        parameter["name"].lower()
        for methods in paths.values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    }


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    """A service with pages of its own elsewhere."""
    service = LocalService(
        FakeHost(), VOIDVM_SERVER__ALLOWED_ORIGINS=f'["{UI}/", "{OTHER_UI.upper()}"]'
    )
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def admin(own: LocalService) -> Api:
    """The API for `admin`."""
    return own.api()


@pytest.fixture(scope="module")
def own_vm(admin: Api) -> str:
    """A VM of the service's."""
    vm_id: str = admin.create("shown", os=None)["id"]
    return vm_id


# Sockets


def refusal(url: str, vm: str, origin: str, **options: Json) -> Json:
    headers = {"origin": origin}
    with (
        pytest.raises(InvalidStatus) as caught,
        console(url, vm, headers=headers, **options),
    ):
        pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_pages_get_no_socket_whatever_they_carry(
    own: LocalService, admin: Api, own_vm: str, origin: str
) -> None:
    ticket = admin.ok("POST", f"/vms/{own_vm}/console/tickets")["ticket"]
    for options in (
        {"token": admin.token},
        {"query": f"?token={admin.token}"},
        {"query": f"?ticket={ticket}"},
        {"offers": ["voidvm.console.v1", f"ticket.{ticket}"]},
        {},
    ):
        assert refusal(own.url, own_vm, origin, **options) == (403, "ORIGIN_REFUSED")
    # It was refused before the ticket was looked at: its owner can still use it.
    with console(own.url, own_vm, query=f"?ticket={ticket}", headers={"origin": UI}) as client:
        assert client.hello["vmId"] == own_vm


@pytest.mark.parametrize("origin", [UI, OTHER_UI])
def test_configured_pages_get_a_socket_with_a_credential(
    own: LocalService, admin: Api, own_vm: str, origin: str
) -> None:
    with console(own.url, own_vm, token=admin.token, headers={"origin": origin}) as client:
        assert client.hello["vmId"] == own_vm
    assert refusal(own.url, own_vm, origin) == (401, "UNAUTHORIZED")


def test_the_own_page_gets_a_socket(local: LocalService, api: Api, vm: str) -> None:
    with console(local.url, vm, token=api.token, headers={"origin": local.url}) as client:
        assert client.hello["vmId"] == vm
    assert refusal(local.url, vm, UI, token=api.token) == (403, "ORIGIN_REFUSED")


def test_programs_send_no_origin(local: LocalService, api: Api, vm: str) -> None:
    with console(local.url, vm, token=api.token) as client:
        assert client.hello["vmId"] == vm


# CORS


def cors_of(headers: Json) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control")}


PREFLIGHT = {
    "access-control-request-method": "PATCH",
    "access-control-request-headers": "authorization,content-type,if-match,idempotency-key,"
    "prefer,upload-offset,x-request-id,x-other",
}


@pytest.mark.parametrize("origin", [UI, "https://evil.example", "null"])
def test_by_default_no_other_page_may_read_anything(api: Api, origin: str) -> None:
    headers = {"origin": origin}
    for path in ("/vms", "/vms/none", "//health", "//docs/openapi.json"):
        assert cors_of(api.call("GET", path, headers=headers).headers) == {}
    response = api.call("OPTIONS", "/vms/x", headers={**headers, **PREFLIGHT})
    assert response.status_code == 405
    assert cors_of(response.headers) == {}


@pytest.mark.parametrize("origin", [UI, OTHER_UI])
def test_configured_pages_may(own: LocalService, admin: Api, origin: str) -> None:
    for path, status in (("/vms", 200), ("/vms/none", 404), ("/vms?x=1", 400), ("/none", 404)):
        response = admin.call("GET", path, headers={"origin": origin})
        assert response.status_code == status
        found = cors_of(response.headers)
        assert found["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in found, "there are no cookies to send"
        exposed = set(found["access-control-expose-headers"].split(","))
        assert {"etag", "location", "x-request-id", "retry-after"} <= exposed
        assert "origin" in response.headers["vary"].lower()
    response = own.anybody().call("GET", "/vms", headers={"origin": origin})
    assert response.status_code == 401
    assert cors_of(response.headers)["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/vms", {"GET", "POST"}),
        ("/vms/x", {"GET", "PATCH", "DELETE"}),
        ("/vms/x/config", {"PUT"}),
        ("/auth/me", {"GET", "PATCH"}),
        ("/users/x", {"GET", "PUT", "PATCH", "DELETE"}),
    ],
)
def test_a_configured_page_may_ask_first(own: LocalService, path: str, methods: set[str]) -> None:
    response = own.anybody().client.options(f"/api/v1{path}", headers={"origin": UI, **PREFLIGHT})
    found = cors_of(response.headers)
    assert response.status_code == 204
    assert found["access-control-allow-origin"] == UI
    assert methods <= set(found["access-control-allow-methods"].split(","))
    allowed = set(found["access-control-allow-headers"].split(","))
    assert allowed == {"authorization", "content-type", "x-request-id", *described_headers(own)}


@pytest.mark.parametrize("origin", [one for one in FOREIGN if one.isascii()])
def test_foreign_pages_may_not_though_others_may(
    own: LocalService, admin: Api, origin: str
) -> None:
    headers = {"origin": origin}
    assert "access-control-allow-origin" not in admin.call("GET", "/vms", headers=headers).headers
    response = own.anybody().client.options("/api/v1/vms/x", headers={**headers, **PREFLIGHT})
    assert cors_of(response.headers) == {}


def test_cors_opens_no_other_door(own: LocalService, admin: Api) -> None:
    for method in ("TRACE", "CONNECT"):
        for path in ("/api/v1/vms", "/api/v1/vms/x/console"):
            response = own.anybody().client.request(method, path)
            assert response.status_code in {400, 404, 405}, (method, path)
    response = own.anybody().client.options("/api/v1/vms", headers={"origin": UI, **PREFLIGHT})
    assert response.content == b""


# Cookies


def test_no_answer_sets_a_cookie(anybody: Api, api: Api) -> None:
    body = {"username": "admin", "password": "admin123"}
    for response in (
        anybody.call("POST", "/auth/login", json=body),
        anybody.call("POST", "/auth/login", json={**body, "password": "x"}),
        anybody.call("GET", "//docs"),
        anybody.call("GET", "/vms"),
        api.call("GET", "/auth/me"),
    ):
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("name", ["token", "access_token", "Authorization", "session"])
def test_a_cookie_is_no_credential(anybody: Api, api: Api, name: str) -> None:
    response = anybody.call("GET", "/vms", headers={"cookie": f"{name}={api.token}"})
    assert response.status_code == 401


def test_answers_are_not_kept_by_caches_or_guessed_at(api: Api) -> None:
    for path in ("/auth/me", "/vms/none"):
        headers = api.call("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


# What cannot be meant


@pytest.mark.parametrize(
    "text", ["*", "ui.example.org", "https://", "ftp://x", "https://x/path", "null", ""]
)
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    service = LocalService(FakeHost(), VOIDVM_SERVER__ALLOWED_ORIGINS=f'["{text}"]')
    with pytest.raises(app.StartRefused, match="allowed_origins"):
        app.check_server(service.settings)
    service.close()


@pytest.mark.parametrize("text", ["*", "proxy.example", "10.0.0.0/33", "10.0.0.256"])
def test_what_is_no_proxy_is_refused_at_the_start(text: str) -> None:
    service = LocalService(FakeHost(), VOIDVM_SERVER__TRUSTED_PROXIES=f'["{text}"]')
    with pytest.raises(app.StartRefused, match="trusted_proxies"):
        app.check_server(service.settings)
    service.close()
