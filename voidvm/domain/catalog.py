"""The catalogue of guest images by name: what an entry says, and how a name is looked up."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

import msgspec

from voidvm.errors import UnknownOs

ImageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}\Z")]
# The shipped catalogue names https only; entries of a configuration may lead to a host of its own.
FileUrl = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+/\S+\Z")]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
Firmware = Literal["bios", "uefi"]
ChecksumAlgorithm = Literal["sha256", "sha512"]
ChecksumFormat = Literal["gnu", "bsd", "bare"]

_HEX_DIGITS: Mapping[ChecksumAlgorithm, int] = {"sha256": 64, "sha512": 128}
_NEAREST = 3
# At 0.6 "nonsense" still looks like "opensuse".
_LIKENESS = 0.65


class CatalogError(ValueError):
    """The catalogue's text is not one: the message says where and why."""


class Checksum(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """How a download is verified: by a published list at `url`, or by a pinned `digest`.

    `format` is the list's: "gnu" (`HEX  file`), "bsd" (`SHA256 (file) = HEX`), "bare" (`HEX`).
    """

    algorithm: ChecksumAlgorithm
    url: FileUrl | None = None
    format: ChecksumFormat | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.digest is None):
            raise ValueError("a checksum has either a url or a pinned digest")
        if (self.url is None) != (self.format is None):
            raise ValueError("a checksum has a format exactly when it has a url")
        digits = _HEX_DIGITS[self.algorithm]
        if self.digest is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", self.digest):
            raise ValueError(f"a {self.algorithm} digest is {digits} small hexadecimal digits")


class CatalogEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """One guest image that users can name as `os`: downloaded from `url` or built by `recipe`."""

    id: ImageName
    title: str
    aliases: tuple[ImageName, ...] = ()
    recipe: ImageName | None = None
    url: FileUrl | None = None
    format: Literal["qcow2", "raw"] = "qcow2"
    compression: Literal["none", "gzip", "xz", "zstd"] = "none"
    checksum: Checksum | None = None
    default_user: str | None = None
    firmware: tuple[Firmware, ...] = ("bios",)
    min_memory_mib: PositiveInt
    min_disk_gib: PositiveInt

    def __post_init__(self) -> None:
        if (self.recipe is None) == (self.url is None):
            raise ValueError("an image has either a recipe or a url")
        if (self.url is None) != (self.checksum is None):
            raise ValueError("an image has a checksum exactly when it has a url")
        if not self.firmware or len(set(self.firmware)) != len(self.firmware):
            raise ValueError("an image names each firmware it boots with once")

    @property
    def names(self) -> tuple[str, ...]:
        """All names the entry answers to, its id first."""
        return (self.id, *self.aliases)


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    image: tuple[CatalogEntry, ...]


def parse_catalog(text: str, more: Sequence[Mapping[str, object]] = ()) -> dict[str, CatalogEntry]:
    """Read the catalogue's TOML text; answers id -> entry in the text's order.

    `more` are entries of the configuration, in the same form; one that has the id of an entry of
    the text takes its place.

    Keys are written in snake_case there. CatalogError when the text is no TOML, when a value is
    unknown, missing or wrong, or when two entries share an id or alias.
    """
    try:
        own = {str(entry.get("id")) for entry in more}
        content = tomllib.loads(text)
        entries = content.get("image", [])
        if isinstance(entries, list) and more:
            kept = [one for one in entries if not isinstance(one, dict) or one.get("id") not in own]
            content["image"] = [*kept, *more]
        document = msgspec.convert(_camel_keys(content), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CatalogError(f"the image catalogue is not valid: {error}") from error
    owners: dict[str, str] = {}
    for entry in document.image:
        for name in entry.names:
            if name in owners:
                raise CatalogError(
                    f"the image catalogue has the name {name!r} twice: "
                    f"in {owners[name]!r} and in {entry.id!r}"
                )
            owners[name] = entry.id
    return {entry.id: entry for entry in document.image}


def find(name: str, catalog: Mapping[str, CatalogEntry]) -> CatalogEntry | None:
    """Answer the entry with this id or alias, whatever the case; None when there is none."""
    wanted = name.lower()
    return next((entry for entry in catalog.values() if wanted in entry.names), None)


def nearest(name: str, catalog: Mapping[str, CatalogEntry]) -> list[str]:
    """Answer up to three ids of which an id or alias looks like `name`, the most alike first."""
    owners = dict(_names(catalog))
    # More names than answers are asked for, because several may belong to one entry.
    close = get_close_matches(name.lower(), owners, n=_NEAREST * 4, cutoff=_LIKENESS)
    return list(dict.fromkeys(owners[match] for match in close))[:_NEAREST]


def unknown(name: str, catalog: Mapping[str, CatalogEntry]) -> UnknownOs:
    """The error for a name that is no entry's, with those that may have been meant."""
    near = nearest(name, catalog)
    return UnknownOs(f"Did you mean {' or '.join(near)}?" if near else "", os=name)


def _names(catalog: Mapping[str, CatalogEntry]) -> Iterator[tuple[str, str]]:
    for entry in catalog.values():
        for name in entry.names:
            yield name, entry.id


def _camel_keys(value: object) -> object:
    """Rename keys from the file's snake_case to the camelCase that the structs have in JSON."""
    if isinstance(value, dict):
        return {_camel(key): _camel_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_camel_keys(item) for item in value]
    return value


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)
