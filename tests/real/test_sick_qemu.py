"""QEMUs that hang or are killed harm nobody else and leave evidence."""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.drill import Ground
from tests.faults.grounds import hostile
from tests.real.conftest import NewVm
from tests.support.contract import Api
from tests.support.guests import frozen, is_alive, log_of
from tests.support.service import Service, eventually


def test_a_killed_qemu_is_a_crash_with_evidence(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    eventually(lambda: b"SeaBIOS" in log_of(api, vm["id"]))
    api.ok("POST", f"/vms/{vm['id']}/pause")
    api.ok("POST", f"/vms/{vm['id']}/resume")
    os.kill(vm["pid"], signal.SIGKILL)
    crashed = eventually(
        lambda: (
            found if (found := api.ok("GET", f"/vms/{vm['id']}"))["status"] == "crashed" else None
        )
    )
    assert crashed["statusReason"] == "killed by signal 9"
    assert (crashed["pid"], crashed["uptime"], crashed["endpoints"]) == (None, None, [])
    incident = api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"][0]
    assert incident["signal"] == "SIGKILL"
    assert incident["exitStatus"] is None
    assert incident["status"] == "crashed"
    assert [event["event"] for event in incident["qmpEvents"]][-2:] == ["STOP", "RESUME"]
    assert "SeaBIOS" in incident["console"]
    assert incident["commandLine"][0].endswith(("setpriv", "qemu-system-x86_64"))
    assert "-sandbox" in incident["commandLine"]
    assert api.start(vm["id"])["status"] == "running"


def test_a_hung_qemu_is_unresponsive_and_comes_back(api: Api, new_vm: NewVm) -> None:
    other = api.start(new_vm()["id"])
    vm = api.start(new_vm()["id"])
    with frozen(vm["pid"]), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api.call, "POST", f"/vms/{vm['id']}/reset")
        slowest = 0.0
        while not asked.done():
            begun = time.monotonic()
            api.ok("GET", f"/vms/{vm['id']}")
            api.ok("GET", "/vms")
            api.ok("GET", f"/vms/{other['id']}")
            slowest = max(slowest, (time.monotonic() - begun) / 3)
            time.sleep(0.2)
        answer = asked.result()
        assert answer.json()["error"]["code"] == "VM_UNRESPONSIVE"
        assert slowest < 0.5
        hung = api.ok("GET", f"/vms/{vm['id']}")
        assert (hung["status"], hung["pid"]) == ("unresponsive", vm["pid"])
        # Another VM is not touched by any of this.
        api.ok("POST", f"/vms/{other['id']}/pause")
        api.ok("POST", f"/vms/{other['id']}/resume")
    back = eventually(
        lambda: (
            found if (found := api.ok("GET", f"/vms/{vm['id']}"))["status"] == "running" else None
        )
    )
    assert (back["pid"], back["statusReason"]) == (vm["pid"], None)
    api.ok("POST", f"/vms/{vm['id']}/pause")


def test_a_forced_stop_ends_a_hung_qemu_within_ten_seconds(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    with frozen(vm["pid"]):
        begun = time.monotonic()
        stopped = api.stop(vm["id"])
        assert time.monotonic() - begun < 10
        assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
        assert not is_alive(vm["pid"])


def test_a_forced_stop_cuts_a_graceful_one_short(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    with ThreadPoolExecutor(1) as pool:
        # Firmware does not hear the power button.
        slow = pool.submit(api.stop, vm["id"], force=False, timeout=60)
        eventually(lambda: api.ok("GET", f"/vms/{vm['id']}")["status"] == "stopping")
        busy = api.refused("POST", f"/vms/{vm['id']}/pause", "VM_BUSY")
        assert (busy["details"], busy["retryable"]) == ("stop", True)
        begun = time.monotonic()
        assert api.stop(vm["id"])["status"] == "stopped"
        assert slow.result()["status"] == "stopped"
        assert time.monotonic() - begun < 5


def test_a_stop_that_the_guest_ignores_ends_it_after_the_timeout(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = api.start(new_vm(machine="pc")["id"])
    begun = time.monotonic()
    stopped = api.stop(vm["id"], force=False, timeout=1.5)
    assert 1.5 <= time.monotonic() - begun < 6
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert vm["pid"] not in service.qemus()
    assert api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"] == []


def test_a_stop_of_a_paused_vm_works_gracefully_and_by_force(api: Api, new_vm: NewVm) -> None:
    for force in (False, True):
        vm = api.start(new_vm()["id"])
        api.ok("POST", f"/vms/{vm['id']}/pause")
        assert api.stop(vm["id"], force=force, timeout=0.5)["status"] == "stopped"


def test_a_hung_qemu_can_be_deleted_by_force(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    with frozen(vm["pid"]):
        api.remove(vm["id"])
    assert vm["pid"] not in service.qemus()
    assert not (service.data / "vms" / vm["id"]).exists()


@pytest.fixture(scope="module")
def hostile_ground() -> Iterator[Ground]:
    with hostile() as ground:
        yield ground


def start_of(ground: Ground, behaviour: str) -> httpx.Response:
    assert ground.behaviour is not None
    ground.behaviour.write_text(f"{behaviour} 1")
    api = ground.service.api()
    vm = api.ok("POST", "/vms", {"name": behaviour, "memory": 32, "networks": []})["id"]
    return api.call("POST", f"/vms/{vm}/start")


def test_a_qemu_that_calls_anothers_terminal_its_own_gets_no_hold_of_it(
    hostile_ground: Ground,
) -> None:
    """What is typed there would reach the guest's owner, and what is said would be shown there."""
    somebodys, terminal = os.openpty()
    try:
        before = termios.tcgetattr(terminal)
        error = start_of(hostile_ground, "thief").json()["error"]
        assert error["code"] == "VM_START_FAILED"
        assert "does not hold it" in error["details"]
        files = Path(f"/proc/{hostile_ground.service.pid}/fd").iterdir()
        assert not any(str(file.readlink()).startswith("/dev/pts/") for file in files)
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(somebodys)
        os.close(terminal)


def test_a_guest_whose_whole_life_is_told_at_once_has_been_started(hostile_ground: Ground) -> None:
    answer = start_of(hostile_ground, "brief")
    assert answer.status_code == 200, answer.text
    api = hostile_ground.service.api()
    off = api.ok("GET", "/vms/brief/wait", params={"for": "stopped", "timeout": 10})
    assert off["statusReason"] == "guest-shutdown"
    assert api.ok("GET", "/vms/brief/incidents") == {"incidents": []}
