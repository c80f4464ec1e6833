"""Fetches and unpacks Debian or Ubuntu packages without installing them and without root."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from recipelib import elf, tools

_LIBRARY_PACKAGE = re.compile(r"lib[a-z0-9.+-]+")
# The concrete packages; the meta packages above them carry no version in their name.
_KERNEL_PACKAGE = re.compile(r"linux-(image|modules)-\S*\d+\.\d+\S*")


class PackageUnknownError(tools.BuildError):
    """None of the acceptable packages is known to apt on this host."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"apt knows none of {', '.join(names)}; run apt-get update, and see that the "
            "distribution's main (on Ubuntu also universe) section is enabled"
        )


def known(names: Iterable[str]) -> set[str]:
    """Answer which of the packages apt can install, from one question to apt."""
    return parse_policy(tools.run(["apt-cache", "policy", *sorted(set(names))]).decode())


def parse_policy(text: str) -> set[str]:
    """Answer the packages that have a candidate in the output of `apt-cache policy`."""
    found = set()
    package = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            package = line.removesuffix(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            found.add(package)
    return found


def first(names: Sequence[str], available: Collection[str]) -> str:
    """Answer the first of the packages that is available; PackageUnknownError otherwise."""
    for name in names:
        if name in available:
            return name
    raise PackageUnknownError(names)


def dependency_graph(names: Iterable[str]) -> dict[str, list[str]]:
    """Answer package -> packages it depends on, for the named ones and all below them."""
    command = ["apt-cache", "depends", "--recurse", "--important", *sorted(names)]
    return parse_depends(tools.run(command).decode())


def parse_depends(text: str) -> dict[str, list[str]]:
    """Read `apt-cache depends --recurse --important`: of alternatives the first counts."""
    graph: dict[str, list[str]] = {}
    package = ""
    is_alternative = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            package = line
            graph.setdefault(package, [])
            is_alternative = False
            continue
        match = re.fullmatch(r"\s+(\|?)(?:Pre)?Depends: (\S+)", line)
        if match is None:
            continue
        # "|Depends: a" is followed by the alternative "Depends: b"; virtual packages are <x>,
        # those of another architecture name:arch.
        if not is_alternative and not match[2].startswith("<") and ":" not in match[2]:
            graph[package].append(match[2])
        is_alternative = match[1] == "|"
    return graph


def kernel_packages(name: str, graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Answer the packages with the image and modules that a kernel meta package stands for."""
    return [found for found in _closure(name, graph, _KERNEL_PACKAGE) if _is_kernel(found)]


def library_packages(name: str, graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Answer the package and the library packages it needs."""
    return _closure(name, graph, _LIBRARY_PACKAGE)


def _is_kernel(name: str) -> bool:
    return _KERNEL_PACKAGE.fullmatch(name) is not None


def _closure(name: str, graph: Mapping[str, Sequence[str]], wanted: re.Pattern[str]) -> list[str]:
    found = {name}
    waiting = [name]
    while waiting:
        needed = {need for need in graph.get(waiting.pop(), ()) if wanted.fullmatch(need)}
        waiting.extend(needed - found)
        found |= needed
    return sorted(found)


def fetch(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """Download packages into `folder`, checked by apt against its signed lists; name -> file."""
    wanted = sorted(set(names))
    folder.mkdir(parents=True, exist_ok=True)
    # apt's own user could not write into our private folder; apt would warn and go on as root.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    try:
        tools.run(["apt-get", *sandbox, "-qq", "download", *wanted], cwd=folder)
    except tools.ToolFailedError as error:
        raise tools.BuildError(
            f"packages could not be downloaded; apt-get update may help. {error}"
        ) from error
    return {name: next(folder.glob(f"{name}_*.deb")) for name in wanted}


def unpack(files: Iterable[Path], folder: Path) -> Path:
    """Unpack package files into `folder`, running none of their scripts. Answers the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        tools.run(["dpkg-deb", "-x", str(file), str(folder)])
    return folder


def shared_libraries(program: Path, root: Path) -> dict[str, Path]:
    """Answer soname -> file for all libraries the program needs, found below `root`.

    The dynamic loader is among them, since libc needs it. A library that is in none of the
    unpacked packages is a BuildError.
    """
    available: dict[str, Path] = {}
    for path in sorted(root.rglob("*.so*")):
        if path.is_file() and ".so" in path.name:
            available.setdefault(path.name, path)
    found: dict[str, Path] = {}
    waiting = elf.needed_libraries(program.read_bytes())
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in available:
            raise tools.BuildError(f"{program.name} needs {name}, which no package brought")
        found[name] = available[name].resolve()
        waiting += elf.needed_libraries(found[name].read_bytes())
    return dict(sorted(found.items()))
