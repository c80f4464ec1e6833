from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.local import LocalService
from voidvm import config
from voidvm.domain.checkup import Finding
from voidvm.hypervisor import probe
from voidvm.hypervisor.probe import AccelVerdict, ProbeReport
from voidvm.security.passwords import Passwords
from voidvm.services import checkup as checkups
from voidvm.services.checkup import checkup, fits
from voidvm.services.checkup_state import lock_holder
from voidvm.services.recipes import add_image
from voidvm.store.database import Database, Transaction
from voidvm.store.inspection import inspect
from voidvm.store.migrations import MIGRATIONS


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="vv-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    _find(monkeypatch, kvm=True, tcg=True)


def _find(monkeypatch: pytest.MonkeyPatch, *, kvm: bool, tcg: bool) -> None:
    """Let the probe, which has tests of its own, find this."""

    async def found(**_options: object) -> ProbeReport:
        return ProbeReport(
            kvm=AccelVerdict(accel="kvm", works=kvm, reason="because"),
            tcg=AccelVerdict(accel="tcg", works=tcg, reason="because"),
        )

    monkeypatch.setattr(checkups, "cached_probe", found)


async def _look(folder: Path, **more: str) -> Mapping[str, Finding]:
    environ = {
        "VOIDVM_STORAGE__DATA_DIR": str(folder / "d"),
        "VOIDVM_STORAGE__RUN_DIR": str(folder / "r"),
        "VOIDVM_SERVER__PORT": "0",
        **more,
    }
    return {finding.name: finding for finding in await checkup(config.load(environ=environ))}


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _content(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("voidvm.db*")
        if not path.name.endswith("-shm")  # where readers note that they read
    }


async def test_on_a_fresh_host_nothing_fails_and_nothing_is_made(folder: Path) -> None:
    found = await _look(folder)
    assert [one for one in found.values() if one.verdict == "fail"] == []
    assert found["data directory"].detail == f"{folder}/d is made at the first start"
    assert found["guest image"].advice == "build it: voidvm image build tiny"
    assert list(folder.iterdir()) == []


async def test_versions_are_those_that_run_here(folder: Path) -> None:
    found = await _look(folder)
    assert found["qemu-img"].detail.split()[0] in _said("qemu-img", "--version")
    assert found["sqlite"].detail == sqlite3.sqlite_version
    assert "sanic 2" in found["libraries"].detail


@pytest.mark.parametrize(
    ("version", "verdict", "detail"),
    [
        ("QEMU emulator version 9.1.0", "ok", "9.1.0"),
        ("QEMU emulator version 10.0", "ok", "10.0"),
        ("QEMU emulator version 6.2.0 (Debian)", "fail", "6.2.0 is too old"),
        ("something else", "fail", "says: something else"),
    ],
)
async def test_a_qemu_too_old_for_our_options_is_refused(
    folder: Path, version: str, verdict: str, detail: str
) -> None:
    binary = folder / "qemu"
    binary.write_text(f"#!/bin/sh\necho '{version}'\n")
    binary.chmod(0o755)
    found = (await _look(folder, VOIDVM_QEMU__BINARY=str(binary)))["qemu"]
    assert found.verdict == verdict
    assert detail in found.detail


@pytest.mark.parametrize(
    ("accel", "kvm", "tcg", "verdicts"),
    [
        ("auto", True, True, ("ok", "ok")),
        ("auto", False, True, ("warn", "ok")),
        ("auto", False, False, ("fail", "fail")),
        ("kvm", False, True, ("fail", "ok")),
        ("tcg", True, False, ("ok", "fail")),
    ],
)
async def test_an_accelerator_that_is_needed_must_work(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    accel: str,
    kvm: bool,  # noqa: FBT001 - a parameter of pytest's
    tcg: bool,  # noqa: FBT001 - see above
    verdicts: tuple[str, str],
) -> None:
    _find(monkeypatch, kvm=kvm, tcg=tcg)
    found = await _look(folder, VOIDVM_QEMU__ACCEL=accel)
    assert (found["kvm"].verdict, found["tcg"].verdict) == verdicts


async def test_accelerators_are_tried_and_not_guessed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkups, "cached_probe", probe.cached_probe)
    assert (await _look(folder))["tcg"].detail.startswith("works: the probe guest finished in")


async def test_an_open_data_directory_is_warned_about(folder: Path) -> None:
    (folder / "d").mkdir(mode=0o755)
    found = (await _look(folder))["data directory"]
    assert (found.verdict, found.detail) == ("warn", f"{folder}/d has mode 0755")


async def test_a_file_in_the_place_of_a_directory_fails(folder: Path) -> None:
    (folder / "d").write_text("")
    assert (await _look(folder))["data directory"].detail == f"{folder}/d is no directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_somebody_elses_directory_fails(folder: Path) -> None:
    (folder / "d").mkdir(mode=0o700)
    os.chown(folder / "d", 65534, 65534)
    found = (await _look(folder))["data directory"]
    assert (found.verdict, "not to root" in found.detail) == ("fail", True)


async def test_a_run_directory_too_long_for_sockets_fails(folder: Path) -> None:
    found = await _look(folder, VOIDVM_STORAGE__RUN_DIR=str(folder / ("r" * 100)))
    assert found["run directory"].verdict == "fail"
    assert "107" in found["run directory"].advice


