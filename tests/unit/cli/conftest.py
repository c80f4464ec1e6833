"""A service with fake QEMUs, and the command line in this process or in one of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.fakes.qemu import FakeQemu
from tests.support.contract import Api
from tests.support.local import LocalService, restartable
from tests.support.service import PASSWORD
from voidvm.cli import main

_numbers = itertools.count(1)


class Result(Struct, frozen=True):
    """What a command did."""

    status: int
    out: str
    err: str


Cli = Callable[..., Result]


def checkout() -> dict[str, str]:
    """What leads a process to the checkout under test, where that is not the installed one."""
    return {"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalService]:
    """A service that keeps its address when it starts again."""
    service = restartable(VOIDVM_CONSOLE__HISTORY_BYTES="65536", VOIDVM_METRICS__INTERVAL="1")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(local: LocalService) -> Api:
    """The API for `admin`, signed in once a file."""
    return local.api()


@pytest.fixture
def vm(api: Api) -> Iterator[str]:
    """The name of a VM that is off."""
    name = f"cli{next(_numbers)}"
    api.ok("POST", "/vms", {"name": name, "memory": 128, "disk": 1})
    yield name
    api.call("DELETE", f"/vms/{name}", params={"force": "true"})


@pytest.fixture
def running(api: Api, vm: str) -> str:
    """The name of a VM that runs."""
    api.start(vm)
    return vm


@pytest.fixture
def qemu(local: LocalService, api: Api, running: str) -> FakeQemu:
    """The fake behind the running VM."""
    assert local.host is not None
    return local.host.alive()[api.ok("GET", f"/vms/{running}")["id"]]


@pytest.fixture
def environ(local: LocalService, api: Api, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has signed in."""
    assert api.token is not None
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "VOIDVM_URL": local.url,
        "VOIDVM_TOKEN": api.token,
        **checkout(),
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs commands in this process, for somebody who has never used VoidVM."""
    for name in [name for name in os.environ if name.startswith("VOIDVM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("VOIDVM_STORAGE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VOIDVM_STORAGE__RUN_DIR", str(tmp_path / "run"))
    # Else it would put an excepthook of its own in.
    monkeypatch.setenv("VOIDVM_DEBUG", "1")

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return Result(int(status), said.out, said.err)

    return run


@pytest.fixture
def cli(run: Cli, local: LocalService, api: Api, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs commands in this process, on the service, as `admin`."""
    assert api.token is not None
    monkeypatch.setenv("VOIDVM_URL", local.url)
    monkeypatch.setenv("VOIDVM_TOKEN", api.token)
    return run


@pytest.fixture
def signed_in(run: Cli, local: LocalService, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs commands in this process, with a login that was saved."""
    monkeypatch.setenv("VOIDVM_PASSWORD", PASSWORD)
    assert run("login", "--url", local.url).status == 0
    return run
