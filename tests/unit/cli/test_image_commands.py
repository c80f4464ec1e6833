from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.unit.cli.conftest import Cli
from voidvm.services import recipes


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """An empty disk, and files that pass for a kernel."""
    disk = tmp_path / "some.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"]
    subprocess.run(command, check=True)
    for name in ("vmlinuz", "initramfs.gz"):
        (tmp_path / name).write_bytes(name.encode())
    return [str(disk), str(tmp_path / "vmlinuz"), str(tmp_path / "initramfs.gz")]


def _modes(folder: Path) -> set[tuple[str, int]]:
    return {
        ("folder" if path.is_dir() else path.name, path.stat().st_mode & 0o777)
        for path in (folder, *folder.rglob("*"))
    }


def test_images_are_added_where_there_is_no_data_directory_yet(
    run: Cli, tmp_path: Path, files: list[str]
) -> None:
    done = run("image", "add", "--os", "tiny", *files)
    assert (done.status, done.out) == (0, "")
    assert "added image 'tiny' (disk," in done.err
    # QEMU opens kernels anew as another user; the folders above keep everybody else out.
    assert _modes(tmp_path / "data") == {
        ("folder", 0o700),
        ("voidvm.db", 0o600),
        ("disk.qcow2", 0o600),
        ("kernel", 0o644),
    }


def test_adding_again_replaces_and_leaves_nothing_behind(
    run: Cli, tmp_path: Path, files: list[str]
) -> None:
    for _ in range(2):
        assert run("image", "add", "--os", "tiny", *files).status == 0
    assert len(list((tmp_path / "data" / "images").iterdir())) == 3


def test_a_running_service_sees_what_is_added(
    cli: Cli, local: LocalService, api: Api, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("image", "ls").err.startswith("There are no images.")
    monkeypatch.setenv("VOIDVM_STORAGE__DATA_DIR", str(local.settings.data_dir))
    assert cli("image", "add", "--os", "tiny", *files).status == 0
    rows = [line.split()[:3] for line in cli("image", "ls").out.splitlines()]
    assert rows == [
        ["NAME", "KIND", "FORMAT"],
        ["tiny", "disk", "qcow2"],
        ["tiny-initramfs", "kernel", "raw"],
        ["tiny-vmlinuz", "kernel", "raw"],
    ]
    assert len(json.loads(cli("image", "ls", "--json").out)) == 3
    catalog = json.loads(cli("image", "catalog", "--json").out)
    assert [one["os"] for one in catalog if one["present"]] == ["tiny"]
    assert cli("image", "catalog").out.splitlines()[1].startswith("tiny ")
    api.ok("POST", "/vms", {"name": "of-tiny", "os": "tiny", "disk": 1, "memory": 128})


def test_deleting_images_without_a_terminal_needs_a_yes(cli: Cli) -> None:
    refused = cli("image", "rm", "some", "other disk")
    assert refused.status == 2
    assert refused.err.splitlines() == [
        "error: Delete 2 images: 'some', 'other disk'? Nobody is there to say yes.",
        "hint: if that is meant: voidvm image rm --yes some 'other disk'",
    ]
    assert cli("image", "rm", "some").err.startswith("error: Delete image 'some'?")
    assert cli("image", "rm", "--yes", "some").status == 3, "it goes on to look for it"


def test_a_file_that_is_no_image_adds_nothing(run: Cli, tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    done = run("image", "add", "--os", "tiny", *files, str(tmp_path / "notes.txt"))
    assert done.status == 2
    assert done.err == "error: notes.txt is no qcow2 disk, vmlinuz*, initramfs* or *.iso\n"
    assert not (tmp_path / "data").exists()


def test_a_disk_that_needs_another_file_is_refused(
    run: Cli, tmp_path: Path, files: list[str]
) -> None:
    over = tmp_path / "over.qcow2"
    options = ["-f", "qcow2", "-b", files[0], "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", *options, str(over)], check=True)
    done = run("image", "add", "--os", "tiny", str(over))
    assert done.status == 2
    assert "backing file" in done.err
    assert not list((tmp_path / "data" / "images").iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "--os", "tinny", "x"), 2, "Did you mean tiny?"),
        (("add", "--os", "tiny", "/nowhere"), 2, "cannot read /nowhere"),
        (("add", "--os", "tiny"), 2, "Missing argument"),
        (("build", "nothing"), 3, "recipes: debian12, tiny"),
        (("build", "../tiny"), 3, "There is no image"),
    ],
)
def test_mistakes_are_explained(
    run: Cli, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = run("image", *arguments)
    assert done.status == status
    assert said in done.err


def test_a_database_that_is_none_is_named(run: Cli, tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "voidvm.db").write_text("this is no database" * 100)
    done = run("image", "add", "--os", "tiny", *files)
    assert done.status == 1
    assert "file is not a database" in done.err


def test_a_build_says_what_to_install(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes._load("tiny", recipes.recipes_dir() / "tiny" / "build.py")
    tools = importlib.import_module("recipelib.tools")  # found once a recipe was loaded
    monkeypatch.setattr(tools, "_SEARCH_PATH", str(tmp_path))
    done = run("image", "build", "tiny", "--output", str(tmp_path / "out"))
    assert done.status == 1
    assert "run: apt-get install --no-install-recommends apt dpkg mtools" in done.err
    assert not list((tmp_path / "out").iterdir())
