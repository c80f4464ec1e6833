"""What commands say that work on the service's own files, where these are not as they should be."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data directory whose database is none."""
    (tmp_path / "data").mkdir(mode=0o700, exist_ok=True)
    database = tmp_path / "data" / "voidvm.db"
    database.write_text("this is no database" * 100)
    return database


@pytest.fixture
def served(tmp_path: Path) -> Iterator[None]:
    """A lock on the data directory, as of a service that runs."""
    (tmp_path / "data").mkdir(mode=0o700, exist_ok=True)
    with (tmp_path / "data" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_backup_of_nothing_says_where_it_looked_and_what_to_do(run: Cli, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "b"))
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines() == [
        f"error: there is no database in {tmp_path}/data: no service has kept its state there",
        "hint: name the service's configuration with --config FILE, or be its user or root",
    ]
    assert not (tmp_path / "b").exists()


def test_a_backup_is_no_folder_and_lies_in_one_that_is_there(run: Cli, tmp_path: Path) -> None:
    assert run("init", "--config", str(tmp_path / "voidvm.toml")).status == 0
    for target, said in (
        (tmp_path, f"error: {tmp_path} is a folder"),
        (tmp_path / "none" / "b", f"error: there is no folder {tmp_path}/none to write b into"),
    ):
        done = run("backup", "--force", str(target))
        assert (done.status, done.err.splitlines()[0]) == (1, said)


def test_what_is_no_backup_is_not_restored(run: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no backup")
    done = run("restore", str(tmp_path / "notes"), "--config", str(tmp_path / "voidvm.toml"))
    assert done.status == 1
    assert done.err.startswith("error: notes is no backup of VoidVM: ")


@pytest.mark.parametrize(
    "command",
    [
        "backup {folder}/b",
        "init --config {folder}/voidvm.toml",
        "power-off-guests",
        "image add --os tiny {folder}/vmlinuz",
    ],
)
def test_a_database_that_is_none_is_named(
    run: Cli, tmp_path: Path, broken: Path, command: str
) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    done = run(*command.format(folder=tmp_path).split())
    assert done.status == 1
    assert done.err.startswith(f"error: {broken} cannot be ")
    assert "file is not a database" in done.err


@pytest.mark.usefixtures("served")
def test_powering_off_names_a_database_that_is_none_beside_a_service(
    run: Cli, broken: Path
) -> None:
    done = run("power-off-guests")
    assert done.status == 1
    assert done.err.startswith(f"error: {broken} cannot be used: ")


def test_powering_off_says_where_no_service_answers(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("VOIDVM_SERVER__PORT", "1")
    assert run("init", "--config", str(tmp_path / "voidvm.toml")).status == 0
    request.getfixturevalue("served")
    done = run("power-off-guests")
    assert done.status == 1
    said, hint = done.err.splitlines()
    assert said.startswith("error: the service at http://127.0.0.1:1 gave no answer")
    assert hint == "hint: voidvm doctor looks for the reason"


def test_doctor_says_how_a_backup_comes_back(
    run: Cli, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_SERVER__PORT", "0")
    done = run("doctor")
    assert done.status == 1
    assert f"{broken} cannot be used: file is not a database" in done.out
    assert "→ or bring a backup back: voidvm restore --force FILE" in done.out


@pytest.mark.parametrize("key", ["data_dir", "run_dir"])
def test_a_directory_that_init_would_not_use_is_refused(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    config = tmp_path / "etc" / "voidvm.toml"
    option, other = f"--{key.replace('_', '-')}", str(tmp_path / "other")
    refused = run("init", "--config", str(config), option, other)
    assert refused.status == 2
    assert f"VOIDVM_STORAGE__{key.upper()} is {tmp_path}/" in refused.err
    assert not config.exists()
    for name in ("DATA_DIR", "RUN_DIR"):
        monkeypatch.delenv(f"VOIDVM_STORAGE__{name}")
    given = {"data_dir": str(tmp_path / "data"), "run_dir": str(tmp_path / "run")}
    options = ["--data-dir", given["data_dir"], "--run-dir", given["run_dir"]]
    for _ in range(2):
        assert run("init", "--config", str(config), *options).status == 0, "the same is kept"
    refused = run("init", "--config", str(config), option, other)
    assert refused.status == 2
    said, hint = refused.err.splitlines()
    assert said.startswith(f"error: {config} is there already, and its {key} is {given[key]}: ")
    assert hint == f"hint: write {key} under [storage] there, or name another file with --config"
    assert not (tmp_path / "other").exists()
    (tmp_path / "here").symlink_to(tmp_path)
    for way in (tmp_path / "here", tmp_path / "etc" / ".."):
        again = run("init", "--config", str(config), option, str(way / Path(given[key]).name))
        assert again.status == 0, "another way to the same"
