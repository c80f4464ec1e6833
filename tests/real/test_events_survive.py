"""SIGKILL of the service: what was answered has its event, and numbers go on."""

from __future__ import annotations

import signal

import httpx

from tests.support.contract import Api, Json
from tests.support.service import NO_TLS, Service

ROUNDS = 4


def since(api: Api, after: str) -> list[Json]:
    page = api.ok("GET", "/events", params={"after": after, "limit": 200})
    assert not page["hasMore"]
    events: list[Json] = page["events"]
    return events


def test_each_answer_has_its_event_though_the_service_dies_at_once(service: Service) -> None:
    api = service.api()
    vm = api.ok("POST", "/vms", {"name": "one", "memory": 32, "disk": 1})["id"]
    place = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    for number in range(ROUNDS):
        api.ok("PATCH", f"/vms/{vm}", {"description": f"round {number}"})
        service.kill()
        service.start()
        api = service.api()
    events = since(api, place)
    changes = [event for event in events if event["vmId"] == vm]
    assert [event["event"] for event in changes] == ["vm.updated"] * ROUNDS
    epoch, _, first = place.partition("-")
    assert [event["id"] for event in events] == [
        f"{epoch}-{int(first) + number}" for number in range(1, len(events) + 1)
    ]


def test_a_vm_that_went_on_is_told_of_once(service: Service) -> None:
    api = service.api()
    vm = api.ok("POST", "/vms", {"name": "two", "memory": 32, "disk": 1})["id"]
    place = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    api.start(vm)
    service.kill()
    service.start()
    api = service.api()
    api.stop(vm)
    statuses = [event["data"]["status"] for event in since(api, place) if event["vmId"] == vm]
    assert (statuses[0], statuses[-1]) == ("starting", "stopped")
    assert statuses.count("running") == 1
    api.remove(vm)


def test_the_service_tells_when_it_starts_and_stops(service: Service) -> None:
    api = service.api()
    place = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    address = f"{service.url}/api/v1/events/stream"
    credential = {"authorization": f"Bearer {api.token}"}
    assert service.process is not None
    with httpx.stream(
        "GET", address, headers=credential, timeout=30, trust_env=False, verify=NO_TLS
    ) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        service.process.send_signal(signal.SIGTERM)
        assert "event: system.stopping" in list(lines)
    service.process.wait(timeout=30)
    service.start()
    told = [one for one in since(service.api(), place) if one["event"].startswith("system.")]
    assert [one["event"] for one in told] == ["system.stopping", "system.started"]
    assert told[1]["message"].startswith("VoidVM ")
