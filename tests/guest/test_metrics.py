"""What a guest does is what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import warm_guests
from tests.support.contract import Api, Json
from tests.support.guests import boot, shell
from tests.support.service import Service, eventually

pytestmark = pytest.mark.guest
MIB = 1024**2


@pytest.fixture(scope="module")
def service(guest: Path) -> Iterator[Service]:
    """A service that knows the guest `tiny` and measures every second."""
    service = Service(VOIDVM_METRICS__INTERVAL="1", **warm_guests.settings(guest))
    try:
        service.add_guest(guest)
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def vm(api: Api) -> Iterator[str]:
    """A booted guest with a card."""
    made: str = api.create("measured", networks=[{"mac": warm_guests.MAC}])["id"]
    boot(api, made)
    yield made
    api.remove(made)


def until(api: Api, vm: str, fits: Callable[[Json], bool], *, timeout_s: float = 30) -> Json:
    """The first sample that fits, while the guest does what it does."""

    def look() -> Json | None:
        found = api.ok("GET", f"/vms/{vm}/metrics")["latest"]
        return found if found is not None and fits(found) else None

    return eventually(look, timeout_s=timeout_s)


def test_a_busy_guest_is_seen_busy_and_an_idle_one_idle(api: Api, vm: str) -> None:
    until(api, vm, lambda one: one["cpu"]["percent"] < 20)
    shell(api, vm, "(while :; do :; done) & echo $! > /tmp/busy")
    try:
        # Other work of this machine may take a part of its core.
        until(api, vm, lambda one: one["cpu"]["percent"] > 40)
    finally:
        shell(api, vm, "kill $(cat /tmp/busy)")
    until(api, vm, lambda one: one["cpu"]["percent"] < 20)


def test_writes_and_reads_of_the_disk_are_seen(api: Api, vm: str) -> None:
    until(api, vm, lambda one: one["disk"] is not None)
    write = "dd if=/dev/zero of=/dev/vda bs=64k count=100 seek=2000 conv=fsync 2>/dev/null"
    shell(api, vm, f"(while :; do {write}; done) & echo $! > /tmp/busy")
    try:
        disk = until(
            api, vm, lambda one: bool(one["disk"]) and one["disk"]["writeBytesPerSecond"] > MIB
        )["disk"]
        assert disk["writesPerSecond"] > 0
    finally:
        shell(api, vm, "kill $(cat /tmp/busy)")
    until(api, vm, lambda one: bool(one["disk"]) and one["disk"]["writeBytesPerSecond"] == 0)


def test_the_guests_memory_is_known_as_the_guest_sees_it(api: Api, vm: str) -> None:
    before = until(api, vm, lambda one: one["memory"]["guestUsedBytes"] is not None, timeout_s=60)
    memory = before["memory"]
    assert memory["balloonBytes"] == memory["limitBytes"] == 256 * MIB
    known = memory["guestUsedBytes"] + memory["guestAvailableBytes"]
    assert 128 * MIB < known < 256 * MIB, "what its kernel has left for it"
    shell(api, vm, "mount -t tmpfs none /mnt; dd if=/dev/zero of=/mnt/full bs=1M count=40")
    more = memory["guestUsedBytes"] + 30 * MIB
    until(api, vm, lambda one: (one["memory"]["guestUsedBytes"] or 0) > more)
    shell(api, vm, "umount /mnt")
    until(api, vm, lambda one: 0 < (one["memory"]["guestUsedBytes"] or 0) < more)


def test_its_agent_tells_the_traffic_of_its_card(service: Service, api: Api, vm: str) -> None:
    until(api, vm, lambda one: one["network"] is not None, timeout_s=60)
    page = f"http://10.0.2.2:{service.port}/docs/openapi.json"
    shell(api, vm, f"(while :; do wget -q -O /dev/null {page}; done) & echo $! > /tmp/busy")
    try:
        found = until(
            api,
            vm,
            lambda one: bool(one["network"]) and one["network"]["receiveBytesPerSecond"] > 10_000,
        )["network"]
        assert found["receivePacketsPerSecond"] > 5
        assert 0 < found["transmitBytesPerSecond"] < found["receiveBytesPerSecond"]
    finally:
        shell(api, vm, "kill $(cat /tmp/busy)")
