"""A service with the images that disks lie over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, iso, qcow2
from tests.support.operations import (
    succeeded,
    upload,
)
from tests.support.service import Service

GIB = 1024**3
SAYS = b"read from this disk"


# 16-bit code: read the first sector of the second disk, and write what stands there to COM1.
LOADER = bytes.fromhex(
    "31c08ed88ec0b80102b90100ba8100bb0080cd13be0080ac84c0741050bafd03eca82074fb58baf803eeebebf4ebfd"
)


def sectors(first: bytes) -> bytes:
    """A raw disk with a boot sector."""
    return first.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with an image of each kind, and a plan with few GiB."""
    service = Service(
        VOIDVM_PLANS__FREE__MAX_DISK="5",
        VOIDVM_PLANS__FREE__MAX_VMS="9",
    )
    try:
        service.start()
        api = service.api()
        for name, data in (
            ("base", qcow2(tmp_path_factory.mktemp("base"))),
            ("loader", sectors(LOADER)),
            ("speaking", sectors(SAYS + b"\r\n")),
            ("cd", iso(("hello.txt", b"hello"))),
            ("cd2", iso(("other.txt", b"other"))),
        ):
            succeeded(api, upload(api, data, name))
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


@pytest.fixture
def vm(api: Api) -> Iterator[Json]:
    made = api.ok("POST", "/vms", {"name": "disky", "memory": 32, "disk": 1, "networks": []})
    yield made
    api.remove(made["id"])


# Stopped
