"""What one caller may ask: requests a minute, sockets at once, bytes of a body."""

from __future__ import annotations

import itertools
import json
import socket
import statistics
import struct
import time
from collections import Counter
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.audit import Lines
from tests.support.consoles import console
from tests.support.contract import Api
from tests.support.limited import A_MINUTE, BODY_MAX, forget_windows
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person
from tests.support.service import eventually


def limits_of(response: httpx.Response) -> tuple[int, int, int]:
    limit, remaining, reset = (
        int(response.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
    )
    return limit, remaining, reset


# Requests


def test_a_user_has_so_many_requests_a_minute(visitor: Person) -> None:
    left = []
    for _ in range(A_MINUTE):
        response = visitor.api.call("GET", "/vms")
        assert response.status_code == 200
        limit, remaining, reset = limits_of(response)
        assert (limit, 1 <= reset <= 60) == (A_MINUTE, True)
        left.append(remaining)
    assert left == list(reversed(range(A_MINUTE)))
    response = visitor.api.call("GET", "/vms")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (429, "RATE_LIMITED")
    assert error["retryable"] is True
    assert error["requestId"] == response.headers["x-request-id"]
    assert limits_of(response)[:2] == (A_MINUTE, 0)
    assert 1 <= int(response.headers["retry-after"]) <= 60


def test_failures_count_and_carry_the_headers(visitor: Person) -> None:
    for number, (path, status) in enumerate(
        [("/vms/none", 404), ("/users", 403), ("/vms?x=1", 400)], start=1
    ):
        response = visitor.api.call("GET", path)
        assert response.status_code == status
        assert limits_of(response)[:2] == (A_MINUTE, A_MINUTE - number)


def test_all_credentials_of_a_user_share_its_limit(visitor: Person) -> None:
    token = visitor.with_token()
    for api in itertools.islice(itertools.cycle([visitor.api, token]), A_MINUTE - 1):
        assert api.call("GET", "/vms").status_code == 200
    for api in (visitor.api, token):
        assert api.call("GET", "/vms").status_code == 429


def test_one_users_flood_is_nobody_elses(
    limited: LocalService, visitor: Person, stranger: Api
) -> None:
    for _ in range(A_MINUTE + 1):
        last = visitor.api.call("GET", "/vms")
    assert last.status_code == 429
    # Neither another user's at the same address, nor a stranger's.
    body = {"username": "admin", "password": "admin123"}
    login = stranger.ok("POST", "/auth/login", body)
    limited.anybody().as_user(login["token"]).ok("GET", "/vms")


def test_the_window_moves(visitor: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(A_MINUTE):
        visitor.api.ok("GET", "/vms")
    wait_s = int(visitor.api.call("GET", "/vms").headers["retry-after"])
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + wait_s)
    assert visitor.api.call("GET", "/vms").status_code == 200


def test_before_a_sign_in_the_address_is_the_caller(stranger: Api, visitor: Person) -> None:
    for number in range(A_MINUTE):
        api = stranger.as_user("nonsense") if number % 2 else stranger
        response = api.call("GET", "/vms")
        assert response.status_code == 401
        assert limits_of(response)[:2] == (A_MINUTE, A_MINUTE - 1 - number)
    assert stranger.call("GET", "/vms").status_code == 429
    assert stranger.call("GET", "//docs").status_code == 429
    body = {"username": visitor.username, "password": PASSWORD}
    assert stranger.call("POST", "/auth/login", json=body).status_code == 429
    # Who has signed in already is counted by its limited.
    assert stranger.as_user(visitor.api.token).call("GET", "/vms").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "//nowhere", 404, None),
        ("PUT", "/vms", 405, None),
        ("POST", "/vms", 413, b" " * (BODY_MAX + 1)),
    ],
)
def test_what_reaches_no_endpoint_counts_too(
    visitor: Person, stranger: Api, method: str, path: str, status: int, body: bytes | None
) -> None:
    for api in (visitor.api, stranger, stranger.as_user("nonsense")):
        if api is not visitor.api:
            forget_windows(visitor.local)
        for number in range(A_MINUTE):
            response = api.call(method, path, content=body)
            assert response.status_code == status
            assert limits_of(response)[:2] == (A_MINUTE, A_MINUTE - 1 - number)
        response = api.call(method, path, content=body)
        assert (response.status_code, "retry-after" in response.headers) == (429, True)
        assert api.call("GET", "/vms").status_code == 429


