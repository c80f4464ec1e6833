"""VMs without a system, whose QEMU is there in a moment: what most of these tests need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.contract import Api, Json
from tests.support.service import Service

_numbers = itertools.count(1)

NewVm = Callable[..., Json]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service without images; one for all tests of a file."""
    service = Service()
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    """The API for `admin`, signed in once a file."""
    return service.api()


@pytest.fixture
def new_vm(service: Service, api: Api) -> Iterator[NewVm]:
    """Makes VMs with an empty disk, no network and as little memory as firmware needs."""
    made: list[str] = []

    def make(name: str = "", **wanted: Json) -> Json:
        body = {"memory": 32, "disk": 1, "networks": [], **wanted}
        vm = api.ok("POST", "/vms", {"name": name or f"empty-{next(_numbers)}", **body})
        made.append(vm["id"])
        return vm

    yield make
    assert service.process is not None
    if service.process.poll() is not None:
        service.start()
    for vm_id in made:
        answer = api.call("DELETE", f"/vms/{vm_id}", params={"force": "true"})
        assert answer.status_code in {200, 404}, answer.text
