"""What is an end, what is started again, and after how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from voidvm.domain.restart import is_end, is_restarted, next_attempt
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Restart, RestartPolicy

NOW = datetime(2026, 11, 24, tzinfo=UTC)
S = VmStatus


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (S.CRASHED, "killed by signal 9", True),
        (S.CRASHED, None, True),
        (S.STOPPED, "guest-shutdown", True),
        (S.STOPPED, "host-signal", True),
        (S.STOPPED, "host-request", False),
        (S.STOPPED, "host-restart", False),
        (S.STOPPED, None, False),
        (S.PAUSED, "guest-panicked", True),
        (S.PAUSED, "kvm internal error", True),
        (S.PAUSED, "watchdog", True),
        (S.PAUSED, "io-error: no space", False),
        (S.PAUSED, "host-request", False),
        (S.ERROR, "did not start", False),
        (S.RUNNING, None, False),
        (S.UNRESPONSIVE, "QEMU does not answer", False),
    ],
)
def test_an_end_is_one_that_nobody_asked_for(
    status: VmStatus, reason: str | None, *, expected: bool
) -> None:
    assert is_end(status, reason) is expected


@pytest.mark.parametrize(
    ("policy", "after_shutdown", "after_crash"),
    [("never", False, False), ("on-failure", False, True), ("always", True, True)],
)
def test_a_policy_says_after_which_ends(
    policy: RestartPolicy, *, after_shutdown: bool, after_crash: bool
) -> None:
    assert is_restarted(policy, "guest-shutdown") is after_shutdown
    for reason in ("killed by signal 9", "host-signal", "guest-panicked"):
        assert is_restarted(policy, reason) is after_crash


def attempts(count: int, *, limit: int) -> list[tuple[float, bool]]:
    """The pause before each attempt, and whether it was given up."""
    found: list[tuple[float, bool]] = []
    restart: Restart | None = None
    for _ in range(count):
        restart = next_attempt(
            restart, reason="r", now=NOW, delay_s=0.5, max_delay_s=5, max_attempts=limit
        )
        at = restart.next_attempt_at
        found.append(((at - NOW) / timedelta(seconds=1) if at else -1, restart.gave_up))
    return found


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause for pause, _ in attempts(6, limit=0)] == [0.5, 1, 2, 4, 5, 5]
    assert attempts(2000, limit=0)[-1] == (5, False)


def test_the_limit_is_the_number_of_attempts() -> None:
    assert attempts(3, limit=2) == [(0.5, False), (1, False), (-1, True)]
