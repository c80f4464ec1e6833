"""Booted guests: one service and as few boots as possible for the tests of a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm_guests
from tests.support.contract import Api
from tests.support.service import Service

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def service(guest: Path) -> Iterator[Service]:
    """A running service that knows the guest `tiny` and a CD called `tiny-iso`."""
    service = Service(**warm_guests.settings(guest))
    try:
        service.add_guest(guest)
        disc = service.folder / "disc.iso"
        disc.write_bytes(b"written on the disc".ljust(2048, b".") * 64)
        done = service.command("image", "add", "--os", "tiny", str(disc))
        assert done.returncode == 0, done.stderr
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    """The API for `admin`, signed in once a file."""
    return service.api()
