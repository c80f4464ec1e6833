"""The delay between sign-ins: how it grows, whom it holds up, and when it is forgotten."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from voidvm.errors import RateLimited
from voidvm.security import throttle
from voidvm.security.throttle import KEPT_MAX, LONGEST_S, LoginThrottle

FREE = 3


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(throttle, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


@pytest.fixture
def guard(clock: Clock) -> LoginThrottle:
    return LoginThrottle(lambda: FREE)


def wait_of(guard: LoginThrottle, account: str = "ada", address: str = "1.1.1.1") -> int:
    """Try and fail; the seconds to wait, or 0."""
    try:
        guard.begin(account, address)
    except RateLimited as error:
        found = error.fields["retry_after"]
        assert isinstance(found, int)
        return found
    return 0


def test_the_first_attempts_are_free(guard: LoginThrottle) -> None:
    assert [wait_of(guard) for _ in range(FREE)] == [0] * FREE
    assert wait_of(guard) >= 1


def test_each_failure_doubles_the_delay_up_to_a_limit(guard: LoginThrottle, clock: Clock) -> None:
    for _ in range(FREE):
        wait_of(guard)
    waits = []
    for _ in range(16):
        wait = wait_of(guard)
        waits.append(wait)
        clock.now += wait
        assert wait_of(guard) == 0
    assert waits == sorted(waits)
    assert waits[0] <= 2
    assert waits[5] >= 16 * waits[0]
    assert waits[-1] <= LONGEST_S + 1


def test_who_is_held_up_does_not_make_it_longer(guard: LoginThrottle) -> None:
    for _ in range(FREE):
        wait_of(guard)
    assert len({wait_of(guard) for _ in range(50)}) == 1


def test_the_wait_that_is_told_is_long_enough(guard: LoginThrottle, clock: Clock) -> None:
    for _ in range(FREE):
        wait_of(guard)
    clock.now += wait_of(guard)
    assert wait_of(guard) == 0


def test_a_success_forgets(guard: LoginThrottle) -> None:
    for _ in range(50):
        assert wait_of(guard) == 0
        guard.succeeded("ADA", "1.1.1.1")


def test_an_attempt_counts_before_it_has_failed(guard: LoginThrottle) -> None:
    # Many at once: none of them is over when the next one begins.
    assert [wait_of(guard) > 0 for _ in range(10)] == [False] * FREE + [True] * (10 - FREE)


def test_a_stranger_elsewhere_holds_up_nobody(guard: LoginThrottle, clock: Clock) -> None:
    for _ in range(FREE * 2):
        wait_of(guard, address="6.6.6.6")
    assert wait_of(guard, address="1.1.1.1") == 0


def test_many_addresses_cannot_share_one_account(guard: LoginThrottle) -> None:
    waits = [wait_of(guard, address=f"6.6.6.{number}") for number in range(FREE * 5 + 1)]
    assert waits[-2] == 0
    assert waits[-1] >= 1


def test_one_address_cannot_try_many_accounts(guard: LoginThrottle) -> None:
    waits = [wait_of(guard, account=f"user{number}") for number in range(FREE * 5 + 1)]
    assert waits[-2] == 0
    assert waits[-1] >= 1


def test_successes_do_not_use_up_what_many_share(guard: LoginThrottle) -> None:
    for number in range(100):
        assert wait_of(guard, account=f"user{number}") == 0
        guard.succeeded(f"user{number}", "1.1.1.1")


def test_names_are_the_same_in_any_case(guard: LoginThrottle) -> None:
    for account in ("ada", "ADA", "Ada"):
        assert wait_of(guard, account=account) == 0
    assert wait_of(guard, account="aDA") >= 1


def test_it_is_forgotten_after_a_while(guard: LoginThrottle, clock: Clock) -> None:
    for _ in range(FREE):
        wait_of(guard)
    clock.now += throttle.FORGOTTEN_AFTER_S + 1
    assert [wait_of(guard) for _ in range(FREE)] == [0] * FREE


def test_memory_is_bounded(guard: LoginThrottle, clock: Clock) -> None:
    for number in range(KEPT_MAX):
        wait_of(guard, account=f"a{number}", address=f"x{number}")
    assert len(guard._records) == KEPT_MAX


def test_nought_is_no_limit(clock: Clock) -> None:
    guard = LoginThrottle(lambda: 0)
    assert [wait_of(guard) for _ in range(100)] == [0] * 100
