"""While the host's guests are powered off nothing starts by itself, nor just after."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest

from tests.fakes.qemu import Behaviour
from tests.support.service import eventually
from tests.support.upkeep import Bed, upkeep
from voidvm.cli import host as command
from voidvm.domain.system import PowerOff


@pytest.fixture
def bed() -> Iterator[Bed]:
    with upkeep() as bed:
        yield bed


def power_off(bed: Bed, timeout_s: float = 5.0) -> object:
    return bed.service.run(bed.service.services.host_power.power_off(timeout_s=timeout_s))


def calm_is_over(bed: Bed) -> None:
    bed.service.do(bed.service.services.host_power._starting.free)


def test_one_that_crashed_waits_until_the_host_is_down_and_obeys_a_stop(bed: Bed) -> None:
    vms = [bed.create(name, restartPolicy="always", start=True) for name in ("a", "b")]
    for vm in vms:
        bed.kill(vm)
    bed.waits(1, 1)
    assert power_off(bed) == PowerOff(powered_off=[], ended=[])
    bed.advance(1)
    bed.waits()
    bed.api.stop(vms[0])
    assert bed.host.alive() == {}
    # The host did not go down.
    calm_is_over(bed)
    bed.until(vms[1], "running")
    bed.waits(60)
    assert bed.show(vms[0])["status"] == "stopped"


def test_a_guest_that_switches_itself_off_meanwhile_stays_off(bed: Bed) -> None:
    slow = bed.create("slow")
    bed.host.plan(slow, Behaviour(obeys_power_button=False))
    bed.api.start(slow)
    vm = bed.create("other", restartPolicy="always", autostart={"enabled": True}, start=True)
    thread = Thread(target=power_off, args=(bed, 2.0))
    thread.start()
    bed.until(slow, "stopping")
    bed.service.do(bed.qemu(vm).power_off)
    bed.waits(1)
    bed.advance(1)
    thread.join()
    assert bed.host.alive() == {}
    assert len(bed.host.launched) == 2
    # It comes back with the host, once.
    bed.restart(boot="second boot")
    bed.until(vm, "running")
    assert len(bed.host.launched) == 3


def test_a_start_under_way_is_powered_off_too(bed: Bed) -> None:
    vm = bed.create("under-way", restartPolicy="always", autostart={"enabled": True})
    bed.host.plan(vm, Behaviour(is_hung=True))
    bed.restart(boot="second boot")
    bed.has_launched(1)
    power_off(bed, 0.2)
    assert bed.host.alive() == {}
    eventually(lambda: bed.show(vm)["status"] == "stopped")
    bed.advance(1000)
    assert bed.host.alive() == {}


def test_where_no_service_runs_none_is_started_to_be_powered_off(bed: Bed) -> None:
    due = bed.create("due", autostart={"enabled": True})
    vm = bed.create("crashed", restartPolicy="always", start=True)
    bed.kill(vm)
    bed.waits(1)
    bed.service.stop()
    bed.service.do(lambda: bed.clock.advance(10))
    with bed.service._fakes():
        done = bed.service.run(command._power_off(bed.service.settings, 1.0))
    assert done == {"poweredOff": [], "ended": []}
    assert len(bed.host.launched) == 1
    # Both come back with the host.
    bed.service.boot = "second boot"
    bed.service.start()
    bed.api = bed.service.api()
    for one in (due, vm):
        bed.until(one, "running")
