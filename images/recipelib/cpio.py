"""Writes cpio archives in the "newc" form the Linux kernel takes as an initramfs.

The format is described in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
Written from here, device nodes and ownership by root need no privilege.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the archive; `path` is relative, `mode` includes the file type."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, *, mode: int = 0o755) -> Entry:
    """Describe a directory."""
    return Entry(path=path, mode=stat.S_IFDIR | mode)


def file(path: str, data: bytes, *, mode: int = 0o644) -> Entry:
    """Describe a regular file."""
    return Entry(path=path, mode=stat.S_IFREG | mode, data=data)


def link(path: str, target: str) -> Entry:
    """Describe a symbolic link."""
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def character_device(path: str, *, major: int, minor: int, mode: int = 0o600) -> Entry:
    """Describe a character device node."""
    return Entry(path=path, mode=stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Answer the archive: sorted, owned by root, without times, missing parents added.

    The same entries in any order give the same bytes. A path given twice, or one that is
    absolute or leaves the archive, is a ValueError.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        _check_path(entry.path)
        if entry.path in by_path:
            raise ValueError(f"{entry.path} is in the archive twice")
        by_path[entry.path] = entry
    for path in list(by_path):
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                by_path.setdefault(str(parent), directory(str(parent)))
    # By components: a directory must come before what is in it.
    ordered = sorted(by_path.values(), key=lambda entry: PurePosixPath(entry.path).parts)
    parts = [_member(entry, inode) for inode, entry in enumerate(ordered, start=1)]
    parts.append(_member(Entry(path=_TRAILER, mode=0), 0))
    size = sum(map(len, parts))
    parts.append(bytes(-size % _BLOCK))
    return b"".join(parts)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or ".." in parts or path.startswith("/"):
        raise ValueError(f"{path!r} is no plain relative path")
    if path == _TRAILER:
        raise ValueError(f"{path!r} would end the archive")


def _member(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data),
        0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _aligned(header + name) + _aligned(entry.data)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
