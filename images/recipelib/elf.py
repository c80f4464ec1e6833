"""Reads the two facts recipes need from ELF files: shared libraries wanted, and module notes.

Little-endian ELF-64 only: the guests are x86-64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_DYNAMIC_SECTION = 6
_NO_BITS = 8
_NEEDED = 1


class NotElfError(ValueError):
    """The bytes are no 64-bit little-endian ELF file."""


@dataclass(frozen=True, kw_only=True)
class _Section:
    name_offset: int
    kind: int
    offset: int
    size: int
    link: int


def needed_libraries(data: bytes) -> list[str]:
    """Answer the sonames a program or library is linked with (DT_NEEDED)."""
    sections = _sections(data)
    names: list[str] = []
    for section in sections:
        if section.kind != _DYNAMIC_SECTION:
            continue
        strings = _content(data, sections[section.link])
        for tag, value in struct.iter_unpack("<qQ", _content(data, section)):
            if tag == _NEEDED:
                names.append(_string(strings, value))
    return names


def module_info(data: bytes) -> dict[str, list[str]]:
    """Answer the notes of a kernel module (.modinfo): key -> all values, in order."""
    sections = _sections(data)
    (names_index,) = struct.unpack_from("<H", data, 62)
    names = _content(data, sections[names_index])
    notes: dict[str, list[str]] = {}
    for section in sections:
        if _string(names, section.name_offset) != ".modinfo":
            continue
        for note in _content(data, section).split(b"\0"):
            key, separator, value = note.decode(errors="replace").partition("=")
            if separator:
                notes.setdefault(key, []).append(value)
    return notes


def _sections(data: bytes) -> list[_Section]:
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
        raise NotElfError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    if table + size * count > len(data):
        raise NotElfError("the section table lies outside the file")
    sections = []
    for index in range(count):
        name, kind, _flags, _address, offset, length, link = struct.unpack_from(
            "<IIQQQQI", data, table + index * size
        )
        sections.append(
            _Section(name_offset=name, kind=kind, offset=offset, size=length, link=link)
        )
    return sections


def _content(data: bytes, section: _Section) -> bytes:
    if section.kind == _NO_BITS:
        return b""
    return data[section.offset : section.offset + section.size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
