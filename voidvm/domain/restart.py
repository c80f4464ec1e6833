"""When a VM that ended by itself is started again, and after how long."""

from __future__ import annotations

from datetime import datetime, timedelta

from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Restart, RestartPolicy

GUEST_SHUTDOWN = "guest-shutdown"
HOST_SIGNAL = "host-signal"
# The guest does not come back from these without a reset, so that they are ends of its run.
FATAL = frozenset({"kvm internal error", "guest-panicked", "watchdog"})


def is_end(status: VmStatus, reason: str | None) -> bool:
    """Whether it says that a VM's run has ended though nobody asked for it."""
    if status is VmStatus.STOPPED:
        return reason in {GUEST_SHUTDOWN, HOST_SIGNAL}
    return status is VmStatus.CRASHED or (status is VmStatus.PAUSED and reason in FATAL)


def is_restarted(policy: RestartPolicy, reason: str) -> bool:
    """Whether a VM of this policy is started again after an end for that reason."""
    return policy == "always" or (policy == "on-failure" and reason != GUEST_SHUTDOWN)


def next_attempt(
    before: Restart | None,
    *,
    reason: str,
    now: datetime,
    delay_s: float,
    max_delay_s: float,
    max_attempts: int,
) -> Restart:
    """What follows an end: an attempt after a pause, each twice as long, or giving up.

    `max_attempts` 0: never.
    """
    made = before.attempts if before is not None else 0
    if max_attempts and made >= max_attempts:
        return Restart(attempts=made, gave_up=True, reason=reason)
    pause_s = min(max_delay_s, delay_s * 2.0 ** min(made, 64))
    return Restart(
        attempts=made + 1, next_attempt_at=now + timedelta(seconds=pause_s), reason=reason
    )
