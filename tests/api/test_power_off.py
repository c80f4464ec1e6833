"""All guests powered off: in order, within a limit, and what they shall be is left as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import Behaviour, FakeHost
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import eventually
from voidvm.bus import VmStatusChanged
from voidvm.domain.states import VmStatus


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    service = LocalService(FakeHost())
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def api(service: LocalService) -> Iterator[Api]:
    api = service.api()
    yield api
    for vm in api.ok("GET", "/vms")["vms"]:
        api.ok("DELETE", f"/vms/{vm['id']}", params={"force": "true"})


def add(api: Api, name: str, order: int | None = None) -> str:
    start = {"enabled": order is not None, "order": order or 0}
    vm_id: str = api.ok("POST", "/vms", {"name": name, "disk": 1, "autostart": start})["id"]
    return vm_id


def stubborn(service: LocalService, vm: str) -> None:
    assert service.host is not None
    service.host.plan(vm, Behaviour(obeys_power_button=False))


def power_off(api: Api, timeout_s: float) -> Json:
    return api.ok("POST", "/system/guests/poweroff", {"timeout": timeout_s})


def test_what_is_started_last_is_powered_off_first(service: LocalService, api: Api) -> None:
    names = {
        add(api, name, order): name
        for name, order in [("db", 1), ("web", 5), ("by-hand", None), ("app", 5)]
    }
    for vm in names:
        api.start(vm)
    service.news.clear()
    done = power_off(api, 30)
    assert done["ended"] == []
    assert done["poweredOff"] == ["by-hand", "web", "app", "db"]
    moves = [
        (names[news.vm_id], news.status)
        for news in service.news
        if isinstance(news, VmStatusChanged)
    ]
    off = [name for name, status in moves if status is VmStatus.STOPPED]
    assert off[0] == "by-hand"
    assert off[-1] == "db"
    # Nobody is asked before those who depend on it are off.
    asked = moves.index(("db", VmStatus.STOPPING))
    assert {("web", VmStatus.STOPPED), ("app", VmStatus.STOPPED)} <= set(moves[:asked])


def test_who_does_not_obey_is_ended_and_takes_none_of_the_others_time(
    service: LocalService, api: Api
) -> None:
    slow, good = add(api, "slow"), add(api, "good", 1)
    stubborn(service, slow)
    for vm in (slow, good):
        api.start(vm)
    began = time.monotonic()
    assert power_off(api, 2) == {"poweredOff": ["good"], "ended": ["slow"]}
    assert time.monotonic() - began > 0.9  # half of it was its share
    assert [vm["status"] for vm in api.ok("GET", "/vms")["vms"]] == ["stopped"] * 2


def test_one_that_hangs_is_ended_too(service: LocalService, api: Api) -> None:
    vm = add(api, "hung")
    api.start(vm)
    assert service.host is not None
    service.do(service.host.alive()[vm].hang)
    assert power_off(api, 0.5)["ended"] == ["hung"]
    assert service.host.alive() == {}


def test_one_that_another_job_holds_is_asked_again_and_then_ended(
    service: LocalService, api: Api
) -> None:
    vm = add(api, "busy")
    api.start(vm)
    machine = service.fleet.get(vm)
    job = service.do(
        lambda: asyncio.ensure_future(machine.perform("test", lambda: asyncio.sleep(60)))
    )
    try:
        assert power_off(api, 0.5)["ended"] == ["busy"]
    finally:
        service.do(job.cancel)
        service.do(lambda: machine._task and machine._task.cancel())
    eventually(lambda: machine._task is None)


def test_that_they_shall_run_is_remembered(service: LocalService, api: Api) -> None:
    vm = add(api, "later")
    api.start(vm)
    power_off(api, 10)
    records = service.run(service.services.host_power._store.all())
    assert [(one.wanted, one.status, one.status_reason) for one in records] == [
        ("running", VmStatus.STOPPED, "host-request")
    ]


def test_without_guests_there_is_nothing_to_do(api: Api) -> None:
    add(api, "off")
    assert power_off(api, 10) == {"poweredOff": [], "ended": []}
