"""A QEMU that has turned against the service: rubbish, a line without an end, a storm of events."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import httpx

from tests.fakes.hostile_qemu import BEHAVIOURS
from tests.faults.actors import SMALL
from tests.faults.drill import DRILLS, Drill, Registered, Rest

LOOK_MAX_S = 2.0
STOP_MAX_S = 15.0
TOLD_BYTES, INCIDENT_BYTES = 20_000, 200_000
# Nothing that hurts: tests/real/test_sick_qemu.py has them.
HARMLESS = {"brief"}
# What a QEMU can make the service hold, whatever it sends.
HELD_BYTES = 96 * 1024**2


def start_and_stop(drill: Drill, behaviour: str) -> None:
    """Whatever a VM's QEMU does, it can be forced off, and nobody else notices."""
    assert drill.ground.behaviour is not None
    drill.ground.behaviour.write_text(f"{behaviour} {drill.seed}")
    vm_id = drill.admin.ok("POST", "/vms", {"name": "hostile", **SMALL})["id"]
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(drill.admin.call, "POST", f"/vms/{vm_id}/start")
        _watch(drill, starting)
        answer = starting.result()
    drill.note(f"start: {answer.status_code} {answer.text[:300]}")
    assert len(answer.content) < TOLD_BYTES
    _watch(drill, None)
    drill.note(f"then: {drill.admin.ok('GET', f'/vms/{vm_id}')['status']}")
    began = time.monotonic()
    stopped = drill.admin.call("POST", f"/vms/{vm_id}/stop", json={"force": True})
    assert stopped.status_code in {200, 409}, stopped.text
    assert time.monotonic() - began < STOP_MAX_S
    told = drill.admin.call("GET", f"/vms/{vm_id}/incidents")
    assert len(told.content) < INCIDENT_BYTES


for name in [each for each in BEHAVIOURS if each not in HARMLESS]:
    run = partial(start_and_stop, behaviour=name)
    DRILLS.append(Registered(name=f"a_qemu_turns_hostile_{name}", ground="hostile", run=run))


def _watch(drill: Drill, starting: Future[httpx.Response] | None) -> None:
    """Others are served and memory is bounded, while it starts or for as long as a storm takes."""
    rest = drill.ground.rest
    assert rest is not None
    until = time.monotonic() + 2.5
    while time.monotonic() < until if starting is None else not starting.done():
        began = time.monotonic()
        drill.admin.ok("GET", "/vms")
        took = time.monotonic() - began
        memory = Rest.of(drill.service.pid).memory_bytes - rest.memory_bytes
        drill.note(f"list after {took:.3f} s, {memory // 1024**2} MiB more than at rest")
        assert took < LOOK_MAX_S
        assert memory < HELD_BYTES
        time.sleep(0.1)
