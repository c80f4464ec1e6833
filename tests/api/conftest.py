"""One service with fake QEMUs for all these tests; each test makes VMs and users of its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import FakeHost, FakeQemu
from tests.support.audit import Lines
from tests.support.contract import Api
from tests.support.limited import caller_from, fresh_address, fresh_user, limited_service
from tests.support.live import LiveClient, live
from tests.support.local import LocalService, fake_service
from tests.support.people import Person, person
from voidvm.hypervisor.monitor import Monitor
from voidvm.services.recipes import add_image
from voidvm.supervisor import attachment, machine, shutdown

_numbers = itertools.count(1)


def add_tiny(service: LocalService) -> None:
    """Register an empty disk as the image `tiny`, and files that pass for its kernel."""
    disk = service.folder / "tiny.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"]
    subprocess.run(command, check=True)
    files = [disk]
    for name in ("vmlinuz", "initramfs.gz"):
        files.append(service.folder / name)
        files[-1].write_bytes(b"no kernel")
    asyncio.run(add_image(service.settings, os_name="tiny", files=files, report=lambda _: None))


@pytest.fixture(scope="session")
def local() -> Iterator[LocalService]:
    """The service."""
    service = LocalService(FakeHost())
    try:
        add_tiny(service)
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def own() -> Iterator[LocalService]:
    """A service of the test's own, not started."""
    service = LocalService(FakeHost())
    try:
        add_tiny(service)
        yield service
    finally:
        service.close()


@pytest.fixture
def own_service() -> Iterator[LocalService]:
    """A service of the test's own, to be stopped, started and looked through."""
    with fake_service() as service:
        yield service


@pytest.fixture(scope="module")
def limited() -> Iterator[LocalService]:
    """A service with limits that are soon reached."""
    service = limited_service()
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def stranger(limited: LocalService) -> Iterator[Api]:
    """Somebody whose address has asked the limited service for nothing yet."""
    with caller_from(limited, fresh_address()) as api:
        yield api


@pytest.fixture
def visitor(limited: LocalService) -> Person:
    """A user of the limited service."""
    return fresh_user(limited)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged meanwhile."""
    root, handler = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def host(local: LocalService) -> FakeHost:
    """Where its fakes are."""
    assert local.host is not None
    return local.host


@pytest.fixture(scope="session")
def admin_token(local: LocalService) -> str:
    """A token that no test ends."""
    token = local.api().token
    assert token is not None
    return token


@pytest.fixture(scope="session")
def api(local: LocalService, admin_token: str) -> Api:
    """The API for `admin`."""
    return local.anybody().as_user(admin_token)


@pytest.fixture(scope="session")
def anybody(local: LocalService) -> Api:
    """The API without a credential."""
    return local.anybody()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"vm{next(_numbers)}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake answers at once or never, so patience with it is short."""
    execute = Monitor.execute
    monkeypatch.setattr(execute, "__kwdefaults__", {"timeout_s": 0.4})
    monkeypatch.setattr(attachment, "RECOVER_EVERY_S", 0.1)
    monkeypatch.setattr(attachment, "REATTACH_S", 0.5)
    monkeypatch.setattr(shutdown, "QUIT_S", 0.4)
    monkeypatch.setattr(shutdown, "TERM_S", 0.2)
    monkeypatch.setattr(machine, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(machine, "PRESS_AGAIN_S", 0.1)


@pytest.fixture(autouse=True)
def _no_faults(local: LocalService) -> Iterator[None]:
    """What the service itself calls an error is one, whatever it answered."""
    local.errors.texts.clear()
    yield
    assert local.errors.texts == []


@pytest.fixture
def vm(api: Api, name: str) -> Iterator[str]:
    """The id of a VM that is off."""
    vm_id: str = api.create(name)["id"]
    yield vm_id
    api.call("DELETE", f"/vms/{vm_id}", params={"force": "true"})


@pytest.fixture
def running(api: Api, vm: str) -> str:
    """The id of a VM that runs."""
    api.start(vm)
    return vm


@pytest.fixture
def qemu(host: FakeHost, running: str) -> FakeQemu:
    """The fake behind the running VM."""
    return host.alive()[running]


@pytest.fixture(scope="module")
def shared(api: Api) -> Iterator[str]:
    """The id of a VM that runs; one for all tests of a file that leave it as it is."""
    vm_id: str = api.create(f"shared{next(_numbers)}")["id"]
    api.start(vm_id)
    yield vm_id
    api.remove(vm_id)


# Live sockets


@pytest.fixture
def client(local: LocalService, api: Api) -> Iterator[LiveClient]:
    """The admin's."""
    with live(local.url, token=api.token) as client:
        client.next("hello")
        yield client


@pytest.fixture(scope="module")
def ada(local: LocalService, admin_token: str) -> Person:
    """A user for all tests of a file."""
    return person(local, local.anybody().as_user(admin_token), plan="unlimited")


@pytest.fixture
def hers(local: LocalService, ada: Person) -> Iterator[LiveClient]:
    """Her live socket."""
    with live(local.url, token=ada.api.token) as client:
        client.next("hello")
        yield client
