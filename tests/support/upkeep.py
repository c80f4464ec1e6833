"""A service with fake QEMUs whose VMs are kept up by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.clock import FakeClock
from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import eventually


class Bed:
    """The service, its host and its clock."""

    def __init__(self, service: LocalService) -> None:
        assert service.host is not None
        assert service.clock is not None
        self.service = service
        self.host: FakeHost = service.host
        self.clock: FakeClock = service.clock
        self.api: Api = service.api()

    def create(self, name: str, **wanted: Json) -> str:
        """A VM without an image; its id."""
        body = {"name": name, "memory": 32, "disk": 1, **wanted}
        made: str = self.api.ok("POST", "/vms", body)["id"]
        return made

    def qemu(self, vm: str) -> FakeQemu:
        """The VM's QEMU, which is there."""
        return self.host.alive()[vm]

    def kill(self, vm: str) -> None:
        """SIGKILL for its QEMU."""
        qemu = self.qemu(vm)
        self.service.do(lambda: qemu.die(signal=9))

    def show(self, vm: str) -> Json:
        """The VM as clients see it."""
        return self.api.ok("GET", f"/vms/{vm}")

    def until(self, vm: str, status: str) -> Json:
        """The VM once it has this status."""
        return eventually(lambda: (found := self.show(vm))["status"] == status and found)

    def waits(self, *seconds: float) -> None:
        """These are all the pauses that go on."""
        assert eventually(lambda: self.service.do(lambda: self.clock.waits) == list(seconds))

    def has_launched(self, count: int) -> None:
        """So many QEMUs have been launched in all."""
        eventually(lambda: len(self.host.launched) == count)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.service.do(lambda: self.clock.advance(seconds))

    def restart(self, *, boot: str | None = None) -> None:
        """Another service; with `boot` after another boot of the host, which ended all QEMUs."""
        self.service.stop()
        if boot is not None:
            self.service.do(self.host.end)
            self.service.boot = boot
        self.service.start()
        self.api = self.service.api()

    def told(self, vm: str, *kinds: str) -> list[Json]:
        """The VM's events of these kinds, oldest first."""
        self.service.run(self.service.services.events.settled())
        events = self.api.ok("GET", "/events", params={"vm": vm, "limit": 200})["events"]
        return [event for event in events if event["event"] in kinds]

    def refuse(self, vm: str) -> None:
        """Its QEMU does not start from now on."""
        self.host.plan(vm, Behaviour(refusal="qemu-system-x86_64: no luck\n"))


@contextmanager
def upkeep(**settings: str) -> Iterator[Bed]:
    """Such a service, which must not call anything its own fault."""
    service = LocalService(FakeHost(), **settings)
    service.clock = FakeClock()
    try:
        service.start()
        yield Bed(service)
        assert service.errors.texts == []
    finally:
        service.close()
