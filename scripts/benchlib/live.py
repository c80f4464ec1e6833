"""What the service takes while many VMs run and are watched, and how late news is."""

from __future__ import annotations

import time
from statistics import quantiles

from benchlib.figures import Figure, at_most, plain
from benchlib.footprint import pss_mb, wait_until_guests_idle
from benchlib.plan import Plan
from benchlib.service import Failed, Service, service
from benchlib.subscribers import Subscribers, subscribed

CPU_TARGET = at_most(0.05)
MEMORY_TARGET = at_most(120.0)
DELAY_TARGET = at_most(50.0)
SUBSCRIBERS = 20
# A change of a VM is an event; so many a second are told meanwhile.
EVENT_EVERY_S = 0.05


def measure(plan: Plan) -> list[Figure]:
    """CPU, memory and the delay of events with 50 VMs running and 20 subscribers at 5 seconds."""
    vms, seconds = plan.count(50, quick=2), plan.seconds(15.0, quick=1.0)
    with service(accel=plan.accel, VOIDVM_LIMITS__WEBSOCKETS_PER_USER="0") as ours:
        for number in range(vms):
            ours.create(f"live-{number}", os=None, memory=64)
            ours.ask("POST", f"/vms/live-{number}/start")
        if not plan.is_quick:
            wait_until_guests_idle(ours)
        cores, sizes = [], []
        with subscribed(ours, count=SUBSCRIBERS) as clients:
            for _ in range(plan.count(8, quick=1)):
                before, begin = ours.cpu_seconds(), time.perf_counter()
                time.sleep(seconds)
                cores.append((ours.cpu_seconds() - before) / (time.perf_counter() - begin))
                sizes.append(pss_mb(ours.pid))
            if not plan.is_quick and not clients.samples:
                raise Failed("no measurement has reached a subscriber")
            delays = [
                _slowest(ours, clients, events=plan.count(60, quick=5))
                for _ in range(plan.count(6, quick=1))
            ]
    what = f"with {vms} VMs running and {SUBSCRIBERS} subscribers to all news"
    return [
        plain("live-cpu", f"the service's CPU {what}", cores, "core", target=CPU_TARGET),
        plain(
            "live-memory", f"the service's memory (PSS) {what}", sizes, "MB", target=MEMORY_TARGET
        ),
        plain(
            "live-delay",
            f"an event from the disk to a subscriber, 99th percentile, {what}",
            delays,
            "ms",
            target=DELAY_TARGET,
        ),
    ]


def _slowest(ours: Service, clients: Subscribers, *, events: int) -> float:
    """The 99th percentile of the delays of some events at all subscribers, in milliseconds."""
    first = len(clients.delays)
    for number in range(events):
        ours.ask("PATCH", "/vms/live-0", {"description": f"number {number} of {first}"})
        time.sleep(EVENT_EVERY_S)
    deadline = time.monotonic() + 10
    while len(clients.delays) < first + events * SUBSCRIBERS:
        if time.monotonic() > deadline:
            raise Failed("not every event has reached every subscriber")
        time.sleep(0.05)
    return quantiles(clients.delays[first:], n=100)[98]
