"""The service's own state in a file, taken while it works, and brought back."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.service import Service
from voidvm.errors import LocalFailure
from voidvm.services import backup as backups
from voidvm.store.migrations import MIGRATIONS
from voidvm.supervisor.paths import Layout


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def api(service: Service) -> Api:
    return service.api()


def add(api: Api, name: str, **more: Json) -> str:
    body = {"name": name, "memory": 32, "disk": 1, "networks": [], **more}
    vm_id: str = api.ok("POST", "/vms", body)["id"]
    return vm_id


def backup(service: Service, file: Path) -> Path:
    done = service.command("backup", str(file))
    assert done.returncode == 0, done.stderr
    return file


def states(api: Api) -> dict[str, tuple[str, str | None]]:
    return {vm["name"]: (vm["status"], vm["statusReason"]) for vm in api.ok("GET", "/vms")["vms"]}


def test_what_was_there_then_is_there_again(service: Service, api: Api, tmp_path: Path) -> None:
    """Of a running service, restored over a later state, while guests go on."""
    kept, ended = add(api, "kept", start=True), add(api, "ended", start=True)
    pid = api.ok("GET", f"/vms/{kept}")["pid"]
    token = api.ok("POST", "/auth/tokens", {"name": "ci"})["token"]
    file = backup(service, tmp_path / "state.tar.gz")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["manifest.json", "voidvm.db", "secret.key"]

    # Afterwards: a VM that the backup does not know, one that is stopped, a user.
    late = add(api, "late")
    api.stop(ended)
    api.ok("POST", "/users", {"username": "late", "password": "long enough"})
    seen = api.ok("GET", "/events", params={"limit": 1})["lastId"]

    refused = service.command("restore", str(file), "--force")
    assert refused.returncode == 1
    assert "a service runs" in refused.stderr
    service.stop()
    refused = service.command("restore", str(file))
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    done = service.command("restore", str(file), "--force")
    assert done.returncode == 0, done.stderr
    assert f"found again by the next start: {kept}" in done.stderr

    service.start()
    assert api.call("GET", "/vms").status_code == 401  # sessions end
    assert set(states(api.as_user(token))) == {"kept", "ended"}
    api = service.api()
    assert states(api) == {"kept": ("running", None), "ended": ("stopped", "restored")}
    assert api.ok("GET", f"/vms/{kept}")["pid"] == pid
    # What follows is not taken for what others have seen.
    refusal = api.call("GET", "/events", params={"after": seen})
    assert refusal.json()["error"]["code"] == "RESYNC_REQUIRED"
    # Nothing was deleted: the later state, and the disk of the VM that it knew.
    [folder] = service.data.glob("replaced-*")
    assert {path.name for path in folder.iterdir()} >= {"voidvm.db", "secret.key", "vms"}
    assert (folder / "vms" / late / "disks" / "disk0.qcow2").is_file()
    api.start(ended)


def test_another_host_gets_it_with_its_configuration(
    service: Service, api: Api, tmp_path: Path
) -> None:
    add(api, "a")
    config = tmp_path / "voidvm.toml"
    config.write_text(f'[storage]\ndata_dir = "{tmp_path}/there"\nrun_dir = "{tmp_path}/r"\n')
    done = service.command("backup", str(tmp_path / "b"), VOIDVM_CONFIG=str(config))
    assert done.returncode == 0, done.stderr
    config.unlink()
    bare = {"PATH": service.environ["PATH"], "HOME": str(tmp_path), "VOIDVM_CONFIG": str(config)}
    other = Service()
    try:
        done = other.command("restore", str(tmp_path / "b"), **bare)
        assert done.returncode == 0, done.stderr
        assert "data_dir" in config.read_text()
        assert (other.data / "voidvm.db").is_file()
        assert stat.S_IMODE((other.data / "secret.key").stat().st_mode) == 0o600
        other.start()
        assert list(states(other.api())) == ["a"]
    finally:
        other.close()


@pytest.fixture(scope="module")
def state() -> Iterator[Service]:
    """A data directory that no service uses."""
    service = Service()
    done = service.command("init", VOIDVM_CONFIG=str(service.folder / "voidvm.toml"))
    assert done.returncode == 0, done.stderr
    yield service
    service.close()


def test_a_file_that_is_there_is_kept(state: Service, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_text("precious")
    done = state.command("backup", str(file))
    assert (done.returncode, file.read_text()) == (1, "precious")
    assert "--force" in done.stderr
    assert state.command("backup", str(file), "--force").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def damaged(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    elif how == "foreign":
        file.write_bytes(os.urandom(1000))
    else:
        with tarfile.open(file, "w:gz") as archive:
            archive.add("/etc/hostname", "manifest.json")


async def restore(file: Path, layout: Layout) -> None:
    with file.open("rb") as opened, backups.Backup(opened, file.name) as found:
        await backups.restore(found, layout, config=None, is_forced=True)


@pytest.mark.parametrize("how", ["cut", "changed", "foreign", "other tar"])
async def test_a_damaged_file_changes_nothing(state: Service, tmp_path: Path, how: str) -> None:
    layout = Layout(data=state.data, run=state.run)
    file = tmp_path / "b"
    backups.write(layout, None, file, is_forced=False)
    damaged(file, how)
    before = {path.name: path.read_bytes() for path in state.data.iterdir()}
    with pytest.raises(LocalFailure, match=r"damaged|no backup"):
        await restore(file, layout)
    assert {path.name: path.read_bytes() for path in state.data.iterdir()} == before


def test_the_backup_of_a_newer_version_is_refused(
    state: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b"
    backups.write(Layout(data=state.data, run=state.run), None, file, is_forced=False)
    monkeypatch.setattr(backups, "MIGRATIONS", MIGRATIONS[:-1])
    with file.open("rb") as opened, pytest.raises(LocalFailure, match="newer than this"):
        backups.Backup(opened, "b")


def test_without_a_service_nothing_is_left_beside_the_database(
    state: Service, tmp_path: Path
) -> None:
    backup(state, tmp_path / "b")
    assert not list(state.data.glob("voidvm.db-*"))
