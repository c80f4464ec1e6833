"""What is asked again by itself, and when."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx

from voidvm.client.failures import Untrusted, VoidVMError
from voidvm.client.requests import Request

FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 8.0
# Answers of a proxy before a service that is away.
_GATEWAY: Final = frozenset({502, 504})
# The request has not left this host.
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a request may be sent again, and how long all pauses may take together."""

    count: int = 4
    patience_s: float = 60.0

    def pause(
        self, request: Request[Any], failure: VoidVMError, *, tried: int, waited_s: float
    ) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if tried > self.count or not _may_repeat(request, failure):
            return None
        pause_s = failure.retry_after
        if pause_s is None:
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tried - 1))
            # So that those whom one failure stopped do not come back all at once.
            pause_s *= random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        return pause_s if waited_s + pause_s <= self.patience_s else None


def is_safe(request: Request[Any]) -> bool:
    """Whether the request does no harm when it arrives twice: all POSTs have a key of their own."""
    if request.is_repeatable is not None:
        return request.is_repeatable
    return request.method in {"GET", "HEAD", "POST"}


def _may_repeat(request: Request[Any], failure: VoidVMError) -> bool:
    if isinstance(failure, Untrusted):
        return False  # nor will it be the next time
    if failure.status == 429:
        return True  # it was not looked at
    if failure.status == 503:
        return failure.retry_after is not None or failure.code == "SERVICE_UNAVAILABLE"
    if failure.status in _GATEWAY or failure.status == 0:
        return is_safe(request) or isinstance(failure.__cause__, _UNSENT)
    return False


class Patience:
    """When to connect again after a connection broke, and when to give up."""

    def __init__(self, *, first_s: float, last_s: float, give_up_s: float) -> None:
        self._first_s = self._pause_s = first_s
        self._last_s = last_s
        self._give_up_s = give_up_s
        self._held_at: float | None = None
        self._lost_at: float | None = None

    @property
    def is_unbroken(self) -> bool:
        """Whether what breaks now has worked before, and is no further attempt."""
        return self._lost_at is None

    def held(self) -> None:
        """Note that there is a connection, which says something."""
        if self._held_at is None:
            self._held_at, self._lost_at = time.monotonic(), None

    def pause(self, cause: Exception) -> float:
        """Seconds until the next attempt, ever more; raises `cause` when it was away too long."""
        now = time.monotonic()
        # One that lasted longer than the last pause has earned the first again.
        if self._held_at is not None and now - self._held_at > self._pause_s:
            self._pause_s = self._first_s
        self._held_at = None
        if self._lost_at is None:
            self._lost_at = now
        elif now - self._lost_at > self._give_up_s:
            raise cause
        pause_s, self._pause_s = self._pause_s, min(self._last_s, 1.6 * self._pause_s)
        return pause_s
