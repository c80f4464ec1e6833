"""What one caller may ask: requests, sockets, bytes and sign-ins; and who counts as one caller."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import httpx
import pytest

from tests.fakes.qemu import FakeHost
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person
from tests.support.service import eventually

A_MINUTE = 20
ATTEMPTS = 3
BODY_MAX = 4096
PROXY = "127.9.9.9"
_hosts = itertools.count(1)


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    """A service with limits that are soon reached."""
    service = LocalService(
        FakeHost(),
        VOIDVM_LIMITS__REQUESTS_PER_MINUTE=str(A_MINUTE),
        VOIDVM_LIMITS__LOGIN_ATTEMPTS=str(ATTEMPTS),
        VOIDVM_LIMITS__BODY_BYTES=str(BODY_MAX),
        VOIDVM_SERVER__TRUSTED_PROXIES=f'["{PROXY}", "10.0.0.0/8", "fd00::/8"]',
    )
    try:
        service.start()
        yield service
    finally:
        service.close()


@contextmanager
def caller_from(own: LocalService, address: str) -> Iterator[Api]:
    """The API from an address of the caller's own: all of 127.0.0.0/8 is this host."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=own.url, transport=transport, timeout=30) as client:
        yield Api(client, own.anybody().contract)


@pytest.fixture
def stranger(own: LocalService) -> Iterator[Api]:
    """Somebody whose address has asked for nothing yet."""
    number = next(_hosts)
    with caller_from(own, f"127.77.{number // 250}.{number % 250 + 1}") as api:
        yield api


@pytest.fixture
def ada(own: LocalService) -> Person:
    """A user who has asked for nothing yet; made within, so that nobody's window is touched."""
    number = next(_hosts)
    username = f"ada{number}"
    with caller_from(own, f"127.78.{number // 250}.{number % 250 + 1}") as anybody:
        body = {"username": "admin", "password": "admin123"}
        admin = anybody.as_user(anybody.ok("POST", "/auth/login", body)["token"])
        forget_windows(own)
        admin.ok("POST", "/users", {"username": username, "password": PASSWORD})
        login = anybody.ok("POST", "/auth/login", {"username": username, "password": PASSWORD})
    forget_windows(own)
    return Person(
        local=own,
        id=login["user"]["id"],
        username=username,
        password=PASSWORD,
        login=login,
        api=own.anybody().as_user(login["token"]),
    )


def forget_windows(own: LocalService) -> None:
    own.run(own.gate.requests._limiter.storage.reset())


