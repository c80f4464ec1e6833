"""Versions of objects: `ETag` says which one was seen, `If-Match` which one may be changed."""

from __future__ import annotations

import hashlib
from datetime import datetime

from msgspec import Struct

from voidvm.errors import PreconditionFailed


def etag(object_id: str, version: datetime | int) -> str:
    """The tag of an object's version, quoted as HTTP wants it (RFC 9110, 8.8.3).

    The version is the moment of the last change, or, for what only grows, the size.
    """
    text = f"{object_id} {version.isoformat() if isinstance(version, datetime) else version}"
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


class Precondition(Struct, frozen=True):
    """An `If-Match` header; without tags it asks for nothing."""

    tags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, header: str | None) -> Precondition:
        """The tags of a header; `*` fits every object that there is."""
        parts = [part.strip() for part in (header or "").split(",")]
        return cls(tuple(part for part in parts if part))

    def check(self, object_id: str, version: datetime | int) -> None:
        """Raise `PreconditionFailed` unless the object is one of those that were seen."""
        current = etag(object_id, version)
        if self.tags and "*" not in self.tags and current not in self.tags:
            raise PreconditionFailed(f"the object's ETag is {current} now")


ANY = Precondition()
