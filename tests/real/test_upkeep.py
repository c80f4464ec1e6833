"""Real QEMUs are kept up: started again, found hung, brought back after a boot of the host."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.guests import frozen, is_alive
from tests.support.sectors import PANICS, SWITCHES_OFF, put_code
from tests.support.service import Service, eventually


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with little patience."""
    service = Service(
        VOIDVM_QEMU__UNRESPONSIVE_AFTER="2",
        VOIDVM_RESTART__DELAY="0.4",
        VOIDVM_METRICS__INTERVAL="3600",
    )
    try:
        service.start()
        yield service
    finally:
        service.close()


def until(api: Api, vm: str, status: str, *, timeout_s: float = 15) -> Json:
    return eventually(
        lambda: (found := api.ok("GET", f"/vms/{vm}"))["status"] == status and found,
        timeout_s=timeout_s,
    )


def starts_of(api: Api, vm: str) -> int:
    events = api.ok("GET", "/events", params={"vm": vm, "limit": 200})["events"]
    return sum(event["data"].get("status") == "starting" for event in events)


def test_a_killed_qemu_is_started_again_until_a_stop(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = new_vm(restartPolicy="on-failure", start=True)
    again = api.ok("GET", f"/vms/{vm['id']}")
    for attempt in (1, 2):
        os.kill(again["pid"], signal.SIGKILL)
        until(api, vm["id"], "crashed")
        again = until(api, vm["id"], "running")
        assert again["restart"]["attempts"] == attempt
        time.sleep(0.2)  # in its first moment, an end would be one of the start
    assert "killed by signal 9" in again["restart"]["reason"]
    os.kill(again["pid"], signal.SIGKILL)
    until(api, vm["id"], "crashed")
    stopped = api.stop(vm["id"], force=False)
    assert (stopped["status"], stopped["restart"]) == ("stopped", None)
    time.sleep(2)  # the pause would have been over
    assert api.ok("GET", f"/vms/{vm['id']}")["status"] == "stopped"
    assert starts_of(api, vm["id"]) == 3
    incidents = api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"]
    assert [one["signal"] for one in incidents] == ["SIGKILL"] * 3
    assert all(one["host"]["memoryTotalBytes"] > 0 for one in incidents)
    assert service.qemus() == []


def test_a_pause_outlives_the_service(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = new_vm(restartPolicy="always", start=True)
    os.kill(api.ok("GET", f"/vms/{vm['id']}")["pid"], signal.SIGKILL)
    until(api, vm["id"], "crashed")
    service.kill()
    service.start()
    until(api, vm["id"], "running")
    assert len(service.qemus()) == 1
    assert starts_of(api, vm["id"]) == 2


def test_a_silent_qemu_is_found_hung_though_nobody_asks(api: Api, new_vm: NewVm) -> None:
    other = new_vm(start=True)
    vm = new_vm(restartPolicy="always", start=True)
    pid = api.ok("GET", f"/vms/{vm['id']}")["pid"]
    with frozen(pid):
        hung = until(api, vm["id"], "unresponsive")
        assert hung["statusReason"] == "QEMU does not answer"
        statuses = {one["id"]: one["status"] for one in api.ok("GET", "/vms")["vms"]}
        assert statuses[other["id"]] == "running"
    assert until(api, vm["id"], "running")["pid"] == pid
    with frozen(pid):
        until(api, vm["id"], "unresponsive")
        began = time.monotonic()
        assert api.stop(vm["id"])["status"] == "stopped"
        assert time.monotonic() - began < 10
        assert not is_alive(pid)


def test_a_guest_that_panics_is_seen_and_started_again_if_it_shall(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    stays, again = new_vm(), new_vm(restartPolicy="on-failure")
    for vm in (stays, again):
        put_code(service, vm["id"], PANICS)
        api.start(vm["id"])
    halted = until(api, stays["id"], "paused")
    assert halted["statusReason"] == "guest-panicked"
    eventually(lambda: starts_of(api, again["id"]) >= 2, timeout_s=20)
    api.stop(again["id"])
    for vm in (stays, again):
        incident = api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"][-1]
        assert (incident["status"], incident["reason"]) == ("paused", "guest-panicked")
        assert "GUEST_PANICKED" in [event["event"] for event in incident["qmpEvents"]]
    # A later service sees it, too, but no second end.
    service.kill()
    service.start()
    assert until(api, stays["id"], "paused")["statusReason"] == "guest-panicked"
    assert len(api.ok("GET", f"/vms/{stays['id']}/incidents")["incidents"]) == 1


def test_a_guest_that_switches_itself_off_is_started_again_if_it_shall_be_always(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    ends, again = new_vm(restartPolicy="on-failure"), new_vm(restartPolicy="always")
    for vm in (ends, again):
        put_code(service, vm["id"], SWITCHES_OFF)
        api.start(vm["id"])
    eventually(lambda: starts_of(api, again["id"]) >= 2, timeout_s=20)
    api.stop(again["id"])
    off = until(api, ends["id"], "stopped")
    assert (off["statusReason"], off["restart"]) == ("guest-shutdown", None)
    assert starts_of(api, ends["id"]) == 1


def reboot(service: Service) -> None:
    """As if the host had gone down and come up: all processes gone, another boot on record."""
    service.kill()
    for pid in service.qemus():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not service.qemus() or None)
    with closing(sqlite3.connect(service.data / "voidvm.db")) as database:
        database.execute("UPDATE host SET boot_id = 'earlier'")
        database.execute(
            "UPDATE vms SET run = CAST(json_set(CAST(run AS TEXT), '$.bootId', 'earlier') AS BLOB)"
            " WHERE run IS NOT NULL"
        )
        database.commit()
    service.start()


def test_after_a_boot_of_the_host_vms_start_in_order_and_once(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    second = new_vm(autostart={"enabled": True, "order": 2, "delay": 1})
    first = new_vm(autostart={"enabled": True, "order": 1})
    huge = new_vm(autostart={"enabled": True, "order": 1}, memory=4_194_304)
    ran = new_vm(start=True)
    comes_back = new_vm(restartPolicy="always", start=True)
    reboot(service)
    begun = [until(api, vm["id"], "running")["startedAt"] for vm in (comes_back, first, second)]
    assert begun == sorted(begun)
    gone = api.ok("GET", f"/vms/{ran['id']}")
    assert (gone["status"], gone["statusReason"]) == ("stopped", "host-restart")
    events = api.ok("GET", "/events", params={"vm": huge["id"]})["events"]
    assert events[-1]["event"] == "vm.autostart-failed"
    api.stop(first["id"])
    service.kill()
    service.start()
    assert len(service.qemus()) == 2
    assert api.ok("GET", f"/vms/{first['id']}")["status"] == "stopped"