def test_health_is_for_probes_that_ask_often(stranger: Api) -> None:
    for _ in range(A_MINUTE * 2):
        response = stranger.call("GET", "//health")
        assert response.status_code == 200
        assert "ratelimit-limit" not in response.headers


def test_a_socket_is_a_request_too(limited: LocalService, visitor: Person) -> None:
    vm = visitor.api.create("limited", os=None)["id"]
    for _ in range(A_MINUTE - 1):
        visitor.api.ok("GET", "/vms")
    response = visitor.api.call("GET", f"/vms/{vm}/console")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


# Sockets


def test_the_eleventh_socket_is_closed(limited: LocalService, visitor: Person) -> None:
    vm = visitor.api.create("watched", os=None)["id"]
    token = visitor.token()["token"]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(console(limited.url, vm, token=one))
            for one in [visitor.api.token, token] * 5
        ]
        forget_windows(limited)
        for one in (visitor.api.token, token):
            with pytest.raises(Exception, match="4429"), console(limited.url, vm, token=one):
                pass
        for client in clients:
            client.tell("ping", id=1)
            client.notice("pong")
        clients[0].connection.close()
        eventually(lambda: limited.do(lambda: limited.gate.sockets._taken[visitor.id] == 9))
        with console(limited.url, vm, token=token) as client:
            assert client.hello["vmId"] == vm
    eventually(lambda: not limited.do(lambda: limited.gate.sockets._taken.get(visitor.id)))


# Bytes


def test_who_hangs_up_before_the_limit_was_asked_fills_no_log(
    limited: LocalService, visitor: Person, lines: Lines
) -> None:
    address = urlsplit(limited.url)
    request = (
        f"POST /api/v1/vms/none/start HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {visitor.api.token}\r\nContent-Length: 0\r\n\r\n"
    ).encode()
    for _ in range(A_MINUTE):
        visitor.api.refused("POST", "/vms/none/start", "VM_NOT_FOUND")

    def ask(*, wait_s: float | None) -> float:
        with socket.create_connection((address.hostname, address.port)) as connection:
            # It is reset, so that the service sees it hang up at once.
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            begun = time.perf_counter()
            connection.sendall(request)
            if wait_s is None:
                connection.recv(65_536)
            else:
                # A sleep would take longer than the answer.
                while time.perf_counter() < begun + wait_s:
                    pass
            return time.perf_counter() - begun

    usual_s = statistics.median(ask(wait_s=None) for _ in range(20))
    for number in range(300):
        ask(wait_s=usual_s * number / 250)
    # One more, whose answer is awaited: all before have ended.
    ask(wait_s=None)
    entries = [json.loads(line) for line in lines.entries]
    noted = Counter((one["status"], one["code"]) for one in entries if one["action"] == "start_vm")
    assert noted[404, "VM_NOT_FOUND"] == A_MINUTE
    assert noted.total() <= A_MINUTE + 2, noted


def body_of(size: int) -> bytes:
    head, tail = b'{"username": "', b'", "password": "x"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


HEADERS = {"content-type": "application/json"}


def test_a_body_may_have_so_many_bytes(stranger: Api) -> None:
    response = stranger.call("POST", "/auth/login", content=body_of(BODY_MAX), headers=HEADERS)
    assert response.status_code == 400, "too long a name, but it was read"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_larger_body_is_refused(limited: LocalService, stranger: Api, is_chunked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    data = body_of(BODY_MAX + 1)
    content = (data[at : at + 512] for at in range(0, len(data), 512)) if is_chunked else data
    response = stranger.call("POST", "/auth/login", content=content, headers=HEADERS)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["retryable"]) == ("PAYLOAD_TOO_LARGE", False)
    assert error["requestId"] == response.headers["x-request-id"]
    assert stranger.call("GET", "//health").status_code == 200


def test_a_head_may_have_eight_kib(stranger: Api) -> None:
    for size, status in ((7_000, 401), (9_000, 413)):
        response = stranger.call("GET", "/vms", headers={"x-padding": "x" * size})
        assert response.status_code == status
        assert response.json()["error"]["requestId"] == response.headers["x-request-id"]
