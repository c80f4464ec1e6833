"""History at falling resolution: what is measured is averaged into steps of the clock.

A sample is taken apart into its numbers, by path (`cpu.percent`, `cpu.perCore.0`); one that is
null is left out, so that means are of what was known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_type_hints

from msgspec import Struct

Number = int | float
K = TypeVar("K")
S = TypeVar("S", bound=Struct)

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
POINTS_MAX: Final = 1500
# Who asks for the last hour means the finest steps, though a moment has passed meanwhile.
LATE_S: Final = 60
# Of the host, beside those of the VMs, whose subject is their id.
HOST: Final = "host"
# The subject and the moment are no numbers: they stand beside them.
_BESIDE: Final = frozenset({"vm_id", "at"})


class Level(Struct, frozen=True, kw_only=True):
    """One resolution, and for how long it is kept (seconds)."""

    step_s: int
    kept_s: int


class Key(NamedTuple):
    """A step of the clock (Unix seconds) in the history of a subject."""

    subject: str
    step_s: int
    at: int


class Mean(NamedTuple):
    """The mean of `weight` samples."""

    weight: int
    values: Mapping[str, Number]


def levels(interval_s: int) -> tuple[Level, ...]:
    """5 s for an hour, 1 min for a day, 15 min for 30 days; no finer than what is measured."""
    kept: dict[int, int] = {}
    for step_s, kept_s in ((5, HOUR_S), (60, DAY_S), (900, 30 * DAY_S)):
        kept[max(step_s, interval_s)] = kept_s
    return tuple(Level(step_s=step_s, kept_s=kept_s) for step_s, kept_s in kept.items())


def start_of(moment: float, step_s: int) -> int:
    """When the step began that a moment lies in."""
    return int(moment // step_s) * step_s


def merged(one: Mean, other: Mean) -> Mean:
    """The mean of all samples of both; whole numbers stay whole."""
    weight = one.weight + other.weight
    values = dict(other.values)
    for path, value in one.values.items():
        more = other.values.get(path)
        if more is None:
            values[path] = value
        else:
            mean = (value * one.weight + more * other.weight) / weight
            is_whole = isinstance(value, int) and isinstance(more, int)
            values[path] = round(mean) if is_whole else mean
    return Mean(weight, values)


def put(means: dict[K, Mean], key: K, values: Mapping[str, Number]) -> None:
    """Add one sample to the means."""
    fresh = Mean(1, values)
    before = means.get(key)
    means[key] = fresh if before is None else merged(before, fresh)


def choose(known: Sequence[Level], *, age_s: float, span_s: float) -> tuple[int, int]:
    """The step to read, and the resolution to answer with, which is that or a multiple of it.

    The finest that still reaches back to `age_s` and gives a span no more than `POINTS_MAX`.
    """
    for level in known:
        if age_s <= level.kept_s + LATE_S and span_s <= level.step_s * POINTS_MAX:
            return level.step_s, level.step_s
    step_s = known[-1].step_s
    return step_s, step_s * max(1, math.ceil(span_s / step_s / POINTS_MAX))


def grouped(means: Mapping[int, Mean], resolution_s: int) -> dict[int, Mean]:
    """The means of longer steps."""
    found: dict[int, Mean] = {}
    for at, mean in means.items():
        start = start_of(at, resolution_s)
        before = found.get(start)
        found[start] = mean if before is None else merged(before, mean)
    return found


def flat(sample: Struct) -> dict[str, Number]:
    """The numbers of a sample that are known."""
    found: dict[str, Number] = {}
    _collect(sample, "", found)
    return found


def _collect(value: object, path: str, found: dict[str, Number]) -> None:
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            if path or name not in _BESIDE:
                _collect(getattr(value, name), f"{path}.{name}" if path else name, found)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _collect(item, f"{path}.{number}", found)
    elif isinstance(value, int | float):
        found[path] = value


class Incomplete(ValueError):
    """A number that a sample must have is not known."""


def restored(kind: type[S], values: Mapping[str, Number], **beside: object) -> S:
    """A sample of numbers by path, and of what stands beside them. Raises `Incomplete`.

    It lacks a part, where it may, when no number of that part is known.
    """
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *folders, name = path.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = round(value, 2) if isinstance(value, float) else value
    return _filled(kind, {**tree, **beside})


def _filled(kind: type[S], tree: Mapping[str, Any]) -> S:
    found: dict[str, Any] = {}
    for name, (part, is_nullable) in _fields(kind).items():
        value = tree.get(name)
        if value is None and not is_nullable:
            raise Incomplete(f"{kind.__name__}.{name}")
        if value is not None and part is not None:
            value = _filled(part, value)
        elif isinstance(value, dict):
            value = [value[number] for number in sorted(value, key=int)]
        found[name] = value
    return kind(**found)


@cache
def _fields(kind: type[Struct]) -> dict[str, tuple[type[Struct] | None, bool]]:
    """Of each field the struct that it holds, if it does, and whether it may be null."""
    found: dict[str, tuple[type[Struct] | None, bool]] = {}
    for name, hint in get_type_hints(kind).items():
        if name in kind.__struct_fields__:
            kinds = get_args(hint) or (hint,)
            structs = [one for one in kinds if isinstance(one, type) and issubclass(one, Struct)]
            found[name] = (structs[0] if structs else None, NoneType in kinds)
    return found