async def test_a_port_in_use_fails_unless_it_is_our_own(folder: Path) -> None:
    service = LocalService(FakeHost())
    try:
        service.start()
        port = service.url.rpartition(":")[2]
        found = (await _look(folder, VOIDVM_SERVER__PORT=port))["service"]
        assert (found.verdict, "Address already in use" in found.detail) == ("fail", True)
        data = str(service.settings.data_dir)
        found = (await _look(folder, VOIDVM_SERVER__PORT=port, VOIDVM_STORAGE__DATA_DIR=data))[
            "service"
        ]
        assert (found.verdict, found.detail) == ("ok", f"runs as process {os.getpid()}")
    finally:
        service.close()


async def test_a_running_services_database_is_read_and_not_changed(folder: Path) -> None:
    service = LocalService(FakeHost())
    try:
        service.start()
        service.api().ok("POST", "/vms", {"name": "one", "disk": 1})
        service.run(service.services.audit.written())
        before = _content(service.settings.data_dir)
        found = await _look(folder, VOIDVM_STORAGE__DATA_DIR=str(service.settings.data_dir))
        assert found["database"].detail == f"version {len(MIGRATIONS)}, 1 VMs"
        assert found["admin password"].detail == "'admin' has the default password"
        assert found["signing key"].verdict == "ok"
        assert _content(service.settings.data_dir) == before
        assert len(before) == 2, "the write-ahead log is part of it"
    finally:
        service.close()


async def test_what_a_killed_service_left_in_its_log_counts(folder: Path) -> None:
    database = await Database.open(folder / "voidvm.db")

    async def work(transaction: Transaction) -> None:
        await transaction.execute(
            "INSERT INTO users (id, username, role, plan, status, password_hash, created_at)"
            " VALUES ('u', 'admin', 'admin', 'p', 'active', 'h', 't')"
        )

    await database.write(work)
    try:
        (folder / "copy").mkdir()
        for name in ("voidvm.db", "voidvm.db-wal"):
            shutil.copyfile(folder / name, folder / "copy" / name)
    finally:
        await database.close()
    before = _content(folder / "copy")
    assert inspect(folder / "copy" / "voidvm.db").admin_hash == "h"
    assert _content(folder / "copy") == before


async def test_a_damaged_database_fails(folder: Path) -> None:
    (folder / "d").mkdir(mode=0o700)
    (folder / "d" / "voidvm.db").write_bytes(b"nothing of ours" * 1000)
    assert (await _look(folder))["database"].verdict == "fail"


async def test_a_database_of_a_newer_version_fails(folder: Path) -> None:
    (folder / "d").mkdir(mode=0o700)
    await (await Database.open(folder / "d" / "voidvm.db")).close()
    with sqlite3.connect(folder / "d" / "voidvm.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "is of version 99" in (await _look(folder))["database"].detail


@pytest.mark.parametrize(
    ("host", "password", "verdict"),
    [
        ("127.0.0.1", "", "warn"),
        ("0.0.0.0", "", "fail"),  # noqa: S104 - nobody listens
        ("0.0.0.0", "better", "ok"),  # noqa: S104 - see above
    ],
)
async def test_the_default_password_is_for_loopback_only(
    folder: Path, host: str, password: str, verdict: str
) -> None:
    found = await _look(folder, VOIDVM_SERVER__HOST=host, VOIDVM_AUTH__ADMIN_PASSWORD=password)
    assert found["admin password"].verdict == verdict


async def test_a_password_that_was_changed_is_known_by_its_hash(folder: Path) -> None:
    (folder / "d").mkdir(mode=0o700)
    database = await Database.open(folder / "d" / "voidvm.db")
    secret = await Passwords().hash("another")

    async def work(transaction: Transaction) -> None:
        await transaction.execute(
            "INSERT INTO users (id, username, role, plan, status, password_hash, created_at)"
            " VALUES ('u', 'admin', 'admin', 'p', 'active', ?, 't')",
            (secret,),
        )

    await database.write(work)
    await database.close()
    assert (await _look(folder))["admin password"].verdict == "ok"


async def test_an_image_without_its_file_fails(folder: Path) -> None:
    disk = folder / "tiny.qcow2"
    _said("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M")
    settings = config.load(environ={"VOIDVM_STORAGE__DATA_DIR": str(folder / "d")})
    [image] = await add_image(settings, os_name="tiny", files=[disk], report=lambda _: None)
    assert (await _look(folder))["guest image"].detail == f"'tiny' is here ({image.id})"
    shutil.rmtree(folder / "d" / "images" / image.id)
    assert (await _look(folder))["guest image"].verdict == "fail"


def test_only_a_held_lock_has_a_holder(folder: Path) -> None:
    lock = folder / "lock"
    assert lock_holder(lock) is None
    with lock.open("w") as file:
        assert lock_holder(lock) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock_holder(lock) == os.getpid()
    assert lock_holder(lock) is None


@pytest.mark.parametrize(
    ("version", "wanted", "is_fit"),
    [
        ("25.12.1", "<26,>=25.12", True),
        ("26.0", "<26,>=25.12", False),
        ("25.9", "<26,>=25.12", False),
        ("0.0.6", "<0.1,>=0.0.5", True),
        ("1", "", True),
    ],
)
def test_versions_are_compared_as_numbers(
    version: str,
    wanted: str,
    is_fit: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    assert fits(version, wanted) is is_fit
