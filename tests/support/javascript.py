"""The JavaScript SDK: Node.js, its build, and programs that use it."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.meta.sources import ROOT

SDK = ROOT / "sdk" / "js"
OLDEST_NODE = (20, 3)
# The first installation fetches packages; two builds take seconds of a core.
BUILD_TIMEOUT_S = 240


@cache
def node() -> Path:
    """Node.js. Skips the test where there is none that is new enough."""
    # scripts/test puts one beside Python where the distribution's is too old.
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    old = "none"
    for folder in places.split(os.pathsep):
        file = Path(folder) / "node"
        if not file.exists():
            continue
        done = subprocess.run([file, "--version"], capture_output=True, text=True, check=True)
        if tuple(map(int, re.findall(r"\d+", done.stdout)[:2])) >= OLDEST_NODE:
            return file
        old = done.stdout.strip()
    pytest.skip(f"the SDK needs Node.js 20.3, here is {old}")


@cache
def build() -> Path:
    """The folder of the package, built from its present sources, and its tests in `build`."""
    node()
    with _alone():
        _install()
        if not _is_fresh():
            _npm("run", "build", "--silent")
    return SDK


def pack(folder: Path) -> Path:
    """The package as it would be published."""
    build()
    _npm("pack", "--ignore-scripts", "--silent", "--pack-destination", str(folder))
    (package,) = folder.glob("*.tgz")
    return package


def install(package: Path, folder: Path) -> None:
    """Install the package alone into an empty folder, as its users do."""
    (folder / "package.json").write_text('{"type": "module", "private": true}\n')
    _npm("install", "--offline", "--no-audit", "--no-fund", str(package), cwd=folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Of all processes that test, only this one."""
    with (SDK / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install() -> None:
    """What `package-lock.json` names, unless it is there."""
    lock, installed = SDK / "package-lock.json", SDK / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        _npm("ci", "--no-audit", "--no-fund", "--silent")


def _is_fresh() -> bool:
    made = [SDK / "dist" / "index.js", SDK / "build" / "support.js"]
    names = ("src/*.ts", "test/*.ts", "tsconfig.json", "test/tsconfig.json", "package.json")
    newest = max(file.stat().st_mtime for name in names for file in SDK.glob(name))
    return all(file.exists() and file.stat().st_mtime >= newest for file in made)


def _npm(*arguments: str, cwd: Path = SDK) -> None:
    path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["npm", *arguments],
        cwd=cwd,
        env=os.environ | {"PATH": path, "npm_config_update_notifier": "false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
