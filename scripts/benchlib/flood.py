"""A guest that floods its console: what reaches a viewer, and what it costs the service."""

from __future__ import annotations

import select
import time
from collections import defaultdict
from pathlib import Path

from msgspec import Struct

from benchlib.figures import Figure, at_least, at_most, plain, ratio
from benchlib.line import direct
from benchlib.plan import Plan
from benchlib.service import Console, Service, service

COST_TARGET = at_most(0.15)
OUTPUT_TARGET = at_least(0.9)
VIEWERS = (0, 1, 3)
SETTLE_S = 1.0
# 64 bytes a line, for ever.
FLOOD = b"yes 012345678901234567890123456789012345678901234567890123456789012\n"
INTERRUPT = b"\x03"


class Phase(Struct, frozen=True):
    """What one way of reading saw: bytes a second, and cores that the service used."""

    guest_rate: float
    read_rate: float
    cores: float


def measure(plan: Plan) -> list[Figure]:
    """By turns read the PTY ourselves, then let the service read for 0, 1 and 3 viewers."""
    rounds, seconds = plan.count(6, quick=1), plan.seconds(2.0, quick=0.3)
    with service(accel=plan.accel, guest=plan.guest) as ours:
        vm = ours.create("flood")
        ours.boot("flood")
        log = ours.data / "vms" / vm["id"] / "console.log"
        keyboard = Console(ours, "flood")
        keyboard.type(FLOOD)
        keyboard.close()
        phases: dict[str, list[Phase]] = defaultdict(list)
        for number in range(rounds):
            steps = ["direct", *map(str, VIEWERS)]
            for step in steps if number % 2 else reversed(steps):
                if step == "direct":
                    phases[step].append(_read_directly(ours, log, seconds))
                else:
                    phases[step].append(_let_read(ours, log, seconds, viewers=int(step)))
    return _figures(phases)


def _figures(phases: dict[str, list[Phase]]) -> list[Figure]:
    limit = [phase.read_rate / 1000 for phase in phases["direct"]]
    found = [
        ratio(
            "output",
            "console output over WebSocket ÷ the same guest's PTY read directly",
            ours=("WebSocket", [phase.read_rate / 1000 for phase in phases["1"]]),
            limit=("PTY", limit),
            unit="kB/s",
            target=OUTPUT_TARGET,
        )
    ]
    for viewers in map(str, VIEWERS):
        cores = [phase.cores for phase in phases[viewers]]
        rates = [phase.guest_rate / 1000 for phase in phases[viewers]]
        found += [
            plain(
                f"flood-{viewers}",
                f"the service's CPU under a flood, viewers: {viewers}",
                cores,
                "core",
                target=COST_TARGET,
            ),
            ratio(
                f"rate-{viewers}",
                f"the guest's own rate meanwhile ÷ with its PTY read directly, viewers: {viewers}",
                ours=("with the service", rates),
                limit=("directly", [phase.guest_rate / 1000 for phase in phases["direct"]]),
                unit="kB/s",
                target=OUTPUT_TARGET,
            ),
        ]
    return found


def _read_directly(ours: Service, log: Path, seconds: float) -> Phase:
    with direct(ours) as line:
        line.count(SETTLE_S / 4)
        begin, size = time.perf_counter(), log.stat().st_size
        read = line.count(seconds)
        took = time.perf_counter() - begin
        return Phase((log.stat().st_size - size) / took, read / took, 0.0)


def _let_read(ours: Service, log: Path, seconds: float, *, viewers: int) -> Phase:
    consoles = [Console(ours, "flood") for _ in range(viewers)]
    try:
        _drain(consoles, SETTLE_S)
        cpu = ours.cpu_seconds()
        begin, size = time.perf_counter(), log.stat().st_size
        read = _drain(consoles, seconds)
        took = time.perf_counter() - begin
        return Phase(
            (log.stat().st_size - size) / took,
            read / took / max(1, viewers),
            (ours.cpu_seconds() - cpu) / took,
        )
    finally:
        for console in consoles:
            console.close()


def _drain(consoles: list[Console], seconds: float) -> int:
    size, end = 0, time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        if not consoles:
            time.sleep(left)
            continue
        for console in select.select(consoles, [], [], left)[0]:
            size += console.take()
    return size
