"""What VMs and the host use, as clients ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import person
from tests.support.service import eventually
from voidvm.bus import Sampled


@pytest.fixture(scope="module")
def quick() -> Iterator[LocalService]:
    """A service that measures every second."""
    service = LocalService(FakeHost(), VOIDVM_METRICS__INTERVAL="1")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def admin(quick: LocalService) -> Api:
    return quick.api()


@pytest.fixture(scope="module")
def measured(quick: LocalService, admin: Api) -> str:
    """A VM that runs and has been measured."""
    vm_id: str = admin.create("measured", os=None)["id"]
    admin.start(vm_id)
    eventually(lambda: admin.ok("GET", f"/vms/{vm_id}/metrics")["samples"])
    return vm_id


def rounds(service: LocalService) -> list[Sampled]:
    return [news for news in service.news if isinstance(news, Sampled)]


def test_a_vm_that_runs_has_samples_and_a_newest_one(admin: Api, measured: str) -> None:
    by_id, by_name = (admin.ok("GET", f"/vms/{ref}/metrics") for ref in (measured, "measured"))
    for found in (by_id, by_name):
        assert (found["vmId"], found["resolution"]) == (measured, 5)
        assert found["latest"]["vmId"] == measured
        assert found["latest"]["memory"]["residentBytes"] > 0
    sample = by_id["samples"][-1]
    # The fake's monitor and guest tell nothing.
    assert (sample["vmId"], sample["disk"], sample["network"]) == (measured, None, None)


def test_the_last_hour_is_the_default(admin: Api, measured: str) -> None:
    found = admin.ok("GET", f"/vms/{measured}/metrics")
    since, until = (datetime.fromisoformat(found[key]) for key in ("from", "to"))
    assert until - since == timedelta(hours=1)
    end = (datetime.now(UTC) - timedelta(days=2)).isoformat().replace("+00:00", "Z")
    earlier = admin.ok("GET", f"/vms/{measured}/metrics", params={"to": end})
    assert (earlier["to"], earlier["resolution"], earlier["samples"]) == (end, 900, [])
    assert earlier["latest"] is not None


def test_a_vm_that_is_off_has_no_newest_sample(admin: Api) -> None:
    vm_id = admin.create("off", os=None)["id"]
    found = admin.ok("GET", f"/vms/{vm_id}/metrics")
    assert (found["samples"], found["latest"]) == ([], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2024-01-01T00:00:00"}, "from"),
        ({"to": "2024-13-01T00:00:00Z"}, "to"),
        ({"from": "2024-01-02T00:00:00Z", "to": "2024-01-01T00:00:00Z"}, "from"),
        ({"from": "2024-01-01T00:00:00Z", "to": "2024-01-01T00:00:00Z"}, "from"),
        ({"from": "2999-01-01T00:00:00Z"}, "from"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
        ({"since": "2024-01-01T00:00:00Z"}, "since"),
    ],
)
def test_a_bad_range_is_refused(
    admin: Api, measured: str, query: dict[str, str], field: str
) -> None:
    error = admin.refused("GET", f"/vms/{measured}/metrics", "VALIDATION_ERROR", params=query)
    assert [problem["field"] for problem in error["errors"]] == [field]


def test_the_ends_of_time_are_no_fault(admin: Api, measured: str) -> None:
    query = {"from": "0001-01-01T00:00:00+14:00", "to": "9999-12-31T23:59:59-12:00"}
    found = admin.ok("GET", f"/vms/{measured}/metrics", params=query)
    assert len(found["samples"]) <= 1


def test_the_host_has_samples_of_every_period(quick: LocalService, admin: Api) -> None:
    eventually(lambda: rounds(quick))

    def stats(**query: str) -> Json:
        return admin.ok("GET", "/system/stats", params=query)

    assert stats()["period"] == "1h"
    found = {period: stats(period=period) for period in ("1h", "24h", "7d", "30d")}
    assert [one["resolution"] for one in found.values()] == [5, 60, 900, 1800]
    for one in found.values():
        sample = one["samples"][-1]
        assert sample["memory"]["totalBytes"] > sample["memory"]["usedBytes"] > 0
        assert sample["disk"]["totalBytes"] > 0
        assert one["latest"]["vms"]["total"] >= one["latest"]["vms"]["running"]
        assert len(one["latest"]["cpu"]["perCore"]) >= 1
    error = admin.refused("GET", "/system/stats", "VALIDATION_ERROR", params={"period": "2h"})
    assert error["errors"][0]["field"] == "period"


def test_a_users_vm_is_measured_for_its_owner_alone(quick: LocalService, admin: Api) -> None:
    ada, bob = person(quick, admin), person(quick, admin)
    vm_id = ada.api.create("hers", os=None)["id"]
    assert ada.api.ok("GET", f"/vms/{vm_id}/metrics")["vmId"] == vm_id
    bob.api.refused("GET", f"/vms/{vm_id}/metrics", "VM_NOT_FOUND")


def test_one_round_serves_everybody_once(quick: LocalService, measured: str) -> None:
    seen = len(rounds(quick))
    eventually(lambda: len(rounds(quick)) >= seen + 3)
    moments = [one.host.at for one in rounds(quick)]
    assert moments == sorted(set(moments))
    assert measured in rounds(quick)[-1].vms
    assert rounds(quick)[-1] is quick.services.metrics.latest or len(rounds(quick)) > seen + 3
