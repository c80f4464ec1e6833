"""A service with a guest of a few bytes, for programs in other languages than Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.contract import Api
from tests.support.disks import MIB
from tests.support.javascript import build, node
from tests.support.operations import succeeded, upload
from tests.support.service import PASSWORD, Service

# 16-bit code: 16 lines of four letters that count up at each tick of the timer, 18 a second, to
# COM1; what is typed comes back between them. The firmware reads the line at each tick, so keys are
# asked for there.
TICKER = bytes.fromhex(
    "31db8edbfbf4b401cd167409b400cd16e82000ebf0b90400c1c30488d8240f0441e80f00e2f2b00ae8080043"
    "f6c30f75e4ebd288c4bafd03eca82074fbbaf80388e0eec3"
)
TICKS = "ticking"

NODE_TIMEOUT_S = 60

RunNode = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def speaking_service(**settings: str) -> Iterator[Service]:
    """A running service with the image `ticker`."""
    service = Service(VOIDVM_LIMITS__WEBSOCKETS_PER_USER="100", **settings)
    try:
        service.start()
        api = service.api()
        disk = TICKER.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB)
        succeeded(api, upload(api, disk, "ticker"))
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service with the image `ticker`; one for all tests of a file."""
    with speaking_service() as service:
        yield service


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    """The API for `admin`, signed in once a file."""
    return service.api()


@pytest.fixture(scope="module")
def ticking(api: Api) -> str:
    """The id of a VM that speaks on its console without end."""
    body = {"name": TICKS, "image": "ticker", "memory": 32, "disk": 1, "networks": []}
    vm_id: str = api.ok("POST", "/vms", body)["id"]
    api.start(vm_id)
    return vm_id


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The JavaScript SDK's folder, built."""
    return build()


@pytest.fixture(scope="module")
def environ(service: Service, api: Api, ticking: str) -> dict[str, str]:
    """What programs find the service by."""
    assert api.token is not None
    return os.environ | {
        "VOIDVM_URL": service.url,
        "VOIDVM_TOKEN": api.token,
        "VOIDVM_PASSWORD": PASSWORD,
        "VOIDVM_TEST_VM": ticking,
        "NODE_NO_WARNINGS": "1",
    }


@pytest.fixture(scope="module")
def run_node(sdk: Path, environ: dict[str, str]) -> RunNode:
    """Runs Node.js in the SDK's folder; fails unless its exit status is 0."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [node(), *arguments],
            cwd=sdk,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=NODE_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run
