"""Fixtures that several folders share: the guest, and a real service with it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm_guests
from tests.support.contract import Api
from tests.support.service import Service

GUEST_FILES = ("vmlinuz", "initramfs.gz", "tiny.qcow2")
LONGEST_FIRST = ("faults", "meta", "sdk", "guest", "real", "api")


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the tests as Ctrl-C does: services and guests are ended on the way."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        warm_guests.open_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    if not hasattr(config, "workerinput"):
        warm_guests.remove_folder()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take longest, so that all cores end at about one time."""
    items.sort(
        key=lambda item: next(
            (n for n, name in enumerate(LONGEST_FIRST) if name in item.path.parts),
            len(LONGEST_FIRST),
        )
    )


def pytest_collection_finish() -> None:
    """Collect garbage more rarely: what the tests are made of stays, and was searched each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Search for garbage once; pytest would five times, and Python again when it ends."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def guest() -> Path:
    """The folder with the built guest `tiny`; `scripts/test` makes it."""
    default = Path(__file__).parents[1] / ".cache" / "tiny"
    folder = Path(os.environ.get("VOIDVM_TEST_GUEST", default))
    missing = [name for name in GUEST_FILES if not (folder / name).exists()]
    assert not missing, f"{folder} lacks {missing}: voidvm image build tiny --output {folder}"
    return folder


@pytest.fixture(scope="module")
def service(guest: Path) -> Iterator[Service]:
    """A running service that knows the guest `tiny`; one for all tests of a file."""
    service = Service()
    try:
        service.add_guest(guest)
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def api(service: Service) -> Api:
    """The API for `admin`."""
    return service.api()