def limits_of(response: httpx.Response) -> tuple[int, int, int]:
    return tuple(
        int(response.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
    )  # type: ignore[return-value]


# Requests


def test_a_user_has_so_many_requests_a_minute(ada: Person) -> None:
    left = []
    for _ in range(A_MINUTE):
        response = ada.api.call("GET", "/vms")
        assert response.status_code == 200
        limit, remaining, reset = limits_of(response)
        assert (limit, 1 <= reset <= 60) == (A_MINUTE, True)
        left.append(remaining)
    assert left == list(reversed(range(A_MINUTE)))
    response = ada.api.call("GET", "/vms")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (429, "RATE_LIMITED")
    assert error["retryable"] is True
    assert error["requestId"] == response.headers["x-request-id"]
    assert limits_of(response)[:2] == (A_MINUTE, 0)
    assert 1 <= int(response.headers["retry-after"]) <= 60


def test_failures_count_and_carry_the_headers(ada: Person) -> None:
    for number, (path, status) in enumerate(
        [("/vms/none", 404), ("/users", 403), ("/vms?x=1", 400)], start=1
    ):
        response = ada.api.call("GET", path)
        assert response.status_code == status
        assert limits_of(response)[:2] == (A_MINUTE, A_MINUTE - number)


def test_all_credentials_of_a_user_share_its_limit(ada: Person) -> None:
    token = ada.with_token()
    for api in itertools.islice(itertools.cycle([ada.api, token]), A_MINUTE - 1):
        assert api.call("GET", "/vms").status_code == 200
    for api in (ada.api, token):
        assert api.call("GET", "/vms").status_code == 429


def test_one_users_flood_is_nobody_elses(own: LocalService, ada: Person, stranger: Api) -> None:
    for _ in range(A_MINUTE + 1):
        last = ada.api.call("GET", "/vms")
    assert last.status_code == 429
    # Neither another user's at the same address, nor a stranger's.
    body = {"username": "admin", "password": "admin123"}
    login = stranger.ok("POST", "/auth/login", body)
    own.anybody().as_user(login["token"]).ok("GET", "/vms")


def test_the_window_moves(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(A_MINUTE):
        ada.api.ok("GET", "/vms")
    wait_s = int(ada.api.call("GET", "/vms").headers["retry-after"])
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + wait_s)
    assert ada.api.call("GET", "/vms").status_code == 200


def test_before_a_sign_in_the_address_is_the_caller(stranger: Api, ada: Person) -> None:
    for number in range(A_MINUTE):
        api = stranger.as_user("nonsense") if number % 2 else stranger
        response = api.call("GET", "/vms")
        assert response.status_code == 401
        assert limits_of(response)[:2] == (A_MINUTE, A_MINUTE - 1 - number)
    assert stranger.call("GET", "/vms").status_code == 429
    assert stranger.call("GET", "//docs").status_code == 429
    body = {"username": ada.username, "password": PASSWORD}
    assert stranger.call("POST", "/auth/login", json=body).status_code == 429
    # Who has signed in already is counted by its own.
    assert stranger.as_user(ada.api.token).call("GET", "/vms").status_code == 200


def test_health_is_for_probes_that_ask_often(stranger: Api) -> None:
    for _ in range(A_MINUTE * 2):
        response = stranger.call("GET", "//health")
        assert response.status_code == 200
        assert "ratelimit-limit" not in response.headers


def test_a_socket_is_a_request_too(own: LocalService, ada: Person) -> None:
    vm = ada.api.create("limited", os=None)["id"]
    for _ in range(A_MINUTE - 1):
        ada.api.ok("GET", "/vms")
    response = ada.api.call("GET", f"/vms/{vm}/console")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


# Sockets


def test_the_eleventh_socket_is_closed(own: LocalService, ada: Person) -> None:
    vm = ada.api.create("watched", os=None)["id"]
    token = ada.token()["token"]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(console(own.url, vm, token=one))
            for one in [ada.api.token, token] * 5
        ]
        forget_windows(own)
        for one in (ada.api.token, token):
            with pytest.raises(Exception, match="4429"), console(own.url, vm, token=one):
                pass
        for client in clients:
            client.tell("ping", id=1)
            client.notice("pong")
        clients[0].connection.close()
        eventually(lambda: own.do(lambda: own.gate.sockets._taken[ada.id] == 9))
        with console(own.url, vm, token=token) as client:
            assert client.hello["vmId"] == vm
    eventually(lambda: not own.do(lambda: own.gate.sockets._taken.get(ada.id)))


# Bytes


def body_of(size: int) -> bytes:
    head, tail = b'{"username": "', b'", "password": "x"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


HEADERS = {"content-type": "application/json"}


def test_a_body_may_have_so_many_bytes(stranger: Api) -> None:
    response = stranger.call("POST", "/auth/login", content=body_of(BODY_MAX), headers=HEADERS)
    assert response.status_code == 400, "too long a name, but it was read"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_larger_body_is_refused(own: LocalService, stranger: Api, is_chunked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    data = body_of(BODY_MAX + 1)
    content = (data[at : at + 512] for at in range(0, len(data), 512)) if is_chunked else data
    response = stranger.call("POST", "/auth/login", content=content, headers=HEADERS)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["retryable"]) == ("PAYLOAD_TOO_LARGE", False)
    assert error["requestId"] == response.headers["x-request-id"]
    assert stranger.call("GET", "//health").status_code == 200


