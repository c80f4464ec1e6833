"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.image`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record


class CatalogItem(Record):
    """A name that `os` accepts."""

    os: str
    title: str
    aliases: list[str]
    present: bool
    default_user: str | None
    minimum_memory: int | None
    minimum_disk: int | None


class Image(Record):
    """An image as it is stored and shown."""

    id: str
    name: str
    kind: Literal["disk", "iso", "kernel"]
    format: Literal["qcow2", "raw", "iso"]
    size_bytes: int
    virtual_size_bytes: int
    checksum: str
    os: str | None
    owner: str | None
    public: bool
    status: Literal["ready"]
    created_at: datetime
    updated_at: datetime | None


class Upload(Record):
    """An upload that is not complete, or has just become so."""

    upload_id: str
    name: str
    size_bytes: int
    offset: int
    operation_id: str | None
