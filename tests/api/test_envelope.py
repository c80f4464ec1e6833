"""Every answer, good or bad, comes in the envelope of the contract."""

from __future__ import annotations

import errno
import http.client
import json
import re
import socket
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.contract import Api, Json
from tests.support.local import LocalService

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SNAKE_CASE = re.compile(r"_[a-z]")


def keys_of(value: Json) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for item in value.values() for key in keys_of(item))]
    if isinstance(value, list):
        return [key for item in value for key in keys_of(item)]
    return []


def send_raw(service: LocalService, data: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer to bytes that no client library would send."""
    address = urlsplit(service.url)
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response, response.read()


def check_raw(service: LocalService, data: bytes, status: int, code: str) -> None:
    response, body = send_raw(service, data)
    assert (response.status, json.loads(body)["error"]["code"]) == (status, code)
    assert response.headers["x-request-id"] == json.loads(body)["error"]["requestId"]


def test_a_success_has_four_parts(api: Api) -> None:
    body = api.call("GET", "/vms").json()
    assert body.keys() == {"success", "data", "message", "timestamp"}
    assert body["success"] is True
    assert body["message"]


def test_an_error_has_its_parts(api: Api) -> None:
    response = api.call("GET", "/vms/nowhere")
    body = response.json()
    assert body.keys() == {"success", "error", "timestamp"}
    assert body["success"] is False
    assert body["error"] == {
        "code": "VM_NOT_FOUND",
        "message": "There is no VM 'nowhere'.",
        "details": "",
        "requestId": response.headers["x-request-id"],
        "retryable": False,
    }


def test_times_are_utc_and_keys_are_camel_case(api: Api, running: str) -> None:
    body = api.call("GET", f"/vms/{running}").json()
    times = [body["timestamp"], *(body["data"][f"{what}At"] for what in ("created", "started"))]
    assert all(TIME.fullmatch(time) for time in times), times
    age = datetime.now(UTC) - datetime.fromisoformat(body["timestamp"])
    assert abs(age.total_seconds()) < 60
    assert [key for key in keys_of(body) if SNAKE_CASE.search(key)] == []


def test_request_ids_differ(api: Api) -> None:
    ids = {api.call("GET", "/vms").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("zh", "没有虚拟机“x”。"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "没有虚拟机“x”。"),
        ("en;q=0.5, zh-TW;q=0.7", "没有虚拟机“x”。"),
        ("ZH", "没有虚拟机“x”。"),
        ("en-GB,zh;q=0.3", "There is no VM 'x'."),
        ("fr", "There is no VM 'x'."),
        ("zh;q=0", "There is no VM 'x'."),
        ("zh;q=rubbish, *", "There is no VM 'x'."),
        (";;;,,,=", "There is no VM 'x'."),
    ],
)
def test_messages_follow_the_language(api: Api, wanted: str, message: str) -> None:
    response = api.call("GET", "/vms/x", headers={"accept-language": wanted})
    assert response.json()["error"]["message"] == message
    assert response.json()["error"]["code"] == "VM_NOT_FOUND"


def test_successes_are_translated_too(api: Api, vm: str) -> None:
    answer = api.call("POST", f"/vms/{vm}/start", headers={"accept-language": "zh"})
    assert answer.json()["message"] == "虚拟机已启动。"


@pytest.mark.parametrize("path", ["/nothing", "//nothing", "/vms/x/y/z", "//", "//api"])
def test_an_unknown_address_is_404(api: Api, path: str) -> None:
    error = api.refused("GET", path, "NOT_FOUND")
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/vms"), ("DELETE", "/auth/login"), ("POST", "//health"), ("PATCH", "/vms/x/start")],
)
def test_a_wrong_method_is_405(api: Api, method: str, path: str) -> None:
    response = api.call(method, path)
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
    allowed = response.headers["allow"].split(", ")
    assert allowed
    assert method not in allowed


def test_head_is_answered_as_get_without_a_body(anybody: Api) -> None:
    for path, status in (("/health", 200), ("/api/v1/vms", 401)):
        response = anybody.client.head(path)
        assert response.status_code == status
        assert response.headers["content-type"] == anybody.client.get(path).headers["content-type"]
        assert int(response.headers["content-length"]) > 0
        assert response.content == b""


def test_a_host_without_descriptors_or_room_is_no_fault_of_ours(
    local: LocalService, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, code in ((errno.EMFILE, "TOO_MANY_FILES"), (errno.ENOSPC, "NO_SPACE")):
        failing = mock.AsyncMock(side_effect=OSError(number, "no"))
        monkeypatch.setattr(local.services.vms, "page", failing)
        api.refused("GET", "/vms", code)


def test_answers_are_not_stored_and_not_guessed(api: Api) -> None:
    for path in ("/vms", "/vms/none", "/none"):
        headers = api.call("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"] == "application/json"


def test_nothing_tells_what_serves(api: Api) -> None:
    headers = api.call("GET", "/vms").headers
    assert "server" not in headers
    assert "x-powered-by" not in headers


def test_a_body_of_another_type_is_415(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = {"content-type": kind}
        response = api.call("POST", "/vms", content=b'{"name": "x"}', headers=headers)
        assert response.status_code == 415, kind
        assert response.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/ld+json"])
def test_json_under_its_other_names_is_taken(api: Api, kind: str) -> None:
    headers = {"content-type": kind}
    response = api.call("POST", "/vms", content=b"{}", headers=headers)
    assert response.json()["error"]["errors"] == [{"field": "name", "message": "is required"}]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"name": "x"',
        b'{"name": "x"} x',
        b'{"name": \xff}',
        b"\x00",
        b"[" * 100_000,
        b'{"tags":' * 50_000,
        b'{"name": NaN}',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_malformed_json_is_named(api: Api, body: bytes) -> None:
    response = api.call("POST", "/vms", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "VALIDATION_ERROR")
    assert error["errors"][0]["field"] == "body"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1", b"[[[]]]"])
def test_json_that_is_no_object_is_named(api: Api, body: bytes) -> None:
    response = api.call("POST", "/vms", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "VALIDATION_ERROR")
    assert error["details"] == "body: must be an object"


def test_a_body_over_the_limit_is_413(api: Api) -> None:
    body = json.dumps({"name": "x", "description": "y" * 1_048_576}).encode()
    headers = {"content-type": "application/json"}
    response = api.call("POST", "/vms", content=body, headers=headers)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
    # The connection, or another, is good for the next request.
    assert api.call("GET", "/vms").status_code == 200


def test_a_chunked_body_over_the_limit_is_413(local: LocalService, admin_token: str) -> None:
    chunk = b"40000\r\n" + b" " * 0x40000 + b"\r\n"
    head = (
        f"POST /api/v1/vms HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_token}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    check_raw(local, head.encode() + chunk * 5 + b"0\r\n\r\n", 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "request_text",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /api/v1/vms HTTP/9.9\r\n\r\n",
        b"GET /api/v1/vms HTTP/1.1\r\nbroken header\r\n\r\n",
        b"POST /api/v1/vms HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /api/v1/vms HTTP/1.1\r\ncontent-length: many\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(local: LocalService, request_text: bytes) -> None:
    check_raw(local, request_text, 400, "VALIDATION_ERROR")


def test_headers_without_end_are_refused(local: LocalService) -> None:
    response, _ = send_raw(local, b"GET /health HTTP/1.1\r\nx: " + b"y" * 200_000 + b"\r\n\r\n")
    assert response.status in {400, 413, 431}


def test_a_content_type_that_is_no_text_is_415(local: LocalService, admin_token: str) -> None:
    head = (
        f"POST /api/v1/vms HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_token}\r\n"
        "content-length: 2\r\ncontent-type: "
    ).encode()
    check_raw(local, head + b"\xff\xfe\r\n\r\n{}", 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_fault_of_ours_tells_only_its_number(
    api: Api, local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("SELECT secret FROM /var/lib/voidvm")

    monkeypatch.setattr(type(local.services.vms), "page", fail)
    response: httpx.Response = api.call("GET", "/vms")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert error["requestId"] == response.headers["x-request-id"]
    [logged] = local.errors.texts
    assert error["requestId"] in logged
    local.errors.texts.clear()
