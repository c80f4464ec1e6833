"""Finds kernel modules in an unpacked package and orders them so that each loads after its needs.

Needs are read from the modules themselves (.modinfo), because packages carry no modules.dep:
depmod writes that at installation.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from recipelib import elf, tools

_FILE_NAME = re.compile(r"(?P<name>.+)\.ko(?P<packing>\.xz|\.zst)?")


class ModuleCycleError(tools.BuildError):
    """Modules need each other in a circle, which no order can satisfy."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """A kernel module, unpacked; `path` is relative to the folder of its kernel version."""

    name: str
    path: str
    data: bytes = field(repr=False)
    depends: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Wanted modules with their needs, in loading order, and the names that were not found."""

    modules: tuple[Module, ...]
    missing: tuple[str, ...]


def canonical(name: str) -> str:
    """Answer a module's name as the kernel has it: dashes are underscores."""
    return name.replace("-", "_")


def loading_order(wanted: Iterable[str], needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Answer the wanted names and everything they need, each after its own needs.

    `needs` has a key for each name that may be asked for; a name absent from it is taken to
    be part of the kernel and left out. Deterministic: follows the order of `wanted`.
    """
    order: dict[str, None] = {}
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in needs:
            return
        if name in open_names:
            circle = " -> ".join([*open_names[open_names.index(name) :], name])
            raise ModuleCycleError(f"modules need each other: {circle}")
        open_names.append(name)
        for need in needs[name]:
            visit(need)
        open_names.pop()
        order[name] = None

    for name in wanted:
        visit(name)
    return list(order)


class ModuleTree:
    """The modules of one kernel version, in a folder `lib/modules/VERSION`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("*.ko*")):
            match = _FILE_NAME.fullmatch(path.name)
            if match is not None:
                self._paths[canonical(match["name"])] = path
        self._builtin = _builtin_names(folder / "modules.builtin")

    @property
    def version(self) -> str:
        """The kernel version, as `uname -r` says it."""
        return self._folder.name

    def select(self, wanted: Iterable[str]) -> Selection:
        """Answer the wanted modules with all they need; built-in ones need no loading."""
        names = [canonical(name) for name in wanted]
        loaded: dict[str, Module] = {}
        waiting = list(names)
        missing: dict[str, None] = {}
        while waiting:
            name = waiting.pop()
            if name in loaded or name in self._builtin:
                continue
            if name not in self._paths:
                missing[name] = None
                continue
            loaded[name] = self._load(name)
            waiting.extend(loaded[name].depends)
        order = loading_order(names, {name: mod.depends for name, mod in loaded.items()})
        return Selection(
            modules=tuple(loaded[name] for name in order), missing=tuple(sorted(missing))
        )

    def _load(self, name: str) -> Module:
        path = self._paths[name]
        data = _unpacked(path)
        info = elf.module_info(data)
        depends = [
            canonical(need) for text in info.get("depends", []) for need in text.split(",") if need
        ]
        # "pre:" soft dependencies make features work (crc32c for ext4): carried when they exist.
        for text in info.get("softdep", []):
            before = text.partition("post:")[0].replace("pre:", " ")
            soft = (canonical(word) for word in before.split())
            depends += [need for need in soft if need in self._paths]
        relative = PurePosixPath(path.relative_to(self._folder).as_posix())
        return Module(
            name=name,
            path=str(relative.with_name(f"{relative.name.partition('.ko')[0]}.ko")),
            data=data,
            depends=tuple(dict.fromkeys(depends)),
            aliases=tuple(info.get("alias", [])),
        )


def dependency_file(modules: Iterable[Module]) -> str:
    """Answer the text of `modules.dep`: each module's path and the paths of all it needs."""
    by_name = {module.name: module for module in modules}
    needs = {name: module.depends for name, module in by_name.items()}
    lines = []
    for name, module in by_name.items():
        # modprobe loads from right to left: the module's direct needs stand first.
        chain = [by_name[need].path for need in reversed(loading_order([name], needs)[:-1])]
        lines.append(f"{module.path}: {' '.join(chain)}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def alias_file(modules: Iterable[Module]) -> str:
    """Answer the text of `modules.alias`, by which the kernel asks for modules."""
    lines = [f"alias {alias} {mod.name}\n" for mod in modules for alias in mod.aliases]
    return "".join(lines)


def _builtin_names(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    lines = path.read_text().splitlines()
    return frozenset(canonical(PurePosixPath(line).name.removesuffix(".ko")) for line in lines)


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return tools.run(["zstd", "-dcq", str(path)])
    return path.read_bytes()
