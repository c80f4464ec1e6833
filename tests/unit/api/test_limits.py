"""The moving window of requests, and the places of sockets."""

from __future__ import annotations

from time import perf_counter

import pytest

from voidvm.api import windows
from voidvm.api.clients import network_of, networks, origins
from voidvm.api.limits import RequestLimit, SocketPlaces
from voidvm.errors import RateLimited


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    found = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: found[0])
    return found


async def is_free(limit: RequestLimit, caller: str = "ada") -> bool:
    try:
        await limit.take("user", caller)
    except RateLimited:
        return False
    return True


async def test_the_window_moves_with_each_request(now: list[float]) -> None:
    limit = RequestLimit(lambda: 3)
    for _ in range(3):
        assert await is_free(limit)
        now[0] += 10
    assert not await is_free(limit)
    now[0] += 29
    assert not await is_free(limit), "59 s after the first"
    now[0] += 2
    assert await is_free(limit)
    assert not await is_free(limit), "the second has not left the window"
    now[0] += 10
    assert await is_free(limit)


async def test_waiting_as_long_as_it_says_is_enough(now: list[float]) -> None:
    limit = RequestLimit(lambda: 5)
    for _ in range(5):
        now[0] += 3.3
        await limit.take("user", "ada")
    with pytest.raises(RateLimited) as caught:
        await limit.take("user", "ada")
    wait_s = caught.value.fields["retry_after"]
    assert isinstance(wait_s, int)
    now[0] += wait_s
    assert await is_free(limit)


async def test_what_was_refused_does_not_count(now: list[float]) -> None:
    limit = RequestLimit(lambda: 2)
    for _ in range(50):
        await is_free(limit)
    now[0] += 61
    assert await is_free(limit)


async def test_kinds_and_callers_are_apart(now: list[float]) -> None:
    limit = RequestLimit(lambda: 1)
    for kind, caller in (("user", "x"), ("address", "x"), ("user", "y")):
        headers = await limit.take(kind, caller)
        assert headers["ratelimit-remaining"] == "0"


async def test_only_the_first_refusal_of_a_minute_is_news(now: list[float]) -> None:
    limit, news = RequestLimit(lambda: 1), []
    for _ in range(4):
        try:
            await limit.take("user", "x")
        except RateLimited as error:
            news.append(error.fields["is_news"])
    assert news == [True, False, False]


async def test_memory_is_bounded_and_forgets_who_asked_longest_ago(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "KEPT_MAX", 10)
    limit = RequestLimit(lambda: 1)
    moments = limit._limiter.storage._moments  # type: ignore[attr-defined]  # our own storage
    for number in range(100):
        now[0] += 0.01
        assert await is_free(limit, f"c{number}")
        assert len(moments) <= 10
    assert not await is_free(limit, "c99")
    now[0] += 61
    assert await is_free(limit, "new")
    assert len(moments) == 1, "windows that are over are dropped"


async def test_a_request_costs_the_same_whoever_else_there_is(now: list[float]) -> None:
    # The storage of the library itself walks over all callers, in a thread each.
    limit = RequestLimit(lambda: 100)
    for number in range(20_000):
        await limit.take("address", f"a{number}")
    begun = perf_counter()
    for _ in range(100):
        await limit.take("user", "ada")
    assert perf_counter() - begun < 0.5


async def test_nought_is_no_limit() -> None:
    limit = RequestLimit(lambda: 0)
    assert [await limit.take("user", "x") for _ in range(500)] == [{}] * 500


def test_places_are_given_back_whatever_happens() -> None:
    places = SocketPlaces(lambda: 1)

    def fail() -> None:
        with places.taken("ada") as has_place:
            assert has_place
            with places.taken("ada") as has_another, places.taken("bob") as other:
                assert (has_another, other) == (False, True)
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert not places._taken


def test_no_limit_of_places() -> None:
    places = SocketPlaces(lambda: 0)
    with places.taken("x"), places.taken("x") as has_place:
        assert has_place


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_what_one_caller_has_of_addresses(address: str, network: str) -> None:
    assert network_of(address) == network


def test_origins_are_written_as_browsers_do() -> None:
    assert origins(["HTTPS://UI.example.org/", "http://localhost:8080"]) == {
        "https://ui.example.org",
        "http://localhost:8080",
    }


def test_networks_may_be_single_addresses() -> None:
    assert [str(one) for one in networks(["10.0.0.1", "10.1.2.3/8", "fd00::/8"])] == [
        "10.0.0.1/32",
        "10.0.0.0/8",
        "fd00::/8",
    ]
