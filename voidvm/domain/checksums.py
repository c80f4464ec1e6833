"""Checksums as clients write them, and the lists in which publishers give them.

A list has one of three forms: gnu (`HEX  file`, `HEX *file`), bsd (`SHA256 (file) = HEX`, often
inside a PGP clear-signed text) and bare (`HEX` alone, for the one file beside it). Publishers
change from gnu to bsd and back, so a line tells its form itself.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from voidvm.domain.catalog import ChecksumAlgorithm, ChecksumFormat

HEX_DIGITS: dict[ChecksumAlgorithm, int] = {"sha256": 64, "sha512": 128}
LIST_MAX_BYTES = 1_048_576

_GNU = re.compile(r"\\?([0-9a-fA-F]{64,128})[ \t]+\*?(\S.*)")
_BSD = re.compile(r"(SHA-?\d+)[ \t]*\((.+)\)[ \t]*=[ \t]*([0-9a-fA-F]{64,128})", re.IGNORECASE)
_BARE = re.compile(r"([0-9a-fA-F]{64,128})(?:[ \t].*)?")
_SIGNED_BEGIN = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNED_END = "-----BEGIN PGP SIGNATURE-----"


class ChecksumError(ValueError):
    """A checksum that is none, or a list that does not have the file; the text says which."""


class Digest(Struct, frozen=True, kw_only=True):
    """A checksum of a file; as text `sha256:<hex>`."""

    algorithm: ChecksumAlgorithm
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def parse_digest(text: str) -> Digest:
    """The checksum in `sha256:<hex>` or `sha512:<hex>`, in any case. Raises `ChecksumError`."""
    name, _, value = text.strip().lower().partition(":")
    for algorithm, digits in HEX_DIGITS.items():
        if name == algorithm:
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise ChecksumError(f"{algorithm}: must be followed by {digits} hexadecimal digits")
            return Digest(algorithm=algorithm, hex=value)
    raise ChecksumError("must begin with sha256: or sha512:")


def find_digest(
    text: str, *, algorithm: ChecksumAlgorithm, form: ChecksumFormat, file_name: str
) -> Digest:
    """The checksum of a file in a published list.

    A list of a single file is that file's, whatever it calls it: beside an address without a
    version some publishers give the list of the file with it. The signature of a signed list is
    not checked: the list is trusted as far as its address is. Raises `ChecksumError`.
    """
    lines = _content(text)
    if form == "bare":
        found = [("", match[1]) for line in lines if (match := _BARE.fullmatch(line))]
    else:
        found = [entry for line in lines if (entry := _entry(line, algorithm))]
    entries = [(name, value) for name, value in found if len(value) == HEX_DIGITS[algorithm]]
    named = {value.lower() for name, value in entries if _base(name) == file_name}
    every = {value.lower() for _, value in entries}
    if len(named or every) == 1:
        return Digest(algorithm=algorithm, hex=(named or every).pop())
    if not every:
        raise ChecksumError(f"the list has no {algorithm} checksums")
    problem = "names two checksums for" if named else "does not name"
    raise ChecksumError(f"the list {problem} '{file_name}'")


def file_name_of(url: str) -> str:
    """The file that a URL names, as lists call it."""
    return _base(unquote(urlsplit(url).path))


def _content(text: str) -> list[str]:
    """The lines that say something: of a signed text those that are signed, unescaped."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    if _SIGNED_BEGIN in lines:
        lines = lines[lines.index(_SIGNED_BEGIN) + 1 :]
        if _SIGNED_END not in lines:
            raise ChecksumError("the signed list is cut off")
        lines = [line.removeprefix("- ") for line in lines[: lines.index(_SIGNED_END)]]
    return [line for line in lines if line and not line.startswith("#")]


def _entry(line: str, algorithm: ChecksumAlgorithm) -> tuple[str, str] | None:
    if match := _BSD.fullmatch(line):
        is_wanted = match[1].replace("-", "").lower() == algorithm
        return (match[2], match[3]) if is_wanted else None
    if match := _GNU.fullmatch(line):
        return match[2], match[1]
    return None


def _base(name: str) -> str:
    return name.rpartition("/")[2]
