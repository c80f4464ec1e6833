"""The files around the code: scripts, generated pages, changelog, licence, the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.meta.sources import ROOT, place, shell_scripts
from voidvm import __version__


def test_shell_scripts_can_be_run_and_stop_at_the_first_error() -> None:
    # Whether they are sound is looked at by scripts/check.
    for script in shell_scripts():
        if script.suffix != ".sh":
            assert os.access(script, os.X_OK), place(script)
            assert "set -euo pipefail" in script.read_text(), place(script)


def test_the_checks_leave_no_shell_script_out() -> None:
    look = next(
        line for line in (ROOT / "scripts" / "check").read_text().splitlines() if "grep" in line
    )
    command = f"{look}\nprintf '%s\\n' \"${{shell_scripts[@]}}\""
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {place(script) for script in shell_scripts()}


@pytest.mark.parametrize("name", ["run", "test", "check", "soak", "install", "uninstall"])
def test_a_script_tells_how_it_is_used(name: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / name, "--help"], capture_output=True, text=True, check=True, timeout=10
    )
    assert done.stdout.startswith(f"Usage: scripts/{name}")
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minute", "3"], "does not know '--minute'"),
        (["--minutes", "3", "soon"], "does not know 'soon'"),
        (["--seed"], "--seed needs a value"),
        (["--minutes=an hour"], "'an hour' is no number of minutes"),
    ],
)
def test_soak_looks_at_its_arguments_before_it_installs_anything(
    arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "soak", *arguments],
        # Whoever gets as far as installing ends there.
        env={"PATH": os.environ["PATH"], "VOIDVM_PYTHON": "/nowhere", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def fake_python(folder: Path, name: str, *, is_new: bool, has_ensurepip: bool) -> Path:
    """A program that answers what scripts/lib.sh asks of a Python."""
    path = folder / name
    lacks = "" if has_ensurepip else "*ensurepip*) exit 1 ;;"
    path.write_text(f'#!/bin/sh\ncase "$*" in {lacks} esac\nexit {0 if is_new else 1}\n')
    path.chmod(0o755)
    return path


def chosen_python(*candidates: Path) -> str:
    command = """. scripts/lib.sh
        first_python 'ensurepip, sys' "$@" || first_python sys "$@" || echo none"""
    done = subprocess.run(
        ["bash", "-c", command, "bash", *candidates],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def test_the_first_python_that_is_new_enough_and_makes_environments_is_taken(
    tmp_path: Path,
) -> None:
    old = fake_python(tmp_path, "old", is_new=False, has_ensurepip=True)
    bare = fake_python(tmp_path, "bare", is_new=True, has_ensurepip=False)
    good = fake_python(tmp_path, "good", is_new=True, has_ensurepip=True)
    late = fake_python(tmp_path, "late", is_new=True, has_ensurepip=True)
    assert chosen_python(tmp_path / "nowhere", old, bare, good, late) == str(good)
    # What Debian splits off is installed then.
    assert chosen_python(old, bare) == str(bare)
    assert chosen_python(old) == "none"


def test_a_python_that_is_named_is_taken_or_refused() -> None:
    def choose(python: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", '. scripts/lib.sh; choose_python; echo "$PYTHON"'],
            cwd=ROOT,
            env=os.environ | {"VOIDVM_PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )

    assert choose(sys.executable).stdout.strip() == sys.executable
    refused = choose("/nowhere")
    assert refused.returncode == 1
    assert refused.stderr == "error: VOIDVM_PYTHON=/nowhere is no Python 3.11 or newer\n"


def test_ci_runs_the_test_command_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set "))]
    assert commands == ['exec "$(dirname "$0")/../scripts/test"']


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert len(sections) == len(set(sections))


def test_the_licence_is_mit_and_names_the_authors() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License")
    assert "The VoidVM authors" in text


def test_the_pages_link_only_to_files_that_are_there() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{page.name} links to {target}"


def test_a_wheel_carries_the_recipes_and_finds_them(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT],
        check=True,
        timeout=80,
    )
    (wheel,) = tmp_path.glob("voidvm-*.whl")
    assert __version__ in wheel.name
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    images = ROOT / "images"
    wanted = {str(path.relative_to(images)) for path in images.rglob("*") if _is_source(path)}
    carried = installed / "voidvm" / "_images"
    assert {str(path.relative_to(carried)) for path in carried.rglob("*") if path.is_file()} == (
        wanted
    )
    assert (installed / "voidvm" / "py.typed").is_file()
    code = (
        "from voidvm import VoidVMClient; VoidVMClient().close()\n"
        "from voidvm.services import recipes; print(recipes.recipes_dir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == carried


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def test_the_settings_of_the_tools_give_their_reasons() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["license"] == "MIT"
    dependencies = re.findall(r'^    "[a-z][a-z0-9.-]*[<>=].*$', text, re.MULTILINE)
    assert dependencies
    # pytest, ruff and mypy need no reason.
    bare = [line for line in dependencies if "#" not in line]
    assert all(re.match(r'    "(pytest|ruff|mypy)>', line) for line in bare), bare
