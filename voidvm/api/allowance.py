"""How much may come in a second: a bucket that fills steadily."""

from __future__ import annotations


class Allowance:
    """Lets `burst` pass at once and `per_second` for ever; who takes more has to wait."""

    def __init__(self, *, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._filled = now

    def take(self, amount: float, *, now: float) -> float:
        """Take so much; the seconds to wait before the next is taken, 0 while something is left."""
        gained = (now - self._filled) * self._per_second
        self._left = min(self._burst, self._left + gained) - amount
        self._filled = now
        return max(0.0, -self._left / self._per_second)
