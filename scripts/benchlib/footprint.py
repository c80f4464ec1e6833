"""What the service takes while nothing happens: memory, CPU, and the time of an import."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchlib.figures import Figure, at_most, difference, plain
from benchlib.listing import define
from benchlib.plan import Plan
from benchlib.service import Failed, Service, service

MEMORY_TARGET = at_most(80.0)
IDLE_TARGET = at_most(0.01)
IMPORT_TARGET = at_most(50.0)
QUIET_S = 60.0


def memory(plan: Plan) -> list[Figure]:
    """The service's proportional set size with 100 VMs defined, after it has been used."""
    vms = plan.count(100, quick=10)
    with service(accel=plan.accel) as ours:
        define(ours, vms)
        sizes = []
        for _ in range(plan.count(5, quick=1)):
            for _ in range(20):
                ours.ask("GET", "/vms?limit=200")
            sizes.append(pss_mb(ours.pid))
    what = f"the service's memory (PSS) with {vms} VMs defined"
    return [plain("memory", what, sizes, "MB", target=MEMORY_TARGET)]


def idle(plan: Plan) -> list[Figure]:
    """The service's CPU while VMs run whose guests do nothing: the firmware finds no system."""
    vms, seconds = plan.count(20, quick=2), plan.seconds(5.0, quick=0.5)
    with service(accel=plan.accel) as ours:
        for number in range(vms):
            ours.create(f"idle-{number}", os=None, memory=64, networks=[])
            ours.ask("POST", f"/vms/idle-{number}/start")
        if not plan.is_quick:
            wait_until_guests_idle(ours)
        cores = []
        for _ in range(plan.count(6, quick=1)):
            before, begin = ours.cpu_seconds(), time.perf_counter()
            time.sleep(seconds)
            cores.append((ours.cpu_seconds() - before) / (time.perf_counter() - begin))
    what = f"the idle service's CPU with {vms} VMs running"
    return [plain("idle", what, cores, "core", target=IDLE_TARGET)]


def imports(plan: Plan) -> list[Figure]:
    """`import voidvm` in a fresh interpreter, beside one that imports nothing."""
    times: dict[str, list[float]] = {"pass": [], "import voidvm": []}
    for number in range(plan.count(30, quick=2)):
        for code in sorted(times, reverse=bool(number % 2)):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[code].append((time.perf_counter() - begin) * 1000)
    return [
        difference(
            "import",
            "`import voidvm`, less a Python that imports nothing",
            ours=("import voidvm", times["import voidvm"]),
            limit=("bare Python", times["pass"]),
            unit="ms",
            target=IMPORT_TARGET,
        )
    ]


def pss_mb(pid: int) -> float:
    """What a process takes of the memory: its own, and its part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise Failed("the kernel does not tell a process's PSS")


def wait_until_guests_idle(ours: Service) -> None:
    """Wait for firmware to give up. Raises `Failed`."""
    guests = ours.guests()
    deadline = time.monotonic() + QUIET_S
    while time.monotonic() < deadline:
        used = sum(_cpu(guest) for guest in guests)
        time.sleep(2)
        # Firmware that has given up still counts its clock: some hundredths of a core.
        if sum(_cpu(guest) for guest in guests) - used < 0.06 * len(guests):
            return
    raise Failed("the guests do not come to rest")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