# Sign-ins


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The throttle's clock."""
    found = Clock()
    monkeypatch.setattr("voidvm.security.throttle.time", SimpleNamespace(monotonic=found.monotonic))
    return found


def sign_in(own: LocalService, api: Api, username: str, password: str) -> httpx.Response:
    forget_windows(own)
    return api.call("POST", "/auth/login", json={"username": username, "password": password})


def test_the_delay_grows_alike_for_known_and_unknown_users(
    own: LocalService, ada: Person, stranger: Api, clock: Clock
) -> None:
    def story(username: str) -> list[tuple[int, str, str]]:
        told = []
        for _ in range(ATTEMPTS + 6):
            response = sign_in(own, stranger, username, "wrong")
            error = response.json()["error"]
            told.append((response.status_code, error["code"], error["message"]))
            if response.status_code == 429:
                wait_s = int(response.headers["retry-after"])
                told.append((wait_s, error["details"], ""))
                clock.now += wait_s
        return told

    known = story(ada.username)
    clock.now += 7200
    unknown = story("nobody-of-that-name")
    assert known == unknown
    waits = [one[0] for one in known if one[2] == ""]
    assert waits == sorted(waits)
    assert waits[-1] > waits[0] >= 1


def test_the_right_password_waits_too_and_then_ends_it(
    own: LocalService, ada: Person, stranger: Api, clock: Clock
) -> None:
    for _ in range(ATTEMPTS):
        assert sign_in(own, stranger, ada.username, "wrong").status_code == 401
    response = sign_in(own, stranger, ada.username, PASSWORD)
    assert response.status_code == 429, "else the answer would tell"
    clock.now += int(response.headers["retry-after"])
    assert sign_in(own, stranger, ada.username, PASSWORD).status_code == 200
    for _ in range(ATTEMPTS):
        assert sign_in(own, stranger, ada.username, "wrong").status_code == 401


def test_a_stranger_elsewhere_does_not_lock_the_owner_out(
    own: LocalService, ada: Person, stranger: Api, clock: Clock
) -> None:
    for _ in range(ATTEMPTS * 3):
        sign_in(own, stranger, ada.username, "wrong")
    assert sign_in(own, stranger, ada.username, PASSWORD).status_code == 429
    with caller_from(own, "127.66.0.1") as owner:
        assert sign_in(own, owner, ada.username, PASSWORD).status_code == 200


def test_other_spellings_of_a_name_are_no_way_around(
    own: LocalService, ada: Person, stranger: Api, clock: Clock
) -> None:
    for spelling in (ada.username, ada.username.upper(), ada.username.capitalize()):
        assert sign_in(own, stranger, spelling, "wrong").status_code == 401
    assert sign_in(own, stranger, ada.username, "wrong").status_code == 429


def test_many_at_once_are_no_way_around(own: LocalService, ada: Person, stranger: Api) -> None:
    forget_windows(own)
    body = {"username": ada.username, "password": "wrong"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: stranger.call("POST", "/auth/login", json=body), range(16))
        )
    codes = [answer.status_code for answer in answers]
    assert codes.count(401) <= ATTEMPTS
    assert set(codes) == {401, 429}


