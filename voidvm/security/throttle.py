"""Sign-in attempts: each failure beyond a few makes the next one wait longer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from voidvm.errors import RateLimited

LONGEST_S: Final = 900.0
FORGOTTEN_AFTER_S: Final = 3600.0
KEPT_MAX: Final = 20_000
# One address may stand for many people, one account may be tried from many addresses: alone,
# each is given more attempts than the pair, so that a stranger cannot lock somebody out.
_SPREAD: Final = 5


class _Record(Struct):
    failures: int = 0
    last: float = 0.0


class LoginThrottle:
    """Counts failures per account and address, in memory and bounded; `attempts()` 0: no limit."""

    def __init__(self, attempts: Callable[[], int]) -> None:
        self._attempts = attempts
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def begin(self, account: str, address: str) -> None:
        """Count an attempt as a failure until `succeeded` says otherwise.

        It is counted before the password is looked at, so that many at once are no way around.
        Raises `RateLimited` with the seconds to wait; known and unknown accounts alike.
        """
        wait = max((self._wait(key, free) for key, free in self._keys(account, address)), default=0)
        if wait > 0:
            seconds = max(1, round(wait + 0.5))
            raise RateLimited(f"try again in {seconds} s", retry_after=seconds)
        now = time.monotonic()
        for key, _ in self._keys(account, address):
            record = self._records.pop(key, None) or _Record()
            if now - record.last > FORGOTTEN_AFTER_S:
                record.failures = 0
            record.failures += 1
            record.last = now
            self._records[key] = record
        while len(self._records) > KEPT_MAX:
            self._records.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of this person at this address, and that this was one."""
        for number, (key, _) in enumerate(self._keys(account, address)):
            if number == 0:
                self._records.pop(key, None)
            elif (record := self._records.get(key)) is not None:
                record.failures -= 1

    def _keys(self, account: str, address: str) -> list[tuple[tuple[str, str], int]]:
        attempts = self._attempts()
        if not attempts:
            return []
        name = account.casefold()
        return [
            ((name, address), attempts),
            ((name, ""), attempts * _SPREAD),
            (("", address), attempts * _SPREAD),
        ]

    def _wait(self, key: tuple[str, str], free: int) -> float:
        record = self._records.get(key)
        if record is None or record.failures < free:
            return 0.0
        delay = min(LONGEST_S, 2.0 ** min(record.failures - free, 12))
        return record.last + delay - time.monotonic()
