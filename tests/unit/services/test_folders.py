"""Folders go as soon as the host lets us remove them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from voidvm.services import folders
from voidvm.services.folders import remove_folders


async def test_all_that_is_there_is_removed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "in" / "it").mkdir(parents=True)
    await remove_folders(tmp_path / "not there", there)
    assert list(tmp_path.iterdir()) == []


async def test_a_host_without_descriptors_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "RETRY_S", 0.01)
    remove, tries = shutil.rmtree, list[Path]()

    def rmtree(path: Path) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    folder = tmp_path / "folder"
    folder.mkdir()
    await remove_folders(folder)
    assert (len(tries), folder.exists()) == (3, False)


async def test_what_cannot_be_removed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.touch()
    await remove_folders(file)
    assert f"cannot remove {file}: Not a directory" in caplog.text
