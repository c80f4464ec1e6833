"""Reads a recipe: the file `image.toml` and the folder `rootfs` beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipelib import cpio, tools


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an image is made of, as `image.toml` says it."""

    folder: Path
    id: str
    title: str
    version: str
    default_user: str
    min_memory_mib: int
    disk_mib: int
    formats: tuple[str, ...]
    cmdline: str
    files: Mapping[str, str]
    packages: Mapping[str, list[str]]
    modules: Mapping[str, list[str]] = field(default_factory=dict)
    rootfs: Mapping[str, Any] = field(default_factory=dict)


def load(folder: Path) -> Recipe:
    """Read `image.toml` of a recipe's folder; unknown or missing keys are a BuildError."""
    path = folder / "image.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        values["formats"] = tuple(values.get("formats", ()))
        return Recipe(folder=folder, **values)
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise tools.BuildError(f"{path}: {error}") from error


def rootfs_entries(recipe: Recipe) -> list[cpio.Entry]:
    """Answer the recipe's own files, directories and links as archive entries.

    A file that starts with "#!" is executable in the guest: modes do not survive everywhere
    a recipe travels (wheels, archives, some shared folders).
    """
    root = recipe.folder / "rootfs"
    entries = []
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        mode = 0o755 if data.startswith(b"#!") else 0o644
        entries.append(cpio.file(path.relative_to(root).as_posix(), data, mode=mode))
    entries += [cpio.directory(name) for name in recipe.rootfs.get("directories", [])]
    links = recipe.rootfs.get("links", {})
    entries += [cpio.link(name, target) for name, target in links.items()]
    return entries
