"""Measurements of real QEMUs: sick ones cost nobody theirs, and a new service goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.guests import frozen
from tests.support.service import Service, eventually


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that measures every second."""
    service = Service(VOIDVM_METRICS__INTERVAL="1")
    try:
        service.start()
        yield service
    finally:
        service.close()


def latest(api: Api, vm: Json) -> Json | None:
    return api.ok("GET", f"/vms/{vm['id']}/metrics")["latest"]


def after(api: Api, vm: Json, moment: str, *, has_disk: bool) -> Json:
    """The first sample after a moment in which QEMU has answered, or has not."""

    def look() -> Json | None:
        found = latest(api, vm)
        if found is None or found["at"] <= moment:
            return None
        return found if (found["disk"] is not None) is has_disk else None

    return eventually(look)


def test_a_vm_is_measured_from_its_start(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm(cpu=2, memory=64)["id"])
    found = after(api, vm, "", has_disk=True)
    assert found["cpu"]["count"] == 2
    assert 0 <= found["cpu"]["percent"] <= 100
    memory = found["memory"]
    assert memory["residentBytes"] > 10 * 1024**2
    # The balloon leaves firmware all of it; no driver tells what is used.
    assert memory["limitBytes"] == memory["balloonBytes"] == 64 * 1024**2
    assert (memory["guestUsedBytes"], found["network"]) == (None, None)


def test_a_microvm_has_no_balloon(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm(machine="microvm")["id"])
    assert after(api, vm, "", has_disk=True)["memory"]["balloonBytes"] is None


def test_a_vm_that_is_off_is_not_measured(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    eventually(lambda: latest(api, vm))
    api.stop(vm["id"])
    eventually(lambda: latest(api, vm) is None)
    api.start(vm["id"])
    assert eventually(lambda: latest(api, vm))["cpu"]["percent"] <= 100


def test_a_hung_qemu_delays_nobody(api: Api, new_vm: NewVm) -> None:
    vm, other = (api.start(new_vm()["id"]) for _ in range(2))
    begun = after(api, vm, after(api, other, "", has_disk=True)["at"], has_disk=True)["at"]
    with frozen(vm["pid"]):
        silent = after(api, vm, begun, has_disk=False)
        assert silent["memory"]["residentBytes"] > 0, "its process is there"
        for _ in range(3):
            moment = time.monotonic()
            api.ok("GET", f"/vms/{other['id']}")
            asked = time.monotonic() - moment
            begun = after(api, other, begun, has_disk=True)["at"]
            assert asked < 1
        assert after(api, vm, begun, has_disk=False)
        # Measuring is no request: nobody has asked it for anything that it owes.
        assert api.ok("GET", f"/vms/{vm['id']}")["status"] == "running"
    assert after(api, vm, begun, has_disk=True)


def test_a_killed_qemu_leaves_the_others_rounds(api: Api, new_vm: NewVm) -> None:
    vm, other = (api.start(new_vm()["id"]) for _ in range(2))
    begun = after(api, vm, "", has_disk=True)["at"]
    os.kill(vm["pid"], signal.SIGKILL)
    eventually(lambda: latest(api, vm) is None)
    after(api, other, begun, has_disk=True)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_new_service_measures_on(service: Service, api: Api, new_vm: NewVm, end: str) -> None:
    vm = api.start(new_vm()["id"])
    last = after(api, vm, "", has_disk=True)
    before = api.ok("GET", f"/vms/{vm['id']}/metrics")["samples"]
    if end == "stop":
        service.stop()
    else:
        service.kill()
    service.start()
    again = after(api, vm, last["at"], has_disk=True)
    # Whatever it had used before is no rate of now.
    assert again["cpu"]["percent"] <= 100
    kept = [one["at"] for one in api.ok("GET", f"/vms/{vm['id']}/metrics")["samples"]]
    if end == "stop":
        assert {one["at"] for one in before} <= set(kept)
    assert kept == sorted(set(kept))
