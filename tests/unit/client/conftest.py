"""A service with fake QEMUs, and clients of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.local import LocalService, restartable
from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client.types import Vm

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalService]:
    """A service that keeps its address when it starts again."""
    service = restartable(VOIDVM_CONSOLE__HISTORY_BYTES="65536")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def token(local: LocalService) -> str:
    """A token that no test ends."""
    token = local.api().token
    assert token is not None
    return token


@pytest.fixture
def client(local: LocalService, token: str) -> Iterator[VoidVMClient]:
    """The blocking client, as `admin`."""
    with VoidVMClient(local.url, token) as client:
        yield client


@pytest.fixture
async def awaiting(local: LocalService, token: str) -> AsyncIterator[AsyncVoidVMClient]:
    """The asynchronous client, as `admin`."""
    async with AsyncVoidVMClient(local.url, token) as client:
        yield client


@pytest.fixture
def vm(client: VoidVMClient) -> Iterator[Vm]:
    """A VM that runs."""
    name = f"client{next(_numbers)}"
    yield client.vms.create(name=name, memory=128, disk=1, networks=[], start=True)
    for left in client.vms.list(q=name):
        client.vms.delete(left, force=True)
