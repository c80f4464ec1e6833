"""Samples become means of steps, and means samples again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.measured import NOON, disk_rates, host_sample, vm_sample
from voidvm.domain.metrics import HostSample, VmSample
from voidvm.domain.rollup import (
    DAY_S,
    HOUR_S,
    POINTS_MAX,
    Incomplete,
    Mean,
    choose,
    flat,
    grouped,
    levels,
    merged,
    restored,
    start_of,
)

AT = datetime.fromtimestamp(NOON, UTC)
ID = "vm-0123456789ab"


def test_a_sample_survives_being_taken_apart() -> None:
    for vm in (
        vm_sample(NOON),
        vm_sample(NOON, disk=disk_rates(7.5), guest_used_bytes=3),
    ):
        assert restored(VmSample, flat(vm), vm_id=ID, at=AT) == vm
    host = host_sample(NOON, cores=12)
    assert restored(HostSample, flat(host), at=AT) == host


def test_what_is_null_is_left_out_and_comes_back_null() -> None:
    values = flat(vm_sample(NOON))
    assert not [path for path in values if path.startswith(("disk", "network"))]
    assert "memory.guest_used_bytes" not in values
    found = restored(VmSample, values, vm_id=ID, at=AT)
    assert (found.disk, found.network, found.memory.guest_used_bytes) == (None, None, None)


def test_a_sample_that_lacks_a_number_is_refused() -> None:
    values = flat(vm_sample(NOON))
    del values["cpu.percent"]
    with pytest.raises(Incomplete, match=r"VmCpu\.percent"):
        restored(VmSample, values, vm_id=ID, at=AT)


def test_what_a_later_version_measured_is_passed_over() -> None:
    sample = vm_sample(NOON)
    assert restored(VmSample, {**flat(sample), "gpu.percent": 1.0}, vm_id=ID, at=AT) == sample


def test_means_are_weighted() -> None:
    mean = merged(Mean(1, {"a": 10.0, "n": 10}), Mean(3, {"a": 2.0, "n": 3}))
    assert (mean.weight, mean.values) == (4, {"a": 4.0, "n": 5})
    assert isinstance(mean.values["n"], int), "bytes stay whole"


def test_a_null_does_not_pull_the_mean_down() -> None:
    one, other = Mean(1, {"a": 10.0}), Mean(5, {"b": 1.0})
    assert merged(one, other) == merged(other, one) == (6, {"a": 10.0, "b": 1.0})


def test_steps_are_no_finer_than_the_interval() -> None:
    def steps(interval_s: int) -> list[tuple[int, int]]:
        return [(level.step_s, level.kept_s // HOUR_S) for level in levels(interval_s)]

    assert steps(1) == steps(5) == [(5, 1), (60, 24), (900, 720)]
    assert steps(7) == [(7, 1), (60, 24), (900, 720)]
    assert steps(120) == [(120, 24), (900, 720)]
    assert steps(3600) == [(3600, 720)]


def test_a_step_begins_at_its_multiple() -> None:
    assert [start_of(NOON + more, 5) - NOON for more in (0, 4.999, 5)] == [0, 0, 5]


@pytest.mark.parametrize(
    ("age_s", "span_s", "found"),
    [
        (HOUR_S, HOUR_S, (5, 5)),
        (HOUR_S + 30, HOUR_S, (5, 5)),
        (HOUR_S + 90, 60, (60, 60)),
        (DAY_S, DAY_S, (60, 60)),
        (DAY_S, 60, (60, 60)),
        (7 * DAY_S, 7 * DAY_S, (900, 900)),
        (30 * DAY_S, 30 * DAY_S, (900, 1800)),
        (300 * DAY_S, 300 * DAY_S, (900, 900 * 20)),
    ],
)
def test_the_finest_steps_that_reach_back_are_chosen(
    age_s: float, span_s: float, found: tuple[int, int]
) -> None:
    assert choose(levels(5), age_s=age_s, span_s=span_s) == found
    assert span_s / found[1] <= POINTS_MAX


def test_steps_are_joined_to_longer_ones() -> None:
    start = int(NOON)
    means = {start + 900 * n: Mean(n + 1, {"a": float(n)}) for n in range(4)}
    joined = grouped(means, 1800)
    assert {at - start: mean.weight for at, mean in joined.items()} == {0: 3, 1800: 7}
    assert joined[start].values["a"] == pytest.approx(2 / 3)
