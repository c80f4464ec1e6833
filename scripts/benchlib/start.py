"""`POST …/start` to its answer, beside a bare QEMU with the same arguments."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchlib.bare import Bare, command_line, twin
from benchlib.figures import Figure, at_most, ratio
from benchlib.plan import Plan
from benchlib.service import Service, service

TARGET = at_most(1.15)
# The memory of a QEMU that has ended is given back a moment after its exit is seen.
PAUSE_S = 0.02


def measure(plan: Plan) -> list[Figure]:
    """Start and end the same VM by turns; which side begins changes from pair to pair."""
    with service(accel=plan.accel, guest=plan.guest) as ours:
        ours.create("start")
        started = ours.ask("POST", "/vms/start/start")
        theirs = command_line(started["pid"])
        folder = ours.folder / "bare"
        folder.mkdir()
        _stop(ours)
        bare = Bare(twin(ours, started, uuid=theirs[theirs.index("-uuid") + 1], folder=folder))
        try:
            bare.start()
            bare.check_same(theirs)
            bare.end()
            return [_compare(plan, ours, bare)]
        finally:
            bare.end()


def _compare(plan: Plan, ours: Service, bare: Bare) -> Figure:
    times: dict[str, list[float]] = {"service": [], "bare": []}
    for number in range(plan.count(60, quick=3)):
        order = ("service", "bare") if number % 2 else ("bare", "service")
        for side in order:
            if side == "service":
                times[side].append(_milliseconds(lambda: ours.ask_raw("POST", "/vms/start/start")))
                _stop(ours)
            else:
                times[side].append(_milliseconds(bare.start))
                bare.end()
                time.sleep(PAUSE_S)
    return ratio(
        "start",
        "POST …/start to its answer ÷ bare QEMU to `running`",
        ours=("POST …/start", times["service"]),
        limit=("bare QEMU", times["bare"]),
        unit="ms",
        target=TARGET,
    )


def _stop(ours: Service) -> None:
    ours.ask("POST", "/vms/start/stop", {"force": True})
    time.sleep(PAUSE_S)


def _milliseconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000
