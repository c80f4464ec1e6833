"""What the service takes while many VMs run and are measured."""

from __future__ import annotations

import time

from benchlib.figures import Figure, at_most, plain
from benchlib.footprint import pss_mb, wait_until_guests_idle
from benchlib.plan import Plan
from benchlib.service import service

CPU_TARGET = at_most(0.05)
MEMORY_TARGET = at_most(120.0)


def measure(plan: Plan) -> list[Figure]:
    """The service's CPU and memory while 50 VMs run and are measured every 5 seconds."""
    vms, seconds = plan.count(50, quick=2), plan.seconds(15.0, quick=1.0)
    with service(accel=plan.accel) as ours:
        for number in range(vms):
            ours.create(f"live-{number}", os=None, memory=64)
            ours.ask("POST", f"/vms/live-{number}/start")
        if not plan.is_quick:
            wait_until_guests_idle(ours)
        cores, sizes = [], []
        for _ in range(plan.count(8, quick=1)):
            before, begin = ours.cpu_seconds(), time.perf_counter()
            time.sleep(seconds)
            cores.append((ours.cpu_seconds() - before) / (time.perf_counter() - begin))
            sizes.append(pss_mb(ours.pid))
    what = f"with {vms} VMs running and measured"
    return [
        plain("live", f"the service's CPU {what}", cores, "core", target=CPU_TARGET),
        plain("live", f"the service's memory (PSS) {what}", sizes, "MB", target=MEMORY_TARGET),
    ]
