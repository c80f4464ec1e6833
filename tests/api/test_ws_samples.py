"""Samples for who wants them, and what is kept of subscriptions."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from tests.support.contract import Api, Json
from tests.support.live import LiveClient, live
from tests.support.local import LocalService
from tests.support.people import Person
from tests.support.service import eventually
from voidvm.bus import Sampled
from voidvm.domain.metrics import (
    HostCpu,
    HostDisk,
    HostMemory,
    HostNetwork,
    HostSample,
    VmCounts,
    VmCpu,
    VmMemory,
    VmSample,
)


def sampled(percent: float, *vms: str) -> Sampled:
    now = datetime.now(UTC)
    memory = VmMemory(
        resident_bytes=1,
        limit_bytes=2,
        balloon_bytes=None,
        guest_used_bytes=None,
        guest_available_bytes=None,
    )
    rates = {"read_bytes_per_second": 0.0, "write_bytes_per_second": 0.0}
    rates |= {"reads_per_second": 0.0, "writes_per_second": 0.0}
    return Sampled(
        host=HostSample(
            at=now,
            cpu=HostCpu(percent=percent, per_core=[percent], load1=0.0),
            memory=HostMemory(total_bytes=1, used_bytes=1, available_bytes=1, swap_used_bytes=0),
            disk=HostDisk(total_bytes=1, used_bytes=1, free_bytes=1, **rates),
            network=HostNetwork(receive_bytes_per_second=0.0, transmit_bytes_per_second=0.0),
            vms=VmCounts(total=1, running=1),
        ),
        vms={
            vm: VmSample(
                vm_id=vm,
                at=now,
                cpu=VmCpu(percent=percent, count=1),
                memory=memory,
                disk=None,
                network=None,
            )
            for vm in vms
        },
        counters={},
    )


def percents(client: LiveClient, kind: str) -> list[float]:
    return [one["data"]["cpu"]["percent"] for one in client.all(kind)]


def publish(local: LocalService, percent: float, *vms: str) -> None:
    local.do(lambda: local.gate.bus.publish(sampled(percent, *vms)))


def test_samples_go_to_whom_they_concern(
    local: LocalService, hers: LiveClient, client: LiveClient, ada: Person, vm: str
) -> None:
    mine = ada.vm()
    state = hers.ask("subscribe", topic="vm-metrics")
    assert state["interval"] == local.services.metrics.interval_s
    client.ask("subscribe", topic="vm-metrics", vmId=vm)
    publish(local, 1.25, mine, vm)
    push = hers.take(lambda one: _percent(one) == 1.25, "the sample")
    assert (push["type"], push["topic"], push["data"]["vmId"]) == ("vm-metrics", "vm-metrics", mine)
    assert client.take(lambda one: _percent(one) == 1.25, "the sample")["data"]["vmId"] == vm
    assert {one["data"]["vmId"] for one in hers.all("vm-metrics")} <= {mine}
    assert {one["data"]["vmId"] for one in client.all("vm-metrics")} <= {vm}
    error = hers.refused("subscribe", topic="vm-metrics", vmId=vm)
    assert error["code"] == "VM_NOT_FOUND"
    ada.api.remove(mine)


def _percent(message: Json) -> float | None:
    found: float | None = message["data"].get("cpu", {}).get("percent")
    return found


def test_an_interval_leaves_rounds_out(local: LocalService, client: LiveClient) -> None:
    base = local.services.metrics.interval_s
    state = client.ask("subscribe", topic="system-monitor", interval=3 * base)
    assert state["interval"] == 3 * base
    for number in range(1, 13):
        publish(local, 1000.0 + number)
        client.ask("ping")
    seen = [one for one in percents(client, "system-monitor") if 1000 < one < 1100]
    assert 3 <= len(seen) <= 4
    assert all(later - earlier <= 3 for earlier, later in itertools.pairwise(seen))


def test_who_subscribes_hears_the_newest_sample_at_once(
    local: LocalService, client: LiveClient
) -> None:
    publish(local, 2000.0)
    client.ask("subscribe", topic="system-monitor")
    push = client.next("system-monitor")
    assert push["topic"] == "system-monitor"
    assert push["data"]["memory"]["totalBytes"] > 0


@pytest.mark.parametrize("interval", [0, 0.5, -1, 1e9, "5"])
def test_a_wrong_interval_is_refused(client: LiveClient, interval: Json) -> None:
    error = client.refused("subscribe", topic="system-monitor", interval=interval)
    assert error["errors"][0]["field"] == "interval"


# Bookkeeping


def test_subscribing_again_replaces(local: LocalService, client: LiveClient, vm: str) -> None:
    for _ in range(3):
        client.ask("subscribe", topic="vm-metrics", vmId=vm)
    client.all("vm-metrics")
    publish(local, 3000.0, vm)
    assert client.next("vm-metrics", vmId=vm)["data"]["cpu"]["percent"] == 3000.0
    assert 3000.0 not in percents(client, "vm-metrics")


def test_nothing_comes_after_unsubscribed(
    local: LocalService, client: LiveClient, api: Api, vm: str
) -> None:
    client.ask("subscribe", topic="vm-status", vmId=vm)
    client.ask("subscribe", topic="system-monitor")
    assert client.ask("unsubscribe", topic="vm-status", vmId=vm) == {
        "topic": "vm-status",
        "vmId": vm,
        "reason": None,
    }
    client.ask("unsubscribe", topic="system-monitor")
    client.messages.clear()
    api.start(vm)
    publish(local, 1.0)
    client.ask("ping")
    assert client.messages == []
    assert client.refused("unsubscribe", topic="vm-status", vmId=vm)["code"] == "NOT_FOUND"


def test_there_is_a_limit_of_subscriptions(client: LiveClient, api: Api, name: str) -> None:
    from voidvm.api.live import topics  # noqa: PLC0415 - its limit

    vms = [api.create(f"{name}-{number}", os=None)["id"] for number in range(4)]
    kept, topics.SUBSCRIPTIONS_MAX = topics.SUBSCRIPTIONS_MAX, 3  # type: ignore[misc]  # a test's
    try:
        for vm in vms[:3]:
            client.ask("subscribe", topic="vm-status", vmId=vm)
        error = client.refused("subscribe", topic="vm-status", vmId=vms[3])
        assert error["code"] == "RATE_LIMITED"
        client.ask("subscribe", topic="vm-status", vmId=vms[0])
        client.ask("unsubscribe", topic="vm-status", vmId=vms[0])
        client.ask("subscribe", topic="vm-status", vmId=vms[3])
    finally:
        topics.SUBSCRIPTIONS_MAX = kept  # type: ignore[misc]  # a test's
        for vm in vms:
            api.remove(vm)
    assert kept == 100


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "topic"),
        ({"topic": "vm"}, "topic"),
        ({"topic": "vm-status"}, "vmId"),
        ({"topic": "vm-status", "vmId": ""}, "vmId"),
        ({"topic": "vm-status", "vmId": 5}, "vmId"),
        ({"topic": "vm-status-all", "vmId": "x"}, "vmId"),
        ({"topic": "system-monitor", "after": "x"}, "after"),
        ({"topic": "events", "afte": "x"}, "afte"),
    ],
)
def test_wrong_fields_are_named(client: LiveClient, data: Json, field: str) -> None:
    error = client.refused("subscribe", **data)
    assert error["code"] == "VALIDATION_ERROR"
    assert [one["field"] for one in error["errors"]] == [field]
    assert error["vmId"] == (data.get("vmId") if isinstance(data.get("vmId"), str) else None)


def test_somebody_elses_vm_is_not_there(hers: LiveClient, vm: str) -> None:
    for topic in ("vm-status", "vm-metrics", "events", "operations"):
        error = hers.refused("subscribe", topic=topic, vmId=vm)
        assert (error["code"], error["vmId"]) == ("VM_NOT_FOUND", vm)


def test_nothing_is_left_of_a_socket(local: LocalService, api: Api, vm: str) -> None:
    def tasks() -> int:
        return local.do(
            lambda: sum(
                task.get_name().startswith(("live-", "terminal-")) for task in asyncio.all_tasks()
            )
        )

    eventually(lambda: tasks() == 0)
    with live(local.url, token=api.token) as client:
        client.next("hello")
        for topic in ("vm-status-all", "vm-metrics", "system-monitor", "operations", "events"):
            client.ask("subscribe", topic=topic)
        client.ask("terminal-connect", vmId=vm)
        assert tasks() >= 6
    eventually(lambda: tasks() == 0)