def test_one_address_cannot_try_everybody(own: LocalService, stranger: Api, clock: Clock) -> None:
    codes = [sign_in(own, stranger, f"user{number}", "wrong").status_code for number in range(40)]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_unknown_known_and_disabled_users_take_the_same_time() -> None:
    # With the real parameters of the hash: with none, the unknown would answer at once.
    own = LocalService(None, VOIDVM_LIMITS__LOGIN_ATTEMPTS="0")
    try:
        own.start()
        admin = own.api()
        names = ["admin", "nobody", person(own, admin, status="active").username]
        disabled = admin.ok("GET", f"/users/{names[2]}")["id"]
        admin.ok("PATCH", f"/users/{disabled}", {"status": "disabled"})
        best = dict.fromkeys(names, 60.0)
        answers: dict[str, Json] = {}
        for name in names * 3:
            begun = time.perf_counter()
            body = {"username": name, "password": "wrong password"}
            response = own.anybody().call("POST", "/auth/login", json=body)
            best[name] = min(best[name], time.perf_counter() - begun)
            error = response.json()["error"]
            error.pop("requestId")
            answers[name] = (response.status_code, error, sorted(response.headers))
        assert answers["nobody"] == answers["admin"] == answers[names[2]]
        assert max(best.values()) < 1.6 * min(best.values()), best
    finally:
        own.close()


# Who is who


def seen_address(own: LocalService, api: Api, forwarded: list[str]) -> str:
    """The address that the service takes the caller for, as its log has it."""
    forget_windows(own)
    headers = [("x-forwarded-for", value) for value in forwarded]
    headers.append(("content-type", "application/json"))
    response = api.client.post("/api/v1/auth/refresh", content=b"{}", headers=headers)
    own.run(own.services.audit.written())
    entries, _ = own.run(
        own.services.audit._store.page(
            user_id=None, level=None, since=None, until=None, page=1, limit=20
        )
    )
    request_id = response.headers["x-request-id"]
    return next(entry.address for entry in entries if entry.request_id == request_id)


@pytest.mark.parametrize(
    "forwarded", [["203.0.113.7"], ["203.0.113.7, 10.0.0.1"], ["10.0.0.1", PROXY], [""]]
)
def test_anybody_can_write_a_forwarded_header(own: LocalService, forwarded: list[str]) -> None:
    with caller_from(own, "127.55.0.1") as api:
        assert seen_address(own, api, forwarded) == "127.55.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([], PROXY),
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        # The client itself wrote what stands before the address that the first proxy saw.
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["10.0.0.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["127.0.0.1", "203.0.113.7"], "203.0.113.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:db8::1, fd00::5"], "2001:db8::1"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["fe80::1%eth0"], "fe80::1"),
        # Nonsense ends the chain at the last address that somebody trusted has seen.
        (["nonsense"], PROXY),
        (["203.0.113.7, nonsense"], PROXY),
        (["203.0.113.7, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["203.0.113.7:1234"], PROXY),
        ([",,"], PROXY),
    ],
)
def test_a_trusted_proxy_tells_who_called(
    own: LocalService, forwarded: list[str], address: str
) -> None:
    with caller_from(own, PROXY) as api:
        assert seen_address(own, api, forwarded) == address


def test_each_client_behind_a_proxy_has_its_own_limit(own: LocalService) -> None:
    with caller_from(own, PROXY) as api:
        forget_windows(own)
        first = {"x-forwarded-for": "203.0.113.9"}
        for _ in range(A_MINUTE):
            api.call("GET", "/vms", headers=first)
        assert api.call("GET", "/vms", headers=first).status_code == 429
        spoofed = {"x-forwarded-for": "198.51.100.3, 203.0.113.9"}
        assert api.call("GET", "/vms", headers=spoofed).status_code == 429
        other = {"x-forwarded-for": "203.0.113.10"}
        assert api.call("GET", "/vms", headers=other).status_code == 401


def test_a_network_of_ipv6_is_one_caller(own: LocalService) -> None:
    with caller_from(own, PROXY) as api:
        forget_windows(own)
        for number in range(A_MINUTE):
            headers = {"x-forwarded-for": f"2001:db8:1:1::{number:x}"}
            assert api.call("GET", "/vms", headers=headers).status_code == 401
        headers = {"x-forwarded-for": "2001:db8:1:1:ffff::1"}
        assert api.call("GET", "/vms", headers=headers).status_code == 429
        headers = {"x-forwarded-for": "2001:db8:1:2::1"}
        assert api.call("GET", "/vms", headers=headers).status_code == 401
