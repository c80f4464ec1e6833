"""A service that may fetch from a web server of the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.support.contract import Api
from tests.support.disks import Held, qcow2
from tests.support.operations import (
    check_images,
    leftovers,
)
from tests.support.service import Service
from tests.support.webserver import WebServer, web_server

CATALOG = """
[images]
allow_private_urls = true
"""
ENTRY = """
[[images.catalog]]
id = "{os}"
title = "{os} from the next room"
url = "{url}"
default_user = "nobody"
min_memory_mib = 64
min_disk_gib = 1
checksum = {checksum}
"""


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow2(tmp_path_factory.mktemp("disk"))


def entries(web: WebServer, disk: bytes) -> str:
    """A catalogue: one entry for each form of a checksum, and some that go wrong."""
    digest = hashlib.sha256(disk).hexdigest()
    lists = {
        "gnu": f"{'0' * 64}  other.qcow2\n{digest} *gnu.qcow2\n",
        "bsd": f"SHA256 (other.qcow2) = {'0' * 64}\nSHA256 (bsd.qcow2) = {digest}\n",
        "bare": f"{digest}\n",
    }
    text = CATALOG
    for form, body in lists.items():
        web.file(f"/{form}.qcow2", disk)
        sums = web.file(f"/{form}.sums", body.encode())
        checksum = f'{{ algorithm = "sha256", format = "{form}", url = "{sums}" }}'
        text += ENTRY.format(os=f"{form}-os", url=web.url(f"/{form}.qcow2"), checksum=checksum)
    pinned = f'{{ algorithm = "sha256", digest = "{digest}" }}'
    wrong = f'{{ algorithm = "sha256", digest = "{"1" * 64}" }}'
    for os in ("twice", "slow", "killed", "deleted", "cancelled", "stopped", "shared"):
        text += ENTRY.format(os=f"{os}-os", url=web.url(f"/{os}"), checksum=pinned)
    text += ENTRY.format(os="wrong-os", url=web.file("/wrong", disk), checksum=wrong)
    return text + ENTRY.format(os="gone-os", url=web.url("/gone"), checksum=pinned)


@pytest.fixture(scope="module")
def service(web: WebServer, disk: bytes) -> Iterator[Service]:
    """A running service with a catalogue of its own."""
    service = Service()
    service.config = entries(web, disk)
    try:
        service.start()
        yield service
        check_images(service, service.api())
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


@pytest.fixture(autouse=True)
def clean(service: Service, api: Api) -> Iterator[None]:
    """No VM is left, and nothing that belongs to no image."""
    yield
    for vm in api.ok("GET", "/vms")["vms"]:
        api.remove(vm["id"])
    assert leftovers(service, api) == []
    assert list((service.data / "vms").iterdir()) == []


@pytest.fixture
def hold(web: WebServer, disk: bytes) -> Iterator[Held]:
    held = Held(disk)
    try:
        yield held
    finally:
        held.go.set()


# The catalogue
