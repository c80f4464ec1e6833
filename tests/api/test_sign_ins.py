"""Sign-ins that fail: the delay grows, and nothing tells who there is."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

from tests.support.contract import Api, Json
from tests.support.limited import ATTEMPTS, caller_from, forget_windows
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person


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


def sign_in(limited: LocalService, api: Api, username: str, password: str) -> httpx.Response:
    forget_windows(limited)
    return api.call("POST", "/auth/login", json={"username": username, "password": password})


def test_the_delay_grows_alike_for_known_and_unknown_users(
    limited: LocalService, visitor: Person, stranger: Api, clock: Clock
) -> None:
    def story(username: str) -> list[tuple[int, str, str]]:
        told = []
        for _ in range(ATTEMPTS + 6):
            response = sign_in(limited, stranger, username, "wrong")
            error = response.json()["error"]
            told.append((response.status_code, error["code"], error["message"]))
            if response.status_code == 429:
                wait_s = int(response.headers["retry-after"])
                told.append((wait_s, error["details"], ""))
                clock.now += wait_s
        return told

    known = story(visitor.username)
    clock.now += 7200
    unknown = story("nobody-of-that-name")
    assert known == unknown
    waits = [one[0] for one in known if one[2] == ""]
    assert waits == sorted(waits)
    assert waits[-1] > waits[0] >= 1


def test_the_right_password_waits_too_and_then_ends_it(
    limited: LocalService, visitor: Person, stranger: Api, clock: Clock
) -> None:
    for _ in range(ATTEMPTS):
        assert sign_in(limited, stranger, visitor.username, "wrong").status_code == 401
    response = sign_in(limited, stranger, visitor.username, PASSWORD)
    assert response.status_code == 429, "else the answer would tell"
    clock.now += int(response.headers["retry-after"])
    assert sign_in(limited, stranger, visitor.username, PASSWORD).status_code == 200
    for _ in range(ATTEMPTS):
        assert sign_in(limited, stranger, visitor.username, "wrong").status_code == 401


def test_a_stranger_elsewhere_does_not_lock_the_owner_out(
    limited: LocalService, visitor: Person, stranger: Api, clock: Clock
) -> None:
    for _ in range(ATTEMPTS * 3):
        sign_in(limited, stranger, visitor.username, "wrong")
    assert sign_in(limited, stranger, visitor.username, PASSWORD).status_code == 429
    with caller_from(limited, "127.66.0.1") as owner:
        assert sign_in(limited, owner, visitor.username, PASSWORD).status_code == 200


def test_other_spellings_of_a_name_are_no_way_around(
    limited: LocalService, visitor: Person, stranger: Api, clock: Clock
) -> None:
    for spelling in (visitor.username, visitor.username.upper(), visitor.username.capitalize()):
        assert sign_in(limited, stranger, spelling, "wrong").status_code == 401
    assert sign_in(limited, stranger, visitor.username, "wrong").status_code == 429


def test_many_at_once_are_no_way_around(
    limited: LocalService, visitor: Person, stranger: Api
) -> None:
    forget_windows(limited)
    body = {"username": visitor.username, "password": "wrong"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: stranger.call("POST", "/auth/login", json=body), range(16))
        )
    codes = [answer.status_code for answer in answers]
    assert codes.count(401) <= ATTEMPTS
    assert set(codes) == {401, 429}


def test_one_address_cannot_try_everybody(
    limited: LocalService, stranger: Api, clock: Clock
) -> None:
    codes = [
        sign_in(limited, stranger, f"user{number}", "wrong").status_code for number in range(40)
    ]
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
