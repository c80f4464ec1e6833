"""A figure: the median of samples, their spread, and the target it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Literal

from msgspec import Struct

Side = Literal["at most", "at least"]


class Target(Struct, frozen=True):
    """The bound that the project has set itself."""

    side: Side
    value: float


class Samples(Struct, frozen=True, kw_only=True):
    """What was measured of one thing: median, quartiles, extremes and number."""

    what: str
    unit: str
    n: int
    median: float
    low: float
    high: float
    least: float
    most: float


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the report; `parts` are the two sides that it was made from."""

    key: str
    what: str
    value: Samples
    target: Target | None = None
    parts: tuple[Samples, ...] = ()

    @property
    def is_reached(self) -> bool | None:
        """Whether the median keeps to the target; None without one."""
        if self.target is None:
            return None
        if self.target.side == "at most":
            return self.value.median <= self.target.value
        return self.value.median >= self.target.value


def at_most(value: float) -> Target:
    """A target from above."""
    return Target("at most", value)


def at_least(value: float) -> Target:
    """A target from below."""
    return Target("at least", value)


def samples(what: str, values: Sequence[float], unit: str) -> Samples:
    """The summary of some values."""
    # One value has no quartiles of its own.
    low, _, high = quantiles([*values] * 2, n=4, method="inclusive")
    return Samples(
        what=what,
        unit=unit,
        n=len(values),
        median=median(values),
        low=low,
        high=high,
        least=min(values),
        most=max(values),
    )


def ratio(
    key: str,
    what: str,
    *,
    ours: tuple[str, Sequence[float]],
    limit: tuple[str, Sequence[float]],
    unit: str,
    target: Target | None,
) -> Figure:
    """Ours divided by the limit, pair by pair: both halves of a pair saw the same noise."""
    quotients = [one / other for one, other in zip(ours[1], limit[1], strict=True)]
    return Figure(
        key=key,
        what=what,
        value=samples(what, quotients, "x"),
        target=target,
        parts=(samples(*ours, unit), samples(*limit, unit)),
    )


def difference(
    key: str,
    what: str,
    *,
    ours: tuple[str, Sequence[float]],
    limit: tuple[str, Sequence[float]],
    unit: str,
    target: Target | None,
) -> Figure:
    """Ours minus the limit, pair by pair."""
    differences = [one - other for one, other in zip(ours[1], limit[1], strict=True)]
    return Figure(
        key=key,
        what=what,
        value=samples(what, differences, unit),
        target=target,
        parts=(samples(*ours, unit), samples(*limit, unit)),
    )


def plain(
    key: str, what: str, values: Sequence[float], unit: str, *, target: Target | None
) -> Figure:
    """A figure without a limit beside it."""
    return Figure(key=key, what=what, value=samples(what, values, unit), target=target)
