"""Who may attach to a console; all of it is checked before the 101."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.consoles import ConsoleClient, console
from tests.support.contract import Api, Json
from tests.support.local import LocalService

BOOT = b"fake guest\r\n"


@pytest.fixture
def client(local: LocalService, api: Api, running: str) -> Iterator[ConsoleClient]:
    """A console of the running VM that has seen its boot."""
    with console(local.url, running, token=api.token) as client:
        client.until(BOOT)
        yield client


@pytest.fixture
def running(shared: str) -> str:
    """One VM for all: none of these tests changes it."""
    return shared


def refused(local: LocalService, vm: str, **options: Json) -> tuple[int, Json]:
    """Status and error of an upgrade that must be refused before the 101."""
    with pytest.raises(InvalidStatus) as caught, console(local.url, vm, **options):
        pass
    response = caught.value.response
    assert response.headers["x-request-id"]
    return response.status_code, json.loads(response.body or b"")["error"]


def test_a_token_may_stand_in_the_query(
    local: LocalService, api: Api, running: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with console(local.url, running, query=f"?token={api.token}") as client:
        client.until(BOOT)
        assert client.subprotocol is None
    assert api.token is not None
    assert api.token not in caplog.text


def test_the_subprotocol_is_answered(local: LocalService, api: Api, running: str) -> None:
    offers = ("other", "voidvm.console.v1")
    with console(local.url, running, token=api.token, offers=offers) as client:
        assert client.subprotocol == "voidvm.console.v1"
    with console(local.url, running, token=api.token, offers=("other",)) as client:
        assert client.subprotocol is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token": "x"},
        {"query": "?token="},
        {"query": "?token=a.b.c"},
        {"query": "?ticket=x"},
        {"query": "?ticket="},
        {"offers": ("voidvm.console.v1", "ticket.x")},
        {"headers": {"authorization": "Basic YWRtaW46YWRtaW4xMjM="}},
    ],
)
def test_who_has_no_credential_is_refused_before_the_101(
    local: LocalService, running: str, options: Json
) -> None:
    status, error = refused(local, running, **options)
    assert (status, error["code"]) == (401, "UNAUTHORIZED")


def test_an_unknown_vm_is_404_before_the_101(local: LocalService, api: Api) -> None:
    status, error = refused(local, "ghost", token=api.token)
    assert (status, error["code"]) == (404, "VM_NOT_FOUND")


def test_a_stranger_does_not_learn_what_exists(local: LocalService, running: str) -> None:
    assert refused(local, running)[0] == refused(local, "ghost")[0] == 401


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?since=x", "since"),
        ("?since=-1", "since"),
        ("?since=5%0A", "since"),
        ("?since=1e3", "since"),
        ("?mode=admin", "mode"),
        ("?sinse=1", "sinse"),
    ],
)
def test_a_bad_query_is_named_before_the_101(
    local: LocalService, api: Api, running: str, query: str, field: str
) -> None:
    status, error = refused(local, running, token=api.token, query=query)
    assert (status, error["code"]) == (400, "VALIDATION_ERROR")
    assert [problem["field"] for problem in error["errors"]] == [field]


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1", "file://", ""],
)
def test_pages_of_other_origins_are_refused(
    local: LocalService, api: Api, running: str, origin: str
) -> None:
    headers = {"origin": origin}
    status, error = refused(local, running, token=api.token, headers=headers)
    assert (status, error["code"]) == (403, "ORIGIN_REFUSED")
    assert "allowed_origins" in error["hint"]


@pytest.mark.parametrize(
    "header",
    [
        b"origin: http://\xff\xfe",
        b"sec-websocket-protocol: ticket.\xe9",
        b"authorization: Bearer \xe9",
        b"cookie: \xff",
        b"accept-language: \xff",
        b"host: \xff",
    ],
)
def test_headers_that_are_no_text_are_refused(
    local: LocalService, running: str, header: bytes
) -> None:
    request = (
        b"GET /api/v1/vms/%s/console HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n\r\n"
    ) % (running.encode(), header)
    address = urlsplit(local.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        error = json.loads(response.read())["error"]
    assert response.status in {400, 401, 403}, error
    assert error["code"] in {"VALIDATION_ERROR", "UNAUTHORIZED", "ORIGIN_REFUSED"}


def test_the_own_page_may_connect(local: LocalService, api: Api, running: str) -> None:
    with console(local.url, running, token=api.token, headers={"origin": local.url}) as client:
        client.until(BOOT)


def test_a_plain_request_is_told_what_this_is(api: Api, running: str) -> None:
    error = api.refused("GET", f"/vms/{running}/console", "VALIDATION_ERROR")
    assert "WebSocket" in error["details"]
    # It counts as no viewer afterwards.
    assert api.call("GET", f"/vms/{running}/console/log").status_code == 200


def test_a_ticket_is_not_spent_on_a_plain_request(api: Api, running: str) -> None:
    # curl on the address is no connection; but a ticket is spent by being shown.
    ticket = api.ok("POST", f"/vms/{running}/console/tickets", {})
    path = ticket["url"].removeprefix("/api/v1")
    assert api.as_user(None).call("GET", path).status_code == 400


@pytest.mark.parametrize("version", ["12", "0", "x"])
def test_another_version_of_websocket_is_refused(
    local: LocalService, api: Api, running: str, version: str
) -> None:
    response = api.call(
        "GET",
        f"/vms/{running}/console",
        headers={
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": version,
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert response.status_code == 400


def test_other_addresses_are_no_sockets(local: LocalService, api: Api) -> None:
    address = local.url.replace("http", "ws", 1) + "/api/v1/vms"
    headers = {"authorization": f"Bearer {api.token}"}
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(address, additional_headers=headers, proxy=None),
    ):
        pass
    assert caught.value.response.status_code == 200
