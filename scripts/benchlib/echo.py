"""A keystroke and its echo: through the WebSocket, and on the same guest's PTY directly."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

from benchlib.figures import Figure, at_most, difference
from benchlib.line import direct
from benchlib.plan import Plan
from benchlib.service import Console, Service, service

TARGET = at_most(0.3)
# With `cat` the guest's kernel echoes by itself: nothing else of the guest is measured.
ECHOING = b"cat >/dev/null\n"
KEY, NEW_LINE = b"x", b"\n"
WARM_UP = 3


def measure(plan: Plan) -> list[Figure]:
    """Type a burst of keys on one way, then on the other; a figure is the burst's median."""
    bursts, keys = plan.count(40, quick=2), plan.count(25, quick=5)
    over: list[float] = []
    on_line: list[float] = []
    with service(accel=plan.accel, guest=plan.guest) as ours:
        ours.create("echo")
        ours.boot("echo")
        console = Console(ours, "echo")
        console.type(ECHOING)
        console.drain(0.5)
        for number in range(bursts):
            for way in ("socket", "line") if number % 2 else ("line", "socket"):
                if way == "socket":
                    over.append(_over_socket(console, keys))
                else:
                    on_line.append(_on_line(ours, keys))
        console.close()
    return [
        difference(
            "echo",
            "keystroke to echo through the WebSocket, less that on the PTY directly",
            ours=("WebSocket", over),
            limit=("PTY", on_line),
            unit="ms",
            target=TARGET,
        )
    ]


def _over_socket(console: Console, keys: int) -> float:
    console.type(NEW_LINE)
    console.drain(0.2)

    def echo() -> float:
        begin = time.perf_counter()
        console.type(KEY)
        while not console.read():
            pass
        return (time.perf_counter() - begin) * 1000

    return _burst(echo, keys)


def _on_line(ours: Service, keys: int) -> float:
    with direct(ours) as line:
        line.echo(NEW_LINE)
        line.discard(0.2)
        return _burst(lambda: line.echo(KEY), keys)


def _burst(echo: Callable[[], float], keys: int) -> float:
    times = []
    for _ in range(WARM_UP + keys):
        times.append(echo())
        # As a person's are, keys are no multiple of anybody's timer apart.
        time.sleep(random.uniform(0.003, 0.012))  # noqa: S311 - no secret
    return median(times[WARM_UP:])
