"""What the tests of the sources look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("voidvm", "tests", "scripts", "images")


@cache
def python_files() -> tuple[Path, ...]:
    """All Python files of the project."""
    return tuple(sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py")))


@cache
def typescript_files() -> tuple[Path, ...]:
    """The JavaScript SDK's sources and tests, without what is made from the service's."""
    found = sorted(
        path for name in ("src", "test") for path in (ROOT / "sdk/js" / name).glob("*.ts")
    )
    return tuple(path for path in found if "// Made by" not in path.read_text(encoding="utf-8"))


@cache
def shell_scripts() -> tuple[Path, ...]:
    """All shell scripts that run on the host; those of the guests are busybox's business."""
    found = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and is_shell(path)]
    return (*sorted(found), ROOT / ".ci" / "run")


def is_shell(path: Path) -> bool:
    """Whether bash reads the file."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.startswith(("#!/usr/bin/env bash", "# shellcheck shell=bash"))


def place(path: Path, line: int | None = None) -> str:
    """A file, or a line in it, as people and editors read it."""
    name = str(path.relative_to(ROOT))
    return name if line is None else f"{name}:{line}"


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All that is in the file; to go through a tree takes longer than to parse it."""
    return tuple(ast.walk(tree(path)))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a file."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
